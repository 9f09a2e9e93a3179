"""The element types that travel between steps: packets as fixed rows, batches of them, and rejects."""

from typing import NamedTuple

import numpy as np

PACKET = np.dtype(
    [
        ("time_ns", "i8"),  # capture time since the Unix epoch (IPFIX IE 325)
        ("src_hi", "u8"),  # source address, high 64 bits as a number; 0 for IPv4
        ("src_lo", "u8"),  # low 64 bits; IPv4 is 0xffff << 32 | address, that is ::ffff:a.b.c.d (IE 8, 27)
        ("dst_hi", "u8"),
        ("dst_lo", "u8"),  # (IE 12, 28)
        ("outer_src_hi", "u8"),  # outermost IP addresses of a tunnelled packet; all 0 without tunnel
        ("outer_src_lo", "u8"),
        ("outer_dst_hi", "u8"),
        ("outer_dst_lo", "u8"),
        ("headers_hash", "u8"),  # XXH64 of the outermost IP header to the innermost transport header; 0: none
        ("src_mac", "u8"),  # 48 bits as a number; 0 without a MAC header
        ("dst_mac", "u8"),
        ("frame_octets", "u4"),  # bytes on the wire, as the capture states them
        ("ip_octets", "u4"),  # IP total length, header included, link padding not (IE 224)
        ("payload_octets", "u4"),  # ip_octets less IP and transport headers
        ("tcp_seq", "u4"),
        ("tcp_ack", "u4"),
        ("fragment_id", "u4"),  # IP identification (IE 54)
        ("vni", "i4"),  # VXLAN or Geneve network identifier; -1 without
        ("payload_at", "u4"),  # where the packet's payload prefix begins in the batch's `payloads`
        ("payload_captured", "u4"),  # octets of that prefix
        ("payload_entropy", "f4"),  # bits per octet of that prefix; NaN without one
        ("ip_header_octets", "u2"),  # innermost IP header with its extension headers
        ("header_octets", "u2"),  # transport header only
        ("tcp_window", "u2"),  # unscaled (IE 186)
        ("vlan_id", "u2"),  # outermost 802.1Q tag; 0 without (IE 58)
        ("src_port", "u2"),  # ICMP: the message type (Community ID's mapping)
        ("dst_port", "u2"),  # ICMP: the type of the answer, or the code where there is none
        ("protocol", "u1"),  # IANA number, after extension headers (IE 4)
        ("ip_version", "u1"),  # 4 or 6: an IPv6 packet from ::ffff:a.b.c.d is not IPv4 (IE 60)
        ("tcp_flags", "u1"),  # FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128 (IE 6)
        ("ttl", "u1"),  # TTL or hop limit (IE 192)
        ("tos", "u1"),  # DSCP and ECN (IE 5)
        ("tunnel", "u1"),  # TUNNEL_* of the outermost opened tunnel
        ("fragment", "u1"),  # FRAGMENT_*
        ("transport", "u1"),  # TRANSPORT_*
    ],
    align=True,
)
"""One packet that carries IP. Multi-octet header fields are numbers in host order."""

TUNNEL_NONE, TUNNEL_IP, TUNNEL_GRE, TUNNEL_VXLAN, TUNNEL_GENEVE, TUNNEL_GTP_U, TUNNEL_ERSPAN = range(7)
TUNNEL_NAMES = ("", "ip", "gre", "vxlan", "geneve", "gtp-u", "erspan")

FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_RESOLVED = range(4)
"""Whole packet; first fragment (offset 0); later one with ports unknown (0); later one with the first's ports."""

TRANSPORT_NONE, TRANSPORT_WHOLE, TRANSPORT_TRUNCATED = range(3)
"""No transport header here; parsed; cut or invalid: ports if both were captured, else 0, flags unknown."""

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDP_LITE = 1, 6, 17, 33, 58, 132, 136

MERGED_SENSORS = "*"
"""The sensor of flows that several taps of one line saw together; it is no part of their identity."""

REJECT_NOT_IP, REJECT_MALFORMED, REJECT_LATE, REJECT_DUPLICATE = "not_ip", "malformed", "late", "duplicate"
REJECT_FUTURE = "from_future"

NO_TIME = -(1 << 63)
"""Where a time is not known, such as the receive time of a queue that has none."""

FORGOTTEN_NS = 7 * 86_400 * 10**9
"""Nothing more comes of a sensor that ended so long ago: it may come back, but not with blocks from before."""

END_OF_STREAM = (1 << 63) - 1
"""Behind the last number that a stream can have."""


class Stream(NamedTuple):
    """Where blocks come from: their numbers are contiguous within one stream.

    Attributes:
        sensor: Name of the observation point; `local` unless named.
        epoch: When the sensor started, ns since the Unix epoch; 0 for files.
        partition: The part of the queue that this stream is written to.
    """

    sensor: str
    epoch: int = 0
    partition: int = 0


class SensorHealth(NamedTuple):
    """What a live sensor says about itself in a heartbeat.

    Attributes:
        cpu_percent: Use of its processes, of one core.
        memory_octets: Resident memory.
        queued_blocks: Blocks that it holds and the queue has not accepted yet.
        queued_octets: Their size.
        captured_packets: Packets taken from the line since its start.
        clock_error_ns: Largest error of its clock, as its time service states it; -1 if unknown.
    """

    cpu_percent: float = 0.0
    memory_octets: int = 0
    queued_blocks: int = 0
    queued_octets: int = 0
    captured_packets: int = 0
    clock_error_ns: int = -1


class PacketBatch(NamedTuple):
    """Packets of one stream, as they travel between steps. `packets` is read-only.

    Attributes:
        stream: Sensor, epoch of its start, and partition of the queue.
        sequence: Number of the block in its stream; a repeated one is a redelivery.
        observed_ns: Everything of the stream up to this time is in blocks up to this one.
        packets: `PACKET[n]`, in capture order.
        payloads: Payload prefixes end to end, `packets["payload_at"]` and `["payload_captured"]` point into it.
        partitions: Number of partitions that the sensor writes to.
        end: True for the block that closes its stream; `observed_ns` is then the largest packet time of the
            sensor's input.
        dropped: Packets that the sensor's interfaces lost since the previous block.
        rejects: Packets since the previous block that were read and are in no block: counts by reason, sorted.
        health: What a live sensor says about itself; None from files.
        ended_by: With `end`, of a run that was killed: epoch of the run that closes the stream in its place; else 0.
    """

    stream: Stream
    sequence: int
    observed_ns: int
    packets: np.ndarray
    payloads: bytes = b""
    partitions: int = 1
    end: bool = False
    dropped: int = 0
    rejects: tuple[tuple[str, int], ...] = ()
    health: SensorHealth | None = None
    ended_by: int = 0

    def with_payloads_up_to(self, octets: int) -> "PacketBatch":
        """The batch with payload prefixes of at most so many octets; its rows are changed."""
        if not self.payloads:
            return self
        self.packets["payload_captured"] = np.minimum(self.packets["payload_captured"], octets)
        return self if octets else self._replace(payloads=b"")


class Gap(NamedTuple):
    """Numbers of a stream that will not come: the reader of a queue knows it from the queue's own order.

    Attributes:
        stream: Whose numbers are missing.
        partitions: Number of partitions that the stream's sensor writes to.
        first: The first number that is missing.
        after: The number behind the last that is missing; `END_OF_STREAM` if nothing of the stream will come any more.
        reason: GAP_*: why.
    """

    stream: Stream
    partitions: int
    first: int
    after: int
    reason: str


GAP_LOST, GAP_JOINED, GAP_REPLACED, GAP_SILENT = "lost", "joined", "replaced", "silent"
"""Never reached the queue; lies before the place where reading began; the sensor began anew without ending the stream;
nothing came for `sensor_timeout_s`."""


class Delivery(NamedTuple):
    """What a queue delivered: a block as it lies there, and what the reader knows from the queue's order.

    Attributes:
        octets: The block, with the single-object header; empty if there are only gaps to tell.
        source: File, topic or partition.
        position: Octet offset or record number there.
        received_ns: When the queue received it, by the queue's clock; NO_TIME if it has none.
        follows: Epoch that the sensor's stream in this partition had before this one, as far as this reader has read;
            -1 if it has read of none. That stream must have ended before this one is looked at.
        ordered: The queue keeps the order of a stream, and the reader tells every gap.
        gaps: Numbers that will not come, of this stream or others.
    """

    octets: bytes
    source: str = ""
    position: int = 0
    received_ns: int = NO_TIME
    follows: int = -1
    ordered: bool = True
    gaps: tuple[Gap, ...] = ()


class Reject(NamedTuple):
    """A piece of input that no flow counts.

    Attributes:
        step: Where it was refused: `read`, `parse`, `decode`, `assemble`, a sink's scheme.
        reason: One of a few words, the key under which it is counted.
        source: File, topic or address it came from.
        position: Octet offset or record number there; None if it has none.
        payload: The piece itself.
    """

    step: str
    reason: str
    source: str
    position: int | None
    payload: bytes


class SensorEvent(NamedTuple):
    """Something about a sensor that whoever runs it should know.

    Attributes:
        sensor: Its name.
        epoch: Its run.
        partition: The part of the queue concerned.
        event: EVENT_*: what happened.
        time_ns: The sensor's observed time then; NO_TIME before the first.
        received_ns: The queue's receive time of the block that showed it; NO_TIME without.
        sequence: Number of that block, or the first of those that are missing.
        amount: Packets or blocks concerned; of `stale` and `killed`, ns.
        health: What the sensor said of itself with it, if it did.
    """

    sensor: str
    epoch: int
    partition: int
    event: str
    time_ns: int
    received_ns: int = NO_TIME
    sequence: int = 0
    amount: int = 0
    health: SensorHealth | None = None


EVENT_STARTED, EVENT_ENDED, EVENT_KILLED = "started", "ended", "killed"
EVENT_DROPPING, EVENT_LOST_BLOCKS, EVENT_LATE_PACKETS = "dropping", "lost_blocks", "late_packets"
EVENT_FROM_FUTURE, EVENT_STALE = "from_future", "stale"
EVENT_JOINED, EVENT_REPLACED, EVENT_SILENT = "joined", "replaced", "silent"


class InputError(Exception):
    """A person's setting or input cannot be used; the message is the one line to show."""

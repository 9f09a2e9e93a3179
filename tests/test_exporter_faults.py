"""Faults of other exporters: a minimal capture file for each, read and assembled, and the answer by hand.

What one family computes is tested in more detail beside the families; here whole captures go the whole way.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from table_testing import S, rows_of, table_of

from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from sources.headers import HeaderSettings
from transforms.features import sets
from transforms.records import ACK, FIN, PSH, RST, SYN, URG
from transforms.rules import Rules

A, B = (10, 0, 0, 1), (10, 0, 0, 2)
RAW, ETHERNET, LINUX_COOKED = 101, 1, 113
BEGIN_S = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def ipv4(payload: bytes, forward: bool = True, protocol: int = 6, total: int | None = None) -> bytes:
    """An IPv4 packet between 10.0.0.1 and 10.0.0.2."""
    ends = bytes(A + B) if forward else bytes(B + A)
    length = 20 + len(payload) if total is None else total
    return struct.pack("!BBHHHBBH", 0x45, 0, length, 1, 0, 64, protocol, 0) + ends + payload


def tcp(
    flags: int = ACK, forward: bool = True, seq: int = 0, ack: int = 0, payload: int = 0, window: int = 512
) -> bytes:
    """A TCP segment between ports 1234 and 80, with so many octets of payload."""
    ports = (1234, 80) if forward else (80, 1234)
    return struct.pack("!HHIIBBHHH", *ports, seq, ack, 0x50, flags, window, 0, 0) + bytes(payload)


def segment(*arguments: Any, forward: bool = True, **more: Any) -> bytes:
    """A TCP segment in an IPv4 packet."""
    return ipv4(tcp(*arguments, forward=forward, **more), forward)


def datagram(payload: int = 0, forward: bool = True) -> bytes:
    """UDP between ports 1234 and 80."""
    ports = (1234, 80) if forward else (80, 1234)
    return ipv4(struct.pack("!HHHH", *ports, 8 + payload, 0) + bytes(payload), forward, 17)


def written(path: Any, packets: Sequence[tuple[float, bytes]], link: int = RAW) -> str:
    """A pcap file of nanoseconds, packets at seconds after `BEGIN_S`."""
    octets = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, link)
    for at_s, frame in packets:
        seconds, ns = divmod(BEGIN_S * S + round(at_s * S), S)
        octets += struct.pack("<IIII", seconds, ns, len(frame), len(frame)) + frame
    path.write_bytes(octets)
    return str(path)


@pytest.fixture
def flows(tmp_path):
    """Assembles packets that go through a capture file; `flows.of(file)` those of any file."""

    def of(path: str, hashed: bool = False, **rules: Any) -> list[dict[str, Any]]:
        report = ReadReport()
        settings = ReadSettings(HeaderSettings(headers_hash=hashed))
        table = table_of(Rules(**rules))
        last_ns = 0
        for block in read_packets(SensorInput("local", (path,)), settings, report):
            table.add(block)
            last_ns = int(block.packets["time_ns"].max())
        found = rows_of(table.finish(last_ns))
        assert report.packets_read == sum(table.counts[name] for name in ("packets_in_flows", "duplicate", "late"))
        return found

    def made(packets: Sequence[tuple[float, bytes]], link: int = RAW, **rules: Any) -> list[dict[str, Any]]:
        return of(written(tmp_path / "capture.pcap", packets, link), **rules)

    made.of = of
    return made


def spaced(frames: Sequence[bytes], gap_s: float = 0.5) -> list[tuple[float, bytes]]:
    """Packets one gap apart."""
    return [(n * gap_s, frame) for n, frame in enumerate(frames)]


OPENING = [
    segment(SYN, seq=99, window=64_240),
    segment(SYN | ACK, forward=False, seq=499, ack=100, window=65_160),
    segment(ACK, seq=100, ack=500),
]
CLOSING = [
    segment(FIN | ACK, seq=100, ack=500),
    segment(FIN | ACK, forward=False, seq=500, ack=101),
    segment(ACK, seq=101, ack=501),
]


def counted(rows: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Packets each way and the end reason of each flow."""
    return [(row["fwd_packets"], row["rev_packets"], row["end_reason"]) for row in rows]


def test_d1_first_fin_does_not_end_a_connection(flows):
    """One side has closed, the other goes on sending: one flow, open at the end."""
    rest = [segment(ACK, forward=False, seq=500, ack=101, payload=10)] * 3
    assert counted(flows(spaced([*OPENING, CLOSING[0], *rest]))) == [(3, 4, 4)]


def test_d2_what_trails_the_close_is_no_new_flow(flows):
    """Two ACKs after the last one, within 5 s: 6 + 2 packets, one flow."""
    assert counted(flows(spaced([*OPENING, *CLOSING, CLOSING[2], CLOSING[2]]))) == [(6, 2, 3)]


def test_d3_reset_ends_a_connection(flows):
    """RST at 1.5 s; the next packet, 6 s later, is another flow's."""
    packets = [*spaced([*OPENING, segment(RST, seq=100)]), (7.5, segment(ACK, seq=100))]
    assert counted(flows(packets)) == [(3, 1, 3), (1, 0, 4)]


def test_d4_further_fins_are_counted(flows):
    """A FIN sent three times is three packets and three FINs of the initiator."""
    (row,) = flows(spaced([*OPENING, CLOSING[0], CLOSING[0], *CLOSING]))
    assert (row["fwd_fin_count"], row["rev_fin_count"], row["flow_fin_count"]) == (3, 1, 4)


def test_d5_push_and_urgent_of_all_packets_count(flows):
    """PSH twice forward, once reverse, none of them in the first packet; URG once."""
    frames = [segment(), segment(PSH), segment(PSH | URG), segment(PSH, forward=False)]
    (row,) = flows(spaced(frames))
    assert (row["fwd_psh_count"], row["rev_psh_count"], row["fwd_urg_count"]) == (2, 1, 1)


def test_d6_flags_are_counts(flows):
    """Four ACKs are 4."""
    assert flows(spaced([segment(ACK)] * 4))[0]["flow_ack_count"] == 4


def test_d7_d8_active_and_idle_are_durations_and_the_last_period_counts(flows):
    """Packets at 0, 2, 12, 13 s: active 2 s and 1 s, idle 10 s. Without a gap: one period, the duration."""
    (row,) = flows([(at, datagram()) for at in (0, 2, 12, 13)])
    assert (row["active_max_us"], row["active_min_us"], row["idle_max_us"]) == (2e6, 1e6, 10e6)
    (row,) = flows([(at, datagram()) for at in (0, 1, 3)])
    assert (row["active_mean_us"], row["active_count"], row["idle_count"]) == (3e6, 1, 0)


def test_d9_bulk_is_of_the_side_that_sent_it(flows):
    """Four times 100 octets from the responder: a bulk of 400 there, none forward."""
    (row,) = flows(spaced([datagram(1), *[datagram(100, forward=False)] * 4]))
    assert (row["rev_bulk_count"], row["rev_bulk_octets_mean"], row["fwd_bulk_count"]) == (1, 400, 0)


def test_d10_d11_subflows_are_gaps_plus_one(flows):
    """Ten packets 0.5 s apart are one sub-flow; with one gap of 2 s there are two."""
    assert flows(spaced([datagram()] * 10))[0]["subflows"] == 1
    assert flows([(at, datagram()) for at in (0, 0.5, 2.5)])[0]["subflows"] == 2


def test_d12_first_length_counts_once(flows):
    """Payloads 100 and 300: mean 200."""
    assert flows(spaced([datagram(100), datagram(300)]))[0]["flow_payload_octets_mean"] == 200


def test_d13_d14_divisions_are_real(flows):
    """One down for two up is 0.5; three packets in two sub-flows are 1.5."""
    (row,) = flows([(0, datagram()), (0.5, datagram()), (3, datagram(forward=False))])
    assert (row["down_up_ratio"], row["subflows"], row["fwd_subflow_packets"]) == (0.5, 2, 1)
    assert flows([(at, datagram()) for at in (0, 0.5, 3)])[0]["fwd_subflow_packets"] == 1.5


def test_d15_initial_windows_are_the_first(flows):
    """64,240 and 65,160 of the handshake, not the later 512."""
    (row,) = flows(spaced([*OPENING, segment(forward=False)]))
    assert (row["fwd_tcp_window_first"], row["rev_tcp_window_first"]) == (64_240, 65_160)


def test_d16_first_packet_with_payload_counts(flows):
    """Payload in the first and the third packet: 2."""
    assert flows(spaced([datagram(5), datagram(), datagram(5)]))[0]["fwd_payload_packets"] == 2


def test_d17_zero_duration_is_neither_infinite_nor_nan(flows):
    """Two packets of one instant: rates are null, every number is finite; in `cic@1` they are 0."""
    (row,) = flows([(0, datagram(5)), (0, datagram(5, forward=False))])
    assert row["flow_packets_per_s"] is None
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def test_d18_one_packet_flows_are_flows(flows):
    """Three SYNs to three ports: three flows."""
    frames = [ipv4(struct.pack("!HHIIBBHHH", 9, port, 0, 0, 0x50, SYN, 1, 0, 0)) for port in (21, 22, 23)]
    assert counted(flows(spaced(frames))) == [(1, 0, 4)] * 3


def test_d19_idle_is_not_measured_from_the_start(flows):
    """Packets 100 s apart for 500 s: one flow with an idle timeout of 120 s."""
    assert counted(flows(spaced([datagram()] * 6, 100))) == [(6, 0, 4)]


def test_d20_continuation_may_begin_with_the_responder(flows):
    """The first packet after the active timeout comes from the responder: reverse, in part 1."""
    packets = [(0, datagram()), (60, datagram()), (110, datagram(forward=False))]
    one, two = flows(packets, active_timeout_s=100)
    assert (one["end_reason"], two["flow_part"], two["fwd_packets"], two["rev_packets"]) == (2, 1, 0, 1)
    assert (two["src_ip"], two["dst_port"]) == ("10.0.0.1", 80)


def test_d21_reused_ports_are_another_flow(flows):
    """A SYN of another sequence after a complete handshake."""
    assert counted(flows(spaced([*OPENING, segment(SYN, seq=9999)]))) == [(2, 1, 3), (1, 0, 4)]


def test_d22_capture_that_begins_with_syn_ack(flows):
    """The sender of the SYN+ACK is the server."""
    (row,) = flows(spaced(OPENING[1:]))
    assert (row["src_ip"], row["dst_port"], row["fwd_packets"], row["rev_packets"]) == ("10.0.0.1", 80, 1, 1)


def read(path: str) -> Any:
    """The one block of a capture."""
    (block,) = read_packets(SensorInput("local", (path,)), ReadSettings(), ReadReport())
    return block


def test_d23_time_alone_emits_a_flow(tmp_path):
    """No further packet is needed: at last + 120 s the flow is there."""
    table = table_of(Rules())
    table.add(read(written(tmp_path / "a.pcap", [(0, datagram())])))
    assert rows_of(table.advance(BEGIN_S * S + 120 * S - 1)) == []
    assert counted(rows_of(table.advance(BEGIN_S * S + 120 * S))) == [(1, 0, 1)]


def test_d24_memory_is_of_flows_and_not_of_packets(tmp_path):
    """2 and 2,000 packets of one flow leave a table of the same size."""
    sizes = []
    for n in (2, 2000):
        table = table_of(Rules())
        table.add(read(written(tmp_path / "a.pcap", spaced([datagram()] * n, 0.001))))
        assert list(table.advance(BEGIN_S * S + 3 * S)) == []
        sizes.append(len(table.to_bytes()) // 100)
    assert sizes[0] == sizes[1]


def test_d25_no_gap_is_negative(flows):
    """Packets in the file at 0, 2, 1 s: gaps of 1 s and 1 s."""
    (row,) = flows([(0, datagram()), (2, datagram()), (1, datagram())])
    assert (row["flow_iat_min_us"], row["flow_iat_max_us"], row["fwd_packets"]) == (1e6, 1e6, 3)


def test_d26_packets_captured_twice_can_be_dropped(flows):
    """Each twice, 10 µs apart: twice the packets by default, the real ones with the option."""
    packets = [(at + twice, frame) for at, frame in spaced(OPENING) for twice in (0, 1e-5)]
    assert counted(flows(packets)) == [(4, 2, 4)]
    assert counted(flows(packets, hashed=True, drop_duplicates_s=0.01)) == [(2, 1, 4)]


@pytest.mark.parametrize("protocol", [1, 47, 50, 89, 132])
def test_d27_protocol_is_that_of_the_packet(flows, protocol):
    """ICMP, an unknown GRE, ESP, OSPF, SCTP keep their numbers."""
    (row,) = flows([(0, ipv4(bytes([8, 0, 0, 0]) + bytes(20), protocol=protocol))])
    assert (row["protocol"], row["fwd_packets"]) == (protocol, 1)


def test_d28_ipv6_has_flags_windows_and_exact_times(flows):
    """A SYN over IPv6 and another packet 1.5 µs later."""
    addresses = bytes([0x20, 1, *[0] * 13, 1]) + bytes([0x20, 1, *[0] * 13, 2])
    frame = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + addresses + tcp(SYN, window=777)
    (row,) = flows([(0, frame), (0.0000015, frame)])
    assert (row["src_ip"], row["fwd_syn_count"], row["fwd_tcp_window_first"]) == ("2001::1", 2, 777)
    assert row["flow_duration_us"] == 1.5


def test_d30_timestamps_are_utc_and_of_microseconds(tmp_path):
    """1,700,000,000.000001 s is 2023-11-14 22:13:20.000001 UTC, on 24 hours, whatever the machine's zone."""
    table = table_of(Rules())
    table.add(read(written(tmp_path / "a.pcap", [(1e-6, datagram())])))
    (found,) = table.finish((BEGIN_S + 1) * S)
    assert sets.get("cic@1").published(found).column("Timestamp").to_pylist() == ["2023-11-14 22:13:20.000001"]


def test_d31_offloaded_segments_are_measured(flows):
    """IP length 0 is measured by the frame: 60,000 octets of payload; a length above any MTU is right as it is."""
    (row,) = flows([(0, ipv4(tcp(payload=60_000), total=0)), (1, segment(payload=30_000))])
    assert (row["fwd_payload_octets"], row["fwd_ip_octets"]) == (90_000, 90_080)


@pytest.mark.parametrize(
    ("link", "header"),
    [(RAW, b""), (ETHERNET, bytes(12) + b"\x08\x00"), (LINUX_COOKED, bytes(14) + b"\x08\x00"), (0, b"\x02\0\0\0")],
    ids=["raw", "ethernet", "linux-cooked", "loopback"],
)
def test_d34_link_types(flows, link, header):
    """The same flow whatever lies below IP."""
    (row,) = flows([(0, header + segment(SYN, payload=5))], link)
    assert (row["src_port"], row["fwd_payload_octets"], row["fwd_syn_count"]) == (1234, 5, 1)


def test_d36_udp_is_not_cut_at_a_fixed_time(flows):
    """UDP for 1,700 s, below the active timeout of 1,800 s, is one flow."""
    assert counted(flows(spaced([datagram()] * 18, 100))) == [(18, 0, 4)]


def test_p1_ethernet_padding_is_no_payload(flows):
    """An ACK of 40 octets in a frame of 60: six octets of padding count in the frame alone."""
    (row,) = flows([(0, bytes(12) + b"\x08\x00" + segment(ACK) + bytes(6))], ETHERNET)
    assert (row["fwd_payload_octets"], row["fwd_ip_octets"], row["fwd_frame_octets"]) == (0, 40, 60)


def test_p2_packet_time_ends_flows(flows):
    """A day of capture read in a moment: idle flows end by the time in the file."""
    assert counted(flows(spaced([datagram()] * 3, 86_400 / 2))) == [(1, 0, 1), (1, 0, 1), (1, 0, 4)]


def test_p3_zeros_old_packets_and_fractions(flows):
    """A minimum of 0 stays, a packet older than the last counts, gaps and means are not cut."""
    (row,) = flows([(0, datagram(0)), (20, datagram(1)), (10, datagram(1)), (20, datagram(0))])
    assert (row["fwd_packets"], row["fwd_payload_octets_min"], row["fwd_iat_min_us"]) == (4, 0, 0)
    assert (row["fwd_payload_octets_mean"], row["fwd_iat_max_us"]) == (0.5, 10e6)
    assert row["fwd_payload_octets_std"] == pytest.approx((1 / 3) ** 0.5)

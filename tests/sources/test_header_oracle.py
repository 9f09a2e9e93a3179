"""The header kernels against dpkt, on generated packets and on the corpus, and on octets that mean nothing."""

import gzip
import ipaddress
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import dpkt
import numpy as np
import pytest
from frames_testing import CARRIERS, TUNNELS, addresses, ethernet, ipv4, ipv6, parsed, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import records

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS", Path(__file__).parents[3] / "shared" / "data"))


def seen_by_dpkt(ip: dpkt.ip.IP | dpkt.ip6.IP6) -> dict:
    """What dpkt says about a packet, without ports where there is no whole TCP or UDP header."""
    if isinstance(ip, dpkt.ip.IP):
        src, dst, protocol, octets, ttl = ip.src, ip.dst, ip.p, ip.len, ip.ttl
    else:
        extensions = [extension for extension in ip.all_extension_headers if hasattr(extension, "nxt")]  # ESP has none
        protocol = extensions[-1].nxt if extensions else ip.nxt
        src, dst, octets, ttl = ip.src, ip.dst, 40 + ip.plen, ip.hlim
    seen = {
        "src": str(ipaddress.ip_address(src)),
        "dst": str(ipaddress.ip_address(dst)),
        "protocol": protocol,
        "octets": octets,
        "ttl": ttl,
    }
    inside = ip.data
    if isinstance(inside, dpkt.tcp.TCP | dpkt.udp.UDP):
        seen["ports"] = (inside.sport, inside.dport)
    if isinstance(inside, dpkt.tcp.TCP):
        seen |= {"seq": inside.seq, "ack": inside.ack, "flags": inside.flags & 0xFF, "window": inside.win}
    return seen


def seen_by_us(packet: np.void) -> dict:
    """The same of a row."""
    src, dst = addresses(packet)
    if packet["ip_version"] == 6:  # dpkt writes mapped addresses as IPv6
        src, dst = (
            str(ipaddress.IPv6Address(int(packet[f"{side}_hi"]) << 64 | int(packet[f"{side}_lo"])))
            for side in ("src", "dst")
        )
    seen = {
        "src": src,
        "dst": dst,
        "protocol": int(packet["protocol"]),
        "octets": int(packet["ip_octets"]),
        "ttl": int(packet["ttl"]),
    }
    if packet["protocol"] in (records.TCP, records.UDP) and packet["transport"] == records.TRANSPORT_WHOLE:
        seen["ports"] = (int(packet["src_port"]), int(packet["dst_port"]))
        if packet["protocol"] == records.TCP:
            names = {"seq": "tcp_seq", "ack": "tcp_ack", "flags": "tcp_flags", "window": "tcp_window"}
            seen |= {name: int(packet[column]) for name, column in names.items()}
    return seen


EXTENSION = st.tuples(st.sampled_from([0, 43, 60]), st.integers(0, 3))


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An Ethernet frame and the IP packet in it: TCP or UDP, options, extension headers, VLAN tags."""
    protocol = draw(st.sampled_from([6, 17]))
    payload = draw(st.binary(max_size=40))
    options = b"\x01" * 4 * draw(st.integers(0, 10))
    inside = tcp(payload, draw(st.integers(0, 255)), options) if protocol == 6 else udp(payload)
    if draw(st.booleans()):
        packet = ipv4(inside, protocol, options=b"\x01" * 4 * draw(st.integers(0, 10)), ttl=draw(st.integers(0, 255)))
    else:
        following = protocol
        for kind, units in draw(st.lists(EXTENSION, max_size=3, unique_by=lambda extension: extension[0])):
            inside = bytes([following, units, 1, 4 + 8 * units]) + bytes(4 + 8 * units) + inside
            following = kind
        packet = ipv6(inside, following, hops=draw(st.integers(0, 255)))
    tags = draw(st.lists(st.tuples(st.just(0x8100), st.integers(0, 0xFFFF)), max_size=3))
    return ethernet(packet, 0x0800 if packet[0] >> 4 == 4 else 0x86DD, tags) + bytes(draw(st.integers(0, 9))), packet


@settings(max_examples=100, deadline=None)
@given(st.lists(packets(), min_size=1, max_size=8))
def test_generated_packets_are_read_as_dpkt_reads_them(pairs):
    """Every field of the network and transport header."""
    rows, reasons, _ = parsed([frame for frame, _ in pairs])
    assert set(reasons) == {""}
    for row, (_, packet) in zip(rows, pairs, strict=True):
        kind = dpkt.ip.IP if packet[0] >> 4 == 4 else dpkt.ip6.IP6
        assert seen_by_us(row) == seen_by_dpkt(kind(packet))


SEEDS = [(frame, link_type) for link_type, frame in CARRIERS.items()]
SEEDS += [(ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD), 1) for outer, _, _ in TUNNELS.values()]


@st.composite
def mutants(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """A frame of any link type or tunnel with a few octets changed, or octets without meaning; and how many count."""
    if draw(st.integers(0, 4)) == 0:
        octets = draw(st.binary(max_size=120))
        return octets, draw(st.sampled_from(list(CARRIERS))), draw(st.integers(0, len(octets)))
    frame, link_type = draw(st.sampled_from(SEEDS))
    changed = bytearray(frame)
    for _ in range(draw(st.integers(0, 6))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed), link_type, draw(st.integers(0, len(changed)))


@settings(max_examples=100, deadline=None)
@given(st.lists(mutants(), min_size=1, max_size=40))
def test_octets_around_a_frame_are_never_read(cases):
    """Whatever a frame says about its lengths: alone or among others, the row is the same, and adds up."""
    frames, link_types, cuts = ([case[part] for case in cases] for part in range(3))
    wire = [len(frame) for frame in frames]
    kept_of = {"payload_octets": 16, "headers_hash": True}
    together, reasons, payloads = parsed(frames, link_types, wire, captured=cuts, **kept_of)
    position = 0
    for i, (frame, link_type, cut) in enumerate(cases):
        alone, why, kept = parsed([frame[:cut]], link_type, wire[i : i + 1], surround=b"\x00", **kept_of)
        assert why == [reasons[i]]
        if why != [""]:
            continue
        row = together[position].copy()
        position += 1
        assert payloads[row["payload_at"] :][: row["payload_captured"]] == kept
        row["payload_at"], row["time_ns"] = alone[0]["payload_at"], alone[0]["time_ns"]
        assert repr(row) == repr(alone[0])  # every field; the octets between the last one and the next row are nothing
        assert row["ip_octets"] == int(row["ip_header_octets"]) + int(row["header_octets"]) + int(row["payload_octets"])
        assert row["ip_version"] in (4, 6)
    assert position == len(together)


LINKS = {
    0: dpkt.loopback.Loopback,
    1: dpkt.ethernet.Ethernet,
    12: dpkt.ip.IP,
    101: dpkt.ip.IP,
    113: dpkt.sll.SLL,
    228: dpkt.ip.IP,
    229: dpkt.ip6.IP6,
}
"""Link types that dpkt reads."""


def frames_of(path: Path, most: int = 400) -> Iterator[tuple[int, bytes]]:
    """Link type and octets of the first frames of a pcap file of version 2."""
    octets = path.read_bytes()
    if octets[:2] == b"\x1f\x8b":
        octets = gzip.decompress(octets)
    order = "<" if octets[0] in (0xD4, 0x4D) else ">"
    link_type = struct.unpack_from(f"{order}I", octets, 20)[0] & 0xFFFF
    at = 24
    while most and at + 16 <= len(octets):
        captured = struct.unpack_from(f"{order}8xI", octets, at)[0]
        yield link_type, octets[at + 16 : at + 16 + captured]
        at += 16 + captured
        most -= 1


def ip_by_dpkt(link_type: int, frame: bytes) -> dpkt.ip.IP | dpkt.ip6.IP6 | None:
    """The outermost IP packet that dpkt finds; None if it finds none, or fails."""
    kind = dpkt.ip6.IP6 if LINKS[link_type] is dpkt.ip.IP and frame[:1] and frame[0] >> 4 == 6 else LINKS[link_type]
    try:
        layer = kind(frame)
        while not isinstance(layer, dpkt.ip.IP | dpkt.ip6.IP6):
            layer = layer.data
            if not isinstance(layer, dpkt.Packet):
                return None
    except Exception:  # dpkt fails in many ways on damaged packets, and then says nothing that could be compared
        return None
    return layer


OFFLOADED = "length 0 of a segment that the card had yet to cut is the frame's for us, 0 for dpkt"
NOT_TCP = "IP length 0 without TCP is malformed (IPv4), or no payload, so that the UDP header is cut (IPv6)"
JUMBO = "dpkt does not read the jumbo payload option"
CUT = "the capture or the IP length ends within the header"

EXPLAINED = {
    "ndpi/thrift.pcap": OFFLOADED,
    "tcpdump/bigtcp-ipv4.pcap": OFFLOADED,
    "tcpdump/bigtcp-ipv6.pcap": OFFLOADED,
    "pcapplusplus/Packet++Test__PacketExamples__IPv4-TSO.pcap": NOT_TCP,
    **{
        f"tcpdump/bigtcp-ipv{outer}-{kind}-ipv{inner}.pcap": NOT_TCP
        for outer in (4, 6)
        for kind in ("geneve", "vxlan")
        for inner in (4, 6)
    },
    "tcpdump/bigtcp-ipv6-hbh.pcap": JUMBO,
    "tcpdump/ipv6_jumbogram_invalid_length.pcap": JUMBO,
    "tcpdump/quic_32_bit_pointer_overflow.pcap": JUMBO,
    "tcpdump/ipv6_missing_jumbo_payload_option.pcap": "payload length 0 leaves no room for extension headers",
    "pcapplusplus/Packet++Test__PacketExamples__tcp-malformed.pcap": "data offset beyond the IP length",
    "tcpdump/beep-oobr.pcap": CUT,
    "zeek/ipv4__fragmented-syn.pcap": CUT,
    "zeek/modbus__fuzz-1011.pcap": "version 2",
    "zeek/ipv6-mobility-dst-opts.pcap": CUT,
    "zeek/ipv6-reassembly-state-leak.pcap": "dpkt reads a later fragment as if it began with a header",
}
"""Where dpkt says something else, and why."""


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason="no corpus here")
def test_corpus_is_read_as_dpkt_reads_it():
    """Addresses, protocol, length, ports and TCP's fields of every packet of every pcap that dpkt can read."""
    different, compared = {}, 0
    for path in sorted((CORPUS / "captures").rglob("*.pcap")):
        if path.read_bytes()[:4] not in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1"):
            continue
        frames = [(kind, frame) for kind, frame in frames_of(path) if kind in LINKS]
        rows, reasons, _ = parsed([frame for _, frame in frames], [kind for kind, _ in frames], decapsulate=())
        accepted = iter(rows)
        for number, ((kind, frame), why) in enumerate(zip(frames, reasons, strict=True), 1):
            packet = None if why else next(accepted)
            ip = ip_by_dpkt(kind, frame)
            if ip is None:
                continue
            compared += 1
            theirs, ours = seen_by_dpkt(ip), {"refused": why} if packet is None else seen_by_us(packet)
            if theirs != ours:
                names = {name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)}
                different.setdefault(path.relative_to(CORPUS / "captures").as_posix(), []).append(
                    (number, names, theirs, ours)
                )
    assert set(different) <= set(EXPLAINED), different
    assert compared > 10_000

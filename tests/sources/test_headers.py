"""The header parser on packets by hand: fields, lengths, what is damaged, what is cut."""

import struct

import numpy as np
import pytest
from frames_testing import (
    DST,
    DST6,
    DST_MAC,
    SRC,
    SRC6,
    SRC_MAC,
    addresses,
    ethernet,
    ipv4,
    ipv6,
    parsed,
    ports,
    reason,
    row,
    tcp,
    udp,
)

from sources.frames import FRAME
from sources.headers import HeaderSettings, parse
from transforms import records

WHOLE, TRUNCATED, NONE = records.TRANSPORT_WHOLE, records.TRANSPORT_TRUNCATED, records.TRANSPORT_NONE


def test_every_field_of_tcp_over_ipv4():
    """Padding of the link counts in the frame only."""
    options = b"\x01" * 12
    frame = ethernet(
        ipv4(tcp(b"x" * 5, flags=0x52, options=options), 6, options=b"\x94\x04\x00\x00", tos=0xB8)
    ) + bytes(9)
    packet = row(frame, payload_octets=16)
    assert addresses(packet) == (SRC, DST)
    assert {name: packet[name].item() for name in records.PACKET.names[9:] if name != "payload_entropy"} == {
        "headers_hash": 0, "src_mac": SRC_MAC, "dst_mac": DST_MAC, "frame_octets": 14 + 24 + 32 + 5 + 9,
        "ip_octets": 24 + 32 + 5, "payload_octets": 5, "tcp_seq": 0xFEDCBA98, "tcp_ack": 0x89ABCDEF, "fragment_id": 7,
        "vni": -1, "payload_at": 0, "payload_captured": 5, "ip_header_octets": 24, "header_octets": 32,
        "tcp_window": 4321, "vlan_id": 0, "src_port": 1234, "dst_port": 80, "protocol": 6, "ip_version": 4,
        "tcp_flags": 0x52, "ttl": 64, "tos": 0xB8, "tunnel": 0, "fragment": 0, "transport": WHOLE,
    }  # fmt: skip
    assert np.isnan(packet["payload_entropy"])
    assert packet["time_ns"] == 10**18
    assert addresses(packet, "outer_") == ("::", "::")


def test_every_field_of_udp_over_ipv6():
    """IP octets are 40 and the payload length; the traffic class is the `tos`."""
    packet = row(ethernet(ipv6(udp(b"abc"), traffic_class=0xA5), 0x86DD))
    assert addresses(packet) == (SRC6, DST6)
    assert ports(packet) == (1234, 5678)
    names = ("ip_version", "ip_octets", "ip_header_octets", "header_octets", "payload_octets", "ttl", "tos", "protocol")
    assert [int(packet[name]) for name in names] == [6, 51, 40, 8, 3, 61, 0xA5, 17]
    assert (packet["tcp_flags"], packet["tcp_seq"], packet["tcp_window"], packet["fragment_id"]) == (0, 0, 0, 0)


def test_mapped_ipv6_addresses_are_not_ipv4():
    """The version tells an IPv6 packet from ::ffff:10.1.2.3 from an IPv4 packet."""
    six = row(ethernet(ipv6(udp(), src=f"::ffff:{SRC}"), 0x86DD))
    four = row(ethernet(ipv4(udp())))
    assert addresses(six)[0] == addresses(four)[0]
    assert (six["ip_version"], four["ip_version"]) == (6, 4)


@pytest.mark.parametrize(
    ("packet", "header_octets", "payload_octets", "transport"),
    [
        (ipv4(udp(b"abcd")), 8, 4, WHOLE),
        (ipv4(udp(b"abcd", length=0)), 8, 4, WHOLE),
        (ipv4(udp(b"abcd", length=7)), 8, 4, TRUNCATED),
        (ipv4(udp(b"abcd"), 136), 8, 4, WHOLE),
        (ipv4(bytes(12) + b"abcd", 132), 12, 4, WHOLE),
        (ipv4(bytes(11), 132), 11, 0, TRUNCATED),
        (ipv4(b"\x04\xd2\x00\x50\x04\x00\x00\x00\x01" + bytes(7) + b"abcd", 33), 16, 4, WHOLE),
        (ipv4(b"\x04\xd2\x00\x50\x03\x00\x00\x00\x01" + bytes(7) + b"abcd", 33), 12, 8, TRUNCATED),
        (ipv4(b"\x04\xd2\x00\x50\x03\x00\x00\x00\x00" + bytes(3) + b"abcd", 33), 12, 4, WHOLE),
        (ipv4(b"\x08\x00" + bytes(6) + b"abcd", 1), 8, 4, WHOLE),
        (ipv4(b"abcdefgh", 2), 0, 8, NONE),
        (ipv4(b"abcdefgh", 50), 0, 8, NONE),
        (ipv4(b"abcdefgh", 51), 0, 8, NONE),
        (ipv4(b"abcdefgh", 255), 0, 8, NONE),
        (ipv4(b"", 89), 0, 0, NONE),
        (ipv4(tcp(b"abcd", words=4), 6), 20, 4, TRUNCATED),
        (ipv4(tcp(b"abcd", words=6), 6), 24, 0, WHOLE),
        (ipv4(tcp(b"abcd", words=15), 6), 20, 4, TRUNCATED),
        (ipv4(tcp()[:19], 6), 19, 0, TRUNCATED),
        (ipv4(b"", 6), 0, 0, TRUNCATED),
    ],
    ids=[
        "udp",
        "udp-length-0",
        "udp-length-7",
        "udp-lite",
        "sctp",
        "sctp-11-octets",
        "dccp-long",
        "dccp-long-in-12",
        "dccp-short",
        "icmp",
        "igmp",
        "esp",
        "ah-in-ipv4",
        "unknown",
        "ospf-empty",
        "tcp-offset-16",
        "tcp-offset-24",
        "tcp-offset-60",
        "tcp-19-octets",
        "tcp-empty",
    ],
)
def test_transport_lengths(packet, header_octets, payload_octets, transport):
    """IP octets are IP header, transport header and payload, whatever the transport header says."""
    got = row(ethernet(packet))
    assert (got["header_octets"], got["payload_octets"], got["transport"]) == (header_octets, payload_octets, transport)
    assert got["ip_octets"] == got["ip_header_octets"] + got["header_octets"] + got["payload_octets"]


@pytest.mark.parametrize(
    ("captured", "expected_ports", "flags", "header_octets", "transport"),
    [
        (14 + 20 + 32, (1234, 80), 0x18, 32, WHOLE),
        (14 + 20 + 31, (1234, 80), 0, 32, TRUNCATED),
        (14 + 20 + 13, (1234, 80), 0, 32, TRUNCATED),
        (14 + 20 + 12, (1234, 80), 0, 20, TRUNCATED),
        (14 + 20 + 4, (1234, 80), 0, 20, TRUNCATED),
        (14 + 20 + 3, (0, 0), 0, 20, TRUNCATED),
        (14 + 20, (0, 0), 0, 20, TRUNCATED),
    ],
    ids=["headers-only", "options-cut", "offset-captured", "offset-cut", "ports", "ports-cut", "ip-header-only"],
)
def test_cut_tcp_is_measured_by_its_headers(captured, expected_ports, flags, header_octets, transport):
    """Lengths come from the headers, as far as they were captured; flags are known only of a whole header."""
    frame = ethernet(ipv4(tcp(b"x" * 100, options=b"\x01" * 12), 6))
    packet = row(frame[:captured], wire=len(frame), payload_octets=8)
    assert (ports(packet), packet["tcp_flags"], packet["transport"]) == (expected_ports, flags, transport)
    assert (packet["frame_octets"], packet["ip_octets"], packet["header_octets"]) == (166, 152, header_octets)
    assert packet["payload_octets"] == 152 - 20 - header_octets
    assert packet["payload_captured"] == 0


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"", "not_ip"),
        (ethernet(b"")[:13], "not_ip"),
        (ethernet(bytes(46), 0x0806), "not_ip"),
        (ethernet(b""), "malformed"),
        (ethernet(ipv4()[:19]), "malformed"),
        (ethernet(ipv4(options=bytes(8))[:27]), "malformed"),
        (ethernet(b"\x44" + ipv4()[1:]), "malformed"),
        (ethernet(b"\x55" + ipv4()[1:]), "malformed"),
        (ethernet(ipv4(total=19)), "malformed"),
        (ethernet(ipv4(total=23, options=bytes(4))), "malformed"),
        (ethernet(ipv4(udp(b"abc"), total=0)), "malformed"),
        (ethernet(ipv6()[:39], 0x86DD), "malformed"),
        (ethernet(ipv4(total=20)), ""),
        (ethernet(ipv4(total=65535)), ""),
        (ethernet(ipv6(b"", 59), 0x86DD), ""),
        (ethernet(ipv6(udp()), 0x0800), ""),
    ],
    ids=[
        "empty",
        "ethernet-cut",
        "arp",
        "nothing-inside",
        "ipv4-cut",
        "options-cut",
        "header-length-16",
        "version-5",
        "length-19",
        "length-below-options",
        "length-0-udp",
        "ipv6-cut",
        "length-20",
        "length-above-frame",
        "no-next-header",
        "ipv6-under-ipv4s-ethertype",
    ],
)
def test_what_is_refused_and_why(frame, expected):
    """What claims IP but has no sound IP header is malformed; what does not claim it is not IP."""
    assert reason(frame) == expected


def test_offloaded_segments_reach_to_the_end_of_the_frame():
    """IP length 0 with TCP is a segment that the card had yet to cut: frame less headers (IPv4 and IPv6)."""
    four = row(ethernet(ipv4(tcp(b"x" * 70_000), 6, total=0)))
    assert (four["ip_octets"], four["payload_octets"], four["transport"]) == (70_040, 70_000, WHOLE)
    cut = row(ethernet(ipv4(tcp(), 6, total=0)), wire=14 + 40 + 9000)
    assert (cut["ip_octets"], cut["payload_octets"]) == (9040, 9000)
    six = row(ethernet(ipv6(tcp(b"x" * 70_000), 6, inside=0), 0x86DD))
    assert (six["ip_octets"], six["payload_octets"], six["transport"]) == (70_060, 70_000, WHOLE)
    padded = row(ethernet(ipv6(b"", 6, inside=0), 0x86DD) + bytes(6))
    assert (padded["ip_octets"], padded["payload_octets"]) == (40, 0)


def extension(following: int, octets: int = 8) -> bytes:
    return bytes([following, octets // 8 - 1]) + b"\x01" + bytes([octets - 4]) + bytes(octets - 4)


AUTHENTICATION = bytes([17, 4]) + bytes(22)  # 24 octets


@pytest.mark.parametrize(
    ("inside", "first", "protocol", "ip_header_octets", "transport"),
    [
        (extension(43) + extension(60, 16) + extension(17, 24) + udp(), 0, 17, 88, WHOLE),
        (AUTHENTICATION + udp(), 51, 17, 64, WHOLE),
        (extension(17) + udp(), 135, 17, 48, WHOLE),
        (extension(59) + b"abcd", 135, 135, 40, NONE),
        (extension(59), 0, 59, 48, NONE),
        (extension(50) + b"abcdefgh", 60, 50, 48, NONE),
        (extension(17, 16)[:15], 0, 0, 40, TRUNCATED),
        (extension(60) + b"\x11\x00", 0, 60, 48, TRUNCATED),
    ],
    ids=["three", "ah", "mobility-then-udp", "mobility", "no-next-header", "esp", "cut", "second-cut"],
)
def test_ipv6_extension_headers(inside, first, protocol, ip_header_octets, transport):
    """They belong to the IP header; the protocol is what follows them, or the header that is cut."""
    packet = row(ethernet(ipv6(inside, first), 0x86DD))
    assert (packet["protocol"], packet["ip_header_octets"]) == (protocol, ip_header_octets)
    assert packet["transport"] == transport
    assert ports(packet) == ((1234, 5678) if protocol == 17 else (0, 0))


def test_extension_headers_beyond_the_stated_length_are_not_read():
    """What lies behind the payload length is padding, whatever it looks like."""
    packet = row(ethernet(ipv6(extension(17) + udp(), 0, inside=8), 0x86DD))
    assert (packet["protocol"], packet["ip_octets"], packet["transport"]) == (17, 48, TRUNCATED)
    assert ports(packet) == (0, 0)


def test_jumbograms_have_their_length_in_an_option():
    """RFC 2675; a jumbo length that 16 bits hold is invalid, and the payload length 0 stands."""
    jumbo = lambda length: b"\x11\x00\xc2\x04" + struct.pack(">I", length)  # noqa: E731
    packet = row(ethernet(ipv6(jumbo(70_000) + udp(length=0), 0, inside=0), 0x86DD))
    assert (packet["ip_octets"], packet["payload_octets"], packet["protocol"]) == (70_040, 70_000 - 16, 17)
    assert row(ethernet(ipv6(jumbo(65_535) + udp(), 0, inside=0), 0x86DD))["ip_octets"] == 40


@pytest.mark.parametrize(
    ("protocol", "kind", "code", "expected"),
    [
        (1, 8, 0, (8, 0)), (1, 0, 0, (0, 8)), (1, 3, 13, (3, 13)), (1, 13, 0, (13, 14)), (1, 10, 0, (10, 9)),
        (58, 128, 0, (128, 129)), (58, 129, 0, (129, 128)), (58, 135, 0, (135, 136)), (58, 1, 4, (1, 4)),
        (58, 131, 0, (131, 130)), (58, 145, 0, (145, 144)),
    ],
)  # fmt: skip
def test_icmp_ports_are_community_ids(protocol, kind, code, expected):
    """Type and the type that answers it, or type and code where nothing does."""
    message = bytes([kind, code]) + bytes(6)
    frame = ethernet(ipv4(message, 1)) if protocol == 1 else ethernet(ipv6(message, 58), 0x86DD)
    assert ports(row(frame)) == expected


@pytest.mark.parametrize(
    ("frame", "fragment", "identification", "expected_ports", "payload_octets"),
    [
        (ethernet(ipv4(udp(b"x" * 8), place=0x4000)), records.FRAGMENT_NONE, 7, (1234, 5678), 8),
        (ethernet(ipv4(udp(b"x" * 8), place=0x2000)), records.FRAGMENT_FIRST, 7, (1234, 5678), 8),
        (ethernet(ipv4(b"x" * 16, place=0x2001)), records.FRAGMENT_LATER, 7, (0, 0), 16),
        (ethernet(ipv4(b"x" * 16, place=0x0002)), records.FRAGMENT_LATER, 7, (0, 0), 16),
        (ethernet(ipv6(b"\x11\x00\x00\x00\x00\x00\xab\xcd" + udp(), 44), 0x86DD), 0, 0xABCD, (1234, 5678), 0),
        (ethernet(ipv6(b"\x11\x00\x00\x01\x00\x00\xab\xcd" + udp(), 44), 0x86DD), 1, 0xABCD, (1234, 5678), 0),
        (ethernet(ipv6(b"\x11\x00\x00\x08\x00\x00\xab\xcd" + udp(), 44), 0x86DD), 2, 0xABCD, (0, 0), 8),
    ],
    ids=["dont-fragment", "first", "middle", "last", "ipv6-atomic", "ipv6-first", "ipv6-last"],
)
def test_fragments(frame, fragment, identification, expected_ports, payload_octets):
    """A first fragment has its transport header; a later one is all payload and has no ports yet."""
    packet = row(frame)
    assert (packet["fragment"], packet["fragment_id"]) == (fragment, identification)
    assert (ports(packet), packet["payload_octets"]) == (expected_ports, payload_octets)


def test_rows_are_compact_and_payloads_end_to_end():
    """Refused frames leave no gap; prefixes are cut to the setting and never hold link padding."""
    frames = [
        ethernet(ipv4(udp(b"abcdef"))),
        ethernet(bytes(46), 0x0806),
        ethernet(ipv4(udp(b"gh"))) + bytes(16),
        ethernet(ipv4(udp(b"")[:4])),
        ethernet(b"\x00"),
        ethernet(ipv6(b"ijkl", 89), 0x86DD),
    ]
    packets, reasons, payloads = parsed(frames, payload_octets=4)
    assert reasons == ["", "not_ip", "", "", "malformed", ""]
    assert packets["time_ns"].tolist() == [10**18 + i for i in (0, 2, 3, 5)]
    assert payloads == b"abcdghijkl"
    assert packets["payload_at"].tolist() == [0, 4, 6, 6]
    assert packets["payload_captured"].tolist() == [4, 2, 0, 4]


def test_damaged_frames_are_malformed():
    """A frame that its reader marked, or that is not in the buffer, is counted and not read."""
    octets = np.frombuffer(ethernet(ipv4(udp())), np.uint8)
    frames = np.array([(0, 0, 42, 42, 1, 1), (0, 1, 42, 42, 1, 0), (0, -1, 42, 42, 1, 0), (0, 0, 42, 42, 1, 0)], FRAME)
    reasons = np.zeros(4, np.uint8)
    packets, payloads = np.zeros(4, records.PACKET), np.zeros(0, np.uint8)
    assert parse(octets, frames, HeaderSettings(), packets, payloads, reasons) == (1, 0)
    assert reasons.tolist() == [2, 2, 2, 0]


def test_headers_hash_covers_headers_and_nothing_else():
    """Payload, link and padding do not change it; any bit of the network or transport header does."""
    packet = ipv4(tcp(b"payload"), 6)
    digest = row(ethernet(packet), headers_hash=True)["headers_hash"]
    assert digest != 0
    assert (
        row(ethernet(ipv4(tcp(b"PAYLOAD"), 6), tags=[(0x8100, 5)]) + bytes(3), headers_hash=True)["headers_hash"]
        == digest
    )
    for at in range(1, 40):
        flipped = packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]
        accepted, _, _ = parsed([ethernet(flipped)], headers_hash=True)
        assert len(accepted) == 0 or accepted[0]["headers_hash"] != digest


def test_settings_are_checked():
    """A wrong setting is one line that names the option and the choice."""
    with pytest.raises(records.InputError, match="--decapsulate: unknown tunnel 'wireguard'; choose of ip, gre, vxlan"):
        HeaderSettings(decapsulate=("gre", "wireguard"))
    with pytest.raises(records.InputError, match="--payload_octets: -1"):
        HeaderSettings(payload_octets=-1)


def test_outputs_that_are_too_small_are_refused():
    """A kernel does not check bounds, so its caller is checked."""
    octets = np.frombuffer(ethernet(ipv4(udp())), np.uint8)

    frames = np.array([(0, 0, 42, 42, 1, 0)], FRAME)
    packets, payloads, reasons = np.zeros(1, records.PACKET), np.zeros(3, np.uint8), np.zeros(1, np.uint8)
    for settings, rows, why in (
        (HeaderSettings(payload_octets=4), packets, reasons),
        (HeaderSettings(), packets[:0], reasons),
        (HeaderSettings(), packets, reasons[:0]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            parse(octets, frames, settings, rows, payloads, why)

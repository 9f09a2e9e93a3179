"""Tunnels over IP: which are opened, what is kept of the outer headers, and what stays closed."""

import struct

import pytest
from frames_testing import (
    DST,
    INNER,
    INNER6,
    INNER_DST,
    INNER_FRAME,
    INNER_SRC,
    SRC,
    TUNNELS,
    addresses,
    ethernet,
    gre,
    gtp,
    ipv4,
    ipv6,
    parsed,
    ports,
    row,
    tcp,
    udp,
    vxlan,
)

from sources.headers import TUNNEL_KINDS
from transforms import records


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels_are_opened(name):
    """The row is of the inner packet; outer addresses, kind and network id are kept; the frame is the outer one."""
    outer, kind, vni = TUNNELS[name]
    frame = ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD)
    packet = row(frame, payload_octets=8)
    assert (addresses(packet)[0], ports(packet)) in (((INNER_SRC), (1234, 80)), (("fd00::1"), (1234, 80)))
    assert addresses(packet, "outer_") == ((SRC, DST) if outer[0] >> 4 == 4 else ("2001:db8::1", "2001:db8::2:3"))
    assert (records.TUNNEL_NAMES[packet["tunnel"]], packet["vni"]) == (kind, vni)
    assert packet["ip_octets"] == 43 + 20 * (packet["ip_version"] == 6)
    assert (packet["payload_octets"], packet["payload_captured"], packet["frame_octets"]) == (3, 3, len(frame))


@pytest.mark.parametrize("name", TUNNELS)
def test_each_kind_can_be_left_closed(name):
    """Without its kind in the setting, or with none, a packet is what its outer header says."""
    outer, kind, _ = TUNNELS[name]
    frame = ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD)
    for kinds in ((), tuple(other for other in TUNNEL_KINDS if other != kind)):
        packet = row(frame, decapsulate=kinds)
        assert addresses(packet)[0] in (SRC, "2001:db8::1")
        assert (packet["tunnel"], packet["vni"]) == (records.TUNNEL_NONE, -1)
        assert addresses(packet, "outer_") == ("::", "::")
    assert addresses(row(frame, decapsulate=(kind,)))[0] in (INNER_SRC, "fd00::1")


@pytest.mark.parametrize("name", TUNNELS)
def test_cut_tunnels_are_opened_only_when_the_inner_ip_header_is_whole(name):
    """However much was captured, the row is of one packet or the other."""
    outer, _, _ = TUNNELS[name]
    frame = ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD)
    inner_at = frame.rindex(INNER) if INNER in frame else frame.rindex(INNER6)
    whole = inner_at + (20 if INNER in frame else 40)
    for captured in range(14 + (20 if outer[0] >> 4 == 4 else 40), len(frame)):
        packet = row(frame[:captured], wire=len(frame))
        (bait,), _, _ = parsed([frame], captured=[captured])
        assert bait.tobytes() == packet.tobytes()  # what was cut off is not read
        assert (packet["tunnel"] != 0) == (captured >= whole), captured
        assert packet["ip_octets"] == (len(outer) if captured < whole else 43 + 20 * (INNER6 in frame))


@pytest.mark.parametrize(
    "outer",
    [
        ipv4(b"plain text", 4),
        ipv4(INNER, 4, place=0x2000),
        ipv4(INNER, 4, place=0x0001),
        ipv4(gre(INNER, flags=0x4000), 47),
        ipv4(gre(INNER, flags=2), 47),
        ipv4(gre(INNER, 0x0806), 47),
        ipv4(gre(b"", 0), 47),
        ipv4(gre(b"\x20\x00" + bytes(6) + INNER_FRAME, 0x88BE, 0x1000, bytes(4)), 47),
        ipv4(gre(ethernet(bytes(46), 0x0806), 0x88BE), 47),
        ipv4(vxlan(INNER_FRAME, flags=0)),
        ipv4(vxlan(ethernet(bytes(46), 0x0806))),
        ipv4(vxlan(ethernet(ipv4(tcp(), 6, total=41)))),
        ipv4(vxlan(INNER_FRAME, flags=0x0C000009, port=4790)),
        ipv4(vxlan(INNER_FRAME, port=4788)),
        ipv4(udp(struct.pack(">BBHI", 0x40, 0, 0x6558, 0) + INNER_FRAME, 1, 6081)),
        ipv4(udp(struct.pack(">BBHI", 0, 1, 0x6558, 0) + INNER_FRAME, 1, 6081)),
        ipv4(udp(struct.pack(">BBHI", 63, 0, 0x6558, 0) + INNER_FRAME, 1, 6081)),
        ipv4(gtp(INNER, message=254)),
        ipv4(gtp(INNER, flags=0x50)),
        ipv4(gtp(INNER, flags=0x20)),
        ipv4(gtp(INNER, length=1000)),
        ipv4(gtp(INNER, 0x34, options=b"\x00\x00\x00\x85\x00\x10\x01\x00")),
        ipv4(gtp(INNER, 0x34, options=b"\x00\x00\x00\x85\xff\x10\x01\x00")),
        ipv4(gtp(ethernet(INNER))),
        ipv6(b"\x04\x00\x00\x01\x00\x00\x00\x01" + INNER, 44),
        ipv4(bytes(24) + INNER, 51),
    ],
    ids=[
        "no-ip",
        "first-fragment",
        "later-fragment",
        "gre-routes",
        "gre-version-2",
        "gre-arp",
        "gre-keepalive",
        "erspan-2-version",
        "erspan-arp",
        "vxlan-flags",
        "vxlan-arp",
        "vxlan-too-long",
        "gpe-protocol",
        "vxlan-port",
        "geneve-version",
        "geneve-reserved",
        "geneve-options-long",
        "gtp-end-marker",
        "gtp-version-2",
        "gtp-prime",
        "gtp-length",
        "gtp-extension-0",
        "gtp-extension-long",
        "gtp-ethernet",
        "ipv6-fragment",
        "ah",
    ],
)
def test_what_is_no_tunnel_for_certain_stays_closed(outer):
    """Fragments, control messages and plain packets that happen to use a tunnel's port."""
    packet = row(ethernet(outer, 0x0800 if outer[0] >> 4 == 4 else 0x86DD))
    assert (packet["tunnel"], packet["vni"]) == (records.TUNNEL_NONE, -1)
    assert addresses(packet)[0] in (SRC, "2001:db8::1")
    assert packet["ip_octets"] == len(outer)


def test_nested_tunnels_keep_the_outermost():
    """Kind and addresses are of the outermost tunnel, the network id of the outermost that has one."""
    inner = ipv4(
        vxlan(ethernet(ipv4(vxlan(INNER_FRAME, vni=2), 17, "10.0.0.1", "10.0.0.2")), vni=1), 17, "10.9.9.1", "10.9.9.2"
    )
    packet = row(ethernet(ipv4(gre(inner), 47)))
    assert (records.TUNNEL_NAMES[packet["tunnel"]], packet["vni"]) == ("gre", 1)
    assert (addresses(packet), addresses(packet, "outer_")) == ((INNER_SRC, INNER_DST), (SRC, DST))


def test_depth_has_a_limit():
    """Eight tunnels are opened; a ninth stays closed, and nothing hangs."""
    packet = ipv4(udp(b"abc"), 17, "10.0.0.0")
    for depth in range(1, 10):
        packet = ipv4(packet, 4, f"10.0.0.{depth}")
    assert addresses(row(ethernet(packet)))[0] == "10.0.0.1"


def test_vlan_of_a_tunnel_counts_where_the_frame_has_none():
    """`vlan_id` is the outermost tag, wherever it is; MAC addresses are the frame's."""
    inside = vxlan(ethernet(INNER, tags=[(0x8100, 42)]))
    assert row(ethernet(ipv4(inside)))["vlan_id"] == 42
    assert row(ethernet(ipv4(inside), tags=[(0x8100, 7)]))["vlan_id"] == 7
    assert row(ethernet(ipv4(inside)), decapsulate=())["vlan_id"] == 0
    assert row(ipv4(inside), 101)["src_mac"] == 0


def test_an_unopened_tunnel_leaves_no_vlan():
    """What was looked at and refused leaves no trace in the row."""
    assert row(ethernet(ipv4(vxlan(ethernet(bytes(40), 0x0806, tags=[(0x8100, 42)])))))["vlan_id"] == 0


def test_headers_hash_reaches_from_the_outermost_to_the_innermost_header():
    """Outer headers are part of what makes two captures of one packet equal."""
    one, two = (row(ethernet(ipv4(vxlan(INNER_FRAME, vni=vni))), headers_hash=True)["headers_hash"] for vni in (1, 2))
    assert one != two
    assert row(ethernet(ipv4(vxlan(INNER_FRAME[:-3] + b"xyz", vni=1))), headers_hash=True)["headers_hash"] == one

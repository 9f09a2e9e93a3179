"""Every link type, with the same packet in it, and everything that may stack below IP."""

import struct

import pytest
from frames_testing import (
    AVS,
    CARRIERS,
    DST,
    DST_MAC,
    FRAME,
    IP,
    IP6,
    MACS,
    RADIOTAP,
    SNAP,
    SRC,
    SRC_MAC,
    WIRELESS,
    addresses,
    ethernet,
    mac,
    parsed,
    ports,
    reason,
    row,
)

from sources.link_layers import LINK_TYPES

WITH_MACS = {1, 6, 10, 105, 119, 127, 149, 163, 178, 192, 240, 241, 259, 274, 281, 282, 284, 285}
WITH_SOURCE_MAC = WITH_MACS | {113, 276}


def test_every_link_type_has_a_case():
    """A row of the table without a frame to prove it fails here."""
    assert set(CARRIERS) == set(LINK_TYPES)


@pytest.mark.parametrize("link_type", CARRIERS)
def test_link_types_carry_ip(link_type):
    """The packet is the same under each, MAC addresses are those of link types that have them."""
    packet = row(CARRIERS[link_type], link_type)
    expected = ("2001:db8::1", "2001:db8::2:3") if link_type == 229 else (SRC, DST)
    assert (addresses(packet), ports(packet), packet["payload_octets"]) == (expected, (1234, 5678), 3)
    assert packet["src_mac"] == (SRC_MAC if link_type in WITH_SOURCE_MAC else 0)
    assert packet["dst_mac"] == (DST_MAC if link_type in WITH_MACS else 0)
    assert packet["frame_octets"] == len(CARRIERS[link_type])


@pytest.mark.parametrize("link_type", CARRIERS)
def test_cut_frames_of_every_link_type(link_type):
    """Whatever is cut off: not IP while IP is not claimed, malformed while its header is not whole, then accepted."""
    frame = CARRIERS[link_type]
    inside = len(IP6) if link_type == 229 else len(IP)
    cuts = range(len(frame) + 1)
    _, reasons, _ = parsed([frame[:captured] for captured in cuts], link_type)
    assert parsed([frame] * len(cuts), link_type, captured=cuts)[1] == reasons  # what was cut off is not read
    whole = len(frame) - inside + (40 if link_type == 229 else 20)
    assert set(reasons[whole:]) == {""}
    assert "" not in reasons[:whole]
    assert reasons == sorted(reasons, key=["not_ip", "malformed", ""].index)


@pytest.mark.parametrize("link_type", [2, 147, 195, 230, 253, 271, 511, 512, 65535])
def test_other_link_types_carry_no_ip(link_type):
    """802.15.4, netlink, vsock, private and unknown numbers."""
    assert reason(IP, link_type) == "not_ip"


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (0, b"\x1e\x00\x00\x00" + IP6),
        (0, b"\x00\x00\x00\x18" + IP6),
        (0, b"\x00\x08\x00\x00" + IP),
        (0, b"\xff\x03\x00\x21" + IP),
        (0, b"\x0f\x00\x08\x00" + IP),
        (8, b"\x01\x80" + bytes(14) + IP),
        (9, b"\x00\x21" + IP),
        (9, b"\x21" + IP),
        (9, b"\xff\x03\x00\x57" + IP6),
        (9, b"\x0f\x00\x08\x00" + IP),
        (9, b"\xff\x03\x02\x81\x00\x01\x01\x40" + IP),
        (9, b"\xff\x03\x00\x31\x00\x01" + FRAME),
        (11, b"\xfe\xfe\x03\xcc" + IP),
        (11, b"\x06\x06\x03" + IP),
        (11, b"\xaa\xaa\x03\x00\x80\xc2\x00\x07\x00\x00" + FRAME),
        (107, b"\x18\x41\x08\x00" + IP),
        (107, b"\x18\x41\x03\x00\x80\x00\x00\x00\x08\x00" + IP),
        (107, b"\x18\x00\x00\x01\x03\x8e" + IP6),
        (7, b"\x01\x02\xf0" + IP),
        (7, b"\x01\x02\xd4\xff\x00\x00\x00\x00\x00\x07" + IP),
        (105, b"\x88\x01\x00\x00" + bytes(18) + bytes(2) + b"\x00\x00" + SNAP + IP),
        (105, b"\x08\x03\x00\x00" + bytes(26) + SNAP + IP),
        (105, b"\x88\x01\x00\x00" + bytes(20) + b"\x80\x00" + bytes(14) + SNAP + IP),
        (127, b"\x00\x00\x09\x00\x02\x00\x00\x00\x20\x88\x01" + bytes(22) + bytes(2) + bytes(2) + SNAP + IP),
        (127, b"\x00\x00\x19\x00\x03\x00\x00\x80\x00\x00\x00\x00" + bytes(4) + bytes(8) + b"\x00" + WIRELESS),
        (119, AVS + WIRELESS),
        (113, b"\x00\x00\x03\x21\x00\x06" + bytes(8) + b"\x00\x19" + WIRELESS),
        (113, b"\x00\x00\x03\x23\x00\x06" + bytes(8) + b"\x00\x19" + RADIOTAP + WIRELESS),
        (113, b"\x00\x00\x00\x01\x00\x06" + bytes(8) + b"\x00\x04" + SNAP + IP),
        (123, b"\x01\x00\x00\x20\x00\x00" + FRAME),
        (178, b"MGC\x02\x00\x00\x00\x02" + IP),
        (192, struct.pack("<BBHI", 0, 0, 8, 127) + RADIOTAP + WIRELESS),
        (226, b"\x01\x1a" + bytes(22) + IP6),
    ],
    ids=[
        "null-30",
        "null-24-big-endian",
        "null-ethertype",
        "null-ppp",
        "null-hdlc",
        "slip-compressed",
        "ppp-bare",
        "ppp-compressed",
        "ppp-ipv6",
        "ppp-cisco",
        "ppp-mpls",
        "ppp-bridged",
        "llc-nlpid",
        "llc-ip",
        "llc-bridged",
        "frame-relay-cisco",
        "frame-relay-snap",
        "frame-relay-4-octets",
        "arcnet-rfc1051",
        "arcnet-exception",
        "wireless-qos",
        "wireless-4-addresses",
        "wireless-a-msdu",
        "radiotap-padded",
        "radiotap-2-words-time",
        "avs-as-prism",
        "sll-wireless",
        "sll-radiotap",
        "sll-llc",
        "sunatm-lane",
        "juniper-no-l2",
        "ppi-radiotap",
        "ipnet-ipv6",
    ],
)
def test_forms_of_link_types(link_type, frame):
    """What the same link type looks like on other systems."""
    packet = row(frame, link_type)
    assert ports(packet) == (1234, 5678)


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (0, b"\x07\x00\x00\x00" + IP),
        (8, bytes(16) + IP),
        (9, b"\xff\x03\xc0\x21" + IP),
        (105, b"\x80\x00" + WIRELESS[2:]),
        (105, b"\x08\x42" + WIRELESS[2:]),
        (105, b"\x48\x02" + WIRELESS[2:]),
        (113, b"\x00\x00\x03\x38\x00\x00" + bytes(8) + b"\x08\x00" + IP),
        (127, b"\x00\x00\x07\x00" + bytes(4) + WIRELESS),
        (127, b"\x00\x00\xff\xff" + bytes(4) + WIRELESS),
        (149, struct.pack("<III", 108, 0, 1) + bytes(96) + FRAME),
        (182, b"\x81\x00\x18\x41\x03\xcc" + IP),
        (192, struct.pack("<BBHI", 0, 0, 8, 192) * 8 + FRAME),
        (239, b"\x02\x00\x00\x2a\x03\x00\x09\x00" + IP),
        (178, b"MGX\x80\x00\x00" + FRAME),
    ],
    ids=[
        "null-7",
        "slip-no-packet",
        "lcp",
        "beacon",
        "encrypted",
        "null-data",
        "sll-netlink",
        "radiotap-7",
        "radiotap-long",
        "pktap-none",
        "frf16-part",
        "ppi-in-ppi",
        "nflog-length-3",
        "juniper-magic",
    ],
)
def test_forms_that_carry_no_ip(link_type, frame):
    """Control, encrypted and broken frames are counted as not IP."""
    assert reason(frame, link_type) == "not_ip"


@pytest.mark.parametrize(
    ("tags", "vlan_id"),
    [
        ([(0x8100, 0x6005)], 5),
        ([(0x88A8, 0x0FFF), (0x8100, 7)], 0xFFF),
        ([(0x9100, 3), (0x8100, 4)], 3),
        ([(0x8100, 0x2000), (0x8100, 8)], 8),
        ([(0x8100, 9)] * 6, 9),
    ],
    ids=["priority-bits", "qinq", "9100", "priority-tag-first", "six"],
)
def test_vlan_id_is_that_of_the_outermost_tag(tags, vlan_id):
    """Of 802.1Q and 802.1ad; a priority tag names no VLAN."""
    assert row(ethernet(IP, tags=tags))["vlan_id"] == vlan_id


def label(number: int, bottom: bool) -> bytes:
    return struct.pack(">I", number << 12 | bottom << 8 | 64)


@pytest.mark.parametrize(
    ("ethertype", "inside"),
    [
        (0x8847, label(16, False) + label(17, True) + IP),
        (0x8848, label(16, True) + IP6),
        (0x8847, label(16, True) + bytes(4) + FRAME),
        (0x8847, label(16, True) + FRAME),
        (0x8847, label(16, True) + bytes(4) + ethernet(IP, tags=[(0x8100, 0)])),
        (0x8864, b"\x11\x00\x00\x07\x00\x22\x00\x21" + IP),
        (0x8864, b"\x11\x00\x00\x07\x00\x22\x00\x57" + IP6),
        (0x88E7, bytes(4) + FRAME),
        (0x8903, bytes(2) + FRAME),
        (0x8926, bytes(4) + b"\x08\x00" + IP),
        (0x893F, bytes(6) + b"\x08\x00" + IP),
        (0x8909, b"\x01\x01\x00\x01\x00\x07\x08\x00" + IP),
        (0xD28B, b"\x00\x01\x00\x10" + bytes(8) + b"\x08\x00" + IP),
        (0x88E5, b"\x00\x00\x00\x00\x00\x01\x08\x00" + IP),
        (0x88E5, b"\x20\x00\x00\x00\x00\x01" + bytes(8) + b"\x86\xdd" + IP6),
        (0x894F, b"\x0f\xc2\x01\x01" + bytes(4) + IP),
        (0x894F, b"\x0f\xc6\x01\x03" + bytes(20) + FRAME),
        (0x22F3, b"\x00\x40" + bytes(8) + FRAME),
        (0x6558, FRAME),
        (0x8870, SNAP + IP),
        (len(SNAP + IP), SNAP + IP),
    ],
    ids=[
        "mpls-2-labels",
        "mpls-ipv6",
        "pseudowire-control-word",
        "pseudowire-bare",
        "pseudowire-vlan",
        "pppoe",
        "pppoe-ipv6",
        "802.1ah",
        "fabricpath",
        "vn-tag",
        "802.1br",
        "cisco-metadata",
        "arista",
        "macsec",
        "macsec-channel",
        "nsh",
        "nsh-ethernet",
        "trill",
        "bridged",
        "jumbo-llc",
        "802.3",
    ],
)
def test_what_stacks_on_ethernet(ethertype, inside):
    """It is opened down to IP; the outermost MAC addresses are kept."""
    frame = mac(0x0A) + mac(0x0B) + struct.pack(">H", ethertype) + inside
    packet = row(frame)
    cuts = range(len(frame))
    baits = parsed([frame] * len(cuts), captured=cuts)[1]
    assert baits == parsed([frame[:captured] for captured in cuts])[1]  # what was cut off is not read
    assert ports(packet) == (1234, 5678)
    assert (packet["dst_mac"], packet["src_mac"]) == (0x0A, 0x0B)


@pytest.mark.parametrize(
    ("ethertype", "inside"),
    [
        (0x8847, label(16, False) * 200),
        (0x8847, label(16, True) + b"\x10\x00\x00\x21" + FRAME),
        (0x8863, b"\x11\x09\x00\x00\x00\x04" + IP),
        (0x8864, b"\x11\x00\x00\x07\x00\x22\xc0\x21" + IP),
        (0x88E5, b"\x0c\x00\x00\x00\x00\x01\x08\x00" + IP),
        (0x894F, b"\x00\x00\x01\x01" + bytes(4) + IP),
        (1501, SNAP + IP),
        (40, b"\x42\x42\x03" + IP),
        (40, b"\xaa\xaa\x03\x00\x00\x0c\x20\x00" + IP),
    ],
    ids=["no-bottom", "mpls-oam", "pppoe-discovery", "pppoe-lcp", "encrypted", "nsh-length-0", "1501", "stp", "cdp"],
)
def test_what_stacks_on_ethernet_without_ip(ethertype, inside):
    """It is counted as not IP."""
    assert reason(ethernet(inside, ethertype)) == "not_ip"


def test_endless_stacks_end():
    """More layers than any network has are not IP."""
    assert reason(ethernet(IP, tags=[(0x8100, 1)] * 100)) == "not_ip"
    recursive = FRAME
    for _ in range(60):
        recursive = ethernet(bytes(4) + recursive, 0x88E7)
    assert reason(recursive) == "not_ip"


def test_a_dsa_tag_names_the_vlan():
    """Marvell's switch tag holds the 802.1Q tag that it replaced."""
    assert row(MACS + b"\xe0\x00\x0f\xa5\x08\x00" + IP, 284)["vlan_id"] == 0xFA5
    assert row(MACS + b"\xc0\x00\x0f\xa5\x08\x00" + IP, 284)["vlan_id"] == 0

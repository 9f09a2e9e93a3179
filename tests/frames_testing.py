"""Frames by hand, and what the parser makes of them, for the tests of the header kernels."""

import ipaddress
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from sources import frames as capture_frames
from sources import headers
from transforms.records import PACKET

SRC, DST = "10.1.2.3", "192.168.7.8"
SRC6, DST6 = "2001:db8::1", "2001:db8::2:3"
SRC_MAC, DST_MAC = 0x020000000001, 0x020000000002


def mac(address: int) -> bytes:
    return address.to_bytes(6, "big")


def ethernet(payload: bytes, ethertype: int = 0x0800, tags: Sequence[tuple[int, int]] = ()) -> bytes:
    """A frame from SRC_MAC to DST_MAC; `tags` are (Ethertype, VLAN id), outermost first."""
    stacked = b"".join(struct.pack(">HH", kind, vlan) for kind, vlan in tags)
    return mac(DST_MAC) + mac(SRC_MAC) + stacked + struct.pack(">H", ethertype) + payload


def ipv4(
    payload: bytes = b"",
    protocol: int = 17,
    src: str = SRC,
    dst: str = DST,
    total: int | None = None,
    options: bytes = b"",
    identification: int = 7,
    place: int = 0,
    ttl: int = 64,
    tos: int = 0,
) -> bytes:
    """A packet; `place` is the flags and the offset in units of eight octets, `total` its stated length."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if total is None else total
    fixed = struct.pack(">BBHHHBBH", 0x40 | words, tos, total, identification, place, ttl, protocol, 0)
    return fixed + ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed + options + payload


def ipv6(
    payload: bytes = b"",
    protocol: int = 17,
    src: str = SRC6,
    dst: str = DST6,
    inside: int | None = None,
    hops: int = 61,
    traffic_class: int = 0,
) -> bytes:
    """A packet; `protocol` is the next header, `inside` the stated payload length."""
    inside = len(payload) if inside is None else inside
    fixed = struct.pack(">IHBB", 6 << 28 | traffic_class << 20, inside, protocol, hops)
    return fixed + ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed + payload


def udp(payload: bytes = b"", src_port: int = 1234, dst_port: int = 5678, length: int | None = None) -> bytes:
    return struct.pack(">HHHH", src_port, dst_port, 8 + len(payload) if length is None else length, 0) + payload


def tcp(payload: bytes = b"", flags: int = 0x18, options: bytes = b"", words: int | None = None) -> bytes:
    words = 5 + len(options) // 4 if words is None else words
    return (
        struct.pack(">HHIIBBHHH", 1234, 80, 0xFEDCBA98, 0x89ABCDEF, words << 4, flags, 4321, 0, 0) + options + payload
    )


IP = ipv4(udp(b"abc"))
IP6 = ipv6(udp(b"abc"))
FRAME = ethernet(IP)
SNAP = b"\xaa\xaa\x03\x00\x00\x00\x08\x00"
MACS = mac(DST_MAC) + mac(SRC_MAC)
WIRELESS = b"\x08\x02\x00\x00" + mac(DST_MAC) + mac(9) + mac(SRC_MAC) + bytes(2) + SNAP + IP
RADIOTAP = b"\x00\x00\x08\x00" + bytes(4)
JUNIPER = b"MGC\x80\x00\x04" + bytes(4)
AVS = struct.pack(">II", 0x80211001, 64) + bytes(56)


def pktap(link_type: int) -> bytes:
    return struct.pack("<III", 108, 1, link_type) + bytes(96)


CARRIERS = {
    0: b"\x02\x00\x00\x00" + IP,
    1: FRAME,
    6: b"\x10\x40" + mac(DST_MAC) + mac(SRC_MAC) + SNAP + IP,
    7: b"\x01\x02\xd4\x00\x00\x07" + IP,
    8: b"\x00\x45" + bytes(14) + IP,
    9: b"\xff\x03\x00\x21" + IP,
    10: b"\x50" + MACS + SNAP + IP,
    11: SNAP + IP,
    12: IP,
    14: IP,
    19: SNAP + IP,
    50: b"\xff\x03\x00\x21" + IP,
    51: b"\x11\x00\x00\x07\x00\x22\x00\x21" + IP,
    100: SNAP + IP,
    101: IP,
    104: b"\x0f\x00\x08\x00" + IP,
    105: WIRELESS,
    106: IP,
    107: b"\x18\x41\x03\xcc" + IP,
    108: b"\x00\x00\x00\x02" + IP,
    109: b"\x02\x00\x00\x00" + bytes(8) + IP,
    113: b"\x00\x00\x00\x01\x00\x06" + mac(SRC_MAC) + bytes(2) + b"\x08\x00" + IP,
    117: b"\x3d\x02" + bytes(62) + IP,
    119: b"\x44\x00\x00\x00\x90\x00\x00\x00" + bytes(136) + WIRELESS,
    122: bytes(16) + SNAP + IP,
    123: b"\x02\x00\x00\x20" + SNAP + IP,
    127: RADIOTAP + WIRELESS,
    129: b"\x01\x02\x00\x00\xd4\x00\x00\x07" + IP,
    **dict.fromkeys((130, 131, 132, 133, 134, 135, 136, 137, 164, 194), JUNIPER + IP),
    138: bytes(16) + b"\x08\x00" + IP,
    149: pktap(1) + FRAME,
    163: AVS + WIRELESS,
    178: JUNIPER + FRAME,
    179: JUNIPER + b"\xff\x03\x00\x21" + IP,
    180: JUNIPER + b"\x18\x41\x03\xcc" + IP,
    181: JUNIPER + b"\x0f\x00\x08\x00" + IP,
    182: b"\xc1\x00\x18\x41\x03\xcc" + IP,
    192: struct.pack("<BBHI", 0, 0, 16, 1) + bytes(8) + FRAME,
    204: b"\x01\xff\x03\x00\x21" + IP,
    205: b"\x01\x0f\x00\x08\x00" + IP,
    206: b"\x01\x18\x41\x03\xcc" + IP,
    226: b"\x01\x02" + bytes(22) + IP,
    228: IP,
    229: IP6,
    239: b"\x02\x00\x00\x2a\x05\x00\x0a\x00\x41\x00\x00\x00" + struct.pack("<HH", 4 + len(IP), 9) + IP,
    240: bytes(4) + FRAME,
    241: bytes(12) + FRAME,
    242: bytes(40) + b"\x08\x00\x00\x00" + IP,
    258: pktap(12) + IP,
    259: bytes(8) + FRAME,
    274: b"\x55" * 7 + b"\xd5" + FRAME,
    276: b"\x08\x00\x00\x00\x00\x00\x00\x03\x00\x01\x00\x06" + mac(SRC_MAC) + bytes(2) + IP,
    281: MACS + bytes(4) + b"\x08\x00" + IP,
    282: bytes(4) + FRAME,
    284: MACS + b"\xc0\x00\x00\x00\x08\x00" + IP,
    285: MACS + b"\xda\xda\x00\x00\xc0\x00\x00\x00\x08\x00" + IP,
}
"""LINKTYPE_* number to a frame that carries IP."""

INNER_SRC, INNER_DST = "172.16.0.1", "172.16.0.2"
INNER = ipv4(tcp(b"abc"), 6, INNER_SRC, INNER_DST)
INNER6 = ipv6(tcp(b"abc"), 6, "fd00::1", "fd00::2")
INNER_FRAME = ethernet(INNER)


def vxlan(payload: bytes, vni: int = 0x123456, flags: int = 0x08000000, port: int = 4789) -> bytes:
    return udp(struct.pack(">II", flags, vni << 8) + payload, 50000, port)


def geneve(payload: bytes, kind: int = 0x6558, options: bytes = b"", vni: int = 77) -> bytes:
    return udp(struct.pack(">BBHI", len(options) // 4, 0, kind, vni << 8) + options + payload, 50000, 6081)


def gtp(
    payload: bytes, flags: int = 0x30, message: int = 255, options: bytes = b"", length: int | None = None
) -> bytes:
    length = len(options + payload) if length is None else length
    return udp(struct.pack(">BBHI", flags, message, length, 99) + options + payload, 2152, 2152)


def gre(payload: bytes, kind: int = 0x0800, flags: int = 0, options: bytes = b"") -> bytes:
    return struct.pack(">HH", flags, kind) + options + payload


TUNNELS = {
    "ip-in-ip": (ipv4(INNER, 4), "ip", -1),
    "6in4": (ipv4(INNER6, 41), "ip", -1),
    "4in6": (ipv6(INNER, 4), "ip", -1),
    "6in6": (ipv6(INNER6, 41), "ip", -1),
    "gre": (ipv4(gre(INNER), 47), "gre", -1),
    "gre-all-options": (ipv4(gre(INNER6, 0x86DD, 0xB000, bytes(12)), 47), "gre", -1),
    "nvgre": (ipv4(gre(INNER_FRAME, 0x6558, 0x2000, bytes(4)), 47), "gre", -1),
    "gre-mpls": (ipv4(gre(b"\x00\x01\x01\x40" + INNER, 0x8847), 47), "gre", -1),
    "pptp": (ipv4(gre(b"\xff\x03\x00\x21" + INNER, 0x880B, 0x3081, bytes(12)), 47), "gre", -1),
    "gre-wccp": (ipv4(gre(bytes(4) + INNER, 0x883E), 47), "gre", -1),
    "gre-metadata": (ipv4(gre(b"\x08\x00" + bytes(6) + INNER, 0x8909), 47), "gre", -1),
    "erspan-1": (ipv4(gre(INNER_FRAME, 0x88BE), 47), "erspan", -1),
    "erspan-2": (ipv4(gre(b"\x10\x00" + bytes(6) + INNER_FRAME, 0x88BE, 0x1000, bytes(4)), 47), "erspan", -1),
    "erspan-3": (ipv4(gre(b"\x20\x00" + bytes(10) + INNER_FRAME, 0x22EB, 0x1000, bytes(4)), 47), "erspan", -1),
    "erspan-3-platform": (
        ipv4(gre(b"\x20\x00" + bytes(9) + b"\x01" + bytes(8) + INNER_FRAME, 0x22EB, 0x1000, bytes(4)), 47), "erspan", -1
    ),
    "vxlan": (ipv4(vxlan(INNER_FRAME)), "vxlan", 0x123456),
    "vxlan-padded": (ipv4(vxlan(INNER_FRAME + bytes(6))), "vxlan", 0x123456),
    "vxlan-8472": (ipv4(vxlan(INNER_FRAME, port=8472)), "vxlan", 0x123456),
    "vxlan-policy": (ipv6(vxlan(INNER_FRAME, flags=0x88000007)), "vxlan", 0x123456),
    "vxlan-network-0": (ipv4(vxlan(INNER_FRAME, vni=0)), "vxlan", 0),
    "vxlan-gpe": (ipv4(vxlan(INNER, flags=0x0C000001, port=4790)), "vxlan", 0x123456),
    "vxlan-gpe-nsh": (
        ipv4(vxlan(b"\x0f\xc2\x01\x01" + bytes(4) + INNER, flags=0x0C000004, port=4790)), "vxlan", 0x123456
    ),
    "geneve": (ipv4(geneve(INNER_FRAME)), "geneve", 77),
    "geneve-ip": (ipv4(geneve(INNER, 0x0800, bytes(8))), "geneve", 77),
    "gtp-u": (ipv4(gtp(INNER)), "gtp-u", -1),
    "gtp-u-sequence": (ipv4(gtp(INNER6, 0x32, options=bytes(4))), "gtp-u", -1),
    "gtp-u-extensions": (
        ipv4(gtp(INNER, 0x34, options=b"\x00\x00\x00\x85\x01\x10\x01\xc0\x01\x00\x00\x00")), "gtp-u", -1
    ),
}  # fmt: skip
"""Outer packet, kind, network id; inside is always TCP from port 1234 to port 80 with three octets."""


def parsed(
    octets: Sequence[bytes],
    link_type: int | Sequence[int] = 1,
    wire: Sequence[int] | None = None,
    surround: bytes = b"\xff",
    captured: Sequence[int] | None = None,
    **settings: Any,
) -> tuple[np.ndarray, list[str], bytes]:
    """Rows, reasons and payload prefixes of frames that lie in one buffer.

    Args:
        octets: The frames as captured.
        link_type: One of all frames, or one of each.
        wire: Their lengths on the wire, if they were cut.
        surround: The octet that fills the buffer between them.
        captured: How many of their octets count; the others lie in the buffer behind them, as bait.
        **settings: Of `HeaderSettings`.
    """
    frames = np.zeros(len(octets), capture_frames.FRAME)
    buffer = bytearray(surround * 64)
    for i, frame in enumerate(octets):
        stated = len(frame) if wire is None else wire[i]
        kind = link_type if isinstance(link_type, int) else link_type[i]
        frames[i] = (10**18 + i, len(buffer), len(frame) if captured is None else captured[i], stated, kind, 0)
        buffer += frame + surround * 64
    chosen = headers.HeaderSettings(**settings)
    packets = np.full(len(frames) * PACKET.itemsize, 0xA5, np.uint8).view(PACKET)  # every field must be written
    payloads = np.zeros(len(frames) * chosen.payload_octets, np.uint8)
    reasons = np.full(len(frames), 0xA5, np.uint8)
    count, kept = headers.parse(np.frombuffer(buffer, np.uint8), frames, chosen, packets, payloads, reasons)
    return packets[:count], [headers.REASONS[reason] for reason in reasons], payloads[:kept].tobytes()


def row(frame: bytes, link_type: int = 1, wire: int | None = None, **settings: Any) -> np.void:
    """The row of a frame that must be accepted."""
    packets, reasons, _ = parsed([frame], link_type, None if wire is None else [wire], **settings)
    assert reasons == [""]
    return packets[0]


def reason(frame: bytes, link_type: int = 1) -> str:
    """Why a frame is refused; empty if it is not."""
    return parsed([frame], link_type)[1][0]


def addresses(packet: np.void, prefix: str = "") -> tuple[str, str]:
    """Source and destination in text; `prefix` is empty or `outer_`."""
    numbers = [int(packet[f"{prefix}{side}_hi"]) << 64 | int(packet[f"{prefix}{side}_lo"]) for side in ("src", "dst")]
    texts = [ipaddress.IPv6Address(number) for number in numbers]
    return tuple(str(text.ipv4_mapped or text) for text in texts)  # type: ignore[return-value]


def ports(packet: np.void) -> tuple[int, int]:
    return int(packet["src_port"]), int(packet["dst_port"])

"""IPv4 and IPv6 headers, extension headers included.

What counts as damaged is in `read_ip_header`. Everything behind the header that a packet's own lengths or the capture
cut off is no damage: it is measured by the headers.
"""

import numpy as np

from sources.byte_order import be16, be32, be64
from transforms.kernel import kernel_part
from transforms.records import FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, TCP

IP_HEADER = np.dtype(
    [
        ("at", "i8"),  # where the header begins
        ("inside_at", "i8"),  # where what it carries begins: `at` + header with extensions
        ("stop", "i8"),  # end of the packet by its own length, or of the capture if that is nearer
        ("octets", "i8"),  # total length of the packet
        ("version", "i8"),
        ("protocol", "i8"),  # after extension headers
        ("fragment", "i8"),  # FRAGMENT_*
        ("fragment_id", "i8"),
        ("cut", "i8"),  # 1 if an extension header is cut: `protocol` is the last that is known, the cut header's own
    ],
    align=True,
)
"""Where one IP packet lies, and what it carries."""

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NONE, _DESTINATION = 0, 43, 44, 51, 59, 60
_MOBILITY, _HOST_IDENTITY, _SHIM6 = 135, 139, 140
_EXTENSIONS_OCTETS = 60_000  # `ip_header_octets` has 16 bits
_LARGEST = 0xFFFFFFFF  # and `ip_octets` 32


@kernel_part
def read_ip_header(octets, at, end, wire_end, header):
    """Fills `header`; False if it is damaged.

    Damaged is: a version that is neither 4 nor 6, an IPv4 header length below 20, a total length below the header's, a
    header that is not whole in the capture (of IPv6 the fixed 40 octets). Length 0 with TCP was captured before the
    network card cut it into segments: such a packet reaches to the end of the frame on the wire, `wire_end`. In IPv6
    that is payload length 0 with a TCP header directly behind (Linux's "BIG TCP") and room for one.
    """
    if at >= end:
        return False
    version = octets[at] >> 4
    if version == 4:
        return _read_ipv4(octets, at, end, wire_end, header)
    return version == 6 and _read_ipv6(octets, at, end, wire_end, header)


@kernel_part
def _read_ipv4(octets, at, end, wire_end, header):
    if at + 20 > end:
        return False
    header_octets = (np.int64(octets[at]) & 15) * 4
    total = be16(octets, at + 2)
    protocol = np.int64(octets[at + 9])
    if total == 0 and protocol == TCP:
        total = min(wire_end - at, _LARGEST)
    if header_octets < 20 or total < header_octets or at + header_octets > end:
        return False
    header.at = at
    header.inside_at = at + header_octets
    header.stop = min(end, at + total)
    header.octets = total
    header.version = 4
    header.protocol = protocol
    header.fragment_id = be16(octets, at + 4)
    header.cut = 0
    place = be16(octets, at + 6) & 0x3FFF  # more fragments, offset
    header.fragment = FRAGMENT_NONE
    if place:
        header.fragment = FRAGMENT_FIRST if place == 0x2000 else FRAGMENT_LATER
    return True


@kernel_part
def _read_ipv6(octets, at, end, wire_end, header):
    if at + 40 > end:
        return False
    inside = be16(octets, at + 4)
    protocol = np.int64(octets[at + 6])
    if inside == 0 and protocol == _HOP_BY_HOP:
        inside = _jumbo_octets(octets, at + 40, end)
    elif inside == 0 and protocol == TCP and wire_end >= at + 60:
        inside = min(wire_end - at, _LARGEST) - 40
    header.at = at
    header.inside_at = at + 40
    header.stop = min(end, at + 40 + inside)
    header.octets = 40 + inside
    header.version = 6
    header.protocol = protocol
    header.fragment = FRAGMENT_NONE
    header.fragment_id = 0
    header.cut = 0
    if protocol != TCP and protocol != 17:
        _walk_extensions(octets, header)
    return True


@kernel_part
def _jumbo_octets(octets, at, end):
    """Payload length in a hop-by-hop header at `at` (RFC 2675); 0 without one."""
    if at + 2 > end:
        return 0
    end = min(end, at + 8 + 8 * np.int64(octets[at + 1]))
    at += 2
    while at + 2 <= end:
        if octets[at] == 0:  # one octet of padding
            at += 1
            continue
        if octets[at] == 0xC2 and octets[at + 1] == 4 and at + 6 <= end:
            length = be32(octets, at + 2)
            return length if 0xFFFF < length <= _LARGEST - 40 else 0
        at += 2 + np.int64(octets[at + 1])
    return 0


@kernel_part
def _walk_extensions(octets, header):
    """Steps over IPv6 extension headers, to what a later fragment or the last of them carries.

    The authentication header is one of them in IPv6 (RFC 8200 section 4; Zeek, Argus, Wireshark); in IPv4 it is a
    protocol of its own, 51, as for NFStream, nDPI, Arkime and Argus. Mobility, host identity and shim6 headers are
    messages by themselves unless something follows.
    """
    at, stop, protocol = header.inside_at, header.stop, header.protocol
    furthest = at + _EXTENSIONS_OCTETS
    while at < furthest:
        alone = protocol == _MOBILITY or protocol == _HOST_IDENTITY or protocol == _SHIM6
        if not (
            alone
            or protocol == _HOP_BY_HOP
            or protocol == _ROUTING
            or protocol == _FRAGMENT
            or protocol == _AUTHENTICATION
            or protocol == _DESTINATION
        ):
            break
        if at + 8 > stop:
            header.cut = 1
            break
        following, length = np.int64(octets[at]), np.int64(octets[at + 1])
        if alone and following == _NONE:
            break
        length = (length + 2) * 4 if protocol == _AUTHENTICATION else (length + 1) * 8
        if protocol == _FRAGMENT:
            length = 8
        if at + length > stop:
            header.cut = 1
            break
        if protocol == _FRAGMENT:
            place = be16(octets, at + 2) & 0xFFF9  # offset, more fragments; both 0 in an atomic one (RFC 6946)
            header.fragment_id = be32(octets, at + 4)
            if place:
                header.fragment = FRAGMENT_FIRST if place == 1 else FRAGMENT_LATER
        protocol = following
        at += length
        if header.fragment == FRAGMENT_LATER:
            break
    header.inside_at = at
    header.protocol = protocol


@kernel_part
def fill_ip(octets, header, packet):
    """Writes what the header says into `packet`."""
    at = header.at
    if header.version == 4:
        mapped = np.int64(0xFFFF) << 32
        packet.src_hi = np.uint64(0)
        packet.src_lo = np.uint64(mapped | be32(octets, at + 12))
        packet.dst_hi = np.uint64(0)
        packet.dst_lo = np.uint64(mapped | be32(octets, at + 16))
        packet.tos = octets[at + 1]
        packet.ttl = octets[at + 8]
    else:
        packet.src_hi = be64(octets, at + 8)
        packet.src_lo = be64(octets, at + 16)
        packet.dst_hi = be64(octets, at + 24)
        packet.dst_lo = be64(octets, at + 32)
        packet.tos = (be16(octets, at) >> 4) & 0xFF
        packet.ttl = octets[at + 7]
    packet.ip_version = header.version
    packet.ip_octets = header.octets
    packet.ip_header_octets = header.inside_at - at
    packet.protocol = header.protocol
    packet.fragment = header.fragment
    packet.fragment_id = header.fragment_id

"""Tunnels over IP: what lies behind the outer headers, if it is certainly a tunnel.

| kind | recognized by | opened if |
|---|---|---|
| `ip` | protocol 4, 41 | an IP header follows (IP-in-IP both ways, 6in4) |
| `gre` | protocol 47, version 0 (RFC 2784, 2890) or 1 (RFC 2637) | IP, Ethernet (NVGRE), MPLS or PPP with IP follows |
| `erspan` | GRE protocol 0x88be (types I, II), 0x22eb (type III) | Ethernet with IP follows |
| `vxlan` | UDP to 4789, 8472 (RFC 7348) or 4790 (GPE), network id valid | IP or Ethernet with IP fits |
| `geneve` | UDP to 6081 (RFC 8926), version 0, reserved bits 0 | IP or Ethernet with IP fits |
| `gtp-u` | UDP to or from 2152, version 1, message 255 (TS 29.281), its length fits | IP that fits follows |

Under UDP, where a port is all the evidence, "fits" means that the inner packet by its own length is not longer than the
datagram. A fragmented outer packet stays closed.
"""

import numpy as np

from sources.byte_order import be16, be24
from sources.ethertypes import ETHERNET, ETHERTYPE, IP, NOT_IP, by_ethertype, find_ip, reset
from sources.ip_headers import read_ip_header
from transforms.kernel import kernel_part
from transforms.records import (
    FRAGMENT_NONE,
    TUNNEL_ERSPAN,
    TUNNEL_GENEVE,
    TUNNEL_GRE,
    TUNNEL_GTP_U,
    TUNNEL_IP,
    TUNNEL_NONE,
    TUNNEL_VXLAN,
    UDP,
)

TUNNELS_OPENED = 8
"""Of one packet, at most; what is deeper stays closed."""

INSIDE = np.dtype(
    [
        ("kind", "i8"),  # TUNNEL_*
        ("vni", "i8"),  # network id, or -1
        ("at", "i8"),  # where the inside begins
        ("outermost", "i8"),  # kind of the outermost tunnel that was opened
        ("outermost_vni", "i8"),  # of the outermost VXLAN or Geneve that was opened, or -1
    ],
    align=True,
)
"""A tunnel that may be opened, and what is known of those that were."""

_VXLAN, _VXLAN_LINUX, _VXLAN_GPE, _GENEVE, _GTP_U = 4789, 8472, 4790, 6081, 2152


@kernel_part
def may_be_tunnel(octets, ip):
    """Whether `open_tunnel` is worth a call: the quick answer for most packets."""
    protocol = ip.protocol
    if protocol != UDP:
        return protocol == 47 or protocol == 4 or protocol == 41
    at = ip.inside_at
    if at + 8 > ip.stop:
        return False
    port = be16(octets, at + 2)
    return (
        port == _VXLAN
        or port == _VXLAN_LINUX
        or port == _VXLAN_GPE
        or port == _GENEVE
        or port == _GTP_U
        or be16(octets, at) == _GTP_U
    )


@kernel_part
def open_tunnels(octets, opened, headers, links, inside):
    """Opens tunnels from the IP header `headers[0]` inwards; returns which of `headers` holds the innermost.

    `opened` has the bit 1 << TUNNEL_* of each kind that may be opened. `inside` holds the kind of the outermost tunnel
    then, and the network id of the outermost that has one. `links[0]` is the frame's: the VLAN of Ethernet inside a
    tunnel becomes its VLAN if it has none.
    """
    current = 0
    inside.outermost = TUNNEL_NONE
    inside.outermost_vni = -1
    link = links[1]
    for _ in range(TUNNELS_OPENED):
        outer, inner = headers[current], headers[1 - current]
        if not may_be_tunnel(octets, outer) or outer.fragment != FRAGMENT_NONE or outer.cut:
            break
        reset(link)
        _find_inside(octets, outer, inside, link)
        if link.layer == NOT_IP or not (opened >> inside.kind) & 1:
            break
        at = find_ip(octets, inside.at, outer.stop, link)
        end_of_outer = outer.at + outer.octets
        if at < 0 or not read_ip_header(octets, at, outer.stop, end_of_outer, inner):
            break
        if outer.protocol == UDP and at + inner.octets > end_of_outer:
            break
        if inside.outermost == TUNNEL_NONE:
            inside.outermost = inside.kind
        if inside.outermost_vni < 0:
            inside.outermost_vni = inside.vni
        if links[0].vlan_id == 0:
            links[0].vlan_id = link.vlan_id
        current = 1 - current
    return current


@kernel_part
def _find_inside(octets, outer, inside, link):
    """Names in `link` the layer that the packet `outer` carries, and in `inside` where it begins."""
    at, stop = outer.inside_at, outer.stop
    inside.kind = TUNNEL_NONE
    inside.vni = -1
    if outer.protocol == 4 or outer.protocol == 41:
        inside.kind = TUNNEL_IP
        inside.at = at
        link.layer = IP
    elif outer.protocol == 47:
        _open_gre(octets, at, stop, inside, link)
    elif at + 16 <= stop:
        port = be16(octets, at + 2)
        if port == _GENEVE:
            _open_geneve(octets, at + 8, inside, link)
        elif port == _VXLAN or port == _VXLAN_LINUX or port == _VXLAN_GPE:
            _open_vxlan(octets, at + 8, port == _VXLAN_GPE, inside, link)
        else:
            _open_gtp_u(octets, at + 8, stop, outer.at + outer.octets, inside, link)


@kernel_part
def _open_gre(octets, at, stop, inside, link):
    if at + 4 > stop:
        return
    flags, protocol = be16(octets, at), be16(octets, at + 2)
    if flags & 0x4000 or (flags & 7) > 1:  # source routes (RFC 1701), unknown version
        return
    options = (flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1)  # checksum, key, sequence
    if flags & 7 == 1:
        options += flags >> 7 & 1  # acknowledgement
    at += 4 + 4 * options
    inside.kind = TUNNEL_GRE
    if protocol == 0x88BE or protocol == 0x22EB:
        inside.kind = TUNNEL_ERSPAN
        if protocol == 0x22EB:
            if at + 12 > stop or octets[at] >> 4 != 2:
                return
            at += 20 if octets[at + 11] & 1 else 12  # with or without the platform's own header
        elif flags & 0x1000:  # type II has a sequence number and a header of its own, type I neither
            if at + 8 > stop or octets[at] >> 4 != 1:
                return
            at += 8
        link.layer = ETHERNET
    elif protocol == 0x8909 and at + 8 <= stop:  # Cisco metadata, which has the inner protocol in front here
        by_ethertype(link, be16(octets, at))
        at += 8
    elif protocol == 0x883E and at < stop:  # WCCP: IP, in version 2 behind a header of four octets
        link.layer = IP
        at += 0 if octets[at] >> 4 == 4 else 4
    elif protocol > 1500:
        by_ethertype(link, protocol)
    inside.at = at


@kernel_part
def _open_vxlan(octets, at, generic, inside, link):
    """Reserved bits are ignored, as RFC 7348 demands; captures hold tunnels that set them."""
    flags = octets[at]
    if not flags & 8:
        return
    inside.kind = TUNNEL_VXLAN
    inside.vni = be24(octets, at + 4)
    inside.at = at + 8
    link.layer = ETHERNET
    if generic and flags & 4:  # the next protocol is stated: IPv4, IPv6, Ethernet, NSH
        following = octets[at + 3]
        if following == 1 or following == 2:
            link.layer = IP
        elif following == 4:
            link.ethertype = 0x894F
            link.layer = ETHERTYPE
        elif following != 3:
            link.layer = NOT_IP


@kernel_part
def _open_geneve(octets, at, inside, link):
    if octets[at] >> 6 != 0 or octets[at + 1] & 0x3F or octets[at + 7] != 0:
        return
    inside.kind = TUNNEL_GENEVE
    inside.vni = be24(octets, at + 4)
    inside.at = at + 8 + 4 * (np.int64(octets[at]) & 63)
    if be16(octets, at + 2) > 1500:
        by_ethertype(link, be16(octets, at + 2))


@kernel_part
def _open_gtp_u(octets, at, stop, end_of_outer, inside, link):
    flags = octets[at]
    end = at + 8 + be16(octets, at + 2)
    if (flags & 0xF8) != 0x30 or octets[at + 1] != 255 or end > end_of_outer:
        return
    at += 8
    if flags & 7:  # extension headers, sequence or N-PDU numbers: the four octets are there for each of them
        if at + 4 > stop:
            return
        following = octets[at + 3] if flags & 4 else 0
        at += 4
        while following != 0:
            if at >= stop or octets[at] == 0:
                return
            at += 4 * np.int64(octets[at])
            if at > stop:
                return
            following = octets[at - 1]
    if at > end:
        return
    inside.kind = TUNNEL_GTP_U
    inside.at = at
    link.layer = IP

"""Transport headers: ports, TCP's fields, lengths.

| protocol | header | whole if |
|---|---|---|
| TCP | data offset | that is 20 octets or more, captured, within the IP length |
| UDP | 8 | captured; its length is 0 (jumbogram, offload) or at least 8 |
| UDP-Lite, ICMP, ICMPv6 | 8 | captured |
| SCTP | 12, the common header | captured |
| DCCP | data offset | that is 12 octets or more (16 with long sequence numbers), captured, within the IP length |
| any other | 0 | no transport header here |

A header that is not whole is measured all the same: by its data offset if that was captured and is possible, else by
the shortest header of its protocol, as far as the IP length goes.
"""

import numpy as np

from sources.byte_order import be16, be32
from transforms.identity import icmp_ports
from transforms.kernel import kernel_part
from transforms.records import (
    DCCP,
    FRAGMENT_LATER,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    TRANSPORT_NONE,
    TRANSPORT_TRUNCATED,
    TRANSPORT_WHOLE,
    UDP,
    UDP_LITE,
)

_SHORTEST = np.zeros(256, np.int64)
for _protocol, _octets in ((TCP, 20), (UDP, 8), (UDP_LITE, 8), (ICMP, 8), (ICMPV6, 8), (SCTP, 12), (DCCP, 12)):
    _SHORTEST[_protocol] = _octets


@kernel_part
def fill_transport(octets, ip, packet):
    """Writes the transport header behind the IP header `ip` into `packet`; returns where its payload begins."""
    at, stop = ip.inside_at, ip.stop
    packet.tcp_seq = 0
    packet.tcp_ack = 0
    packet.tcp_window = 0
    packet.tcp_flags = 0
    packet.src_port = 0
    packet.dst_port = 0
    protocol = ip.protocol
    inside = ip.octets - (at - ip.at)
    header_octets = _SHORTEST[protocol]
    if ip.fragment == FRAGMENT_LATER or (header_octets == 0 and not ip.cut):
        packet.transport = TRANSPORT_NONE
        packet.header_octets = 0
        packet.payload_octets = inside
        return at
    whole = at + header_octets <= stop
    if ip.cut:
        header_octets = 0
        whole = False
    elif protocol == TCP:
        if at + 13 <= stop:
            stated = (np.int64(octets[at + 12]) >> 4) * 4
            if 20 <= stated <= inside:
                header_octets = stated
            whole = stated >= 20 and at + stated <= stop
        if whole:
            packet.tcp_seq = be32(octets, at + 4)
            packet.tcp_ack = be32(octets, at + 8)
            packet.tcp_flags = octets[at + 13]
            packet.tcp_window = be16(octets, at + 14)
    elif protocol == UDP:
        whole = whole and (be16(octets, at + 4) == 0 or be16(octets, at + 4) >= 8)
    elif protocol == DCCP and at + 9 <= stop:
        stated = np.int64(octets[at + 4]) * 4
        shortest = 16 if octets[at + 8] & 1 else 12
        if shortest <= stated <= inside:
            header_octets = stated
        whole = shortest <= stated and at + stated <= stop
    header_octets = min(header_octets, inside)
    if not ip.cut:
        _fill_ports(octets, at, stop, protocol, packet)
    packet.transport = TRANSPORT_WHOLE if whole else TRANSPORT_TRUNCATED
    packet.header_octets = header_octets
    packet.payload_octets = inside - header_octets
    return at + header_octets


@kernel_part
def _fill_ports(octets, at, stop, protocol, packet):
    """Ports, or ICMP's type and code in their place; 0 unless both were captured."""
    if protocol == ICMP or protocol == ICMPV6:
        if at + 2 <= stop:
            packet.src_port, packet.dst_port = icmp_ports(protocol, np.int64(octets[at]), np.int64(octets[at + 1]))
    elif at + 4 <= stop:
        packet.src_port = be16(octets, at)
        packet.dst_port = be16(octets, at + 2)

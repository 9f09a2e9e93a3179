"""The link types of captures: from the first octet of a frame to the layer that may carry IP.

A link type is a row of `LINK_TYPES`: a layer and the octets before it. Layers of `ethertypes` are common to many; those
below belong to one link type each. What is not listed carries no IP. A step never reads at or beyond `end`.
"""

import numpy as np

from sources.byte_order import be16, be24, be32, be48, le16, le32
from sources.ethertypes import (
    CISCO_HDLC,
    ETHERNET,
    FRAME_RELAY,
    IP,
    LLC,
    NOT_IP,
    PPP,
    PPPOE,
    by_ethertype,
    looks_like_ip,
    open_dsa_tag,
    reset,
    set_macs,
)
from transforms.kernel import kernel_part

(
    FAMILY, FAMILY_LONG, PFLOG, SLL, SLL2, NFLOG, SLIP, FDDI, TOKEN_RING, ARCNET, ATM_CLIP, SUN_ATM, IPNET, IEEE1394,
    INFINIBAND, MULTILINK_FRAME_RELAY, DSA, BROADCOM_TAG, PREAMBLE, PKTAP, PPI, IEEE80211, RADIOTAP, PRISM, AVS,
    JUNIPER, JUNIPER_ETHERNET, JUNIPER_PPP, JUNIPER_FRAME_RELAY, JUNIPER_CISCO_HDLC,
) = range(32, 62)  # fmt: skip

LINK_TYPES = {
    0: (FAMILY, 4), 1: (ETHERNET, 0), 6: (TOKEN_RING, 14), 7: (ARCNET, 3), 8: (SLIP, 16), 9: (PPP, 0), 10: (FDDI, 13),
    11: (LLC, 0), 12: (IP, 0), 14: (IP, 0), 19: (ATM_CLIP, 0), 50: (PPP, 0), 51: (PPPOE, 0), 100: (LLC, 0),
    101: (IP, 0), 104: (CISCO_HDLC, 0), 105: (IEEE80211, 0), 106: (ATM_CLIP, 0), 107: (FRAME_RELAY, 0),
    108: (FAMILY, 4), 109: (FAMILY_LONG, 12), 113: (SLL, 16), 117: (PFLOG, 4), 119: (PRISM, 8), 122: (LLC, 16),
    123: (SUN_ATM, 4), 127: (RADIOTAP, 8), 129: (ARCNET, 5), 130: (JUNIPER, 0), 131: (JUNIPER, 0), 132: (JUNIPER, 0),
    133: (JUNIPER, 0), 134: (JUNIPER, 0), 135: (JUNIPER, 0), 136: (JUNIPER, 0), 137: (JUNIPER, 0),
    138: (IEEE1394, 18), 149: (PKTAP, 12), 163: (AVS, 8), 164: (JUNIPER, 0), 178: (JUNIPER_ETHERNET, 0),
    179: (JUNIPER_PPP, 0), 180: (JUNIPER_FRAME_RELAY, 0), 181: (JUNIPER_CISCO_HDLC, 0),
    182: (MULTILINK_FRAME_RELAY, 2), 192: (PPI, 8), 194: (JUNIPER, 0), 204: (PPP, 1), 205: (CISCO_HDLC, 1),
    206: (FRAME_RELAY, 1), 226: (IPNET, 24), 228: (IP, 0), 229: (IP, 0), 239: (NFLOG, 4), 240: (ETHERNET, 4),
    241: (ETHERNET, 12), 242: (INFINIBAND, 44), 258: (PKTAP, 12), 259: (ETHERNET, 8), 274: (PREAMBLE, 0),
    276: (SLL2, 20), 281: (BROADCOM_TAG, 18), 282: (ETHERNET, 4), 284: (DSA, 18), 285: (ETHERNET, 0),
}  # fmt: skip
"""LINKTYPE_* number (tcpdump.org/linktypes.html) to a layer and the octets of the fixed header before it.

149 is PKTAP as macOS wrote it into a number for private use.
"""

_LAYER = np.full(512, NOT_IP, np.int64)
_HEADER = np.zeros(512, np.int64)
for _link_type, (_layer, _header) in LINK_TYPES.items():
    _LAYER[_link_type], _HEADER[_link_type] = _layer, _header


@kernel_part
def _enter(at, end, link_type, link):
    """Names the layer of a frame of `link_type` that begins at `at`; returns where its fixed header ends."""
    link.layer = NOT_IP
    if 0 <= link_type < len(_LAYER) and at + _HEADER[link_type] <= end:
        link.layer = _LAYER[link_type]
        at += _HEADER[link_type]
    return at


@kernel_part
def _open_family(octets, at, header, link):
    """BSD's loopback family, of either byte order; some tools write an Ethertype instead, or PPP."""
    family_at = at - header
    family = le32(octets, family_at)
    if family > 0xFFFF:
        family = be32(octets, family_at)
    if family == 2 or family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
        link.layer = IP
    elif 0x600 <= family <= 0xFFFF:
        by_ethertype(link, family)
    elif be16(octets, family_at) == 0xFF03 or be16(octets, family_at) == 0x0F00:  # as HDLC frames them
        link.layer = PPP
        return family_at
    return at


@kernel_part
def _open_cooked(at, end, hardware, protocol, link):
    """Linux "any" captures: the device's ARPHRD_* number decides where the protocol is not an Ethertype."""
    if hardware == 824:  # netlink
        return at
    if 801 <= hardware <= 803:
        return _enter(at, end, 105 if hardware == 801 else 119 if hardware == 802 else 127, link)
    if hardware == 770:
        link.layer = FRAME_RELAY
    elif protocol > 1500 or protocol == 4:  # 4 is LLC
        by_ethertype(link, protocol)
    return at


@kernel_part
def _open_nflog(octets, at, end, link):
    """Linux netfilter log: attributes of {length, type}, padded to four octets; number 9 is the packet."""
    if octets[at - 3] != 0 or (octets[at - 4] != 2 and octets[at - 4] != 10):  # version, family
        return at
    while at + 4 <= end:
        length, kind = le16(octets, at), le16(octets, at + 2)
        if length < 4:
            return at
        if kind & 0x7FFF == 9:
            link.layer = IP
            return at + 4
        at += (length + 3) & ~3
    return at


@kernel_part
def _open_arcnet(octets, at, end, link):
    """`at` is behind the type: RFC 1201 has flag and sequence before the packet, RFC 1051 (types 240, 241) has not."""
    kind = octets[at - 1]
    if kind == 240:
        link.layer = IP
    elif (kind == 212 or kind == 196) and at + 7 <= end:
        if octets[at] == 0xFF:  # an exception frame: three octets of padding, then flag and sequence
            at += 4
        if octets[at] == 0:  # not split
            link.layer = IP
        at += 3
    return at


@kernel_part
def _open_juniper(octets, at, end, layer, link):
    """Juniper's capture header: magic, flags, perhaps extensions; without a link header the packet follows a family."""
    if at + 6 > end or be24(octets, at) != 0x4D4743:
        return at
    flags = octets[at + 3]
    at += 6 + be16(octets, at + 4) if flags & 0x80 else 4
    if flags & 2:
        at += 4
        link.layer = IP if looks_like_ip(octets, at, end) else NOT_IP
    elif layer == JUNIPER:
        link.layer = IP if looks_like_ip(octets, at, end) else NOT_IP
    elif layer == JUNIPER_ETHERNET:
        link.layer = ETHERNET
    elif layer == JUNIPER_PPP:
        link.layer = PPP
    else:
        link.layer = FRAME_RELAY if layer == JUNIPER_FRAME_RELAY else CISCO_HDLC
    return at


@kernel_part
def _radiotap_pads(octets, at, end):
    """Whether radiotap's flags say that the 802.11 header is padded to four octets."""
    present, fields_at = le32(octets, at + 4), at + 8
    more = present
    while more & 0x80000000 and fields_at + 4 <= end:
        more = le32(octets, fields_at)
        fields_at += 4
    if not present & 2:
        return False
    if present & 1:  # the time stamp, aligned to eight octets
        fields_at = at + ((fields_at - at + 7) & ~7) + 8
    return fields_at < end and (octets[fields_at] & 0x20) != 0


@kernel_part
def _open_ieee80211(octets, at, end, link):
    """An 802.11 data frame that is not encrypted; of an aggregate (A-MSDU) the first packet."""
    if at + 24 > end or (octets[at] & 0x0F) != 8 or (octets[at] & 0x40) or (octets[at + 1] & 0x40):
        return at  # another type than data, without data, or encrypted
    to_distribution, from_distribution = octets[at + 1] & 1, octets[at + 1] & 2
    header = 30 if to_distribution and from_distribution else 24
    aggregate = False
    if octets[at] & 0x80:
        if at + header + 2 > end:
            return at
        aggregate = (octets[at + header] & 0x80) != 0
        header += 2
        if octets[at + 1] & 0x80:
            header += 4
    if link.padded:
        header = (header + 3) & ~3
    if at + header > end:
        return at
    src_at = at + 10
    if from_distribution:
        src_at = at + 24 if to_distribution else at + 16
    set_macs(octets, link, at + 16 if to_distribution else at + 4, src_at)
    link.layer = LLC
    return at + header + (14 if aggregate else 0)


@kernel_part
def _open_wrapped(octets, at, end, layer, link):
    """Capture headers before a frame of a link type that they name (PKTAP, PPI) or imply (Prism, AVS)."""
    inside = 105
    if layer == PKTAP:
        start, length, inside = at - 12, le32(octets, at - 12), le32(octets, at - 4)
        if le32(octets, at - 8) != 1:  # no packet follows
            return at
    elif layer == PPI:
        start, length, inside = at - 8, le16(octets, at - 6), le32(octets, at - 4)
    else:
        start, length = at - 8, 144
        if be32(octets, start) & 0xFFFFF000 == 0x80211000:  # AVS, also where Prism is announced
            length = be32(octets, start + 4)
    if start + length < at:
        return at
    return _enter(start + length, end, inside, link)


@kernel_part
def _open_fixed(octets, at, end, layer, link):
    """Link types whose fixed header, just before `at`, says it all."""
    if layer == SLL or layer == SLL2:
        address_at = at - 10 if layer == SLL else at - 8
        octets_of_address = be16(octets, at - 12) if layer == SLL else np.int64(octets[at - 9])
        if octets_of_address == 6:
            link.src_mac = np.uint64(be48(octets, address_at))
        if layer == SLL:
            return _open_cooked(at, end, be16(octets, at - 14), be16(octets, at - 2), link)
        return _open_cooked(at, end, be16(octets, at - 12), be16(octets, at - 20), link)
    elif layer == FDDI:
        set_macs(octets, link, at - 12, at - 6)
        link.layer = LLC if (octets[at - 13] & 0xF0) == 0x50 else NOT_IP
    elif layer == TOKEN_RING:
        set_macs(octets, link, at - 12, at - 6)
        link.src_mac &= np.uint64(0x7FFFFFFFFFFF)  # the first bit announces source routing
        link.layer = LLC if (octets[at - 13] & 0xC0) == 0x40 else NOT_IP
        if octets[at - 6] & 0x80 and at < end:
            at += np.int64(octets[at]) & 31
    elif layer == DSA or layer == BROADCOM_TAG:
        set_macs(octets, link, at - 18, at - 12)
        if layer == DSA:
            open_dsa_tag(octets, at - 6, link)
        by_ethertype(link, be16(octets, at - 2))
    elif layer == SLIP:  # direction, then the first octet as sent: an IP header, or one compressed by RFC 1144
        if octets[at - 16] <= 1 and octets[at - 15] >= 0x40:
            link.layer = IP
    elif layer == IPNET:
        if octets[at - 23] == 2 or octets[at - 23] == 26:  # Solaris's AF_INET, AF_INET6
            link.layer = IP
    elif layer == PFLOG:  # its length, rounded up to words; the family
        family = octets[at - 3]
        if octets[at - 4] >= 4 and (family == 2 or family == 24 or family == 30):
            link.layer = IP
            at += ((np.int64(octets[at - 4]) + 3) & ~3) - 4
    elif layer == SUN_ATM:
        kind = octets[at - 4] & 15
        link.layer = LLC if kind == 2 else ETHERNET if kind == 1 else NOT_IP
        if kind == 1:  # LAN emulation: two octets of client id
            at += 2
    elif layer == MULTILINK_FRAME_RELAY:  # FRF.16: begin and end set, control not: a whole frame
        link.layer = FRAME_RELAY if (octets[at - 2] & 0xE1) == 0xC1 else NOT_IP
    return at


@kernel_part
def open_frame(octets, at, end, link_type, link):
    """Opens what is peculiar to a frame of `link_type` in `[at, end)`; names the layer that `find_ip` goes on with."""
    reset(link)
    at = _enter(at, end, link_type, link)
    for _ in range(4):
        layer = link.layer
        if layer < FAMILY:
            break
        link.layer = NOT_IP
        if layer == FAMILY or layer == FAMILY_LONG:
            at = _open_family(octets, at, 4 if layer == FAMILY else 12, link)
        elif layer == IEEE1394 or layer == INFINIBAND:
            by_ethertype(link, be16(octets, at - 2 if layer == IEEE1394 else at - 4))
        elif layer == IEEE80211:
            at = _open_ieee80211(octets, at, end, link)
        elif layer == RADIOTAP:
            if octets[at - 8] != 0 or le16(octets, at - 6) < 8 or at - 8 + le16(octets, at - 6) > end:
                break
            link.padded = _radiotap_pads(octets, at - 8, end)
            at += le16(octets, at - 6) - 8
            link.layer = IEEE80211
        elif layer == PKTAP or layer == PPI or layer == PRISM or layer == AVS:
            at = _open_wrapped(octets, at, end, layer, link)
        elif layer == NFLOG:
            at = _open_nflog(octets, at, end, link)
        elif layer == ARCNET:
            at = _open_arcnet(octets, at, end, link)
        elif layer >= JUNIPER:
            at = _open_juniper(octets, at, end, layer, link)
        elif layer == ATM_CLIP:
            link.layer = IP if looks_like_ip(octets, at, end) else LLC
        elif layer == PREAMBLE:  # up to seven octets of preamble and one that ends it
            for _ in range(8):
                at += 1
                if at >= end or octets[at - 1] != 0x55:
                    break
            link.layer = ETHERNET
        else:
            at = _open_fixed(octets, at, end, layer, link)
    return at

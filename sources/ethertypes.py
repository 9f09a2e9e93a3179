"""The layers that stack between a link's own header and IP: Ethernet and its tags, MPLS, LLC, PPP, frame relay.

They are peeled one by one: a step looks at one header, names the next layer in `link` and returns where it begins. A
step never reads at or beyond `end`; a header that is cut there, or carries something else, ends the search. The same
steps serve a captured frame and the inside of a tunnel.
"""

import numpy as np

from sources.byte_order import be16, be24, be48
from transforms.kernel import kernel_part

LINK = np.dtype(
    [
        ("layer", "i8"),  # what begins where the last step ended
        ("ethertype", "i8"),  # for the layer ETHERTYPE
        ("padded", "i8"),  # 1 if radiotap says that the 802.11 header is padded to four octets
        ("vlan_id", "i8"),  # of the outermost 802.1Q tag that names a VLAN (a priority tag has 0); 0 so far
        ("src_mac", "u8"),  # of the outermost MAC header; 0 so far
        ("dst_mac", "u8"),
    ],
    align=True,
)
"""What is known of a frame while its layers are peeled."""

NOT_IP, IP, ETHERNET, ETHERTYPE, LLC, PPP, CISCO_HDLC, FRAME_RELAY, PPPOE = range(9)
"""What a step may name next. `IP` says that an IP header is claimed, not that it is sound."""

LAYERS_OPENED = 24
"""More layers than any network stacks; what is deeper is not IP."""

_IPV4, _IPV6, _MPLS, _MPLS_UPSTREAM, _PPP, _BRIDGED = 0x0800, 0x86DD, 0x8847, 0x8848, 0x880B, 0x6558
_NLPID_IPV4, _NLPID_IPV6, _NLPID_SNAP = 0xCC, 0x8E, 0x80


@kernel_part
def reset(link):
    """Forgets the frame before."""
    link.layer = NOT_IP
    link.ethertype = 0
    link.padded = 0
    link.vlan_id = 0
    link.src_mac = 0
    link.dst_mac = 0


@kernel_part
def set_macs(octets, link, dst_at, src_at):
    """Keeps the outermost MAC addresses, each of six octets."""
    if link.src_mac == 0 and link.dst_mac == 0:
        link.dst_mac = np.uint64(be48(octets, dst_at))
        link.src_mac = np.uint64(be48(octets, src_at))


@kernel_part
def set_vlan(link, tag):
    """Keeps the outermost VLAN."""
    if link.vlan_id == 0:
        link.vlan_id = tag & 0xFFF


@kernel_part
def is_vlan_tag(ethertype):
    """802.1Q, 802.1ad, and the numbers that were used for the outer of two tags before it."""
    return (
        ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100 or ethertype == 0x9200 or ethertype == 0x9300
    )


@kernel_part
def by_ethertype(link, ethertype):
    """What follows is what `ethertype` says, or LLC where it is a length (IEEE 802.3)."""
    link.ethertype = ethertype
    if ethertype == _IPV4 or ethertype == _IPV6:
        link.layer = IP
    elif ethertype <= 1500:
        link.layer = LLC
    else:
        link.layer = ETHERTYPE


@kernel_part
def _by_nlpid(octets, at, end, link):
    """The network layer protocol identifier of ISO/IEC TR 9577, as frame relay and LLC carry it (RFC 2427)."""
    if at < end and octets[at] == 0:  # one octet of padding
        at += 1
    if at >= end:
        return at
    nlpid = octets[at]
    if nlpid == _NLPID_IPV4 or nlpid == _NLPID_IPV6:
        link.layer = IP
        return at + 1
    if nlpid == _NLPID_SNAP:
        return _by_snap(octets, at + 1, end, link)
    return at


@kernel_part
def _by_snap(octets, at, end, link):
    """Organization and protocol: Ethertypes, or bridged Ethernet (RFC 2684; two octets of padding over ATM)."""
    if at + 5 > end:
        return at
    organization, protocol = be24(octets, at), be16(octets, at + 3)
    if organization == 0x0080C2 and (protocol == 1 or protocol == 7):
        at += 5
        if at + 2 <= end and be16(octets, at) == 0:
            at += 2
        link.layer = ETHERNET
        return at
    if (organization == 0 or organization == 0x0000F8) and protocol > 1500:
        by_ethertype(link, protocol)
        return at + 5
    return at


@kernel_part
def _open_llc(octets, at, end, link):
    """IEEE 802.2: SNAP, IP's own service access point, or an NLPID."""
    if at + 3 > end or octets[at + 2] != 3:  # only unnumbered information carries IP
        return at
    access_point = be16(octets, at)
    if access_point == 0xAAAA:
        return _by_snap(octets, at + 3, end, link)
    if access_point == 0x0606:
        link.layer = IP
        return at + 3
    if access_point == 0xFEFE:
        return _by_nlpid(octets, at + 3, end, link)
    return at


@kernel_part
def _open_ppp(octets, at, end, link):
    """RFC 1661, 1662, with or without HDLC framing and protocol compression; Cisco HDLC where its address says so."""
    if at + 4 <= end and (be16(octets, at) == 0x0F00 or be16(octets, at) == 0x8F00):
        link.layer = CISCO_HDLC
        return at
    if at + 2 <= end and be16(octets, at) == 0xFF03:
        at += 2
    if at + 2 > end:
        return at
    if octets[at] & 1:
        protocol = np.int64(octets[at])
        at += 1
    else:
        protocol = be16(octets, at)
        at += 2
    if protocol == 0x0021 or protocol == 0x0057:
        link.layer = IP
    elif protocol == 0x0281 or protocol == 0x0283:
        link.ethertype = _MPLS
        link.layer = ETHERTYPE
        return at
    elif protocol == 0x0031 and at + 2 <= end and octets[at + 1] == 1:  # bridged Ethernet (RFC 3518)
        link.layer = ETHERNET
        at += 2
    return at


@kernel_part
def _open_frame_relay(octets, at, end, link):
    """Q.922 address of two to four octets, then an NLPID (RFC 2427) or Cisco's Ethertype."""
    for _ in range(4):
        if at >= end:
            return at
        at += 1
        if octets[at - 1] & 1:
            break
    if at + 2 > end:
        return at
    if octets[at] == 3:
        return _by_nlpid(octets, at + 1, end, link)
    if be16(octets, at) > 1500:
        by_ethertype(link, be16(octets, at))
        return at + 2
    return at


@kernel_part
def looks_like_ip(octets, at, end):
    """Whether a sound IP header begins here, for layers that do not say what they carry."""
    if at + 20 > end:
        return False
    version = octets[at] >> 4
    if version == 4:
        return (octets[at] & 15) >= 5 and be16(octets, at + 2) >= 4 * (np.int64(octets[at]) & 15)
    return version == 6 and at + 40 <= end


@kernel_part
def _open_mpls(octets, at, end, link):
    """RFC 3032. Under the last label IP, or a pseudowire's Ethernet, with control word (RFC 4385) or without."""
    bottom = False
    while not bottom:
        if at + 4 > end:
            return at
        bottom = (octets[at + 2] & 1) != 0
        at += 4
    if looks_like_ip(octets, at, end):
        link.layer = IP
        return at
    if at + 18 <= end and (octets[at] >> 4) == 0 and _is_ethernet_with_ip(octets, at + 4, end):
        link.layer = ETHERNET
        return at + 4
    if _is_ethernet_with_ip(octets, at, end):
        link.layer = ETHERNET
    return at


@kernel_part
def _is_ethernet_with_ip(octets, at, end):
    """Whether untagged or tagged Ethernet that claims IP begins here."""
    at += 12
    for _ in range(3):
        if at + 2 > end:
            return False
        ethertype = be16(octets, at)
        if ethertype == _IPV4 or ethertype == _IPV6:
            return True
        if not is_vlan_tag(ethertype):
            return False
        at += 4
    return False


@kernel_part
def _open_pppoe(octets, at, end, link):
    """A PPPoE session packet (RFC 2516): version 1, type 1, code 0."""
    if at + 8 > end or octets[at] != 0x11 or octets[at + 1] != 0:
        return at
    link.layer = PPP
    return at + 6


@kernel_part
def _open_nsh(octets, at, end, link):
    """Network service header (RFC 8300): length in words, next protocol."""
    if at + 8 > end:
        return at
    inside, length = octets[at + 3], (np.int64(octets[at + 1]) & 63) * 4
    if length < 8:
        return at
    if inside == 1 or inside == 2:
        link.layer = IP
    elif inside == 3:
        link.layer = ETHERNET
    elif inside == 5:
        link.ethertype = _MPLS
        link.layer = ETHERTYPE
        return at + length
    return at + length


@kernel_part
def _open_macsec(octets, at, end, link):
    """IEEE 802.1AE that protects but does not encrypt: SecTAG of 6 octets, 8 more with an explicit channel."""
    if at + 16 > end or octets[at] & 0x8C:  # another version, encrypted or changed
        return at
    at += 14 if octets[at] & 0x20 else 6
    by_ethertype(link, be16(octets, at))
    return at + 2


@kernel_part
def _open_ethertype(octets, at, end, link):
    """One header that `link.ethertype` announces; `at` is just behind the Ethertype."""
    ethertype = link.ethertype
    if ethertype == _MPLS or ethertype == _MPLS_UPSTREAM:
        return _open_mpls(octets, at, end, link)
    if ethertype == 0x8864:
        return _open_pppoe(octets, at, end, link)
    if ethertype == 0x894F:
        return _open_nsh(octets, at, end, link)
    if ethertype == 0x88E5:
        return _open_macsec(octets, at, end, link)
    if ethertype == _PPP:
        link.layer = PPP
    elif ethertype == _BRIDGED:
        link.layer = ETHERNET
    elif ethertype == 0x8870:  # LLC in a jumbo frame
        link.layer = LLC
    elif ethertype == 0x6559:
        link.layer = FRAME_RELAY
    elif ethertype == 0x88E7 or ethertype == 0x8903:  # backbone service tag (802.1ah), FabricPath; then Ethernet
        link.layer = ETHERNET
        return at + (4 if ethertype == 0x88E7 else 2)
    elif ethertype == 0x22F3 and at + 6 <= end:  # TRILL (RFC 6325), its options counted in words
        link.layer = ETHERNET
        return at + 6 + 4 * ((be16(octets, at) >> 6) & 31)
    else:
        tag = 0  # octets of a tag that ends in the next Ethertype
        if is_vlan_tag(ethertype):
            tag = 4
        elif ethertype == 0x8926 or ethertype == 0xDADA:  # VN-tag; Marvell's Ethertype DSA tag
            tag = 6 if ethertype == 0x8926 else 8
        elif ethertype == 0x893F or ethertype == 0x8909:  # E-tag (802.1BR); Cisco metadata
            tag = 8
        elif ethertype == 0xD28B and at + 4 <= end and be16(octets, at) == 1:  # Arista's time stamp of 64 or 48 bits
            tag = 14 if octets[at + 3] == 0x10 else 12 if octets[at + 3] == 0x20 else 0
        if tag == 0 or at + tag > end:
            return at
        if tag == 4:
            set_vlan(link, be16(octets, at))
        elif ethertype == 0xDADA:
            open_dsa_tag(octets, at + 2, link)
        by_ethertype(link, be16(octets, at + tag - 2))
        return at + tag
    return at


@kernel_part
def open_dsa_tag(octets, at, link):
    """Marvell's switch tag of four octets; its `tagged` bit says that it replaces an 802.1Q tag."""
    if octets[at] & 0x20:
        set_vlan(link, be16(octets, at + 2))


@kernel_part
def find_ip(octets, at, end, link):
    """Peels from `link.layer` at `at`; returns where the claimed IP header begins, or -1 where there is none."""
    for _ in range(LAYERS_OPENED):
        layer = link.layer
        if layer == IP:
            return at
        link.layer = NOT_IP
        if layer == ETHERNET:
            if at + 14 <= end:
                set_macs(octets, link, at, at + 6)
                by_ethertype(link, be16(octets, at + 12))
                at += 14
        elif layer == ETHERTYPE:
            at = _open_ethertype(octets, at, end, link)
        elif layer == LLC:
            at = _open_llc(octets, at, end, link)
        elif layer == PPP:
            at = _open_ppp(octets, at, end, link)
        elif layer == CISCO_HDLC:
            if at + 4 <= end and be16(octets, at + 2) > 1500:
                by_ethertype(link, be16(octets, at + 2))
                at += 4
        elif layer == FRAME_RELAY:
            at = _open_frame_relay(octets, at, end, link)
        elif layer == PPPOE:
            at = _open_pppoe(octets, at, end, link)
        else:
            return -1
    return -1

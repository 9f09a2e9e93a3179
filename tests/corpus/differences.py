"""Where another tool says something else than we do about a capture, and why: everything that differs stands here.

What can be replayed is: the views of `peer_views` make a capture what the tool takes it for, and then our flows are its
flows. The rest is stated, with the number of flows that only one side has. The parsers quoted are NFStream's
lib_engine.c and meter.py, libpcap's sf-pcapng.c, and Arkime's capture/parsers.
"""

from typing import NamedTuple

from corpus.peer_views import (
    View,
    clock_never_goes_back,
    first_interface_alone,
    innermost_vlan,
    lengths_in_16_bits,
    no_later_fragments,
    ports_of_whole_headers_alone,
    tcp_and_udp_ports_alone,
    whatever_looks_like_ip,
    without_cut_ipv6,
    without_ip_length_0,
    without_pseudowires,
)


class Stated(NamedTuple):
    """A difference in words.

    Attributes:
        why: What the tool does, what we do.
        ours_alone: Flows that only we have.
        theirs_alone: Flows that only the tool has.
    """

    why: str
    ours_alone: int
    theirs_alone: int


NO_LATER_FRAGMENTS = View("drops every fragment but the first", packets=no_later_fragments)
LENGTHS_IN_16_BITS = View("keeps frame lengths in 16 bits", packets=lengths_in_16_bits)
PORTS_OF_TCP_AND_UDP = View("knows ports of TCP and UDP alone, not of SCTP and DCCP", packets=tcp_and_udp_ports_alone)
PORTS_OF_WHOLE_HEADERS = View(
    "needs a whole transport header for ports; we need the ports", packets=ports_of_whole_headers_alone
)
FIRST_INTERFACE_ALONE = View(
    "reads pcapng through libpcap: interfaces of one link type and snap length", content=first_interface_alone
)
NO_IP_LENGTH_0 = View("drops segments with IP length 0, as captured before offloading", frames=without_ip_length_0)
NO_CUT_IPV6 = View("drops IPv6 packets that the snap length cut", frames=without_cut_ipv6)
CLOCK_NEVER_GOES_BACK = View(
    "takes packets in the order of the file, none earlier than the one before", frames=clock_never_goes_back
)
INNERMOST_VLAN = View("has the innermost 802.1Q tag in its key; we the outermost", frames=innermost_vlan)
WHATEVER_LOOKS_LIKE_IP = View("goes by the version field and not by the EtherType", frames=whatever_looks_like_ip)
NO_PSEUDOWIRES = View("drops Ethernet over MPLS; we open it", frames=without_pseudowires)

NOT_IN_64_BITS = "The times (year 151991) do not fit into 64 bits of nanoseconds: malformed, by definition."
AUTHENTICATION_HEADER = (
    "NFStream stops at the IPv6 Authentication Header (51); for us it is an extension header (RFC 8200)."
)

NFSTREAM: dict[str, tuple[View, ...] | Stated] = {
    **dict.fromkeys(
        (
            "pcapng-generator/output_be__advanced__test100.pcapng",
            "pcapng-generator/output_be__advanced__test101.pcapng",
            "pcapng-generator/output_be__advanced__test102.pcapng",
            "pcapng-generator/output_be__basic__test004.pcapng",
            "pcapng-generator/output_be__basic__test005.pcapng",
            "pcapng-generator/output_be__basic__test006.pcapng",
            "pcapng-generator/output_be__basic__test008.pcapng",
            "pcapng-generator/output_be__difficult__test201.pcapng",
            "pcapng-generator/output_be__difficult__test202.pcapng",
            "pcapng-generator/output_le__advanced__test100.pcapng",
            "pcapng-generator/output_le__advanced__test101.pcapng",
            "pcapng-generator/output_le__advanced__test102.pcapng",
            "pcapng-generator/output_le__basic__test004.pcapng",
            "pcapng-generator/output_le__basic__test005.pcapng",
            "pcapng-generator/output_le__basic__test006.pcapng",
            "pcapng-generator/output_le__basic__test008.pcapng",
            "pcapng-generator/output_le__difficult__test201.pcapng",
            "pcapng-generator/output_le__difficult__test202.pcapng",
            "pcapplusplus/Packet++Test__PacketExamples__BgpPackets.pcap",
            "pcapplusplus/Packet++Test__PacketExamples__WireGuard.pcap",
            "pcapplusplus/Packet++Test__PacketExamples__dns_over_tcp.pcapng",
            "pcapplusplus/Packet++Test__PacketExamples__ipsec.pcapng",
            "pcapplusplus/Packet++Test__PacketExamples__ldap.pcapng",
            "pcapplusplus/Pcap++Test__PcapExamples__many_interfaces-1.pcapng",
        ),
        (FIRST_INTERFACE_ALONE,),
    ),
    **dict.fromkeys(
        (
            "arkime/socks5-http-302-frag.pcap",
            "pcapplusplus/ExamplesTest__pcap_examples__frag_http_req.pcap",
            "pcapplusplus/ExamplesTest__pcap_examples__ipv6-frag.pcap",
            "pcapplusplus/Packet++Test__PacketExamples__IPv4Frag.pcap",
            "pcapplusplus/Packet++Test__PacketExamples__ipv6_opt_fragments.pcap",
            "pcapplusplus/Pcap++Test__PcapExamples__frag_with_padding.pcap",
            "pcapplusplus/Pcap++Test__PcapExamples__ip4_fragments.pcap",
            "pcapplusplus/Pcap++Test__PcapExamples__ip6_fragments.pcap",
            "suricata-verify/defrag__bug-6887-defrag-eth-vlan-ipv6-tcp__frag-eth-vlan-ipv6-tcp.pcap",
            "suricata-verify/defrag__bug-6887-defrag-ipv6-tcp__frag-ip-tcp.pcap",
            "suricata-verify/drop-protocol-change__input.pcap",
            "suricata-verify/ipv6-evasion__ipv6-malformed-fragments-1__frag-1.pcap",
            "tcpdump/afs.pcap",
            "zeek/erspan.pcap",
            "zeek/ipv4__fragmented-syn.pcap",
            "zeek/ipv6-fragmented-dns.pcap",
            "zeek/ipv6-reassembly-state-leak.pcap",
            "zeek/tunnels__gtp__gtp1_gn_normal_incl_fragmentation.pcap",
            "zeek/tunnels__gtp__gtp9_unknown_or_too_short_payload.pcap",
            "zeek/tunnels__gtp__gtp_ext_header.pcap",
        ),
        (NO_LATER_FRAGMENTS,),
    ),
    **dict.fromkeys(
        (
            "arkime/twovlan.pcap",
            "ndpi/4in4tunnel.pcap",
            "ndpi/capwap_data.pcapng",
            "ndpi/custom_categories.pcapng",
            "ndpi/discord_mid_flow.pcap",
            "ndpi/dtls.pcap",
            "ndpi/false_positives.pcapng",
            "ndpi/ipv6_in_gtp.pcap",
            "ndpi/ja3_lots_of_cipher_suites.pcap",
            "ndpi/linecall_falsepositve.pcap",
            "ndpi/rtmp.pcap",
            "ndpi/tls_invalid_reads.pcap",
            "pcapplusplus/Pcap++Test__PcapExamples__VlanPackets.pcap",
            "suricata-verify/eve-flow-vlan-02__input.pcap",
            "suricata-verify/eve-flow-vlan__input.pcap",
            "zeek/pppoe-over-qinq.pcap",
            "zeek/q-in-q.pcap",
            "zeek/vlan-qinqinq.pcap",
        ),
        (INNERMOST_VLAN,),
    ),
    **dict.fromkeys(
        (
            "ndpi/fuzz-2021-06-07-c6c72a0a56.pcap",
            "nfstream/fuzz-2021-06-07-c6c72a0a56.pcap",
            "tcpdump/bigtcp-ipv6-geneve-ipv4.pcap",
            "tcpdump/bigtcp-ipv6-geneve-ipv6.pcap",
            "tcpdump/bigtcp-ipv6-vxlan-ipv4.pcap",
            "tcpdump/bigtcp-ipv6-vxlan-ipv6.pcap",
            "tcpdump/gre-heapoverflow-2.pcap",
            "tcpdump/heapoverflow-ip_demux_print.pcap",
            "tcpdump/hoobr_ripng_print.pcap",
            "tcpdump/l2tp-avp-overflow.pcap",
            "tcpdump/lisp_invalid_length.pcap",
            "tcpdump/nfs-attr-oobr.pcap",
            "tcpdump/pgm_group_addr_asan.pcap",
            "tcpdump/rx_serviceid_oobr.pcap",
        ),
        (LENGTHS_IN_16_BITS,),
    ),
    **dict.fromkeys(
        (
            "arkime/diameter_synthetic.pcap",
            "arkime/sctp-www.pcap",
            "community-id/sctp.pcap",
            "ndpi/sctp.cap",
            "suricata-verify/decode-sctp-01__input.pcap",
            "suricata-verify/sctp-keywords-prefilter__input.pcap",
            "suricata-verify/sctp-pkt-too-small__input.pcap",
            "tcpdump/dccp_partial_csum_v4_longer.pcap",
            "tcpdump/dccp_partial_csum_v6_longer.pcap",
            "tcpdump/forces3.pcap",
            "zeek/communityid__sctp.pcap",
        ),
        (PORTS_OF_TCP_AND_UDP,),
    ),
    **dict.fromkeys(
        (
            "arkime/y2038-bgp.pcap",
            "ndpi/avast.pcap",
            "ndpi/ipsec_isakmp_esp.pcap",
            "pcapplusplus/Pcap++Test__PcapExamples__pcapng-example.pcapng",
        ),
        (CLOCK_NEVER_GOES_BACK,),
    ),
    **dict.fromkeys(
        (
            "ndpi/anydesk.pcapng",
            "ndpi/thrift.pcap",
            "nfstream/anydesk-2.pcap",
            "zeek/ldap__missing_ldap_logs.pcapng",
        ),
        (NO_IP_LENGTH_0,),
    ),
    **dict.fromkeys(
        ("suricata-verify/decode-too-small__test.pcap",),
        (PORTS_OF_WHOLE_HEADERS,),
    ),
    **dict.fromkeys(
        ("zeek/dns-edns-ecs-bad.pcap",),
        (NO_CUT_IPV6,),
    ),
    **dict.fromkeys(
        ("suricata-verify/decode-dce__input.pcap",),
        (WHATEVER_LOOKS_LIKE_IP,),
    ),
    **dict.fromkeys(
        ("tcpreplay/test.pcap",),
        (NO_PSEUDOWIRES,),
    ),
    **dict.fromkeys(
        (
            "suricata-verify/defrag__bug-6887-defrag-eth-vlan-ipv4-tcp-syn__frag-eth-vlan-ip-tcp-syn.pcap",
            "suricata-verify/defrag__bug-6887-defrag-ipv4-tcp-syn__frag-ip-tcp-syn.pcap",
        ),
        (
            NO_LATER_FRAGMENTS,
            PORTS_OF_WHOLE_HEADERS,
        ),
    ),
    **dict.fromkeys(
        ("pcapplusplus/ExamplesTest__pcap_examples__ip-frag.pcap",),
        (
            NO_LATER_FRAGMENTS,
            PORTS_OF_TCP_AND_UDP,
        ),
    ),
    **dict.fromkeys(
        ("pcapplusplus/Packet++Test__PacketExamples__MplsPackets.pcap",),
        (
            NO_PSEUDOWIRES,
            INNERMOST_VLAN,
        ),
    ),
    **dict.fromkeys(
        ("ndpi/fuzz-2020-02-16-11740.pcap",),
        (
            WHATEVER_LOOKS_LIKE_IP,
            NO_LATER_FRAGMENTS,
            NO_CUT_IPV6,
        ),
    ),
    "ndpi/ajp.pcap": Stated(
        "12 frames are Cisco FabricPath (EtherType 0x8903) around Ethernet. NFStream takes what follows "
        "an unknown EtherType for IPv4, with a header length below 20; we open FabricPath.",
        1,
        3,
    ),
    "ndpi/fuzz-2021-10-13.pcap": Stated(
        "A BSD loopback frame whose address family is neither IPv4 nor IPv6: NFStream takes every family "
        "but 2 for IPv6, we reject it as not_ip.",
        0,
        1,
    ),
    "nfstream/dhcp_big_endian.pcapng": Stated(NOT_IN_64_BITS, 0, 2),
    "nfstream/dhcp_little_endian.pcapng": Stated(NOT_IN_64_BITS, 0, 2),
    "suricata-verify/smtp-to-comma__10.7.29.101_49898-178.63.41.150_25.pcap": Stated(
        "The record behind packet 18 is damaged. We stop there with one warning, as Wireshark does; "
        "NFStream goes on with what libpcap reads from wherever it lost the thread.",
        1,
        1,
    ),
    "tcpdump/ISIS_p2p_adjacency.pcap": Stated(
        "C-HDLC frames of IS-IS: NFStream takes what follows for IP where four bits are 4 or 6; we "
        "reject them as not_ip.",
        0,
        4,
    ),
    "tcpdump/OSPFv3_with_AH.pcap": Stated(AUTHENTICATION_HEADER, 3, 3),
    "tcpdump/ospf-signed-integer-ubsan.pcap": Stated(AUTHENTICATION_HEADER, 1, 1),
    "tcpdump/bigtcp-ipv6.pcap": Stated(
        "One TCP segment of 80,054 octets with IPv6 payload length 0: NFStream measures no transport "
        "header in it and counts the length modulo 65,536.",
        1,
        1,
    ),
    "tcpdump/ipv6_jumbogram_invalid_length.pcap": Stated(
        "An IPv6 jumbogram: NFStream does not go on to the header behind the hop-by-hop options "
        "(ICMPv6), and counts the length modulo 65,536.",
        1,
        1,
    ),
    "zeek/ipv6-mobility-dst-opts.pcap": Stated(
        "One packet has destination options that reach beyond its end: NFStream drops it, for us it is a "
        "packet of protocol 60 without ports.",
        1,
        0,
    ),
    "zeek/radiotap.pcap": Stated(
        "One 802.11 data frame has no QoS field: NFStream takes its header to have 26 octets, where it "
        "has 24, and finds no IP.",
        1,
        0,
    ),
}
"""By capture: how NFStream 6.6.0 sees it, or what it makes of it."""


BAD_CHECKSUMS = "Zeek skips packets with bad checksums; we never look at checksums."
FILTERED = "The run of Zeek had a packet filter."
OTHER_TUNNELS = "Zeek opens AYIYA, Teredo, and frames of Aruba access points in GRE; we do not."

ZEEK: dict[str, Stated] = {
    "core.checksums_ignore_nets/conn-failed.log": Stated(BAD_CHECKSUMS, 1, 1),
    "core.pcap.dynamic-filter/conn.log": Stated(FILTERED, 19, 1),
    "core.pcap.read-trace-with-filter/conn.log": Stated(FILTERED, 33, 0),
    "core.tunnels.ayiya/conn.log": Stated(OTHER_TUNNELS, 2, 6),
    "core.tunnels.gre-aruba-amsdu/conn.log": Stated(OTHER_TUNNELS, 1, 1),
    "core.tunnels.gtp.inner_teredo/conn.log": Stated(OTHER_TUNNELS, 3, 2),
    "core.tunnels.gtp.outer_ip_frag/conn.log": Stated(
        "Zeek reassembles outer packets before it opens GTP-U; for us the inner packet is incomplete, and "
        "counts with the outer flow.",
        2,
        1,
    ),
    "core.unknown-ip-protocol/conn.log": Stated("Zeek knows no ports of SCTP.", 1, 1),
    "core.vntag-in-vlan/conn.log": Stated(
        "Zeek skips a packet that the snap length cut; headers are enough for us.", 1, 1
    ),
    "scripts.base.frameworks.logging.field-name-map2/conn.log": Stated(BAD_CHECKSUMS, 1, 1),
    "scripts.base.protocols.ftp.gridftp/conn.log": Stated(
        "Zeek stops counting once it takes a connection for a bulk transfer of GridFTP, as its manual says.", 1, 1
    ),
    "scripts.base.protocols.ldap.sasl-signed-clear/conn.log": Stated(
        "Segments with IP length 0, as captured before offloading: Zeek counts 0 octets, we the frame less its header.",
        3,
        3,
    ),
    "scripts.base.protocols.ntp.misordered-ntp/conn.log": Stated(
        "Both ports are 123: when Zeek turns the connection round (`^`), the server's packet stays with the client.",
        1,
        1,
    ),
}
"""By log: what Zeek makes of the capture, or how it was run. The numbers are of 5-tuples whose counters differ."""

PIM_AND_IGMP = "Arkime puts all PIM into one session, and all IGMP."

ARKIME: dict[str, Stated] = {
    "arkime/ospf.pcap": Stated(PIM_AND_IGMP, 5, 2),
    "arkime/pim.pcap": Stated(PIM_AND_IGMP, 2, 1),
    "arkime/socks5-http-302-frag.pcap": Stated(
        "Arkime reassembles: 72 fragments are 14 packets, each with the link header of one of them.", 1, 1
    ),
    "arkime/wireshark-dhcp.pcap": Stated(
        "Arkime's sessions of DHCP are those of a client's link address: question and answer are one.",
        2,
        1,
    ),
}
"""By capture: what Arkime makes of it. The numbers are of 5-tuples whose counters differ."""

NO_PORTS = "hashes ports 0 for protocols without ports, AH and ESP among them; the specification leaves ports out"

ARKIME_COMMUNITY_IDS: dict[str, str] = {
    "arkime/ah-esp.pcap": NO_PORTS,
    "arkime/v6.pcap": "orders the ends of one-way ICMPv6 messages too, whose direction belongs to the key",
    "arkime/wireshark-esp.pcap": NO_PORTS,
}
"""By capture: how Arkime deviates from the Community ID specification, version 1."""

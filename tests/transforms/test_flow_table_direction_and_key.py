"""Who is the initiator, and which packets share a flow."""

import numpy as np
import pytest
from flow_testing import IPV4, packets
from table_testing import HANDSHAKE, assembled, connection

from transforms.records import ACK, ICMP, ICMPV6, SYN, TCP, UDP


def sides(rows):
    """Ports and packets each way."""
    return [(row["src_port"], row["dst_port"], row["fwd_packets"], row["rev_packets"]) for row in rows]


def icmp(types, forward=True, protocol=ICMP, **columns):
    """Messages as (type, code or paired type), a tenth of a second apart."""
    src, dst = zip(*types, strict=True)
    return packets(
        [n / 10 for n in range(len(types))], 8, forward, protocol=protocol, src_port=src, dst_port=dst, **columns
    )


def test_forward_is_the_sender_of_the_first_packet():
    """A capture that begins with data of port 80 has port 80 as its initiator."""
    assert sides(assembled(packets([0, 1], forward=[False, True]))) == [(80, 1234, 1, 1)]


def test_syn_ack_first_comes_from_the_responder():
    """A capture that begins with SYN+ACK: the initiator is its receiver."""
    assert sides(assembled(connection([0, 1], HANDSHAKE[1:]))) == [(1234, 80, 1, 1)]
    cut = packets([0, 1], forward=[False, True], flags=[SYN | ACK, ACK], transport=[2, 1])
    assert sides(assembled(cut)) == [(80, 1234, 1, 1)]


@pytest.mark.parametrize(
    ("protocol", "request_", "answer"),
    [(ICMP, 8, 0), (ICMP, 13, 14), (ICMP, 15, 16), (ICMP, 17, 18), (ICMPV6, 128, 129)],
)
def test_icmp_answer_first_comes_from_the_responder(protocol, request_, answer):
    """An answer alone is reverse, and the request that follows is forward, of the same flow."""
    rows = icmp([(answer, request_), (request_, answer)], [False, True], protocol)
    assert sides(assembled(rows)) == [(request_, answer, 1, 1)]
    assert sides(assembled(rows[:1])) == [(request_, answer, 0, 1)]


def test_icmp_pairs_that_may_come_unasked_are_forward():
    """Router and neighbour advertisements are no answers by nature."""
    assert sides(assembled(icmp([(9, 10)]))) == [(9, 10, 1, 0)]
    assert sides(assembled(icmp([(136, 135), (135, 136)], [True, False], ICMPV6))) == [(136, 135, 1, 1)]


def test_one_way_icmp_never_pairs():
    """Unreachable messages each way, and one whose code is another's type, are flows of their own."""
    rows = icmp([(3, 1), (3, 1), (1, 3)], [True, False, False])
    assert sides(assembled(rows)) == [(3, 1, 1, 0), (3, 1, 1, 0), (1, 3, 1, 0)]
    assert sides(assembled(icmp([(3, 1), (3, 2)]))) == [(3, 1, 1, 0), (3, 2, 1, 0)]


def test_without_icmp_ports_all_messages_of_two_hosts_are_one_flow():
    """Ports are 0; an echo reply that comes first is still the responder's."""
    rows = icmp([(0, 8), (8, 0), (3, 1)], [False, True, False])
    assert sides(assembled(rows, icmp_key="none")) == [(0, 0, 1, 2)]


def test_ping_to_itself_is_one_flow_of_two_sides():
    """Request and reply have the same addresses: their types tell the sides."""
    rows = icmp([(8, 0), (0, 8)], src_lo=IPV4 | 5, dst_lo=IPV4 | 5)
    assert sides(assembled(rows)) == [(8, 0, 1, 1)]


def test_land_packets_are_all_forward():
    """Same address and port on both sides: what answers cannot be told from what asks."""
    rows = packets([0, 1, 2], forward=[True, False, True], src_lo=IPV4 | 5, dst_lo=IPV4 | 5, src_port=7, dst_port=7)
    assert sides(assembled(rows)) == [(7, 7, 3, 0)]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("vlan_id", [0, 7]),
        ("vni", [-1, 0]),
        ("protocol", [TCP, UDP]),
        ("ip_version", [4, 6]),
        ("src_port", [1, 2]),
        ("dst_hi", [0, 1]),
    ],
    ids=["vlan", "vni", "protocol", "ip-version", "port", "address"],
)
def test_each_key_field_parts_flows(column, values):
    """Packets that differ in one key field are two flows; an IPv6 packet from ::ffff:10.0.0.1 is not IPv4."""
    found = assembled(packets([0, 1], flags=ACK, **{column: values}))
    assert len(found) == 2
    assert len({row["flow_id"] for row in found}) == 2
    if column == "ip_version":
        assert [row["src_ip"] for row in found] == ["10.0.0.1", "::ffff:10.0.0.1"]


def test_vni_can_be_left_out():
    """With `ignore_vni` packets of different networks are one flow, which has none."""
    (row,) = assembled(packets([0, 1], vni=[5, -1]), ignore_vni=True)
    assert (row["vni"], row["fwd_packets"]) == (None, 2)
    assert [row["vni"] for row in assembled(packets([0, 1], vni=[5, -1]))] == [5, None]


def test_fragments_without_ports_are_a_flow_of_their_own():
    """A later fragment whose first was not seen has ports 0; a resolved one belongs to its flow, without flags."""
    rows = packets([0, 1, 2], fragment=[1, 3, 2], transport=[1, 0, 0], src_port=[1234, 1234, 0], dst_port=[80, 80, 0])
    rows["tcp_flags"][1:] = 0
    assert sides(assembled(rows)) == [(1234, 80, 2, 0), (0, 0, 1, 0)]


def test_record_speaks_from_the_initiator():
    """Addresses, MACs and tunnel ends of a flow that began with an answer are those of the initiator first."""
    rows = packets([0], forward=False, flags=SYN | ACK, src_mac=0xA, dst_mac=0xB, tunnel=1)
    rows["outer_src_lo"], rows["outer_dst_lo"] = IPV4 | 3, IPV4 | 4
    (row,) = assembled(rows)
    assert (row["src_ip"], row["dst_ip"], row["fwd_packets"], row["rev_packets"]) == ("10.0.0.1", "10.0.0.2", 0, 1)
    assert (row["src_mac"], row["dst_mac"]) == ("00:00:00:00:00:0b", "00:00:00:00:00:0a")
    assert (row["outer_src_ip"], row["outer_dst_ip"], row["tunnel"]) == ("0.0.0.4", "0.0.0.3", "ip")


def test_keys_with_equal_hashes_stay_apart():
    """Thousands of keys in one table: none is taken for another."""
    n = 5_000
    rows = np.tile(packets([0], protocol=UDP), n)
    rows["src_lo"] += np.arange(n, dtype=np.uint64) // 100
    rows["src_port"] = np.arange(n) % 100
    found = assembled(np.concatenate([rows, rows]))
    assert len(found) == n
    assert {row["fwd_packets"] for row in found} == {2}

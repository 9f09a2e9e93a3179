"""Handshake times, counts of a connection's troubles, and how it closed."""

import numpy as np
import pytest
from flow_testing import fold_family, fold_flows, one_flow, packets
from hypothesis import given, settings

from transforms import records
from transforms.features import tcp_quality, tcp_segments
from transforms.records import ACK, FIN, PSH, RST, SYN

IDLE, ACTIVE, END_DETECTED, FORCED = 1, 2, 3, 4

HANDSHAKE = {
    "at_s": [0, 0.03, 0.05],
    "forward": [True, False, True],
    "flags": [SYN, SYN | ACK, ACK],
    "tcp_seq": [100, 900, 101],
    "tcp_ack": [0, 101, 901],
}


def round_trips(**columns):
    found = fold_family(tcp_quality, packets(**{**HANDSHAKE, **columns}))
    return found["syn_ack_rtt_us"], found["ack_rtt_us"]


def test_handshake():
    """SYN to SYN+ACK, SYN+ACK to ACK."""
    assert round_trips() == (30_000, 20_000)


def test_handshake_to_the_nanosecond():
    """Times are not cut to microseconds."""
    assert round_trips(at_s=[0, 1e-9, 1.5e-6]) == (0.001, 1.499)


def test_repeated_packets_are_timed_from_the_last_copy():
    """A lost SYN, then a lost ACK: one retransmission timer of a second each is in no time."""
    found = fold_family(
        tcp_quality,
        packets(
            at_s=[0, 1, 1.03, 2.03, 2.05],
            forward=[True, True, False, False, True],
            flags=[SYN, SYN, SYN | ACK, SYN | ACK, ACK],
            tcp_seq=[100, 100, 900, 900, 101],
            tcp_ack=[0, 0, 101, 101, 901],
        ),
    )
    assert (found["syn_ack_rtt_us"], found["ack_rtt_us"]) == pytest.approx((30_000, 20_000))
    assert (found["fwd_retransmissions"], found["rev_retransmissions"]) == (1, 1)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"flags": [ACK, SYN | ACK, ACK]}, (None, 20_000)),
        ({"flags": [SYN, ACK, ACK]}, (None, None)),
        ({"flags": [SYN, SYN | ACK | RST, ACK]}, (None, None)),
        ({"forward": [True, True, True]}, (None, None)),
        ({"tcp_ack": [0, 7, 901]}, (None, None)),
        ({"tcp_ack": [0, 101, 900]}, (30_000, None)),
        ({"tcp_ack": [0, 101, 950]}, (30_000, 20_000)),
        ({"transport": records.TRANSPORT_TRUNCATED}, (None, None)),
        ({"protocol": records.UDP}, (None, None)),
    ],
    ids=[
        *("no-syn", "no-syn-ack", "reset", "one-side", "answer-to-another-syn"),
        *("ack-of-something-older", "ack-of-more", "no-whole-header", "udp"),
    ],
)
def test_what_was_not_seen_has_no_time(columns, expected):
    """Null unless both ends of a time were seen and belong together."""
    assert round_trips(**columns) == expected


@pytest.mark.parametrize(
    ("flags", "end_reason", "style"),
    [
        ([SYN, SYN | ACK, ACK], FORCED, "none"),
        ([SYN, SYN | ACK, ACK], 0, "none"),
        ([SYN, SYN | ACK, ACK], END_DETECTED, "none"),
        ([SYN, SYN | ACK, ACK], IDLE, "timeout"),
        ([SYN, SYN | ACK, ACK], ACTIVE, "timeout"),
        ([FIN, ACK, ACK], IDLE, "fin_fwd"),
        ([ACK, FIN, ACK], IDLE, "fin_rev"),
        ([FIN, FIN, ACK], END_DETECTED, "fin_both"),
        ([ACK, FIN, FIN], END_DETECTED, "fin_both"),
        ([RST, ACK, ACK], END_DETECTED, "rst_fwd"),
        ([SYN, RST | ACK, ACK], END_DETECTED, "rst_rev"),
        ([FIN, RST, ACK], END_DETECTED, "rst_rev"),
        ([ACK, RST, RST], END_DETECTED, "rst_rev"),
        ([ACK, RST, FIN], END_DETECTED, "rst_rev"),
        ([FIN, FIN, RST], END_DETECTED, "fin_both"),
        ([FIN | RST, ACK, ACK], END_DETECTED, "rst_fwd"),
    ],
)
def test_close_styles(flags, end_reason, style):
    """The first RST before both FINs, else the FINs, else the timeout."""
    flow = packets(range(3), flags=flags, forward=[True, False, True])
    assert fold_family(tcp_quality, flow, end_reason=end_reason)["close_style"] == style


def test_udp_has_no_close():
    """A timeout is how every UDP flow ends."""
    assert fold_family(tcp_quality, packets([0], protocol=records.UDP), end_reason=IDLE)["close_style"] == "none"


def test_download_with_a_loss():
    """By hand: two duplicate ACKs for a segment that comes late, and one segment that comes twice."""
    flow = packets(
        range(10),
        payload=[50, 100, 100, 0, 100, 0, 0, 100, 0, 100],
        forward=[True, False, False, True, False, True, True, False, True, False],
        flags=PSH | ACK,
        tcp_seq=[1, 1, 201, 51, 301, 51, 51, 101, 51, 201],
        tcp_ack=[1, 51, 51, 101, 51, 101, 101, 51, 401, 51],
    )
    found = fold_family(tcp_quality, flow)
    assert found["fwd_duplicate_acks"] == 2
    assert found["rev_duplicate_acks"] == 0
    assert found["rev_out_of_order"] == 1
    assert found["rev_retransmissions"] == 1
    assert (found["fwd_retransmissions"], found["fwd_out_of_order"]) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_counts_are_those_of_each_side(flow):
    """Whatever comes, the family gives each packet with a whole TCP header to its own side, and no other."""
    sides = np.zeros(2, tcp_segments.SIDE)
    for packet in flow:
        if packet["protocol"] == records.TCP and packet["transport"] == records.TRANSPORT_WHOLE:
            sender = 0 if packet["src_port"] == 1234 else 1
            tcp_segments.add(sides[sender], packet)
            tcp_segments.acknowledge(sides[sender], sides[1 - sender], packet)
    found = fold_family(tcp_quality, flow)
    for side, expected in zip(("fwd", "rev"), sides, strict=True):
        for name in ("retransmissions", "duplicate_acks", "out_of_order"):
            assert found[f"{side}_{name}"] == expected[name]


def test_flows_of_one_batch_keep_apart():
    """Words of several flows, TCP and not."""
    udp, tcp = packets([0], protocol=records.UDP), packets([0], flags=SYN)
    found = fold_flows(tcp_quality, [udp, tcp, packets([0], protocol=records.ICMP), tcp])
    assert [(row["conn_state"], row["history"]) for row in found] == [
        ("S0", "D"),
        ("S0", "S"),
        ("OTH", None),
        ("S0", "S"),
    ]

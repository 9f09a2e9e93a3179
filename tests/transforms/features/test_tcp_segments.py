"""Repeated and reordered segments and duplicate ACKs against sets of octets."""

import itertools

import numpy as np
import pytest
from flow_testing import packets
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import records
from transforms.features import tcp_segments
from transforms.records import ACK, FIN, PSH, RST, SYN

BEFORE = range(-400, 0)
"""Octets before the first segment, as far as the tests reach."""


class Octets:
    """One side's octets as sets: those below the highest end that were never seen, in at most four runs."""

    def __init__(self):
        self.highest = None
        self.unseen = set()
        self.counts = {"retransmissions": 0, "out_of_order": 0}

    def add(self, start, length, syn):
        if self.highest is None:
            self.highest = start
            self.unseen = set() if syn else {start + octet for octet in BEFORE}
        octets = set(range(start, start + length))
        if start < self.highest:
            self.counts["out_of_order" if octets <= self.unseen else "retransmissions"] += 1
        self.unseen |= set(range(self.highest, start))
        self.unseen -= octets
        self.highest = max(self.highest, start + length)
        for run in self.runs()[:-4]:
            self.unseen -= set(run)

    def runs(self):
        """Runs of neighbours, lowest first."""
        ordered = sorted(self.unseen)
        keyed = itertools.groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
        return [[octet for _, octet in run] for _, run in keyed]


def segments(starts, lengths, flags, base):
    """Segments of one side whose octet 0 has sequence number `base`."""
    made = packets([0] * len(starts), payload=lengths, flags=flags)
    made["tcp_seq"] = [(base + start) % (1 << 32) for start in starts]
    return made


def followed(flow):
    side = np.zeros(1, tcp_segments.SIDE)
    for packet in flow:
        tcp_segments.add(side[0], packet)
    return {name: int(side[name][0]) for name in ("retransmissions", "out_of_order")}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-60, 120), st.integers(1, 30)), min_size=1, max_size=30),
    st.booleans(),
    st.sampled_from([0, 1000, (1 << 31) - 20, (1 << 32) - 30]),
)
def test_segments_equal_sets_of_octets(drawn, with_syn, base):
    """Any segments in any order, across the wrap of sequence numbers, with a SYN first or without."""
    starts, lengths = ([*column] for column in zip(*drawn, strict=True))
    flags = [ACK] * len(starts)
    reference = Octets()
    if with_syn:
        starts, lengths, flags = [-1, *(abs(start) for start in starts)], [0, *lengths], [SYN, *flags]
    for start, length, bits in zip(starts, lengths, flags, strict=True):
        reference.add(start, length + (bits == SYN), bits == SYN)
    assert followed(segments(starts, lengths, flags, base)) == reference.counts


@pytest.mark.parametrize(
    ("starts", "lengths", "retransmissions", "out_of_order"),
    [
        ([0, 10, 20], [10, 10, 10], 0, 0),
        ([0, 10, 10], [10, 10, 10], 1, 0),
        ([0, 10, 5], [10, 10, 10], 1, 0),
        ([0, 0], [10, 20], 1, 0),
        ([0, 20, 10], [10, 10, 10], 0, 1),
        ([0, 20, 10, 10], [10, 10, 10, 10], 1, 1),
        ([0, 40, 20, 10, 30], [10, 10, 10, 10, 10], 0, 3),
        ([0, 20, 5], [10, 10, 20], 1, 0),
        ([0, 20, 40, 60, 80, 100, 10, 30], [10] * 8, 1, 1),
    ],
    ids=[
        "in-order",
        "same",
        "overlapping",
        "longer",
        "filling",
        "filled-twice",
        "splitting",
        "over-a-gap",
        "fifth-gap",
    ],
)
@pytest.mark.parametrize("base", [0, (1 << 32) - 15], ids=["low", "wrapping"])
def test_by_hand(starts, lengths, retransmissions, out_of_order, base):
    """What each word means."""
    flow = segments([-1, *starts], [0, *lengths], [SYN, *[ACK] * len(starts)], base)
    assert followed(flow) == {"retransmissions": retransmissions, "out_of_order": out_of_order}


def test_syn_and_fin_are_octets_and_rst_is_none():
    """A repeated SYN or FIN is a retransmission; RST and bare ACKs have no place."""
    flow = segments(
        [-1, -1, 0, 0, 0, -50, 0], [0, 0, 0, 0, 0, 9, 0], [SYN, SYN, FIN | ACK, FIN | ACK, RST, RST | ACK, ACK], 7
    )
    assert followed(flow) == {"retransmissions": 2, "out_of_order": 0}


def test_another_syn_begins_anew():
    """A new connection below the old one's sequence numbers repeats nothing."""
    flow = segments([-1, 0, -5000, -4999], [0, 100, 0, 100], [SYN, PSH | ACK, SYN, PSH | ACK], 100_000)
    assert followed(flow) == {"retransmissions": 0, "out_of_order": 0}


def test_capture_that_begins_in_the_middle():
    """Octets from before the first segment are out of order once, then repeated."""
    assert followed(segments([0, -10, -10], [10, 10, 10], ACK, 0)) == {"retransmissions": 1, "out_of_order": 1}


def test_more_than_four_gigabytes_in_order():
    """Sequence numbers that wrap around twice are no repetition; the last segment again is one."""
    mebibyte = 1 << 20
    starts = [index * mebibyte for index in range(9000)]
    flow = segments([-1, *starts, starts[-1]], [0, *[mebibyte] * 9001], [SYN, *[ACK] * 9001], 0)
    assert followed(flow) == {"retransmissions": 1, "out_of_order": 0}


def duplicate_acks(sent, ack):
    """How many of `ack`, sent by one side, repeat the one before, after the other side sent `sent`."""
    sides = np.zeros(2, tcp_segments.SIDE)
    for packet in sent:
        tcp_segments.add(sides[1], packet)
    for packet in ack:
        tcp_segments.acknowledge(sides[0], sides[1], packet)
    return int(sides["duplicate_acks"][0])


DATA = segments([0], [1000], ACK, 0)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({}, 2),
        ({"payload": 5}, 0),
        ({"tcp_window": [1, 2, 1]}, 0),
        ({"tcp_window": [1, 2, 2]}, 1),
        ({"tcp_ack": [500, 600, 700]}, 0),
        ({"tcp_ack": [500, 400, 500]}, 1),
        ({"tcp_ack": 1000}, 0),
        ({"flags": ACK | FIN}, 0),
        ({"flags": ACK | RST}, 0),
        ({"flags": [ACK, SYN | ACK, ACK]}, 1),
        ({"flags": PSH}, 0),
    ],
    ids=[
        *("repeated", "payload", "window-update", "window-of-the-last", "advancing", "an-old-one-between"),
        *("nothing-outstanding", "fin", "rst", "syn", "no-ack"),
    ],
)
def test_duplicate_acks(columns, found):
    """Three ACKs in a row, all conditions of RFC 5681."""
    acks = packets([0, 1, 2], **{"tcp_ack": 500, "tcp_window": 9, **columns})
    assert duplicate_acks(DATA, acks) == found


def test_without_the_other_side_nothing_is_outstanding():
    """A capture of one direction only knows no duplicate ACKs."""
    assert duplicate_acks(DATA[:0], packets([0, 1, 2], tcp_ack=500)) == 0


def test_acks_across_the_wrap():
    """The greatest acknowledgement is so modulo 2³²."""
    sent = segments([0], [1000], ACK, (1 << 32) - 100)
    assert duplicate_acks(sent, packets(range(4), tcp_ack=[(1 << 32) - 50, 20, 20, (1 << 32) - 50])) == 1


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [(1, 0, 1), (0, 1, -1), (0, (1 << 32) - 1, 1), ((1 << 32) - 1, 0, -1), (1 << 31, 1, (1 << 31) - 1)],
)
def test_distances(one, other, distance):
    """Sequence numbers are compared on a circle."""
    made = np.zeros(2, records.PACKET)
    made["tcp_seq"] = [one, other]
    assert tcp_segments.ahead(made[0]["tcp_seq"], made[1]["tcp_seq"]) == distance

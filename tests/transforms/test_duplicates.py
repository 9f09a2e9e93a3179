"""Packets that were captured twice."""

import numpy as np
import pytest
from flow_testing import packets

from transforms.duplicates import DuplicateFilter

S = 1_000_000_000


@pytest.mark.parametrize(
    ("gap_ns", "repeated"), [(0, True), (S, True), (S + 1, False)], ids=["at-once", "exactly", "beyond"]
)
def test_window_is_inclusive(gap_ns, repeated):
    """Equal headers within the time, its end included."""
    rows = packets([0, 0], headers_hash=9)
    rows["time_ns"][1] += gap_ns
    assert DuplicateFilter(S).repeated(rows).tolist() == [False, repeated]


def test_time_counts_from_the_packet_that_was_kept():
    """At 0, 0.6 and 1.2 s: the third is a second away from the one that was kept."""
    assert DuplicateFilter(S).repeated(packets([0, 0.6, 1.2], headers_hash=9)).tolist() == [False, True, False]


def test_headers_that_were_not_hashed_are_unknown():
    """Without a hash nothing is a repetition, or a whole capture would be one."""
    assert not DuplicateFilter(S).repeated(packets([0, 0, 0])).any()


def test_times_far_apart_are_not_near():
    """From one end of time to the other."""
    rows = packets([0, 0], headers_hash=9)
    rows["time_ns"] = [-(1 << 63), (1 << 63) - 1]
    assert not DuplicateFilter(S).repeated(rows).any()


def test_agrees_with_a_dictionary_and_forgets():
    """20,000 packets of few and of many hashes, in pieces; the table stays as small as its second of packets."""
    random = np.random.default_rng(1)
    rows = packets([0] * 20_000, headers_hash=random.integers(1, 5_000, 20_000).astype(np.uint64) << np.uint64(12))
    rows["time_ns"] += np.cumsum(random.integers(0, 2_000_000, len(rows)))
    kept, expected = {}, []
    for time_ns, number in zip(rows["time_ns"].tolist(), rows["headers_hash"].tolist(), strict=True):
        expected.append(number in kept and time_ns - kept[number] <= S)
        if not expected[-1]:
            kept[number] = time_ns
    filter_ = DuplicateFilter(S)
    found = [filter_.repeated(part) for part in np.array_split(rows, 7)]
    assert np.concatenate(found).tolist() == expected
    assert 0 < sum(expected) < len(rows)
    assert len(filter_.entries) <= 1 << 13

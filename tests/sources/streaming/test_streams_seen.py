"""What has come of each stream, whatever the order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.streaming.streams_seen import RANGES_MOST, StreamsSeen
from transforms.records import NO_TIME, PACKET, PacketBatch, Stream

S = 10**9


def header(sequence, *, sensor="a", epoch=1, partition=0, partitions=1, end=False, at_s=0):
    return PacketBatch(
        Stream(sensor, epoch, partition), sequence, at_s * S, np.zeros(0, PACKET), partitions=partitions, end=end
    )


def seen_of(*headers, epochs_most=None):
    seen = StreamsSeen(epochs_most)
    for one in headers:
        seen.arrived(one.stream, one)
    return seen


@settings(max_examples=100)
@given(st.lists(st.integers(0, 60)))
def test_a_number_is_held_if_it_has_come(numbers):
    """In any order and with repetitions, also after it was written down and read again."""
    seen = seen_of(*map(header, numbers))
    for kept in (seen, StreamsSeen.from_bytes(seen.to_bytes())):
        assert [n for n in range(62) if kept.holds(Stream("a", 1, 0), n)] == sorted(set(numbers))


def test_it_stays_small():
    """However many numbers are missing; the oldest of those count as seen."""
    seen = seen_of(*(header(2 * n) for n in range(10 * RANGES_MOST)))
    assert len(seen.to_bytes()) < 20 * RANGES_MOST
    assert seen.holds(Stream("a", 1, 0), 1)
    assert not seen.holds(Stream("a", 1, 0), 20 * RANGES_MOST - 3)


@pytest.mark.parametrize(
    ("headers", "whole", "enough"),
    [
        ([], False, False),
        ([header(0), header(1)], False, False),
        ([header(0), header(1, end=True)], True, True),
        ([header(1, end=True), header(0)], True, True),
        ([header(0), header(2, end=True)], False, True),
        ([header(0, end=True, partitions=2)], False, False),
        ([header(0, end=True, partitions=2), header(0, end=True, partition=1, partitions=2)], True, True),
        ([header(0, end=True), header(0, sensor="b")], False, False),
        ([header(0), header(0, epoch=2, end=True)], True, True),
        ([header(0, end=True), header(0, epoch=2)], False, False),
    ],
    ids=["nothing", "no-end", "all", "end-first", "one-missing", "one-partition-of-two", "two-partitions", "one-of-two",
         "killed-and-restarted", "restarted"],
)  # fmt: skip
def test_when_all_has_ended(headers, whole, enough):
    """The latest epoch of each sensor counts, with all its partitions."""
    seen = seen_of(*headers)
    assert seen.ended() == whole
    assert seen.ended(whole=False) == enough
    assert not seen.ended({"a", "c"}, whole=False)


def test_epochs_follow_each_other():
    """The one before is the largest seen that is smaller, whatever came first."""
    seen = seen_of(header(0, epoch=3), header(0, epoch=1), header(0, epoch=2, partition=1))
    assert [seen.follows(Stream("a", epoch, 0)) for epoch in (1, 2, 3, 4)] == [-1, 1, 1, 3]
    assert seen.follows(Stream("a", 3, 1)) == 2
    assert seen.follows(Stream("b", 3, 0)) == -1


def test_old_epochs_are_forgotten_where_asked():
    """A reader that only needs the latest keeps no more."""
    seen = seen_of(*(header(0, epoch=epoch) for epoch in range(1, 9)), epochs_most=2)
    for kept in (seen, StreamsSeen.from_bytes(seen.to_bytes())):
        assert [epoch for epoch in range(1, 9) if kept.holds(Stream("a", epoch, 0), 0)] == [7, 8]


def test_sensors_that_never_come_back_are_forgotten():
    """A name for each hour, for ever: what is remembered is that of a week, as the queue received it."""
    seen, sizes = StreamsSeen(), []
    for hour in range(500):
        seen.arrived(Stream(f"s{hour:03}", 1, 0), header(0), 10**6 * S + hour * 3600 * S)
        sizes.append(len(seen.to_bytes()))
        seen = StreamsSeen.from_bytes(seen.to_bytes())
    assert max(sizes) < sizes[168] * 1.02
    assert [hour for hour in range(500) if seen.holds(Stream(f"s{hour:03}", 1, 0), 0)] == list(range(331, 500))
    assert [seen.follows(Stream(f"s{hour:03}", 2, 0)) for hour in (330, 331)] == [-1, 1]


@pytest.mark.parametrize(
    ("headers", "watermark_s"),
    [
        ([header(0, at_s=100), header(0, sensor="b", at_s=90)], 88),
        ([header(0, at_s=100), header(0, sensor="b", at_s=90, end=True)], 98),
        ([header(0, at_s=900), header(0, sensor="b", at_s=200)], 898),
        ([header(0, at_s=900), header(0, sensor="b", at_s=1061)], 898),
        ([header(0, at_s=100, end=True)], 98),
        ([header(0, at_s=2000)], None),
        ([], None),
    ],
    ids=["the-last", "ended", "silent", "from-the-future", "all-ended", "only-the-future", "nothing"],
)
def test_the_watermark(headers, watermark_s):
    """It is that of the last stream, but for those that tell nothing of the time now, which is 1000 s."""
    expected = NO_TIME if watermark_s is None else watermark_s * S
    assert seen_of(*headers).watermark_ns(2 * S, 600 * S, 1000 * S) == expected

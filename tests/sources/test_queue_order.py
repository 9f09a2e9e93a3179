"""What the order of a queue tells: exactly what is missing, from the queue's content alone, wherever it is resumed."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.queue_order import EARLY_MOST, QueueOrder
from transforms.records import (
    END_OF_STREAM,
    GAP_JOINED,
    GAP_LOST,
    GAP_REPLACED,
    GAP_SILENT,
    NO_TIME,
    Gap,
    PacketBatch,
    Stream,
)

SECOND = 1_000_000_000
BOUND, TIMEOUT = 2 * SECOND, 600 * SECOND
NO_PACKETS = np.zeros(0)  # nobody looks at them
LAW = settings(max_examples=100)


class Sent(NamedTuple):
    """A block, and when the queue received it."""

    header: PacketBatch
    received_ns: int = NO_TIME


def block(number, at_s, *, end=False, sensor="a", epoch=1, partition=0, partitions=1, received_s=None):
    """A block observed at `at_s`; times are counted from 1,000 s."""
    stream = Stream(sensor, epoch, partition)
    header = PacketBatch(stream, number, round((1000 + at_s) * SECOND), NO_PACKETS, b"", partitions, end)
    return Sent(header, NO_TIME if received_s is None else round((1000 + received_s) * SECOND))


def order(*sent, bound_ns=BOUND, timeout_ns=TIMEOUT, joins=False):
    """The order after the blocks, and everything that it told."""
    made = QueueOrder(bound_ns, timeout_ns, joins)
    return made, [gap for one in sent for gap in made.arrived(*one)[1]]


def lost(first, after, *, reason=GAP_LOST, sensor="a", epoch=1, partitions=1):
    return Gap(Stream(sensor, epoch, 0), partitions, first, after, reason)


def ended(first, reason, **stream):
    return lost(first, END_OF_STREAM, reason=reason, **stream)


def numbers_missing(gaps):
    """Numbers told to be missing, by stream; each at most once."""
    told = defaultdict(list)
    for gap in gaps:
        told[gap.stream] += range(gap.first, gap.after)
    assert all(len(numbers) == len(set(numbers)) for numbers in told.values())
    return {stream: set(numbers) for stream, numbers in told.items()}


@st.composite
def streams(draw, sensors=("a", "b"), ends=True):
    """What sensors send: blocks in order, observed times that never go back."""
    sent = []
    for sensor in sensors:
        times = np.cumsum(draw(st.lists(st.sampled_from([0, 0.2, 1, 3]), min_size=1, max_size=20)))
        for number, at_s in enumerate(times):
            last = bool(ends and number == len(times) - 1)
            sent.append(block(number, 0 if last else float(at_s), end=last, sensor=sensor))
    return sent


def true_times(sent):
    """When each block was sent: an end block says the time of the last packet, which may be long before."""
    latest = {}
    for header, _ in sent:
        latest[header.stream] = max(latest.get(header.stream, 0), header.observed_ns)
        yield latest[header.stream]


@st.composite
def shuffled(draw, sent):
    """The blocks in an order within the bound, some of them repeated anywhere after."""
    delays = [draw(st.sampled_from([0, 0, 0.1, 1, 2])) * SECOND for _ in sent]
    places = [(time + delay, index) for index, (time, delay) in enumerate(zip(true_times(sent), delays, strict=True))]
    repeats = draw(st.lists(st.sampled_from(places), max_size=5))
    places += [(place + draw(st.integers(0, 10 * SECOND)), index) for place, index in repeats]
    return [sent[index] for _, index in sorted(places)]


@LAW
@given(st.data())
def test_within_the_bound_nothing_is_missing(data):
    """Shuffled and repeated as much as allowed, every stream ends without a gap."""
    sent = data.draw(streams())
    made, gaps = order(*data.draw(shuffled(sent)))
    assert gaps == []
    assert made.ended(["a", "b"])
    assert made.finished() == ()


@LAW
@given(st.data())
def test_exactly_what_is_lost_is_told(data):
    """Whatever numbers never come are told, each once, and no other, by the end of the queue at the latest."""
    sent = data.draw(streams())
    kept = data.draw(st.lists(st.booleans(), min_size=len(sent), max_size=len(sent)))
    coming = [one for one, keep in zip(sent, kept, strict=True) if keep or one.header.end]
    gone = defaultdict(set)
    for one, keep in zip(sent, kept, strict=True):
        if not (keep or one.header.end):
            gone[one.header.stream].add(one.header.sequence)
    made, gaps = order(*data.draw(shuffled(coming)))
    gaps += made.finished()
    assert numbers_missing(gaps) == gone
    assert made.ended(["a", "b"])


@LAW
@given(st.data())
def test_a_saved_order_goes_on_as_if_nothing_had_been(data):
    """Wherever reading is interrupted, what is told is the same."""
    sent = data.draw(streams(sensors=("a", "ü"), ends=data.draw(st.booleans())))
    sent = [one._replace(received_ns=one.header.observed_ns * data.draw(st.sampled_from([1, 2]))) for one in sent]
    sent = [one for one in data.draw(st.permutations(sent)) if data.draw(st.booleans())]
    joins = data.draw(st.booleans())
    straight, whole = QueueOrder(BOUND, TIMEOUT, joins), QueueOrder(BOUND, TIMEOUT, joins)
    for one in sent:
        assert straight.arrived(*one) == whole.arrived(*one)
        straight = QueueOrder.from_bytes(straight.to_bytes())
        assert straight.to_bytes() == whole.to_bytes()
    assert straight.idle(BOUND + 1) == whole.idle(BOUND + 1)
    assert straight.finished() == whole.finished()
    assert straight.ended() == whole.ended()


@pytest.mark.parametrize(("further_s", "told"), [(2, []), (2.001, [lost(1, 2)])], ids=["at-the-bound", "behind-it"])
def test_lost_once_the_stream_has_come_further_by_the_bound(further_s, told):
    assert order(block(0, 0), block(2, 1), block(3, 1 + further_s))[1] == told


def test_gaps_are_told_one_by_one():
    """A hole that may still be filled waits, whatever was before it."""
    made, gaps = order(block(0, 0), block(2, 1), block(4, 5), block(5, 6))
    assert gaps == [lost(1, 2)]
    assert made.finished() == (lost(3, 4),)


def test_a_stream_may_be_read_from_its_middle():
    """What lies before the place where reading began is no loss; what is missing behind that, or elsewhere, is."""
    sent = [block(70, 0), block(72, 3), block(73, 6), block(1, 7, epoch=2), block(2, 8, epoch=2), block(3, 11, epoch=2)]
    joined = lost(0, 70, reason=GAP_JOINED)
    rest = [lost(71, 72), lost(0, 1, epoch=2), ended(74, GAP_REPLACED)]
    assert order(*sent, joins=True)[1] == [joined, *rest]
    assert order(*sent)[1] == [lost(0, 70), *rest]
    assert order(block(0, 0), block(2, 1), block(3, 4), joins=True)[1] == [lost(1, 2)]


def test_too_many_early_blocks_are_not_waited_with():
    """Memory is bounded: with so many blocks behind it, a number is lost, though no time has passed."""
    made, gaps = order(*(block(number, 0) for number in range(1, EARLY_MOST + 1)))
    assert gaps == []
    assert made.arrived(block(EARLY_MOST + 1, 0).header)[1] == (lost(0, 1),)


def test_what_comes_after_it_was_lost_changes_nothing():
    made, _ = order(block(0, 0), block(2, 1), block(3, 5))
    assert made.arrived(block(1, 0.5).header) == (-1, ())
    assert made.arrived(block(4, 6, end=True).header) == (-1, ())
    assert made.ended()


def test_an_end_block_out_of_order_loses_nothing():
    """Its time is that of the last packet, long before the heartbeats that follow it."""
    made, gaps = order(block(0, 0), block(3, 0, end=True), block(1, 50), block(2, 51))
    assert gaps == []
    assert made.ended()


def test_numbers_behind_the_end_are_no_part_of_a_stream():
    made, gaps = order(block(0, 0), block(6, 0), block(2, 0, end=True))
    assert (gaps, made.finished()) == ([], (lost(1, 2),))
    assert (made.ended(), made.arrived(block(7, 9).header)) == (True, (-1, ()))


@pytest.mark.parametrize(("received_s", "told"), [(3, []), (3.001, [lost(1, 2)])], ids=["at-the-bound", "behind-it"])
def test_missing_before_the_end_is_lost_when_nothing_more_comes(received_s, told):
    """No block of the stream comes further than its end: other blocks show that the queue has gone on."""
    made, gaps = order(
        block(0, 0, received_s=0),
        block(2, 0, end=True, received_s=1),
        block(0, 0, sensor="b", received_s=received_s),
    )
    assert gaps == told
    assert made.ended(["a"]) is False  # b has not


@pytest.mark.parametrize("received_s", [None, 1], ids=["no-receive-time", "receive-time"])
def test_an_idle_queue_tells_what_its_next_block_would(received_s):
    """So that a stream ends although nothing comes any more."""
    made, gaps = order(block(0, 0, received_s=received_s), block(2, 0, end=True, received_s=received_s))
    assert (gaps, made.idle(BOUND), made.ended()) == ([], (), False)
    assert made.idle(BOUND + 1) == (lost(1, 2),)
    assert made.ended()
    assert made.idle(10 * TIMEOUT) == ()


def test_a_silent_stream_ends():
    """Nothing of it for the timeout, of the queue's receive time; what comes later changes nothing."""
    sent = [block(0, 0, received_s=0), block(2, 1, received_s=1), block(0, 0, sensor="b", received_s=601)]
    made, gaps = order(*sent)
    assert gaps == []
    assert made.arrived(*block(1, 1, sensor="b", received_s=601.001))[1] == (lost(1, 2), ended(3, GAP_SILENT))
    assert made.arrived(*block(3, 700, received_s=700)) == (-1, ())
    made, _ = order(*sent[:2])
    assert made.idle(TIMEOUT) == ()
    assert made.idle(TIMEOUT + 1) == (lost(1, 2), ended(3, GAP_SILENT))


def test_a_silent_stream_ends_itself_when_it_returns():
    """The same is told when nothing else was on the queue: it depends on receive times, not on who reads when."""
    made, _ = order(block(0, 0, received_s=0))
    assert made.arrived(*block(1, 601, received_s=601)) == (-1, (ended(1, GAP_SILENT),))


def test_without_receive_time_nobody_is_silent():
    made, gaps = order(block(0, 0), block(0, 90_000, sensor="b"))
    assert (gaps, made.idle(10 * TIMEOUT), made.ended()) == ([], (), False)


def test_a_killed_sensor_is_replaced_by_its_next_epoch():
    """Once that has come further by the bound; until then blocks of the old one may still come."""
    made, _ = order(block(0, 0), block(2, 1), block(0, 1, epoch=5))
    assert made.arrived(block(1, 3, epoch=5).header) == (1, ())
    assert made.arrived(block(2, 3.001, epoch=5).header) == (1, (lost(1, 2), ended(3, GAP_REPLACED)))
    assert made.arrived(block(3, 0).header) == (-1, ())


def test_a_clock_set_back_does_not_keep_the_old_epoch_open():
    """The new one has come further by the bound than where it began."""
    gaps = order(block(0, 3600), block(0, 0, epoch=5), block(1, 2.001, epoch=5))[1]
    assert gaps == [ended(1, GAP_REPLACED)]


def test_epochs_that_lasted_no_time_are_replaced_too():
    """A sensor that dies again and again: nobody of the chain is left open, the oldest is told first."""
    sent = [block(0, 0, epoch=1), block(0, 0.1, epoch=2), block(0, 0.2, epoch=3), block(1, 5, epoch=3)]
    made, gaps = order(*sent[:3])
    assert [QueueOrder(BOUND, TIMEOUT).arrived(*sent[0])[0], made.arrived(*sent[2])[0]] == [-1, 2]
    assert gaps == []
    assert made.arrived(*sent[3])[1] == (ended(1, GAP_REPLACED, epoch=1), ended(1, GAP_REPLACED, epoch=2))
    assert made.ended() is False


def test_a_stream_that_ended_is_followed_and_forgotten():
    """The next epoch follows it without a gap; what is remembered does not grow with the number of restarts."""
    made = QueueOrder(BOUND, TIMEOUT)
    sizes = []
    for epoch in range(100, 150):
        follows, gaps = made.arrived(block(0, epoch, epoch=epoch).header)
        assert (follows, gaps) == (epoch - 1 if epoch > 100 else -1, ())
        made.arrived(block(1, epoch, epoch=epoch, end=True).header)
        sizes.append(len(made.to_bytes()))
    assert sizes[-1] <= max(sizes[:3])


@pytest.mark.parametrize("received", [True, False])
def test_sensors_that_never_come_back_are_forgotten(received):
    """A name for each hour, for ever: what is remembered is that of a week, and saved states are no larger."""
    made, sizes = QueueOrder(BOUND, TIMEOUT), []
    for hour in range(500):
        for number in range(2):
            at_s = hour * 3600 + number
            sent = block(number, at_s, end=number == 1, sensor=f"s{hour:03}", received_s=at_s if received else None)
            assert made.arrived(*sent) == (-1, ())
        sizes.append(len(made.to_bytes()))
    assert max(sizes) < sizes[168] * 1.05
    made = QueueOrder.from_bytes(made.to_bytes())
    again = block(0, 500 * 3600, sensor="s499", epoch=2, received_s=500 * 3600 if received else None)
    assert made.arrived(*again)[0] == 1


def test_sensors_are_not_forgotten_while_they_are_open_or_asked_for():
    """One that is open holds the others; `ended` needs to know who was there."""
    made, _ = order(block(0, 0, sensor="open"), block(0, 0, sensor="b", end=True))
    assert made.arrived(block(0, 9e6, sensor="c").header)[0] == -1
    assert made.arrived(block(0, 9e6, sensor="b", epoch=2).header)[0] == 1
    asked = QueueOrder(BOUND, TIMEOUT, forgets=False)
    for sent in (block(0, 0, end=True), block(0, 9e6, sensor="b", end=True)):
        asked.arrived(*sent)
    assert QueueOrder.from_bytes(asked.to_bytes()).ended(["a", "b"])


def test_a_block_of_an_epoch_before_changes_nothing():
    """It may be looked at by shards, which know it is late; nobody waits for it."""
    made, _ = order(block(0, 0, epoch=5))
    assert made.arrived(block(0, 0, epoch=3).header) == (-1, ())
    assert made.arrived(block(1, 0, epoch=5, end=True).header) == (-1, ())
    assert made.ended()


def test_a_block_from_the_future_loses_nothing():
    """A stream comes no further than the queue's receive time."""
    gaps = order(
        block(0, 0, received_s=0),
        block(2, 90_000, received_s=0.1),
        block(3, 0.2, received_s=0.2),
        block(1, 0.1, received_s=0.3),
    )[1]
    assert gaps == []


def test_the_frontier_is_that_of_the_stream_furthest_behind():
    """Of those that are open: it is for the watermark."""
    made, _ = order(block(0, 5), block(0, 3, sensor="b"))
    assert made.frontier_ns == 1003 * SECOND
    made.arrived(block(1, 3, sensor="b", end=True).header)
    assert made.frontier_ns == 1005 * SECOND
    made.arrived(block(1, 3, end=True).header)
    assert made.frontier_ns == NO_TIME


@pytest.mark.parametrize(
    ("sensors", "expected"), [((), True), (["a"], True), (["a", "b"], False)], ids=["any", "seen", "not-seen"]
)
def test_the_end_of_all_named_sensors_is_waited_for(sensors, expected):
    made, _ = order(block(0, 0, end=True))
    assert made.ended(sensors) is expected
    assert QueueOrder(BOUND, TIMEOUT).ended(()) is False


def of_partition(partition, *sent):
    """The order of one part of a queue."""
    made = QueueOrder(BOUND, TIMEOUT)
    for header, received_ns in sent:
        made.arrived(header._replace(stream=header.stream._replace(partition=partition)), received_ns)
    return made


def test_other_parts_end_with_the_first():
    """A sensor writes to as many as it says: no other waits for it, these do until it ended there."""
    first = of_partition(0, block(0, 0, end=True, partitions=2), block(0, 0, end=True, sensor="b"))
    assert first.ended(["a", "b"])
    assert first.most_partitions == 2
    assert of_partition(1).ended_like(first, 1) is False
    assert of_partition(1, block(0, 0, partitions=2)).ended_like(first, 1) is False
    assert of_partition(1, block(0, 0, partitions=2, end=True)).ended_like(first, 1)
    assert of_partition(2).ended_like(first, 2)


def test_other_parts_end_with_the_last_epoch():
    """Neither one that ended before counts as its successor, nor is one waited for that was killed at its start."""
    first = of_partition(0, block(0, 0, end=True, partitions=2), block(0, 1, epoch=2, end=True, partitions=2))
    before = of_partition(1, block(0, 0, end=True, partitions=2))
    assert before.ended_like(first, 1) is False
    killed = of_partition(0, block(0, 0, end=True, partitions=2), block(0, 1, epoch=2, partitions=2, received_s=1))
    killed.idle(TIMEOUT + 1)
    assert killed.ended()
    assert before.ended_like(killed, 1)

"""How packets get to their shards: by value, and within a process."""

import pickle
import threading

import pytest
from apache_beam.utils.timestamp import Timestamp
from flow_testing import packets
from table_testing import batch

from transforms.arrivals import Arrival
from transforms.handover import BY_VALUE, InProcess
from transforms.records import GAP_LOST, Gap, Stream
from transforms.shard import _SplitFn


def octets(rows: int) -> int:
    return packets([0] * rows).nbytes


def test_both_ways_give_what_was_given():
    """Blocks, and what their queue says of them."""
    gap = Gap(Stream("a", 2, 1), 4, 3, 7, GAP_LOST)
    arrivals = [Arrival(batch(packets([1, 2]), 5), 17, 3, False), Arrival(None, 18, gaps=(gap,))]
    for way in (BY_VALUE, InProcess(0)):
        block, told = way.take(way.give(arrivals))
        assert block.batch.packets["time_ns"].tolist() == arrivals[0].batch.packets["time_ns"].tolist()
        assert block._replace(batch=None) == arrivals[0]._replace(batch=None)
        assert told == arrivals[1]


def test_by_value_is_small():
    """Packets of a flow are alike."""
    assert len(BY_VALUE.give([Arrival(batch(packets(list(range(1000)))))])) < 30_000


def test_a_claim_outlives_pickle_and_is_taken_once():
    """A runner makes copies of steps; what it repeats, and what another process gave, nobody has."""
    way = InProcess(0)
    claim = way.give([Arrival(batch(packets([1])))])
    other = pickle.loads(pickle.dumps(way))
    assert len(list(other.take(claim))) == 1
    for stranger in (way, InProcess(0)):
        with pytest.raises(RuntimeError, match="needs packets by value"):
            stranger.take(claim)


def test_a_bundle_waits_until_shards_have_taken_what_is_underway():
    """It begins when no more than the limit is left, and not before."""
    way = InProcess(octets(10), most_s=60)
    first = _SplitFn(2, False, way)
    first.start_bundle()
    list(first.process(batch(packets([0] * 50)), Timestamp(0)))
    claims = [part.value[1] for part in first.finish_bundle()]
    begun = threading.Event()

    def begin() -> None:
        _SplitFn(2, False, way).start_bundle()
        begun.set()

    thread = threading.Thread(target=begin)
    thread.start()
    assert not begun.wait(0.2)
    for claim in claims:
        list(way.take(claim))
    assert begun.wait(5)
    thread.join()


def test_nothing_waits_for_ever():
    """Whatever became of what was underway, after a while the next bundle begins."""
    way = InProcess(octets(10), most_s=0.05)
    way.give([Arrival(batch(packets([0] * 11)))])
    assert way.wait() >= 0.05

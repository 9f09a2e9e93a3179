"""A shard follows its streams: whatever the delivery, the flows are those of the packets."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flow_testing import START_NS, packets
from hypothesis import given, settings
from hypothesis import strategies as st
from table_testing import COLUMNS, LOCAL, S, as_table, batch, captures, rows_of, table_of

from transforms.arrivals import Arrival, pack, unpack
from transforms.records import (
    END_OF_STREAM,
    MERGED_SENSORS,
    NO_TIME,
    UDP,
    Gap,
    InputError,
    PacketBatch,
    Reject,
    SensorEvent,
    SensorHealth,
    Stream,
)
from transforms.rules import Rules
from transforms.settings import FlowSettings
from transforms.shard_state import Shard
from transforms.stream_line import StreamRules

DEFAULT = FlowSettings()


def shard(number: int = 0, sensor: str = "local", flows: FlowSettings = DEFAULT, **rules: Any) -> Shard:
    """An empty shard."""
    return Shard(flows, COLUMNS, StreamRules(**rules), sensor, number)


class Seen:
    """What a shard put out."""

    def __init__(self, outputs: Iterable[Any] = ()) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.rejects: list[Reject] = []
        self.events: list[SensorEvent] = []
        self.add(outputs)

    def add(self, outputs: Iterable[Any]) -> "Seen":
        for one in outputs:
            kind = self.batches if isinstance(one, pa.RecordBatch) else self.rejects
            (self.events if isinstance(one, SensorEvent) else kind).append(one)
        return self

    @property
    def flows(self) -> list[dict[str, Any]]:
        return rows_of(self.batches)

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event.event, event.amount) for event in self.events]

    @property
    def refused(self) -> list[tuple[str, int | None]]:
        return [(reject.reason, reject.position) for reject in self.rejects]


def udp(at_s: list[float], number: int, stream: Stream = LOCAL, **more: Any) -> PacketBatch:
    """A block of one UDP flow."""
    return batch(packets(at_s, protocol=UDP), number, stream, **more)


def end(at_s: float, number: int, stream: Stream = LOCAL) -> PacketBatch:
    """The block that ends a stream."""
    return batch(packets([]), number, stream, observed_ns=START_NS + round(at_s * S), end=True)


def beat(at_s: float, number: int, stream: Stream = LOCAL, **more: Any) -> PacketBatch:
    """A block without packets."""
    return batch(packets([]), number, stream, observed_ns=START_NS + round(at_s * S), **more)


def restored(one: Shard, flows: FlowSettings = DEFAULT, **rules: Any) -> Shard:
    """The shard after a restart."""
    one.take_counts()
    again = Shard(flows, COLUMNS, StreamRules(**rules), one._sensor, one._number)
    again.restore(one.to_bytes())
    return again


@st.composite
def streams(draw: st.DrawFn) -> list[PacketBatch]:
    """A capture in blocks: packets may be out of order by up to the bound of two seconds; an end block."""
    rows = draw(captures())
    rows = rows[np.abs(rows["time_ns"] // 2) < 1 << 61]  # further away, no time would be left for the bound
    rows = rows[np.argsort(rows["time_ns"], kind="stable")]
    shift = np.array(draw(st.lists(st.integers(0, S), min_size=len(rows), max_size=len(rows))), np.int64)
    rows = rows[np.argsort(rows["time_ns"] + shift, kind="stable")]
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=12)))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    made, observed_ns = [], -(1 << 62)
    for number, part in enumerate(parts):
        observed_ns = max([observed_ns, *part["time_ns"].tolist()])
        made.append(batch(part, number, observed_ns=observed_ns))
    return [*made, batch(rows[:0], len(made), observed_ns=observed_ns, end=True)]


@settings(max_examples=80, deadline=None)
@given(streams(), st.data(), st.sampled_from([{}, {"interim_interval_s": 20, "idle_timeout_s": 12}]))
def test_any_delivery_gives_the_flows_of_the_sorted_packets(blocks, data, rules):
    """Order, repetition, bundles, restarts in between: the flows are those of one table, bit for bit."""
    flows = FlowSettings(Rules(**rules))
    again = data.draw(st.lists(st.sampled_from(range(len(blocks))), max_size=4))
    delivery = data.draw(st.permutations([*range(len(blocks)), *again]))
    cuts = data.draw(st.sets(st.integers(0, len(delivery)), max_size=4))
    restarts = data.draw(st.sets(st.integers(0, len(delivery)), max_size=3))
    one, seen, counts, waiting = shard(flows=flows), Seen(), Counter(), []
    for at, number in enumerate(delivery):
        waiting.append(Arrival(blocks[number]))
        if at in cuts or at == len(delivery) - 1:
            seen.add(one.take(unpack(pack(waiting))))
            waiting = []
        counts.update(one.take_counts())
        if at in restarts:
            one = restored(one, flows)
    whole = table_of(Rules(**rules))
    everything = np.concatenate([block.packets for block in blocks])
    whole.add(batch(everything))
    assert as_table(seen.batches).equals(as_table(whole.finish(blocks[-1].observed_ns)))
    assert seen.rejects == []
    assert counts["packets_in_flows"] == counts["packets_taken"] == len(everything)
    assert (counts["blocks_taken"], counts["blocks_repeated"]) == (len(blocks), len(again))


@settings(max_examples=40, deadline=None)
@given(streams(), st.data())
def test_late_and_lost_are_the_same_in_any_delivery(blocks, data):
    """With a bound of 0.1 s and numbers missing: the same flows, the same packets refused, nothing uncounted."""
    missing = data.draw(st.sets(st.sampled_from(range(len(blocks))), max_size=3)) - {len(blocks) - 1}
    gaps = tuple(Gap(LOCAL, 1, number, number + 1, "lost") for number in missing)
    there = [block for block in blocks if block.sequence not in missing]
    results = []
    for order in (there, data.draw(st.permutations(there))):
        one, seen = shard(max_out_of_orderness_s=0.1), Seen()
        at = data.draw(st.integers(0, len(order) - 1))
        for number, block in enumerate(order):
            seen.add(one.take([Arrival(block, gaps=gaps if number == at else ())]))
        counts = one.take_counts()
        taken = sum(len(block.packets) for block in there)
        assert taken == counts["packets_in_flows"] + counts["reject late"]
        assert counts["blocks_lost"] == len(missing)
        results.append((as_table(seen.batches), sorted(seen.rejects)))
    assert results[0][0].equals(results[1][0])
    assert results[0][1] == results[1][1]


def test_flow_comes_out_when_its_sensor_has_observed_its_end():
    """Idle timeout 120 s and a bound of 2 s: not at 121.9 s of observed time, but at 122; no packet is needed."""
    one = shard()
    seen = Seen(one.take([Arrival(udp([0], 0)), Arrival(beat(121.9, 1))]))
    assert seen.flows == []
    seen.add(one.take([Arrival(beat(122, 2))]))
    assert [flow["end_reason"] for flow in seen.flows] == [1]


def test_a_missing_block_holds_time_back_until_it_comes_or_is_told_lost():
    """What waits behind it is looked at afterwards, in order."""
    one = shard()
    assert Seen(one.take([Arrival(beat(500, 1))])).told == []
    seen = Seen(one.take([Arrival(udp([0], 0))]))
    assert [flow["end_reason"] for flow in seen.flows] == [1]
    seen = Seen(one.take([Arrival(beat(900, 5)), Arrival(None, gaps=(Gap(LOCAL, 1, 2, 5, "lost"),))]))
    assert seen.told == [("lost_blocks", 3)]
    seen = Seen(one.take([Arrival(udp([898.5], 3)), Arrival(udp([898.5], 3)), Arrival(udp([0], 1))]))
    assert seen.refused == [("late", 3)]
    assert one.take_counts()["blocks_repeated"] == 2


def test_packets_behind_the_bound_are_late():
    """Each block is judged by what was observed before it: exactly at the bound is in time."""
    one, seen = shard(), Seen()
    rows = np.concatenate([packets([8], protocol=UDP), packets([7.999_999_999], protocol=UDP)])
    seen.add(one.take([Arrival(udp([10], 0)), Arrival(batch(rows, 1)), Arrival(end(10, 2))]))
    assert seen.refused == [("late", 1)]
    assert [flow["fwd_packets"] for flow in seen.flows] == [2]
    assert ("late_packets", 1) in seen.told


def test_end_block_forces_flows_and_a_new_epoch_begins_anew():
    """Reason 4 at the end; an earlier time in the next epoch is not late, and its flow is another."""
    later = Stream("local", 7)
    blocks = [udp([100], 0), end(100, 1), udp([50], 0, later), end(50, 1, later)]
    arrivals = [Arrival(block, follows=0 if block.stream == later else -1) for block in blocks]
    for order in (arrivals, arrivals[::-1]):
        seen = Seen(shard().take(order))
        assert [(flow["flow_start_ns"], flow["end_reason"]) for flow in seen.flows] == [
            (START_NS + 50 * S, 4),
            (START_NS + 100 * S, 4),
        ]
        assert seen.told == [("started", 0), ("ended", 0)] * 2


@pytest.mark.parametrize("reason", ["replaced", "silent"])
def test_a_stream_that_will_not_go_on_is_ended(reason):
    """As the reader of the queue says; what comes of it afterwards is late."""
    one = shard()
    seen = Seen(one.take([Arrival(udp([0], 0)), Arrival(udp([1], 2))]))
    gone = Gap(LOCAL, 1, 3, END_OF_STREAM, reason)
    seen.add(one.take([Arrival(None, gaps=(Gap(LOCAL, 1, 1, 2, "lost"), gone))]))
    assert [(flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows] == [(2, 4)]
    assert seen.told == [("started", 0), ("lost_blocks", 1), (reason, 0)]
    assert Seen(one.take([Arrival(udp([2], 3))])).refused == [("late", 3)]


def test_a_killed_run_says_from_where_and_until_when_packets_are_missing():
    """The next run ends its streams: what came behind the last block until that began is not known."""
    one = shard()
    killed = end(1, 2)._replace(ended_by=START_NS + 5 * S)
    seen = Seen(one.take([Arrival(udp([1], 0)), Arrival(beat(3, 1)), Arrival(killed)]))
    assert [(flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows] == [(1, 4)]
    assert seen.told == [("started", 0), ("killed", 2 * S)]
    assert (seen.events[-1].time_ns, seen.events[-1].sequence) == (START_NS + 3 * S, 2)
    alone = Seen(shard().take([Arrival(end(7, 0)._replace(ended_by=START_NS + 5 * S))]))
    assert alone.told[-1] == ("killed", 0)  # of a replay whose packets have times of the future
    assert alone.events[-1].time_ns == START_NS + 7 * S


def test_what_was_not_read_is_no_loss():
    """A job that joins a stream tells it apart, in the events and in the counters."""
    one = shard()
    seen = Seen(one.take([Arrival(udp([0], 41), gaps=(Gap(LOCAL, 1, 0, 41, "joined"),))]))
    assert seen.told == [("joined", 41), ("started", 0)]
    assert seen.events[0].time_ns == NO_TIME
    counts = one.take_counts()
    assert (counts["blocks_not_read"], counts["blocks_lost"]) == (41, 0)


def test_a_block_from_the_future_closes_nobodys_flows():
    """Observed more than the skew after it was received: refused with its packets, its time does not count."""
    received_ns = START_NS + 3 * S
    one = shard(max_clock_skew_s=60)
    far = udp([64], 1)
    blocks = [udp([0], 0), far, udp([3], 2), end(3, 3)]
    seen = Seen(one.take([Arrival(block, received_ns) for block in blocks]))
    assert seen.refused == [("from_future", 1)]
    assert ("from_future", 1) in seen.told
    assert [(flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows] == [(2, 4)]
    on_edge = Seen(shard().take([Arrival(udp([63], 0), received_ns), Arrival(end(63, 1), received_ns)]))
    assert on_edge.refused == []


def test_a_queue_without_order_waits_for_a_missing_block_as_long_as_told():
    """Of the queue's receive time; then it is lost, with one line in the events."""
    one, seen = shard(gap_timeout_s=600), Seen()
    for block, received_s in ((udp([0], 0), 0), (udp([1], 2), 1), (beat(2, 3), 600.9)):
        seen.add(one.take([Arrival(block, START_NS + round(received_s * S), ordered=False)]))
    assert seen.told == [("started", 0), ("stale", 598_900_000_000)][:1]
    seen.add(one.take([Arrival(beat(300, 4), START_NS + 601 * S, ordered=False)]))
    assert ("lost_blocks", 1) in seen.told
    assert [flow["fwd_packets"] for flow in seen.flows] == [2]


def test_a_queue_without_order_is_joined_where_it_is():
    """Of a stream that began before this job, nothing but its rest will come: that is known after ten seconds."""
    one = shard()
    seen = Seen(one.take([Arrival(udp([0], 41), START_NS, ordered=False)]))
    assert seen.told == []
    seen.add(one.take([Arrival(beat(10, 42), START_NS + 10 * S, ordered=False)]))
    assert seen.told == [("joined", 41), ("started", 0)]


def test_merged_sensors_wait_for_the_one_that_is_behind():
    """Time is that of the slowest of those listed, from the moment that all were seen; one that ended holds nobody."""
    a, b = Stream("a", 5), Stream("b", 9)
    one = shard(sensor=MERGED_SENSORS, sensors=("a", "b"))
    seen = Seen(one.take([Arrival(udp([0], 0, a)), Arrival(beat(500, 1, a))]))
    seen.add(one.take([Arrival(udp([1], 0, b))]))
    assert seen.flows == []
    seen.add(one.take([Arrival(beat(400, 1, b))]))
    assert [(flow["sensor"], flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows] == [("*", 2, 1)]
    seen.add(one.take([Arrival(udp([600], 2, a)), Arrival(end(600, 3, a))]))
    assert len(seen.flows) == 1
    seen.add(one.take([Arrival(end(600, 2, b))]))
    assert [flow["end_reason"] for flow in seen.flows] == [1, 4]


A, B = Stream("a", 5), Stream("b", 9)
A_AGAIN = Stream("a", 1_000)
MERGED = [
    *(udp([0], 0, A), udp([0.5], 0, B), beat(300, 1, B), end(1, 1, A), beat(400, 2, B)),
    *(udp([100, 350, 399.9], 0, A_AGAIN), udp([500], 3, B), end(500, 4, B), end(400, 1, A_AGAIN)),
]


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, len(MERGED) - 1)), st.sets(st.integers(1, len(MERGED) - 1)))
def test_merged_sensors_are_late_by_the_order_of_the_queue_alone(cuts, restarts):
    """A sensor that ends and begins again behind the others: what is late is the same, however bundles are cut."""
    one, seen, counts = shard(sensor=MERGED_SENSORS, sensors=("a", "b")), Seen(), Counter()
    for begin, after in pairwise([0, *sorted(cuts | restarts), len(MERGED)]):
        blocks = MERGED[begin:after]
        seen.add(one.take([Arrival(block, follows=5 if block.stream == A_AGAIN else -1) for block in blocks]))
        counts.update(one.take_counts())
        if after in restarts:
            one = restored(one, sensors=("a", "b"))
    assert seen.refused == [("late", 0)]
    assert (counts["reject late"], counts["packets_in_flows"]) == (2, 4)
    assert sorted((flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows) == [(2, 1), (2, 4)]
    assert ("late_packets", 2) in seen.told


def test_what_a_sensor_says_is_told_once_for_all_its_shards():
    """By the shard that bears the number of the partition: drops, rejects, that the sensor is behind."""
    health = SensorHealth(50.0, 1 << 20)
    block = beat(1, 0, dropped=7, rejects=(("not_ip", 3),), health=health)
    found = []
    for number in range(4):
        one = shard(number)
        seen = Seen(one.take([Arrival(block, START_NS + 12 * S)]))
        found.append((seen.told, one.take_counts()))
    assert found[0][0] == [("started", 0), ("dropping", 7), ("stale", 11 * S)]
    counts = found[0][1]
    assert (counts["interface_drops"], counts["reject not_ip"], counts["packets_taken"]) == (7, 3, 3)
    assert all(told == [] and not counts.total() for told, counts in found[1:])


def test_draining_ends_everything_with_what_waits():
    """Nothing will come any more: blocks behind a missing one are taken, flows are forced."""
    one = shard()
    later = Stream("local", 7)
    seen = Seen(one.take([Arrival(udp([0], 0)), Arrival(udp([5], 3)), Arrival(udp([1], 1, later), follows=0)]))
    seen.add(one.finish())
    assert [(flow["fwd_packets"], flow["end_reason"]) for flow in seen.flows] == [(2, 4), (1, 4)]
    counts = one.take_counts()
    assert (counts["packets_taken"], counts["packets_in_flows"], counts["blocks_lost"]) == (3, 3, 3)


def test_counts_are_told_once_across_a_restart():
    """A snapshot knows what was told."""
    one = shard()
    Seen(one.take([Arrival(udp([0, 1], 0)), Arrival(beat(200, 1))]))
    assert one.take_counts()["packets_in_flows"] == 2
    again = restored(one)
    Seen(again.take([Arrival(udp([199], 2)), Arrival(end(199, 3))]))
    assert again.take_counts()["packets_in_flows"] == 1


def test_snapshot_keeps_what_waits_and_what_was_missed():
    """Blocks behind a gap, gaps behind blocks, numbers that were lost."""
    one = shard()
    gap = Gap(LOCAL, 1, 0, 2, "lost")
    Seen(one.take([Arrival(udp([10], 2), gaps=(gap, Gap(LOCAL, 1, 5, 6, "lost"))), Arrival(udp([12], 4))]))
    again = restored(one)
    assert Seen(again.take([Arrival(udp([9], 1))])).refused == [("late", 1)]
    seen = Seen(again.take([Arrival(udp([11], 3)), Arrival(end(12, 6))]))
    assert [flow["fwd_packets"] for flow in seen.flows] == [3]


@pytest.mark.parametrize("name", ["max_out_of_orderness_s", "max_clock_skew_s", "gap_timeout_s"])
def test_settings_that_make_no_sense(name):
    """One line with the option and its value."""
    with pytest.raises(InputError, match=f"--{name}: -1 s"):
        StreamRules(**{name: -1.0})


def test_memory_of_lost_ranges_is_bounded():
    """A stream that loses every second block for ever does not grow the shard."""
    one = shard()
    for number in range(1, 6000, 2):
        gap = Gap(LOCAL, 1, number - 1, number, "lost")
        Seen(one.take([Arrival(beat(number / 10, number), gaps=(gap,))]))
    assert len(one.to_bytes()) < 60_000
    assert one.take_counts()["blocks_lost"] == 3000

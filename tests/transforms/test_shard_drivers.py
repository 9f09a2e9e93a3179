"""State is the truth: a shard goes on exactly, whatever the runner does with its worker."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from flow_testing import packets
from hypothesis import given, settings
from hypothesis import strategies as st
from table_testing import COLUMNS, LOCAL, as_table, batch, captures, table_of

from transforms import shard_drivers
from transforms.arrivals import Arrival
from transforms.flow_records import FinishedFlows
from transforms.handover import BY_VALUE, Handover, InProcess
from transforms.records import NO_TIME, UDP, PacketBatch, Stream
from transforms.rules import Rules
from transforms.settings import FlowSettings
from transforms.shard_drivers import EndlessShardFn, Kept, MakeColumnsFn, ShardCache
from transforms.stream_line import StreamRules

KEY = ("local", 0)


class States:
    """What a runner keeps for one key: a bag, two values, a timer."""

    def __init__(self) -> None:
        self.bag: list[bytes] = []
        self.values: dict[str, bytes | None] = {"snapshot": None, "about": None}
        self.timer: Any = None

    def copy(self) -> "States":
        other = States()
        other.bag, other.values, other.timer = list(self.bag), dict(self.values), self.timer
        return other

    def arguments(self) -> dict[str, Any]:
        return {"log": _Bag(self), "snapshot": _Value(self, "snapshot"), "about": _Value(self, "about")}


class _Bag:
    def __init__(self, states: States) -> None:
        self._states = states

    def read(self) -> list[bytes]:
        return list(self._states.bag)

    def add(self, octets: bytes) -> None:
        self._states.bag.append(octets)

    def clear(self) -> None:
        self._states.bag = []


class _Value:
    def __init__(self, states: States, name: str) -> None:
        self._states, self._name = states, name

    def read(self) -> bytes | None:
        return self._states.values[self._name]

    def write(self, octets: bytes) -> None:
        self._states.values[self._name] = octets

    def clear(self) -> None:
        self._states.values[self._name] = None


class _Timer:
    def __init__(self, states: States) -> None:
        self._states = states

    def set(self, at: Any) -> None:
        self._states.timer = at


class Worker:
    """A worker process: its own cache, the state of the runner."""

    def __init__(self, flows: FlowSettings, cache_octets: int = 1 << 30, handover: Handover = BY_VALUE) -> None:
        self.fn = EndlessShardFn(flows, StreamRules(), cache_octets, handover)
        self._handover = handover
        self.fn.setup()

    def process(self, states: States, arrivals: list[Arrival]) -> list[Any]:
        element = (KEY, self._handover.give(arrivals))
        return list(self.fn.process(element, **states.arguments(), end=_Timer(states)))

    def finish(self, states: States) -> list[Any]:
        return list(self.fn.finish(KEY, **states.arguments()))


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch):
    monkeypatch.setattr(shard_drivers, "_cache", ShardCache())
    monkeypatch.setattr(shard_drivers, "LOG_OCTETS_LEAST", 300)


def rows(outputs: list[Any]) -> list[pa.RecordBatch]:
    return [COLUMNS.joined([one]) for one in outputs if isinstance(one, FinishedFlows)]


def blocks_of(capture: np.ndarray, cuts: list[int]) -> list[PacketBatch]:
    capture = capture[np.abs(capture["time_ns"] // 2) < 1 << 61]
    capture = capture[np.argsort(capture["time_ns"], kind="stable")]
    edges = [0, *sorted(min(cut, len(capture)) for cut in cuts), len(capture)]
    made, observed_ns = [], -(1 << 62)
    for number, (begin, after) in enumerate(pairwise(edges)):
        observed_ns = max([observed_ns, *capture["time_ns"][begin:after].tolist()])
        made.append(batch(capture[begin:after], number, observed_ns=observed_ns))
    return made


@settings(max_examples=60, deadline=None)
@given(captures(), st.lists(st.integers(0, 40), max_size=8), st.data())
def test_retries_restarts_and_moves_change_nothing(capture, cuts, data):
    """A bundle fails after it was worked on, a worker dies, a key moves: the flows are those of one table."""
    shard_drivers._cache = ShardCache()
    flows = FlowSettings(Rules(interim_interval_s=20))
    blocks, states, kept = blocks_of(capture, cuts), States(), []
    workers = [Worker(flows, cache_octets=data.draw(st.sampled_from([0, 1 << 30]))) for _ in range(2)]
    for block in blocks:
        for _ in range(data.draw(st.integers(0, 2))):  # bundles that fail: what they wrote and put out is not kept
            data.draw(st.sampled_from(workers)).process(states.copy(), [Arrival(block)])
        if data.draw(st.booleans()):  # a new process
            shard_drivers._cache = ShardCache()
        kept += data.draw(st.sampled_from(workers)).process(states, [Arrival(block)])
    assert states.timer == GlobalWindow().max_timestamp()
    kept += workers[0].finish(states)
    assert (states.bag, states.values) == ([], {"snapshot": None, "about": None})
    table = table_of(Rules(interim_interval_s=20))
    table.add(batch(np.concatenate([block.packets for block in blocks])))
    assert as_table(rows(kept)).equals(as_table(table.finish(blocks[-1].observed_ns)))


def test_in_one_process_state_holds_no_packets():
    """The process has the shard, however small its cache; without it the step does not begin anew as if nothing was."""
    states, worker = States(), Worker(FlowSettings(), 0, InProcess(1 << 20))
    blocks = [batch(packets([number], protocol=UDP), number) for number in range(30)]
    for block in blocks:
        worker.process(states, [Arrival(block)])
        assert (states.bag, states.values["snapshot"], len(states.values["about"])) == ([], None, 32)
    (flows,) = rows(worker.finish(states.copy()))
    assert flows.column("fwd_packets").to_pylist() == [30]
    with pytest.raises(RuntimeError, match="started again"):
        worker.process(states, [Arrival(blocks[0])])


def test_log_is_bounded_by_the_snapshot():
    """However long a job runs: once the log outgrows the table's own size, the table is written and the log begins."""
    states, worker = States(), Worker(FlowSettings())
    sizes = []
    for number in range(300):
        worker.process(states, [Arrival(batch(packets([number], protocol=UDP), number))])
        sizes.append(sum(map(len, states.bag)))
    table_octets = Kept.from_bytes(states.values["about"]).snapshot_octets
    assert table_octets > 2 * 300
    assert max(sizes) <= table_octets // 2 + 200
    assert sizes.count(0) > 3


def test_a_sensor_that_has_ended_leaves_little():
    """Neither log nor table; a later epoch goes on from there."""
    states, worker = States(), Worker(FlowSettings())
    blocks = [
        batch(packets([0] * 50, protocol=UDP), 0),
        batch(packets([]), 1, LOCAL, observed_ns=2_000_000_000_000_000_000, end=True),
    ]
    worker.process(states, [Arrival(block) for block in blocks])
    assert states.bag == []
    assert len(states.values["snapshot"]) < 200
    shard_drivers._cache = ShardCache()
    later = Stream("local", 9)
    outputs = worker.process(states, [Arrival(block._replace(stream=later), follows=0) for block in blocks])
    assert [flows.num_rows for flows in rows(outputs)] == [1]


def test_a_sensor_that_never_comes_back_is_forgotten():
    """A week after the queue received its last block; one that comes back is followed to the end of time again."""
    week = 7 * 86_400
    last, again = Stream("local", 1), Stream("local", 2)
    states, worker = States(), Worker(FlowSettings())
    begun = packets([0, 1], protocol=UDP)
    received_ns = int(begun["time_ns"][-1]) + 10**9

    def taken(sequence: int, stream: Stream = last, end: bool = False, received_ns: int = received_ns) -> list[Any]:
        block = batch(begun, sequence, stream, end=end)
        return worker.process(states, [Arrival(block, received_ns)])

    assert not rows(taken(0))
    assert states.timer == GlobalWindow().max_timestamp()
    assert len(rows(taken(1, end=True))) == 1
    assert states.timer == Timestamp(micros=received_ns // 1000 + week * 10**6)
    taken(0, again)
    assert states.timer == GlobalWindow().max_timestamp()
    taken(1, again, end=True)
    assert worker.finish(states) == []
    assert (states.bag, states.values) == ([], {"snapshot": None, "about": None})
    taken(1, end=True, received_ns=NO_TIME)
    taken(0, received_ns=NO_TIME)
    assert states.timer == GlobalWindow().max_timestamp()  # a queue that does not tell when, such as a spool


def test_timer_after_the_end_has_nothing_to_do():
    """A key that never had a block, or whose state is cleared."""
    assert Worker(FlowSettings()).finish(States()) == []


def test_columns_are_made_of_all_shards_of_a_bundle_together():
    """One batch for what several tables of a sensor put out; one for each sensor, and for interim records apart."""
    worker, parts = Worker(FlowSettings()), []
    for number in range(3):
        end = batch(packets([]), 1, LOCAL, observed_ns=2_000_000_000_000_000_000, end=True)
        shard_drivers._cache = ShardCache()
        block = batch(packets([number], protocol=UDP), 0)
        parts += [
            one for one in worker.process(States(), [Arrival(block), Arrival(end)]) if isinstance(one, FinishedFlows)
        ]
    fn = MakeColumnsFn(FlowSettings())
    fn.setup()
    fn.start_bundle()
    assert [flows for part in [*parts, parts[0]._replace(sensor="b")] for flows in fn.process(part)] == []
    found = [one.value for one in fn.finish_bundle()]
    assert [(flows.num_rows, flows.column("sensor")[0].as_py()) for flows in found] == [(3, "local"), (1, "b")]
    apart = as_table([COLUMNS.joined([part]) for part in parts])
    assert as_table(found[:1]).equals(apart)


def test_cache_keeps_to_its_size_and_knows_what_is_stale():
    """The one that was not used for longest goes; a token of another state finds nothing."""

    class Sized:
        octets = 10

    cache, shards = ShardCache(), [Sized() for _ in range(4)]
    for number, shard in enumerate(shards):
        cache.put(number, b"%d" % number, shard, most_octets=30)
    assert cache.take(0, b"0") is None
    assert cache.take(1, b"other") is None
    assert cache.take(3, b"3") is shards[3]
    assert cache.take(3, b"3") is None
    cache.put(9, b"9", shards[0], most_octets=5)  # the last one stays, however large
    assert cache.take(9, b"9") is shards[0]

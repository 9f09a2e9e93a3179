"""Blocks reach a server once for all that can be seen there, whatever it does in between."""

import threading

import apache_beam as beam
import block_testing
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from block_testing import Store, write_to
from sink_testing import bundle, flow_id, flows, run, schema_of

from sinks import blocks, unsent
from sinks.blocks import BlockSender, Unavailable
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import InputError, Reject


@pytest.fixture
def store(tmp_path):
    """A store of this test's own; its path is that of the test's folder."""
    block_testing.STORES[str(tmp_path)] = made = Store()
    yield made
    del block_testing.STORES[str(tmp_path)]
    blocks._healths.clear()


def context(unsent_folder=None, retry_s=5.0):
    return SinkContext(("cic@1",), schema_of(), "test", retry_s=retry_s, unsent=unsent_folder)


def test_every_record_is_written_in_blocks(store, tmp_path):
    """Small batches are joined, blocks are counted, and the connection is given up."""
    counters = run([flows([number]) for number in range(100)], write_to(str(tmp_path), context(), block_rows=40))
    assert sorted(store.writes) == [20, 40, 40]
    assert store.records == {flow_id(number): 0 for number in range(100)}
    assert counters["records_written"] == 100
    assert counters["records_refused"] == counters["blocks_retried"] == 0


def test_a_large_batch_is_cut_into_blocks(store, tmp_path):
    """What is left of it waits for the next."""
    batches = [flows(range(100)), flows(range(100, 110)), flows(range(110, 111))]
    counters = run(batches, write_to(str(tmp_path), context(), block_rows=40))
    assert store.writes == [40, 40, 31]
    assert store.records == {flow_id(number): 0 for number in range(111)}
    assert counters["records_written"] == 111


def test_a_server_that_was_away_gets_everything(store, tmp_path, caplog):
    """One line says so, however often it is tried."""
    store.down = 3
    counters = run([flows(range(10))], write_to(str(tmp_path), context()))
    assert [record.getMessage() for record in caplog.records] == [f"store:{tmp_path}: away; trying again"]
    assert len(store.records) == 10
    assert counters["blocks_retried"] == 3
    assert counters["records_written"] == 10


def test_what_is_refused_is_a_reject_once(store, tmp_path):
    """Also where the block was tried again after some of it was refused."""
    store.down, store.refuses = 1, {"10.0.0.9"}
    batch = flows([1, 2, 3], src_ip=["10.0.0.1", "10.0.0.9", "10.0.0.1"])
    with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([])) as pipeline:
        refused = pipeline | beam.Create([batch], reshuffle=False) | write_to(str(tmp_path), context())
        assert_that(refused, equal_to([Reject("store", "not wanted", str(tmp_path), None, flow_id(2))]))
    assert set(store.records) == {flow_id(1), flow_id(3)}


def test_a_server_that_stays_away_fails_the_bundle_in_one_line(store, tmp_path):
    store.down = -1
    sender = write_to(str(tmp_path), context(retry_s=0.3)).sender()
    with pytest.raises(InputError, match=r"store:.*: gave up after \d+ tries in 0.3 s: away; start again") as error:
        sender.send(flows([1]))
    assert "\n" not in str(error.value)
    assert store.calls > 1


def test_one_call_that_takes_all_the_time_is_not_the_last(store, tmp_path):
    """As on a connection that died in silence: the server is there, and the next call finds it."""
    store.down, store.delay_s = 1, 0.2
    assert write_to(str(tmp_path), context(retry_s=0.1)).sender().send(flows([1])).tries == 2
    assert store.records == {flow_id(1): 0}


def test_what_will_never_be_accepted_is_not_tried_again(tmp_path):
    calls = []

    class Wrong:
        def write(self, flows):
            calls.append(len(flows))
            raise InputError("no such index")

        def close(self):
            pass

    sender = BlockSender(SinkUrl("store", str(tmp_path), {}), context(), Wrong)
    with pytest.raises(InputError, match="no such index"):
        sender.send(flows([1]))
    assert calls == [1]


def test_the_server_says_how_long_to_wait(store, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(threading.Event, "wait", lambda _, timeout=None: waits.append(timeout))
    answers = iter([Unavailable("busy", after_s=7.0)])

    class Busy(block_testing.StoreWriter):
        def write(self, flows):
            for answer in answers:
                raise answer
            yield from super().write(flows)

    sender = BlockSender(SinkUrl("store", str(tmp_path), {}), context(retry_s=60), lambda: Busy(str(tmp_path)))
    assert sender.send(flows([1])).tries == 2
    assert waits == [7.0]


def test_blocks_of_a_dead_server_are_written_aside(store, tmp_path):
    """The first waits as long as it may, the others do not hold anybody up; one of them asks after it at times."""
    store.down = -1
    aside = tmp_path / "unsent"
    sender = write_to(str(tmp_path), context(aside, retry_s=0.2)).sender()
    first = sender.send(flows([1, 2]))
    calls = store.calls
    assert (first.aside, first.written) == (2, 0)
    for number in range(3, 9):
        assert sender.send(flows([number])).aside == 1
    assert store.calls == calls
    waiting = list(unsent.blocks(aside))
    assert sum(len(block.flows) for block in waiting) == 8
    assert {block.output for block in waiting} == {f"store:{tmp_path}"}
    assert {block.feature_sets for block in waiting} == {("cic@1",)}


def test_a_server_that_is_back_gets_the_next_block(store, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "PROBE_S", 0.0)
    store.down = -1
    sender = write_to(str(tmp_path), context(tmp_path / "unsent", retry_s=0.1)).sender()
    assert sender.send(flows([1])).aside == 1
    store.down = 0
    assert sender.send(flows([2])).written == 1
    assert set(store.records) == {flow_id(2)}


def test_a_block_written_aside_comes_back_as_it_was(tmp_path):
    """A repeated bundle replaces its file; parameters of the output come along."""
    url = SinkUrl("store", "//host/flows", {"shards": "2", "ca": "a b&c"})
    batch = flows([1, 2, 3], feature_sets=["flowbeam@1"], src_ip="2001:db8::1").slice(1)
    for _ in range(2):
        unsent.write(tmp_path, url, context(), batch)
    (block,) = unsent.blocks(tmp_path)
    assert block.flows.equals(batch)
    assert block.flows.schema.field("src_ip").metadata == batch.schema.field("src_ip").metadata
    assert block.output == "store://host/flows?shards=2&ca=a+b%26c"


@pytest.mark.parametrize("octets", [b"", b"ARROW1", b"something else entirely"], ids=["empty", "cut", "other"])
def test_a_damaged_file_is_named(tmp_path, octets):
    (tmp_path / "x.arrow").write_bytes(octets)
    with pytest.raises(InputError, match=r"x\.arrow: is damaged: .*; move it elsewhere"):
        list(unsent.blocks(tmp_path))


def test_a_damaged_file_that_claims_more_than_any_memory_has_is_named(tmp_path):
    """Before each packed buffer stands its size."""
    path = unsent.write(tmp_path, SinkUrl("store", "//host/flows", {}), context(), flows(range(100)))
    octets = bytearray(path.read_bytes())
    packed = octets.index(b"\x28\xb5\x2f\xfd")
    octets[packed - 8 : packed] = (1 << 61).to_bytes(8, "little")
    path.write_bytes(octets)
    with pytest.raises(InputError, match=r"\.arrow: is damaged: .*; move it elsewhere"):
        list(unsent.blocks(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    folder = tmp_path / "unsent"
    folder.write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        unsent.write(folder, SinkUrl("store", "x", {}), context(), flows([1]))


@pytest.mark.parametrize("threads", [1, 3])
def test_so_many_blocks_are_under_way_at_a_time(store, tmp_path, threads):
    """And no more wait in memory."""
    store.delay_s, store.together = 0.02, threads
    batches = [flows([number]) for number in range(12)]
    run(batches, write_to(str(tmp_path), context(), block_rows=1, threads=threads))
    assert len(store.records) == 12
    assert store.most_at_a_time == threads


@pytest.mark.parametrize(("blocks_of_room", "at_a_time"), [(0, 1), (2, 2)], ids=["not-one", "two"])
def test_blocks_under_way_are_so_large_together(store, tmp_path, monkeypatch, blocks_of_room, at_a_time):
    """However many threads there are: memory does not grow with the size of records."""
    monkeypatch.setattr(blocks, "UNDER_WAY_OCTETS", flows([0]).nbytes * blocks_of_room)
    store.delay_s, store.together = 0.02, at_a_time
    run([flows(range(9))], write_to(str(tmp_path), context(), block_rows=1, threads=4))
    assert len(store.records) == 9
    assert store.most_at_a_time == at_a_time


def test_a_connection_lost_with_several_under_way_doubles_nothing(store, tmp_path):
    store.down, store.delay_s = 5, 0.01
    counters = run([flows(range(30))], write_to(str(tmp_path), context(retry_s=60), block_rows=2, threads=3))
    assert store.records == {flow_id(number): 0 for number in range(30)}
    assert store.writes == [2] * 15
    assert counters["records_written"] == 30
    assert counters["blocks_retried"] == 5


def test_what_is_refused_in_the_middle_is_a_reject_once(store, tmp_path):
    """The blocks before and behind it, which are under way with it, are written."""
    store.down, store.refuses = 3, {"10.0.0.9"}
    batch = flows(range(12), src_ip=["10.0.0.9" if number in (5, 8) else "10.0.0.1" for number in range(12)])
    with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([])) as pipeline:
        step = write_to(str(tmp_path), context(retry_s=60), block_rows=3, threads=3)
        refused = pipeline | beam.Create([batch], reshuffle=False) | step
        expected = [Reject("store", "not wanted", str(tmp_path), None, flow_id(number)) for number in (5, 8)]
        assert_that(refused, equal_to(expected))
    assert set(store.records) == {flow_id(number) for number in range(12)} - {flow_id(5), flow_id(8)}


def test_a_block_that_is_never_taken_fails_the_bundle(store, tmp_path):
    """In one line, with others under way; the bundle that repeats it writes all that is missing."""
    step = blocks._WriteBlocks(write_to(str(tmp_path), context(), block_rows=1, threads=3))
    batch = flows(range(9), src_ip=["10.0.0.9" if number == 4 else "10.0.0.1" for number in range(9)])
    store.chokes_on = {"10.0.0.9"}
    step.setup()
    with pytest.raises(InputError, match="no such table"):
        bundle(step, [batch])
    store.chokes_on = set()
    assert bundle(step, [batch]) == []
    assert store.records == {flow_id(number): 0 for number in range(9)}
    step.teardown()


def test_several_blocks_of_a_dead_server_are_written_aside_once(store, tmp_path):
    store.down = -1
    aside = tmp_path / "unsent"
    step = write_to(str(tmp_path), context(aside, retry_s=0.2), block_rows=2, threads=3)
    counters = run([flows(range(20))], step)
    waiting = [flow for block in unsent.blocks(aside) for flow in block.flows["flow_id"].to_pylist()]
    assert sorted(waiting) == sorted(flow_id(number) for number in range(20))
    assert counters["records_set_aside"] == 20


def test_a_failed_bundle_leaves_nothing_under_way(store, tmp_path):
    """The next one begins anew, and does not wait out the patience of the old."""
    step = blocks._WriteBlocks(write_to(str(tmp_path), context(retry_s=600), block_rows=1, threads=2))
    step.setup()
    step.start_bundle()
    store.down = -1
    list(step.process(flows([1])))
    store_called = threading.Event()
    while not store.calls:
        store_called.wait(0.01)
    step.start_bundle()
    assert not step._under_way
    store.down = 0
    list(step.process(flows([2])))
    assert list(step.finish_bundle()) == []
    assert set(store.records) == {flow_id(2)}
    step.teardown()
    assert store.closed == store.opened == 1


def test_a_higher_record_replaces_a_lower_one_whatever_the_order(store, tmp_path):
    late_first = [flows([1], record_number=2), flows([1], record_number=0), flows([1], record_number=2)]
    counters = run(late_first, write_to(str(tmp_path), context(), block_rows=1))
    assert store.records == {flow_id(1): 2}
    assert counters["records_repeated"] == 2
    assert counters["records_written"] == 3

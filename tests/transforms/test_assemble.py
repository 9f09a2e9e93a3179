"""The drivers of the flow table, on a runner: the same flows from each."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from flow_testing import packets
from table_testing import CLOSE, COLLECTED, HANDSHAKE, as_table, batch, collect, connection_rows, table_of

from transforms.assemble import AssembleCaptures, AssembleFlows, ReadPackets
from transforms.avro import decode_block
from transforms.records import MERGED_SENSORS, UDP, InputError, PacketBatch, Stream
from transforms.rules import Rules
from transforms.sessions import AssembleSessions
from transforms.settings import FlowSettings


def capture() -> np.ndarray:
    """Forty hosts at whole microseconds: connections that close, answers, silences, ties; in time order."""
    random = np.random.default_rng(3)
    made = []
    for host in range(40):
        rows = (
            connection_rows(HANDSHAKE + CLOSE)
            if host % 2
            else packets([0] * 4, forward=[True, False] * 2, protocol=UDP)
        )
        rows["src_port"][rows["src_port"] == 1234] += host
        rows["dst_port"][rows["dst_port"] == 1234] += host
        rows["time_ns"] += np.cumsum(random.choice([0, 1000, 10**9, 10**10, 2 * 10**10], len(rows)))
        made.append(rows)
    together = np.concatenate(made)
    return together[np.argsort(together["time_ns"], kind="stable")]


def blocks(rows: np.ndarray, size: int = 16, sensor: str = "local") -> list[PacketBatch]:
    """The capture in blocks, the last one empty and closing the stream."""
    made = [batch(rows[at : at + size], at // size, Stream(sensor)) for at in range(0, len(rows), size)]
    return [*made, batch(rows[:0], len(made), Stream(sensor), observed_ns=int(rows["time_ns"][-1]), end=True)]


def read(made: list[PacketBatch]) -> tuple[Any, Iterator[PacketBatch]]:
    """Stands for a source."""
    n = sum(len(block.packets) for block in made)
    return SimpleNamespace(packets_read=n, rejects={"not_ip": 2}, samples=[], notes={"fragments_unresolved": 1}), iter(
        made
    )


def run(transform: beam.PTransform, elements: list[Any]) -> tuple[pa.Table, list[Any], dict[str, int]]:
    """Flows, rejects and counters."""
    COLLECTED.clear()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    flows, rejects = pipeline | "Input" >> beam.Create(elements) | "Assemble" >> transform
    _ = flows | "Flows" >> beam.Map(collect)
    _ = rejects | "Rejects" >> beam.Map(collect)
    result = pipeline.run()
    result.wait_until_finish()
    counted = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]}
    batches = [one for one in COLLECTED if isinstance(one, pa.RecordBatch)]
    return as_table(batches), [one for one in COLLECTED if not isinstance(one, pa.RecordBatch)], counted


def expected(rules: Rules, sensor: str = "local") -> pa.Table:
    """What one table makes of the capture."""
    table = table_of(rules, sensor)
    table.add(batch(capture()))
    return as_table(table.finish(int(capture()["time_ns"][-1])))


def shuffled(made: list[PacketBatch]) -> list[PacketBatch]:
    """In another order, some twice."""
    order = np.random.default_rng(5).permutation(len(made))
    return [made[at] for at in [*order, *order[:5]]]


@pytest.mark.parametrize("rules", [{}, {"idle_timeout_s": 12, "interim_interval_s": 15}], ids=["default", "interim"])
def test_captures_and_flows_and_a_table_agree(rules):
    """One sensor read in order, and its blocks shuffled, repeated and split into shards: equal in every column."""
    settings, n = FlowSettings(Rules(**rules)), len(capture())
    captures, rejects, counted = run(AssembleCaptures(read, settings), [blocks(capture())])
    assert captures.equals(expected(Rules(**rules)))
    assert (counted["packets_read"], counted["packets_in_flows"], counted["not_ip"]) == (n, n, 2)
    ended = sum(number for name, number in counted.items() if name.startswith("flows_ended_"))
    assert ended - counted.get("flows_ended_open", 0) == captures["record_kind"].to_pylist().count("final")
    assert rejects == []
    flows, _, counted = run(AssembleFlows(settings, shards=3), shuffled(blocks(capture())))
    assert flows.equals(captures)
    assert (counted["packets_in_flows"], counted["blocks_repeated"]) == (n, 5)


def test_sessions_agree_with_the_idle_rule():
    """Beam's own session windows give the flows of `end_rules=idle`, on times of whole microseconds."""
    rules = Rules(end_rules=("idle",), idle_timeout_s=10)
    made = blocks(capture())[:-1]
    found, _, counted = run(
        AssembleSessions(FlowSettings(rules)), [made[at] for at in (3, 1, 2, 0, *range(4, len(made)))]
    )
    assert found.equals(expected(rules))
    assert counted["packets_in_flows"] == len(capture())


@pytest.mark.parametrize("rules", [{}, {"end_rules": ("idle",), "interim_interval_s": 5}], ids=["rules", "interim"])
def test_sessions_refuse_what_they_cannot_do(rules):
    """One line says which options to give."""
    with pytest.raises(InputError, match="--end_rules=idle"):
        AssembleSessions(FlowSettings(Rules(**rules)))


def test_merged_sensors_make_flows_together():
    """Two taps that saw one side each: one flow of the merged sensor."""
    sides = [packets([0, 2]), packets([1, 3], forward=False)]
    taps = [batch(rows, 0, Stream(name)) for name, rows in zip("ab", sides, strict=True)]
    found, _, _ = run(AssembleFlows(FlowSettings(), shards=2, merge_sensors=True), taps)
    assert found.select(["sensor", "fwd_packets", "rev_packets"]).to_pylist() == [
        {"sensor": MERGED_SENSORS, "fwd_packets": 2, "rev_packets": 2}
    ]
    apart, _, _ = run(AssembleFlows(FlowSettings(), shards=2), taps)
    assert sorted(apart["sensor"].to_pylist()) == ["a", "b"]


@pytest.mark.parametrize("payload", [b"", b"data"])
def test_late_and_repeated_packets_are_rejected_and_counted(payload):
    """Each leaves as a reject with its reason, which can be read; read = in flows + rejects."""
    rows = packets([0, 5, 5, 1, 6], headers_hash=[1, 2, 2, 3, 4], payload_captured=len(payload))
    made = [batch(rows[:3]), batch(rows[3:4], 1), batch(rows[4:], 2)]
    made = [one._replace(payloads=payload) for one in made]
    flows, rejects, counted = run(AssembleCaptures(read, FlowSettings(Rules(drop_duplicates_s=1))), [made])
    assert sorted((reject.step, reject.reason) for reject in rejects) == [
        ("assemble", "duplicate"),
        ("assemble", "late"),
    ]
    refused = {int(row["time_ns"]) for reject in rejects for row in decode_block(reject.payload).packets}
    assert refused == {int(rows["time_ns"][2]), int(rows["time_ns"][3])}
    assert (counted["packets_in_flows"], counted["late"], counted["duplicate"]) == (3, 1, 1)
    assert flows["fwd_packets"].to_pylist() == [3]


def test_reading_alone_hands_over_blocks_and_counts():
    """`ReadPackets` is the first half of `AssembleFlows`."""
    COLLECTED.clear()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    found, _ = pipeline | beam.Create([blocks(capture())]) | ReadPackets(read)
    _ = found | beam.Map(collect)
    pipeline.run().wait_until_finish()
    assert sum(len(block.packets) for block in COLLECTED) == len(capture())


def test_error_of_the_source_fails_the_run():
    """It is read in a thread of its own; its error arrives all the same."""

    def broken(_: Any) -> tuple[Any, Iterator[PacketBatch]]:
        def batches() -> Iterator[PacketBatch]:
            yield batch(packets())
            raise InputError("capture.pcap: broken")

        return read([])[0], batches()

    with pytest.raises(Exception, match=r"capture\.pcap: broken"):
        run(AssembleCaptures(broken, FlowSettings()), [0])


def test_no_packets_no_flows():
    """Empty input is no error."""
    assert len(run(AssembleCaptures(read, FlowSettings()), [[]])[0]) == 0


def test_more_shards_than_flows():
    """A shard without packets gets every block as an empty part, and makes nothing of it."""
    rows = packets([0, 1], protocol=UDP)
    flows, rejects, counted = run(AssembleFlows(FlowSettings(), shards=8), blocks(rows))
    assert flows["fwd_packets"].to_pylist() == [2]
    assert not rejects
    assert counted["packets_in_flows"] == 2

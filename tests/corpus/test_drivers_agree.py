"""All ways from a capture to its flows give the same flows, to the last column."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from corpus_captures import FEATURES, Capture, chosen_captures
from corpus_pipelines import Run, paths, run_flows

from pipelines import capture
from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from transforms.records import PacketBatch
from transforms.rules import Rules
from transforms.sessions import AssembleSessions
from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

LARGEST_FOR_SESSIONS = 20_000
"""Packets of a capture; session windows take one element for each."""


@pytest.fixture(scope="module")
def at_once(tmp_path_factory) -> Run:
    """The flows of AssembleCaptures, which others are compared with."""
    return run_flows(paths(chosen_captures()), tmp_path_factory.mktemp("captures") / "run", "--sensor_from=file")


def test_shards_agree(at_once, tmp_path):
    """AssembleFlows: blocks of packets, split by the hash of their flow into eight tables for each sensor."""
    run = run_flows(paths(chosen_captures()), tmp_path / "run", "--sensor_from=file", "--assembler=flows")
    assert different(run, at_once) == []
    assert counted(run) == counted(at_once)


@pytest.mark.parametrize("assembler", ["captures", "flows"])
def test_the_spool_agrees(at_once, tmp_path, assembler):
    """Captures onto a spool as one program, from there to flows as another."""
    inputs = [f"--input={path}" for path in paths(chosen_captures())]
    spool = f"spool:{tmp_path / 'spool'}"
    assert capture.main([*inputs, f"--queue={spool}", "--sensor_from=file", "--quiet"]) == 0
    run = run_flows([spool], tmp_path / "run", f"--assembler={assembler}")
    assert different(run, at_once) == []
    assert counted(run) == counted(at_once)


def different(run: Run, other: Run) -> list[str]:
    """The sensors whose flows differ, each with the first line on either side that is not on the other."""
    found = []
    for sensor in sorted(run.flows.keys() | other.flows.keys()):
        ours, theirs = Counter(run.flows.get(sensor, [])), Counter(other.flows.get(sensor, []))
        if ours != theirs:
            found.append(f"{sensor}: {list(ours - theirs)[:1]} instead of {list(theirs - ours)[:1]}")
    return found


def counted(run: Run) -> dict[str, Any]:
    """What the summaries of all ways have to agree on."""
    return {name: run.summary[name] for name in ("packets_read", "packets_in_flows", "rejects", "flows", "end_reasons")}


def test_session_windows_agree_on_the_idle_rule():
    """Beam's own `Sessions` with a gap of the idle timeout, where times are whole microseconds as its windows'."""
    settings = FlowSettings(Rules(end_rules=("idle",)), FEATURES)
    batches: list[PacketBatch] = []
    expected: list[str] = []
    for captured in chosen_captures():
        if captured.packets < LARGEST_FOR_SESSIONS:
            read = in_microseconds(captured)
            batches += read
            expected += at_the_table(read, settings, captured.name)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        packets = pipeline | beam.Create(batches, reshuffle=False)
        flows, _ = packets | AssembleSessions(settings)
        assert_that(flows | beam.FlatMap(rows), same_lines(expected))


def in_microseconds(captured: Capture) -> list[PacketBatch]:
    """Its packets, their times cut to microseconds; the capture is a sensor."""
    read = []
    for batch in read_packets(SensorInput(captured.name, (str(captured.path),)), ReadSettings(), ReadReport()):
        packets = batch.packets.copy()
        packets["time_ns"] -= packets["time_ns"] % 1000
        read.append(batch._replace(packets=packets, observed_ns=int(packets["time_ns"].max())))
    return read


def at_the_table(batches: list[PacketBatch], settings: FlowSettings, sensor: str) -> list[str]:
    """The flows of one table."""
    table = settings.table(settings.columns(), sensor)
    for batch in batches:
        table.add(batch)
    last_ns = max((batch.observed_ns for batch in batches), default=0)
    return [row for flows in table.finish(last_ns) for row in rows(flows)]


def rows(flows: Any) -> list[str]:
    """Each flow as one text, null and all."""
    return [repr(sorted(row.items())) for row in flows.to_pylist()]


def same_lines(expected: list[str]) -> Callable[[list[str]], None]:
    """A check for `assert_that` that shows the first differences alone."""

    def check(actual: list[str]) -> None:
        ours, theirs = Counter(actual), Counter(expected)
        assert ours == theirs, f"{list(ours - theirs)[:2]} instead of {list(theirs - ours)[:2]}"

    return check

"""Every counter and distribution of a streaming job is in docs/streaming.md, and every one that it tells of exists."""

import ast
import importlib
import re
import sys
from pathlib import Path

from sinks import outputs
from transforms import records
from transforms.counted import END_REASONS

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "streaming.md").read_text(encoding="utf-8")

_BOUNDED = {("parquet", "block_ms"), ("assemble", "spans_seen")}
"""What only jobs on files have."""


def told() -> set[tuple[str, str]]:
    """Namespace and name of each counter in the table."""
    table = PAGE.partition("| namespace | counter |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    names = re.compile("`([a-z_]+)`")
    return {
        (space, name)
        for spaces, counters in rows
        for space in names.findall(spaces)
        for name in names.findall(counters)
    }


def counted() -> set[tuple[str, str]]:
    """What steps count under names that are written out where they count."""
    found = set()
    for path in (path for room in ("sources/streaming", "sinks", "transforms") for path in (TOP / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Metrics."):
                words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                if len(words) == 2:
                    found.add((words[0], words[1]))
    return found


def test_every_counter_is_told():
    assert counted() - _BOUNDED <= told()


def test_every_counter_that_is_told_exists():
    """Those with names made up while counting are words of the code: of reasons, events, and what shards count."""
    words = {
        node.value
        for room in ("sinks", "sources", "transforms")
        for path in (TOP / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    words.update(f"flows_ended_{reason}" for reason in END_REASONS)
    assert {name for _, name in told()} <= words


def test_every_sink_that_sends_blocks_is_told():
    """Its counters carry the name of its module."""
    names = {scheme.partition("+")[0] for scheme in outputs.schemes()}
    opened = {name: importlib.import_module(f"sinks.{name}").open_sink.__module__ for name in names}
    sending = {name for name, module in opened.items() if hasattr(sys.modules[module], "WriteBlocks")}
    assert {"bigquery", "elasticsearch", "kafka"} <= sending
    for name in ("records_written", "records_refused", "records_set_aside", "blocks_retried", "block_ms"):
        assert {(space, name) for space in sending} <= told()


def test_reasons_of_flows_and_events_of_sensors_are_told():
    assert {f"flows_ended_{reason}" for reason in END_REASONS} <= {name for _, name in told()}
    table = PAGE.partition("| event | when |")[2].partition("\n\n")[0]
    events = {value for name, value in vars(records).items() if name.startswith("EVENT_")}
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == events

"""The real command over many captures at once, one sensor each."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus_captures import Capture

from pipelines import flows


class Run(NamedTuple):
    """What one run of `pipelines.flows` gave.

    Attributes:
        summary: Its `--summary`.
        flows: Its flows as JSON lines, by sensor, sorted.
    """

    summary: dict[str, Any]
    flows: dict[str, list[str]]


def run_flows(inputs: Iterable[str], folder: Path, *options: str) -> Run:
    """Runs the command; `folder` is made and gets what it writes."""
    folder.mkdir()
    output, summary = folder / "flows.jsonl", folder / "summary.json"
    status = flows.main(
        [
            "--runner=DirectRunner",
            "--quiet",
            f"--output=jsonl:{output}",
            f"--summary={summary}",
            *(f"--input={url}" for url in inputs),
            *options,
        ]
    )
    assert status == 0
    by_sensor: dict[str, list[str]] = defaultdict(list)
    for line in output.read_text(encoding="utf-8").splitlines():
        by_sensor[json.loads(line)["sensor"]].append(line)
    return Run(
        json.loads(summary.read_text(encoding="utf-8")), {name: sorted(rows) for name, rows in by_sensor.items()}
    )


def paths(captures: Sequence[Capture]) -> list[str]:
    """What `--input` takes."""
    return [str(capture.path) for capture in captures]

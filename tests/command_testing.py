"""Running the main job as its user does, and reading what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from pipelines import flows

TOP = Path(flows.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "80"}


def command(*arguments: object, module: str = "pipelines.flows") -> list[str]:
    """The words of a command."""
    return [sys.executable, "-m", module, *map(str, arguments)]


class Ended(NamedTuple):
    """What a command said and how it ended."""

    status: int
    out: str
    err: str


def run(*arguments: object, folder: Path, environment: Mapping[str, str] | None = None, **details: Any) -> Ended:
    """Runs the main job as a process of its own, in `folder`."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        timeout=details.pop("timeout", 120),
        **details,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def summary_of(*arguments: object, folder: Path) -> dict[str, Any]:
    """Runs the main job in this process, quietly and to its end; the figures of its summary."""
    path = folder / "summary.json"
    assert flows.main([*map(str, arguments), "--summary", str(path), "--quiet"]) == 0
    summary: dict[str, Any] = json.loads(path.read_text())
    assert summary["packets_read"] == summary["packets_in_flows"] + sum(summary["rejects"].values())
    return summary


def table(folder: Path, where: str = "*/*.parquet") -> pa.Table:
    """The flows of a Parquet output, sorted."""
    return duckdb.sql(f"FROM '{folder}/{where}' ORDER BY flow_id, record_number").to_arrow_table()


def assembled(*arguments: object, folder: Path, name: str = "flows") -> pa.Table:
    """The flows that the main job makes, in this process."""
    summary_of(*arguments, "--output", f"parquet:{folder / name}", folder=folder)
    return table(folder / name)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, hidden ones too, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def records_of(capture: bytes) -> Sequence[bytes]:
    """The packet records of a little-endian pcap file."""
    records, at = [], 24
    while at < len(capture):
        end = at + 16 + int.from_bytes(capture[at + 8 : at + 12], "little")
        records.append(capture[at:end])
        at = end
    return records

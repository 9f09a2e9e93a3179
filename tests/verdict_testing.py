"""Generated traffic on its way through all commands: onto a queue, scored by a streaming job, beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from command_testing import run

from pipelines import capture, generate

LIMIT_S = 1500

LEAST_RECALL, MOST_FALSE = 0.95, 0.001


def generated(folder: Path, profile: str, seed: int, packets: int) -> tuple[Path, Path]:
    """A capture, and the truth about its flows."""
    traffic, truth = folder / f"{profile}.pcap", folder / f"{profile}.csv"
    words = ["--profile", profile, "--seed", str(seed), "--packets", str(packets), "--labels", str(truth), "--quiet"]
    assert generate.main(["--output", str(traffic), *words]) == 0
    return traffic, truth


def streamed(folder: Path, runner: Sequence[str], traffic: Path, model: Path) -> Path:
    """The flows that a streaming job makes of a capture, from a queue, scored and explained."""
    blocks, flows = folder / "blocks", folder / "flows"
    assert capture.main(["--input", str(traffic), "--queue", f"spool:{blocks}", "--sensor", "local", "--quiet"]) == 0
    source = ["--streaming", "--stop_at_end", "--input", f"spool:{blocks}", "--output", f"parquet:{flows}", "--quiet"]
    scoring = ["--model", model, "--explain", "3", "--drift_window_s", "0"]
    ended = run(*runner, *source, *scoring, folder=folder, timeout=LIMIT_S)
    assert (ended.status, ended.err) == (0, "")
    return flows


def alerted(flows: Path, truth: Path) -> dict[str, float]:
    """Of each attack, and of all that is benign, the part that raised an alert; every flow of the truth was scored."""
    rows = duckdb.execute(
        "SELECT if(class = 'benign', class, name) AS kind, count(*), count(is_alert), avg(is_alert::INT)"
        f" FROM read_csv($truth) AS t LEFT JOIN read_parquet('{flows}/*/*.parquet') AS f"
        " ON lower(hex(f.flow_id)) = t.flow_id GROUP BY kind",
        {"truth": str(truth)},
    ).fetchall()
    assert all(there == scored for _, there, scored, _ in rows)
    return {kind: part for kind, _, _, part in rows}


def misjudged(alerted: dict[str, float]) -> dict[str, float]:
    """Attacks that are found too seldom, and benign flows if they raise alerts too often."""
    return {
        kind: part for kind, part in alerted.items() if (part > MOST_FALSE if kind == "benign" else part < LEAST_RECALL)
    }


def reasons(flows: Path, truth: Path) -> dict[str, list[list[dict[str, Any]]]]:
    """Explanations of the alerts of each attack."""
    rows = duckdb.execute(
        f"SELECT name, list(explanation) FROM read_parquet('{flows}/*/*.parquet') AS f JOIN read_csv($truth) AS t"
        " ON lower(hex(f.flow_id)) = t.flow_id WHERE is_alert AND class <> 'benign' GROUP BY name",
        {"truth": str(truth)},
    ).fetchall()
    return dict(rows)

"""When the two alarms of drift ring, on a table that changes at a known place.

    python benchmarks/drift.py [--runs 20] [--window 200]

Reads labelled/cicids2017_0.01km.csv of FLOWBEAM_CORPUS or ../shared/data, in the order of the file: from about row
1,900 of its last third on come attacks that none of its first two thirds has. Models are trained as `pipelines.train`
trains them, on two thirds of the rows, of which a fifth is held back at random and judged; the rest of the rows are
windows of so many flows, and all of their labels come back.

- `permuted`: the rows are drawn in another order each run, so nothing changes: every alarm is false.
- `last third`: the rows as they are.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from training.classes import prepared  # noqa: E402
from training.judging import judge  # noqa: E402
from training.split import SplitRule  # noqa: E402
from training.tables import ALL, Wanted, read_table  # noqa: E402
from training.train import Trained, TrainSettings, train  # noqa: E402
from transforms.drift import rows  # noqa: E402
from transforms.drift.decay import JUDGED, rule  # noqa: E402
from transforms.drift.errors import ErrorsMonitor  # noqa: E402
from transforms.drift.inputs import InputsMonitor, InputsRule, Part  # noqa: E402
from transforms.drift.models import WatchedModel  # noqa: E402

TABLE = Path(os.environ.get("FLOWBEAM_CORPUS") or TOP.parent / "shared" / "data") / "labelled" / "cicids2017_0.01km.csv"
LABEL = "Labelb"
COLLAPSE = 1890
"""The row of the last third from which on the model is wrong again and again."""

RUN_LENGTH = 100_000


class Told(NamedTuple):
    """What a run noticed.

    Attributes:
        psi: Of each window that was judged.
        changed: Windows that alarmed.
        significant: Windows with a feature that differs significantly.
        first: The row at whose end the first window alarmed; 0 if none did.
        decays: Rows at which the model was found to have decayed.
        usual: The error rate that is usual for the model, at most.
    """

    psi: list[float]
    changed: int
    significant: int
    first: int
    decays: list[int]
    usual: float


def watched(lines: list[str], order: np.ndarray, window: int, seed: int, split: str) -> Told:
    """Trains on the first two thirds of `order`, and watches the rest go by."""
    cut = len(order) * 2 // 3
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for name, places in (("first", order[:cut]), ("rest", order[cut:])):
            path = Path(folder, f"{name}.csv")
            path.write_text("".join([lines[0], *(lines[1 + place] for place in places)]))
            parts.append(str(path))
        settings = TrainSettings((parts[0],), LABEL, ALL, SplitRule.parse(split), seed=seed, beside=False)
        trained = train(settings, lambda line: None)
        rest, _, _ = prepared(read_table((parts[1],), Wanted(ALL, LABEL), 1_000_000), trained.model.task, "0")
    judged = judge(trained.trees, rest, trained.model.benign, trained.model.threshold)
    windows = list(_windows(trained, rest.columns, judged.scores, window))
    test = rule(trained.reference.judged, trained.reference.wrong, RUN_LENGTH)
    answers = np.zeros(len(judged.wrong), JUDGED)
    answers["end_ns"] = answers["id_low"] = np.arange(len(answers))
    answers["wrong"] = judged.wrong
    decays = [
        row["window_end_ns"]
        for row in ErrorsMonitor("benchmark", test).add(answers)
        if row["event"] == rows.MODEL_DECAYED
    ]
    changed = [row for row in windows if row["event"] == rows.INPUTS_CHANGED]
    return Told(
        [row["psi"] for row in windows],
        len(changed),
        sum(row["features_changed"] > 0 for row in windows),
        changed[0]["window_end_ns"] if changed else 0,
        decays,
        test.usual,
    )


def _windows(trained: Trained, columns: dict[str, np.ndarray], scores: np.ndarray, window: int) -> Iterator[dict]:
    model = WatchedModel(trained.model, trained.reference)
    monitor = InputsMonitor(model, InputsRule(window, 0, least_flows=window))
    numbers = np.arange(len(scores)) // window
    for number, counts in enumerate(model.binning.counts(columns, scores, numbers)):
        flows = min(window, len(scores) - number * window)
        monitor.add(Part(number, number * window + flows - 1, flows, counts))
    for noticed in monitor.close(everything=True):
        if noticed.row["event"] != rows.INPUTS_TOO_FEW:
            yield noticed.row


def main() -> None:
    """Prints both parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="Runs over permuted rows.")
    parser.add_argument("--window", type=int, default=200, help="Flows of a window.")
    chosen = parser.parse_args()
    lines = TABLE.read_text().splitlines(keepends=True)
    amount = len(lines) - 1
    runs = []
    for seed in range(chosen.runs):
        order = np.random.default_rng(seed).permutation(amount)
        runs.append(watched(lines, order, chosen.window, seed, "random:0.2"))
    windows = [psi for run in runs for psi in run.psi]
    if runs:
        alarms, significant = sum(run.changed for run in runs), sum(run.significant for run in runs)
        print(
            f"permuted    {len(runs)} runs, {len(windows)} windows of {chosen.window} flows: {alarms} alarms"
            f" ({alarms / len(windows):.2%}); mean PSI at most {max(windows):.3f};"
            f" a feature differs significantly in {significant / len(windows):.2%};"
            f" model decayed: {sum(len(run.decays) for run in runs)}"
        )
    for split in ("random:0.2", "order:0.8"):
        told = watched(lines, np.arange(amount), chosen.window, 1, split)
        before = [row for row in told.decays if row < COLLAPSE]
        after = [row for row in told.decays if row >= COLLAPSE]
        print(
            f"last third  reference {split}: inputs changed in {told.changed} of {len(told.psi)} windows, first known"
            f" at row {told.first}; PSI {min(told.psi):.2f} to {max(told.psi):.2f}; model decayed:"
            f" {len(before)} before row {COLLAPSE}, then at row {after[0] if after else 'none'}"
            f" (usual error rate at most {told.usual:.2%})"
        )


if __name__ == "__main__":
    main()

"""How good a model is on rows, and what stands in its description of them."""

import hashlib
import importlib.metadata
from typing import Any, NamedTuple

import numpy as np

from training.held_out import held_out
from training.metrics import Metrics, measure
from training.report import Part
from training.tables import Table
from training.thresholds import alert_threshold
from training.trees import TreeSettings, probabilities
from transforms.model.forest import decide

_MOST_ROWS = 30_000
"""Training rows that the threshold is found by."""


class Judged(NamedTuple):
    """Answers to rows.

    Attributes:
        metrics: How good they are.
        scores: Probability of alarm, `float32[n]`.
        wrong: `bool[n]`.
    """

    metrics: Metrics
    scores: np.ndarray
    wrong: np.ndarray


def judge(trees: Any, table: Table, benign: str, threshold: float) -> Judged:
    """Judges a model on rows whose first classes are the model's."""
    stated = probabilities(trees, table.columns)
    at = table.classes.index(benign)
    verdicts = decide(stated, at, threshold)
    metrics = measure(table.classes, table.labels, verdicts.predicted, stated, benign=benign, threshold=threshold)
    return Judged(metrics, verdicts.score, verdicts.predicted != table.labels)


class Limit(NamedTuple):
    """What part of benign rows may raise an alert.

    Attributes:
        rate: That part; 0 for a threshold of one half.
        in_time: It is found on stretches of time that trees have not learned from; else on rows drawn at random.
    """

    rate: float
    in_time: bool


def threshold_of(table: Table, benign: str, limit: Limit, grown: TreeSettings, seed: int) -> tuple[float, str]:
    """The threshold of alerts, by training rows that trees had not learned from; and what is doubtful of it."""
    if not limit.rate:
        return 0.5, ""
    table = table.at_most(_MOST_ROWS, seed)
    at = table.classes.index(benign)
    scores, labels = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
    for judged, stated in held_out(table, limit.in_time, grown, seed):
        scores.append(1 - stated[:, at])
        labels.append(table.labels[judged])
    rows = int((np.concatenate(labels) == at).sum())
    found = alert_threshold(np.concatenate(scores), np.concatenate(labels), at, limit.rate)
    doubt = ""
    if rows * limit.rate < 1:
        doubt = f"--max_fpr {limit.rate}: {rows:,} benign rows are too few to tell so small a part; none is let pass"
    elif found is None:
        doubt = f"--max_fpr {limit.rate}: no threshold lets so few benign rows pass; only certainty is an alert"
    return 1.0 if found is None else min(max(found, 0.0), 1.0), doubt


def part_of(table: Table) -> Part:
    """How many rows of which class, and when."""
    counts = np.bincount(table.labels, minlength=len(table.classes))
    times = table.times if table.found.time_column == "flow_start_ns" else None
    first, last = ("", "") if times is None or not len(times) else (_iso(times.min()), _iso(times.max()))
    return Part(len(table), {name: int(n) for name, n in zip(table.classes, counts, strict=True)}, first, last)


def fingerprint(table: Table) -> str:
    """SHA-256 of columns, values and labels, in order."""
    digest = hashlib.sha256("\n".join([*table.columns, *table.classes]).encode())
    for values in (*table.columns.values(), table.labels):
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()


def version() -> str:
    """The version of flowbeam that is installed, or `checkout`."""
    try:
        return importlib.metadata.version("flowbeam")
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


def short(metrics: Metrics) -> dict[str, Any]:
    """The figures that `model.json` has; `metrics.json` has all."""
    one = {name: metrics.to_json()[name] for name in ("rows", "accuracy", "macro_f1", "balanced_accuracy")}
    classes = {
        name: {"rows": found.rows, "precision": found.precision, "recall": found.recall, "f1": found.f1}
        for name, found in metrics.classes.items()
    }
    return one | {"classes": classes}


def _iso(time_ns: int) -> str:
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[s]")) + "Z"

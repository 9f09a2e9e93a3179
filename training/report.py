"""What a person should know of a model: the figures, the data behind them, and how far they can be believed.

Training and evaluation fill a `Report`; `write_report` makes one HTML page of it that needs nothing else, and
`findings` the sentences that stand first on the page and on the terminal.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from training.metrics import Metrics
from transforms.records import InputError

LEAST_SKILL = 0.5
"""Of what could be gained over always answering the most frequent class: a model that gains less has collapsed."""

NOTABLE_ACCURACY, NOTABLE_F1 = 0.005, 0.02
"""Differences between two splits that are told."""


class DataFile(NamedTuple):
    """A table or folder that rows came from."""

    name: str
    rows: int


class Part(NamedTuple):
    """The rows of one side of a split.

    Attributes:
        rows: How many.
        classes: How many of each class.
        first: Time of the first, ISO 8601; empty where the data has no times.
        last: Time of the last.
    """

    rows: int
    classes: dict[str, int]
    first: str = ""
    last: str = ""


class Leak(NamedTuple):
    """A column that tells the class without describing traffic.

    Attributes:
        column: Its name.
        reason: Why: `an address`, `a time`, `alone tells 99.98 % of the rows apart`.
        allowed: It was kept, because `--allow_leaks` names it.
    """

    column: str
    reason: str
    allowed: bool = False


class LearningPoint(NamedTuple):
    """How good a model of fewer rows is, on the same test rows."""

    rows: int
    accuracy: float
    macro_f1: float


class Judgement(NamedTuple):
    """Another model's, or another split's, figures to set beside.

    Attributes:
        name: `random:0.2`, `time:0.67`, or which model.
        metrics: Its figures.
    """

    name: str
    metrics: Metrics


@dataclass
class Report:
    """All that the page tells; what is left empty is left out.

    Attributes:
        model: Id of the model.
        task: binary or multiclass.
        split: As in `--split`: `time:0.67`, `random:0.2`, `group:COLUMN`; `other` where other data is judged.
        has_times: The data has times, so that a split in time could be made.
        files: Where rows came from.
        tested: The rows that were judged.
        metrics: Their figures.
        trained: The rows that the model learned from.
        feature_set: Name and version; None of a foreign table.
        features: What the model reads, in order.
        threshold: From which score on a flow is an alert.
        other_splits: The same training with the data split otherwise.
        before: The model that this one continues, on the same rows.
        importance: Features with what they add, the greatest first.
        importance_means: What that number is, such as `loss of accuracy when the column is shuffled`.
        learning_curve: By rows, ascending.
        leaks: What the leak guard found.
        cleaning: What was found wrong in the tables, with how often.
        selection: How features were chosen; empty if all were taken.
        settings: Names and values, such as hyperparameters and seed.
        warnings: Sentences that training has to say.
        fingerprint: Of the training data.
        created: ISO 8601.
        flowbeam: Version that trained.
    """

    model: str
    task: str
    split: str
    has_times: bool
    files: tuple[DataFile, ...]
    tested: Part
    metrics: Metrics
    trained: Part | None = None
    feature_set: str | None = None
    features: tuple[str, ...] = ()
    threshold: float | None = None
    other_splits: tuple[Judgement, ...] = ()
    before: Judgement | None = None
    importance: tuple[tuple[str, float], ...] = ()
    importance_means: str = ""
    learning_curve: tuple[LearningPoint, ...] = ()
    leaks: tuple[Leak, ...] = ()
    cleaning: dict[str, int] = field(default_factory=dict)
    selection: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""
    created: str = ""
    flowbeam: str = ""


class Finding(NamedTuple):
    """One sentence about how far the figures can be believed.

    Attributes:
        text: The sentence.
        is_warning: Whoever reads nothing else should read this.
    """

    text: str
    is_warning: bool = False


def write_report(report: Report, path: Path) -> None:
    """Writes the page; it is there whole or not at all.

    Raises:
        InputError: The extra that draws the curves is missing, or the file cannot be written.
    """
    from training.report_page import page

    text = page(report)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        hidden.write_text(text, encoding="utf-8")
        hidden.replace(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def findings(report: Report) -> list[Finding]:
    """What data was split how, and what follows from it: the first lines of the page."""
    metrics = report.metrics
    found = [Finding(_data(report)), Finding(split_meaning(report.split))]
    found += _collapse(report.split, metrics)
    if report.split.startswith("random") and report.has_times:
        found.append(
            Finding("A random split of data that has times flatters: rows of one attack are on both sides.", True)
        )
    for other in report.other_splits:
        found += _collapse(other.name, other.metrics)
        found.append(_difference(report.split, metrics, other))
    found += [Finding(f"{leak.column} was kept: {leak.reason}.", True) for leak in report.leaks if leak.allowed]
    return found + [Finding(text, True) for text in report.warnings]


def split_meaning(split: str) -> str:
    """A sentence for a `--split`."""
    kind, _, value = split.partition(":")
    meanings: dict[str, Callable[[], str]] = {
        "time": lambda: (
            f"Split in time: trained on the first {percent(float(value))} of the rows, tested on what came later."
        ),
        "order": lambda: (
            f"Split by order: trained on the first {percent(float(value))} of the rows as the files have them,"
            " tested on the rest."
        ),
        "random": lambda: f"Split at random: {percent(float(value))} of the rows were held back for the test.",
        "group": lambda: f"Split by {value}: no value of that column is on both sides.",
        "other": lambda: "Tested on data that the model was not trained on.",
    }
    return meanings[kind]()


def has_collapsed(metrics: Metrics) -> bool:
    """Whether the answers are hardly better than one answer for all rows."""
    possible = 1 - metrics.majority_share
    return possible > 0 and metrics.accuracy - metrics.majority_share < LEAST_SKILL * possible


def percent(part: float) -> str:
    """67 %, 99.98 %; what is nearly all is not called all."""
    rounded = f"{100 * part:.4g}"
    return f"{100 * part:.8g} %" if rounded == "100" and part < 1 else f"{rounded} %"


def _data(report: Report) -> str:
    names = ", ".join(file.name for file in report.files[:3])
    more = f" and {len(report.files) - 3} more" if len(report.files) > 3 else ""
    trained = f"{report.trained.rows:,} rows to train, " if report.trained else ""
    return f"Data: {names}{more}; {trained}{report.tested.rows:,} to test."


def _collapse(split: str, metrics: Metrics) -> list[Finding]:
    if not has_collapsed(metrics):
        return []
    where = {
        "time": "On what came later",
        "order": "On the later rows",
        "group": "On values it has not seen",
        "other": "On this data",
    }
    return [
        Finding(
            f"{where.get(split.partition(':')[0], 'On the test rows')} the model collapses: accuracy"
            f" {metrics.accuracy:.4f}, where always answering {metrics.majority_class} gives"
            f" {metrics.majority_share:.4f}.",
            True,
        )
    ]


def _difference(split: str, metrics: Metrics, other: Judgement) -> Finding:
    accuracy = other.metrics.accuracy - metrics.accuracy
    f1 = other.metrics.macro_f1 - metrics.macro_f1
    figures = (
        f"accuracy {metrics.accuracy:.4f} and macro F1 {metrics.macro_f1:.4f} with {split},"
        f" {other.metrics.accuracy:.4f} and {other.metrics.macro_f1:.4f} with {other.name}"
    )
    if abs(accuracy) < NOTABLE_ACCURACY and abs(f1) < NOTABLE_F1:
        return Finding(f"How the data is split makes little difference: {figures}.")
    return Finding(f"How the data is split makes a difference: {figures}.", True)

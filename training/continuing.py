"""Models on data that came later: judging them there, and training them further."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.classes import fitted, known_first
from training.judging import Judged, Limit, fingerprint, judge, part_of, short, threshold_of, version
from training.metrics import Metrics
from training.report import DataFile, Judgement, Report
from training.saving import kept_rows
from training.split import SplitRule
from training.tables import ALL, Table, Wanted, read_table, with_rows_only
from training.train import IMPORTANCE, Say, Trained, importance
from training.trees import TreeSettings, fit_trees
from transforms.model.folder import Model
from transforms.model.forest import Forest, open_forest
from transforms.model.reference import Reference
from transforms.records import InputError

MOST_WEIGHT = 10.0
"""New rows weigh as much as the older ones together, but each no more than so many of them."""

MOST_LOST = 0.01
"""What a model may lose of its accuracy on older rows when it learns new ones."""


@dataclass
class NewData:
    """Labelled rows that a model has not seen.

    Attributes:
        flows: Files, or folders of Parquet files.
        label: The column of labels.
        max_rows: Rows that are kept of larger tables.
        header: Whether CSV files have one.
        seed: Of all that is drawn.
    """

    flows: tuple[str, ...]
    label: str
    max_rows: int = 200_000
    header: bool = True
    seed: int = 1


class Continued(NamedTuple):
    """A model that was trained further.

    Attributes:
        trained: It.
        before: The old model on the same new rows that the new one is judged on.
        old_before: The old model on older rows, held back when it was trained.
        old_after: The new one on them.
        is_better: It may take the old one's place.
    """

    trained: Trained
    before: Metrics
    old_before: Metrics
    old_after: Metrics
    is_better: bool


def evaluate(folder: Path, data: NewData, say: Say) -> Report:
    """Judges a model on other data.

    Raises:
        InputError: The model or the data cannot be used, or they do not go together.
    """
    forest = open_forest(folder)
    table, unknown = _read(forest.model, data, say)
    judged = judge(forest.trees, table, forest.model.benign, forest.model.threshold)
    return replace(
        _report(forest.model, "other", table, judged, data),
        warnings=_doubts(table, unknown),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def continue_training(folder: Path, data: NewData, split: SplitRule, say: Say) -> Continued:
    """Grows trees anew from rows that the model kept and new ones, and sets both models beside each other.

    The same settings of trees and the same features; a class that the model did not know becomes one of its own. New
    rows weigh as much together as the older ones, within `MOST_WEIGHT`, so that a little of what is new is not drowned.

    Raises:
        InputError: The model or the data cannot be used, or they do not go together.
    """
    forest = open_forest(folder)
    model = forest.model
    kept = kept_rows(folder, model)
    table, unknown = _read(model, data, say, split.group)
    parts = split.apply(table, data.seed)
    new, tested = table.rows(parts.train), table.rows(parts.test)
    if unknown:
        old_train, old_test = (one.with_labels(table.classes, range(len(model.classes))) for one in kept)
    else:
        old_train, old_test = kept
    for line in parts.warnings:
        say(line)
    whole = old_train.joined(new)
    whole, _ = known_first(whole, np.arange(len(whole)), model.benign)
    learned, _ = with_rows_only(whole)
    place = [whole.classes.index(name) for name in table.classes]
    _, grown, max_fpr = _told(model)
    weights = np.ones(len(learned), np.float32)
    weights[len(old_train) :] = min(max(len(old_train) / len(new), 1.0), MOST_WEIGHT)
    trees = fit_trees(learned, grown, data.seed, weights)
    limit = Limit(max_fpr, in_time=False)
    threshold, doubt = (
        threshold_of(learned, model.benign, limit, grown, data.seed) if limit.rate else (model.threshold, "")
    )
    after = judge(trees, tested.with_labels(whole.classes, place), model.benign, threshold)
    before = _judge_old(forest, tested)
    old_before = _judge_old(forest, old_test)
    old_after = judge(trees, old_test.with_labels(whole.classes, place), model.benign, threshold)
    is_better = _is_better(before.metrics, after.metrics) and (
        old_after.metrics.accuracy >= old_before.metrics.accuracy - MOST_LOST
    )
    tested = tested.with_labels(whole.classes, place)
    report = replace(
        _report(model, str(split), tested, after, data),
        trained=part_of(learned),
        threshold=threshold,
        before=Judgement(model.id, before.metrics),
        importance=importance(trees, tested.rows(tested.labels < len(learned.classes)), data.seed),
        importance_means=IMPORTANCE,
        settings=grown.as_texts()
        | {"seed": str(data.seed), "older rows": str(len(old_train)), "new rows": str(len(new))},
        warnings=(*parts.warnings, *_doubts(table, unknown), *([doubt] if doubt else [])),
        fingerprint=fingerprint(learned),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    trained = Trained(
        _successor(model, report, learned),
        trees,
        Reference.of(learned.columns, after.scores, after.wrong),
        report,
        learned,
        tested.joined(old_test.with_labels(whole.classes, place)),
    )
    return Continued(trained, before.metrics, old_before.metrics, old_after.metrics, is_better)


class _Told(NamedTuple):
    """What `model.json` tells of training: the words of text columns, how trees grow, and the limit of alerts."""

    words: dict[str, list[str]]
    grown: TreeSettings
    max_fpr: float


def _told(model: Model) -> _Told:
    said = model.training
    try:
        words = {name: list(known) for name, known in said.get("words", {}).items()}
        return _Told(words, TreeSettings(**said.get("trees", {})), float(said.get("max_fpr", 0)))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"model {model.name}: model.json: training: {error}; train the model again") from error


def _is_better(before: Metrics, after: Metrics) -> bool:
    return (after.macro_f1, after.accuracy) >= (before.macro_f1, before.accuracy)


def _judge_old(forest: Forest, table: Table) -> Judged:
    return judge(forest.trees, table, forest.model.benign, forest.model.threshold)


def _read(model: Model, data: NewData, say: Say, group: str = "") -> tuple[Table, Sequence[str]]:
    """The new rows, the model's classes first; and the classes that it does not know."""
    wanted = Wanted(model.feature_set or ALL, data.label, group, model.features, _told(model).words, header=data.header)
    table = read_table(data.flows, wanted, data.max_rows, data.seed).with_columns(model.features)
    for line in table.found.lines():
        say(line)
    table, unknown = fitted(table, model.classes, model.benign)
    if unknown and len(model.classes) == 2 and model.task == "binary":
        raise InputError(f"labels {', '.join(unknown)}: the model tells {' from '.join(model.classes)} only")
    return table, unknown


def _doubts(table: Table, unknown: Sequence[str]) -> tuple[str, ...]:
    doubts = [table.found.sampling] if table.found.sampled else []
    if unknown:
        doubts.append(f"the model did not know {', '.join(unknown)}: none of these rows can be answered right by it")
    return tuple(doubts)


def _report(model: Model, split: str, table: Table, judged: Judged, data: NewData) -> Report:
    return Report(
        model=model.id,
        task=model.task,
        split=split,
        has_times=table.times is not None,
        files=tuple(DataFile(name, rows) for name, rows in table.found.files.items()),
        tested=part_of(table),
        metrics=judged.metrics,
        feature_set=model.feature_set,
        features=model.features,
        threshold=model.threshold,
        cleaning=table.found.counts(),
        settings={"seed": str(data.seed)},
        flowbeam=version(),
    )


def _successor(model: Model, report: Report, learned: Table) -> Model:
    assert report.threshold is not None
    past = {
        "id": model.id,
        "created": model.created,
        "rows": model.training.get("rows"),
        "split": model.training.get("split"),
        "fingerprint": model.training.get("fingerprint"),
        "files": model.training.get("files"),
        "accuracy": model.metrics.get("accuracy"),
        "macro_f1": model.metrics.get("macro_f1"),
    }
    return model._replace(
        created=report.created,
        flowbeam=report.flowbeam,
        task="binary" if len(learned.classes) == 2 else "multiclass",
        classes=learned.classes,
        threshold=report.threshold,
        training=model.training
        | {
            "fingerprint": report.fingerprint,
            "rows": len(learned),
            "split": report.split,
            "files": {file.name: file.rows for file in report.files},
        },
        metrics=short(report.metrics),
        history=(*model.history, past),
        id="",
        files={},
    )

"""How good answers are: figures from the true classes, the answered ones, and the probabilities.

Everything is numpy over whole columns. An *alarm* is an answer other than the benign class: its score is one minus the
benign class' probability, its false-alarm rate the part of benign rows at or above a threshold, its detection rate
that of all others. What has no value, such as the precision of a class that was never answered, is None.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from training.thresholds import threshold_for

FALSE_ALARM_RATES = (0.0001, 0.001, 0.01, 0.05)
"""The part of benign rows that may raise an alarm, at which detection is told."""

MOST_POINTS = 200
"""Points of a curve that are kept."""

CALIBRATION_BINS = 10

_LEAST_PROBABILITY = 1e-15


class Curve(NamedTuple):
    """Points of a curve, from the strictest threshold to the laxest, and its area.

    Attributes:
        x: False-alarm rate; recall, where it is a precision-recall curve.
        y: Detection rate; precision.
        area: Under the whole curve, before points were left out: ROC AUC; average precision.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    area: float


class ClassMetrics(NamedTuple):
    """One class against all others.

    Attributes:
        rows: Rows that are of the class.
        predicted: Rows that were answered so.
        precision: Part of the answers that are right.
        recall: Part of the class that was found.
        f1: Harmonic mean of both; None where the class is neither there nor answered.
        roc: Detection against false alarms by the class' probability; None without probabilities or of a class that
            all rows or none are of.
        precision_recall: Precision against recall, likewise.
    """

    rows: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    roc: Curve | None = None
    precision_recall: Curve | None = None


class Detection(NamedTuple):
    """What one threshold of the alarm score does.

    Attributes:
        allowed: The false-alarm rate that was asked for; None where the threshold was given.
        threshold: Rows with at least this score raise an alarm; None where none may.
        false_alarms: Benign rows that do.
        false_alarm_rate: Part of the benign rows.
        detected: Other rows that do.
        detection_rate: Part of them.
        classes: Part of each class but the benign one that does; None of a class without rows.
    """

    allowed: float | None
    threshold: float | None
    false_alarms: int
    false_alarm_rate: float
    detected: int
    detection_rate: float
    classes: dict[str, float | None]


class Alarms(NamedTuple):
    """All classes but the benign one against it.

    Attributes:
        benign: Name of the class that is no alarm.
        benign_rows: Rows of it.
        other_rows: All others.
        roc: Detection against false alarms.
        precision_recall: Precision of alarms against detection.
        at_rates: Detection at fixed false-alarm rates.
        at_threshold: What the model's own threshold does; None if it has none.
    """

    benign: str
    benign_rows: int
    other_rows: int
    roc: Curve
    precision_recall: Curve
    at_rates: tuple[Detection, ...]
    at_threshold: Detection | None


class Bin(NamedTuple):
    """Rows whose probability lies between two bounds.

    Attributes:
        lower: Bound, included.
        upper: Bound, included in the last bin only.
        rows: How many.
        mean: Mean of the probability that was stated; None without rows.
        observed: Part for which it came true; None without rows.
    """

    lower: float
    upper: float
    rows: int
    mean: float | None
    observed: float | None


class Calibration(NamedTuple):
    """Whether probabilities mean what they say.

    Attributes:
        of: What was stated: the probability of an `alarm`, or without a benign class that of the `answer`.
        bins: Ten, equally wide.
        error: Expected calibration error: the bins' distance between stated and observed, weighted by rows.
        brier: Mean squared distance between what was stated and what was.
    """

    of: str
    bins: tuple[Bin, ...]
    error: float
    brier: float


class Metrics(NamedTuple):
    """How good the answers for some rows are.

    Attributes:
        rows: How many rows were judged.
        accuracy: Part that was answered right.
        macro_f1: Mean F1 of the classes that are there or were answered.
        balanced_accuracy: Mean recall of the classes that are there.
        majority_class: The most frequent class; of equals, the first.
        majority_share: Accuracy of always answering it.
        classes: Each class by name.
        confusion: Rows by true class (outer) and answered class, in the order of `classes`.
        log_loss: Mean of minus the natural logarithm of the true class' probability; None without probabilities.
        alarms: None without probabilities, without a benign class, or where either side has no rows.
        calibration: None without probabilities.
    """

    rows: int
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    majority_class: str
    majority_share: float
    classes: dict[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]
    log_loss: float | None = None
    alarms: Alarms | None = None
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """As what `json` writes: keys are the attributes' names."""
        plain: dict[str, Any] = _plain(self)
        return plain


def measure(
    classes: Sequence[str],
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None = None,
    *,
    benign: str | None = None,
    threshold: float | None = None,
) -> Metrics:
    """Judges answers.

    Args:
        classes: Names of the classes; those that only labels have stand behind those that the model knows.
        labels: `int[n]`, index of the true class.
        predicted: `int[n]`, index of the answer.
        probabilities: `float[n, k]`, of the first *k* classes.
        benign: The class that is no alarm.
        threshold: From which score on the model raises an alarm.

    Raises:
        ValueError: There are no rows, or shapes, indices or probabilities cannot be.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    _check(classes, labels, predicted, probabilities)
    count = len(classes)
    confusion = np.bincount(
        labels.astype(np.int64) * count + predicted.astype(np.int64), minlength=count * count
    ).reshape(count, count)
    right, there, answered = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    found = {
        name: ClassMetrics(
            int(there[i]),
            int(answered[i]),
            _ratio(right[i], answered[i]),
            _ratio(right[i], there[i]),
            _ratio(2 * right[i], there[i] + answered[i]),
        )
        for i, name in enumerate(classes)
    }
    metrics = Metrics(
        rows=len(labels),
        accuracy=float(right.sum() / len(labels)),
        macro_f1=_mean([one.f1 for one in found.values()]),
        balanced_accuracy=_mean([one.recall for one in found.values()]),
        majority_class=classes[int(there.argmax())],
        majority_share=float(there.max() / len(labels)),
        classes=found,
        confusion=tuple(tuple(map(int, row)) for row in confusion),
    )
    if probabilities is None:
        return metrics
    for i, name in enumerate(classes[: probabilities.shape[1]]):
        if 0 < there[i] < len(labels):
            roc, precision_recall = _curves(probabilities[:, i], labels == i)
            found[name] = found[name]._replace(roc=roc, precision_recall=precision_recall)
    known = labels < probabilities.shape[1]
    stated = np.where(known, probabilities[np.arange(len(labels)), np.where(known, labels, 0)], 0.0)
    alarms = None
    if benign in classes[: probabilities.shape[1]]:
        is_benign = labels == classes.index(benign)
        scores = 1 - probabilities[:, classes.index(benign)]
        calibration = _calibration("alarm", scores, ~is_benign)
        if 0 < is_benign.sum() < len(labels):
            alarms = _alarms(classes, classes.index(benign), labels, scores, threshold)
    else:
        calibration = _calibration("answer", probabilities.max(1), labels == predicted)
    log_loss = float(-np.log(np.clip(stated.astype(np.float64), _LEAST_PROBABILITY, 1)).mean())
    return metrics._replace(log_loss=log_loss, alarms=alarms, calibration=calibration)


def _check(classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None) -> None:
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes {classes}: a name is there twice")
    if not len(labels):
        raise ValueError("there are no rows to judge")
    for name, indices in (("labels", labels), ("predicted", predicted)):
        if indices.shape != labels.shape or indices.dtype.kind not in "iu":
            raise ValueError(f"{name}: {indices.dtype}{list(indices.shape)}, not integers for {len(labels)} rows")
        if indices.min() < 0 or indices.max() >= len(classes):
            raise ValueError(f"{name}: {indices.min()} to {indices.max()}, but there are {len(classes)} classes")
    if probabilities is not None:
        if probabilities.ndim != 2 or len(probabilities) != len(labels) or probabilities.shape[1] > len(classes):
            raise ValueError(f"probabilities: {probabilities.shape} for {len(labels)} rows of {len(classes)} classes")
        if not np.isfinite(probabilities).all():
            raise ValueError("probabilities: some are not finite numbers")


def _alarms(
    classes: Sequence[str], benign: int, labels: np.ndarray, scores: np.ndarray, threshold: float | None
) -> Alarms:
    is_benign = labels == benign
    rows = np.bincount(labels, minlength=len(classes))

    def detection(allowed: float | None, at: float | None) -> Detection:
        raised = np.zeros(len(scores), bool) if at is None else scores >= at
        by_class = np.bincount(labels[raised], minlength=len(classes))
        false_alarms, detected = int(by_class[benign]), int(by_class.sum() - by_class[benign])
        return Detection(
            allowed,
            at,
            false_alarms,
            float(false_alarms / rows[benign]),
            detected,
            float(detected / (len(labels) - rows[benign])),
            {name: _ratio(by_class[i], rows[i]) for i, name in enumerate(classes) if i != benign},
        )

    roc, precision_recall = _curves(scores, ~is_benign)
    return Alarms(
        classes[benign],
        int(rows[benign]),
        int(len(labels) - rows[benign]),
        roc,
        precision_recall,
        tuple(detection(rate, threshold_for(scores, is_benign, rate)) for rate in FALSE_ALARM_RATES),
        None if threshold is None else detection(None, threshold),
    )


def _curves(scores: np.ndarray, positive: np.ndarray) -> tuple[Curve, Curve]:
    """ROC and precision-recall curve: a point for each distinct score, which equal scores share.

    Areas are of all points: trapezoids, which is the Mann-Whitney statistic; and steps without interpolation, as
    average precision is defined in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[last]
    alarms = last + 1
    detection = hits / hits[-1]
    false = (alarms - hits) / (alarms[-1] - hits[-1])
    precision = hits / alarms
    x, y = np.append(0.0, false), np.append(0.0, detection)
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    steps = float(np.sum(np.diff(detection, prepend=0.0) * precision))
    return _thinned(x, y, area), _thinned(detection, precision, steps)


def _thinned(x: np.ndarray, y: np.ndarray, area: float) -> Curve:
    """At most `MOST_POINTS` points: the ends, and those nearest to equal steps along the curve."""
    if len(x) > MOST_POINTS:
        along = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
        at = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS - 1))
        kept = np.unique(np.append(at, len(x) - 1))
        x, y = x[kept], y[kept]
    return Curve(tuple(map(float, x)), tuple(map(float, y)), area)


def _calibration(of: str, stated: np.ndarray, came_true: np.ndarray) -> Calibration:
    stated = np.clip(stated.astype(np.float64), 0, 1)
    which = np.minimum((stated * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    rows = np.bincount(which, minlength=CALIBRATION_BINS)
    sums = np.bincount(which, stated, CALIBRATION_BINS)
    trues = np.bincount(which, came_true, CALIBRATION_BINS)
    bins = tuple(
        Bin(i / CALIBRATION_BINS, (i + 1) / CALIBRATION_BINS, int(n), _ratio(sums[i], n), _ratio(trues[i], n))
        for i, n in enumerate(rows)
    )
    error = float(np.abs(sums - trues).sum() / len(stated))
    return Calibration(of, bins, error, float(np.mean((stated - came_true) ** 2)))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value

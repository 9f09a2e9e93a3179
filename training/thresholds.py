"""From which score on a flow is an alert, by rows whose class is known."""

import math

import numpy as np

MOST_LOST = 0.05
"""The part of the mean recall that the highest of the thresholds that are considered may cost."""

_FINEST = 2.0**-24
"""Probabilities of single precision that are nearer to 0 or 1 say no more than this."""


def threshold_for(scores: np.ndarray, is_benign: np.ndarray, rate: float) -> float | None:
    """The lowest threshold at which no more than this part of the benign rows raises an alarm.

    Args:
        scores: `float[n]`, of alarm.
        is_benign: `bool[n]`.
        rate: The part of benign rows that may reach it.

    Returns:
        Midway between the lowest score that raises an alarm and the next one below, in log-odds; None if every
        threshold lets more benign rows through, or there is no benign row.
    """
    distinct = np.unique(scores)
    first = _lowest(distinct, scores[is_benign], rate)
    return None if first == len(distinct) else _between(distinct, first, first)


def alert_threshold(scores: np.ndarray, labels: np.ndarray, benign: int, rate: float) -> float | None:
    """Of the thresholds that so few benign rows reach, one in the middle.

    The lowest of them finds most. The highest that is considered costs `MOST_LOST` of the mean recall of the other
    classes, in which a rare class counts as much as a frequent one. Midway there is room on both sides: some benign
    rows of another network score higher than those seen, and some rows of an attack lower. A row that strays alone is
    not what either end hangs on, where there are more.

    Args:
        scores: `float[n]`, of alarm.
        labels: `int[n]`.
        benign: The label of benign rows.
        rate: The part of benign rows that may reach it.

    Returns:
        As `threshold_for`.
    """
    distinct = np.unique(scores)
    first = _lowest(distinct, scores[labels == benign], rate)
    if first == len(distinct):
        return None
    others = [np.sort(scores[labels == label]) for label in np.unique(labels[labels != benign])]
    if not others:
        return _between(distinct, first, first)
    missed = [np.searchsorted(other, distinct[first:], "left") / len(other) for other in others]
    recall = 1 - np.mean(missed, axis=0)
    return _between(distinct, first, first + int(np.flatnonzero(recall >= (1 - MOST_LOST) * recall[0])[-1]))


def _lowest(distinct: np.ndarray, benign: np.ndarray, rate: float) -> int:
    """The place of the lowest of these scores that so few benign ones reach; their number if there is none."""
    if not len(benign):
        return len(distinct)
    reached = len(benign) - np.searchsorted(np.sort(benign), distinct, "left")
    return int(np.searchsorted(-reached, -math.floor(rate * len(benign) + 1e-9), "left"))


def _between(distinct: np.ndarray, first: int, last: int) -> float:
    """Of the thresholds from one of these scores, in order, to another: midway from the score before them to the last.

    Midway in log-odds: there the trees of a forest add up, so that a row that differs in what some trees ask moves by
    as much wherever it is. Among probabilities the middle would be next to the alarms: of 0.001 and 0.9 it is 0.45,
    2.4 from the alarm and 6.7 from the benign row; here it is 0.087.
    """
    if first == 0:
        return float(distinct[0])
    below, above = (np.clip(np.float64(distinct[place]), _FINEST, 1 - _FINEST) for place in (first - 1, last))
    odds = math.sqrt(below / (1 - below) * above / (1 - above))
    middle = odds / (1 + odds)
    between = distinct[first - 1] < distinct.dtype.type(middle) <= distinct[last]
    return middle if between else float(distinct[last])

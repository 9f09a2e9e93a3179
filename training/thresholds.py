"""From which score on a flow is an alert, by rows whose class is known."""

import math

import numpy as np

ALL_ALLOWED = 0.05
"""Mean recall that all of the allowed false alarms must bring, to be made."""

NEARLY = 0.0025
"""Mean recall that is no more than chance: of five other classes, one flow of eighty of one of them."""

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
    benign = np.sort(scores[is_benign])
    if not len(benign):
        return None
    distinct = np.unique(scores)
    reached = len(benign) - np.searchsorted(benign, distinct, "left")
    first = int(np.searchsorted(-reached, -math.floor(rate * len(benign) + 1e-9), "left"))
    return None if first == len(distinct) else _between(distinct, first, first)


def alert_threshold(scores: np.ndarray, labels: np.ndarray, benign: int, rate: float) -> float | None:
    """Of the thresholds that so few benign rows reach, the one that is worth its false alarms.

    Worth is the mean recall of the other classes less `ALL_ALLOWED` times the part of the allowed false alarms that is
    raised: a rare class counts as much as a frequent one, and where classes lie apart the threshold is between them,
    not at the benign end. All thresholds that are worth `NEARLY` as much as the best, side by side with it, are equally
    good by these rows; the one midway leaves the most room for rows not seen, benign ones and others.

    Args:
        scores: `float[n]`, of alarm.
        labels: `int[n]`.
        benign: The label of benign rows.
        rate: The part of benign rows that may reach it.

    Returns:
        As `threshold_for`.
    """
    if threshold_for(scores, labels == benign, rate) is None:
        return None
    distinct = np.unique(scores)
    reached = {
        label: 1 - np.searchsorted(np.sort(scores[labels == label]), distinct, "left") / np.sum(labels == label)
        for label in np.unique(labels).tolist()
    }
    false_alarms = reached.pop(benign)
    price = ALL_ALLOWED * false_alarms / (rate or 1.0)
    worth = np.mean(list(reached.values()), axis=0) - price if reached else -price
    worth[false_alarms > rate + 1e-12] = -np.inf
    best = len(worth) - 1 - int(worth[::-1].argmax())
    less = np.flatnonzero(worth < worth[best] - NEARLY)
    before, behind = less[less < best].max(initial=-1), less[less > best].min(initial=len(worth))
    return _between(distinct, int(before) + 1, int(behind) - 1)


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

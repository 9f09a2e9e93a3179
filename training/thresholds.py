"""From which score on a flow is an alert, by rows whose class is known."""

import math

import numpy as np

ALL_ALLOWED = 0.05
"""Mean recall that all of the allowed false alarms must bring, to be made."""


def threshold_for(scores: np.ndarray, is_benign: np.ndarray, rate: float) -> float | None:
    """The lowest threshold at which no more than this part of the benign rows raises an alarm.

    Args:
        scores: `float[n]`, of alarm.
        is_benign: `bool[n]`.
        rate: The part of benign rows that may reach it.

    Returns:
        Midway between the lowest score that raises an alarm and the next one below, so that rows not seen have room on
        either side; None if every threshold lets more benign rows through, or there is no benign row.
    """
    benign = np.sort(scores[is_benign])
    if not len(benign):
        return None
    distinct = np.unique(scores)
    reached = len(benign) - np.searchsorted(benign, distinct, "left")
    first = int(np.searchsorted(-reached, -math.floor(rate * len(benign) + 1e-9), "left"))
    return None if first == len(distinct) else _below(distinct, first)


def alert_threshold(scores: np.ndarray, labels: np.ndarray, benign: int, rate: float) -> float | None:
    """Of the thresholds that so few benign rows reach, the one that is worth its false alarms.

    Worth is the mean recall of the other classes less `ALL_ALLOWED` times the part of the allowed false alarms that is
    raised: a rare class counts as much as a frequent one, and where classes lie apart the threshold is between them,
    not at the benign end.

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
    return _below(distinct, len(worth) - 1 - int(worth[::-1].argmax()))


def _below(distinct: np.ndarray, at: int) -> float:
    """A threshold that one of these scores, in order, still reaches, and the one before does not: midway."""
    if at == 0:
        return float(distinct[0])
    middle = (float(distinct[at - 1]) + float(distinct[at])) / 2
    between = distinct[at - 1] < distinct.dtype.type(middle) <= distinct[at]
    return middle if between else float(distinct[at])

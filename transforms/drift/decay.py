"""Whether a model's answers have become worse: a sequential test on labelled flows, in the order in which these ended.

The test is CUSUM (Page, Continuous inspection schemes, Biometrika 41, 1954) on the log-likelihood ratio of two error
rates: the model's own, with what its judges may have missed by chance, and one that is clearly worse. The sum grows
with each wrong answer, shrinks with each right one, and never falls below 0; when it reaches ln(L), the model has
decayed. While the error rate is no more than the model's own, that happens at most once in L labelled flows on average
(Lorden, Procedures for reacting to a change in distribution, Annals of Mathematical Statistics 42, 1971). It has
recovered once the sum is 0 again. Sums are whole numbers: the same flows give the same sum, however they are divided.
"""

import math
from typing import NamedTuple

import numpy as np

JUDGED = np.dtype([("end_ns", "i8"), ("id_high", "u8"), ("id_low", "u8"), ("wrong", "?")])
"""A labelled flow: when it ended, the halves of its id, and whether the model's answer was wrong."""

_SCALE = 1 << 24


class DecayRule(NamedTuple):
    """What is tested; made by `rule`.

    Attributes:
        usual: The model's own error rate, at most.
        worse: The error rate that would be decay.
        up: What a wrong answer adds to the sum.
        down: What a right one takes from it.
        limit: The sum at which the model has decayed; the sum is never more than twice that.
    """

    usual: float
    worse: float
    up: int
    down: int
    limit: int


class Sum(NamedTuple):
    """Where the test stands.

    Attributes:
        value: The sum, in units of the rule's.
        decayed: Whether it has reached the limit, and not been 0 since.
    """

    value: int = 0
    decayed: bool = False


def rule(judged: int, wrong: int, run_length: float, least_rise: float = 0.05) -> DecayRule:
    """The test for a model of which `wrong` of `judged` answers were wrong.

    Args:
        judged: Held-out rows on which the model was judged; at least one.
        wrong: Wrong answers among them.
        run_length: Labelled flows between two alarms on average, at least, where nothing has changed.
        least_rise: An error rate that is higher by so much, and twice the usual one, is decay.
    """
    usual = min(0.9, upper_bound(judged, wrong))
    worse = min(0.99, max(2 * usual, usual + least_rise))
    up = round(math.log(worse / usual) * _SCALE)
    down = round(-math.log((1 - worse) / (1 - usual)) * _SCALE)
    return DecayRule(usual, worse, up, down, round(math.log(run_length) * _SCALE))


def upper_bound(judged: int, wrong: int) -> float:
    """What an error rate measured so is at most, with a confidence of 97.5 %: Wilson's bound."""
    z = 1.959964
    share = wrong / judged
    middle = share + z * z / (2 * judged)
    spread = z * math.sqrt(share * (1 - share) / judged + z * z / (4 * judged**2))
    return (middle + spread) / (1 + z * z / judged)


def nats(value: int) -> float:
    """A sum as a log-likelihood ratio."""
    return value / _SCALE


def follow(wrong: np.ndarray, test: DecayRule, since: Sum = Sum()) -> tuple[Sum, list[tuple[int, bool]]]:  # noqa: B008
    """Goes on with the test over answers in order.

    Args:
        wrong: `bool[n]`.
        test: The rule.
        since: Where the test stood before them.

    Returns:
        Where it stands after them, and what changed: the place in `wrong`, and whether the model has decayed there or
        has recovered.
    """
    value, decayed = since
    changes = []
    before = 0
    for place in (*np.flatnonzero(wrong).tolist(), len(wrong)):  # answers that are right in a row are one step
        if decayed and (place - before) * test.down >= value:
            decayed = False
            changes.append((before - 1 - (-value // test.down), False))
        value = max(0, value - (place - before) * test.down)
        if place == len(wrong):
            break
        value = min(value + test.up, 2 * test.limit)
        if value >= test.limit and not decayed:
            decayed = True
            changes.append((place, True))
        before = place + 1
    return Sum(value, decayed), changes


def in_order(judged: np.ndarray) -> np.ndarray:
    """Labelled flows in the order of their end, then of their id."""
    return judged[np.lexsort((judged["id_low"], judged["id_high"], judged["end_ns"]))]

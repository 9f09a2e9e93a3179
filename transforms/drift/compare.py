"""How far two samples are apart, from their counts in the same bins.

The population stability index (PSI) of counts in *k* bins is Σ (pᵢ − qᵢ) ln(pᵢ / qᵢ): how much, whatever the size of
the samples. Two samples of one population still have one of about (k − 1)(1/n + 1/m), since n·m/(n + m)·PSI is then
distributed as χ² with k − 1 degrees of freedom (Yurdakul and Naranjo, Statistical properties of the population
stability index, 2020). `excess_psi` is the PSI without it: 0 on average where nothing has changed, whether a window has
200 flows or a million. Beside it, Pearson's test says how sure, feature by feature, and Holm's correction that many
were asked.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

_LEAST_EXPECTED = 5.0
"""Bins in which fewer rows of the smaller sample are expected are tested together."""

_PRIOR = 0.5


class Comparison(NamedTuple):
    """A window against the reference, one entry for each column.

    Attributes:
        psi: Excess of the population stability index; `float64[columns]`.
        p_values: How likely so large a difference is where nothing has changed; `float64[columns]`.
        adjusted: The same, for the one column among all that differs most, and so on (Holm 1979).
    """

    psi: np.ndarray
    p_values: np.ndarray
    adjusted: np.ndarray


def compare(reference: np.ndarray, window: np.ndarray, starts: np.ndarray) -> Comparison:
    """Compares all columns.

    Args:
        reference: Counts of all columns' bins, end to end; `int64[width]`.
        window: Likewise.
        starts: Where each column's bins begin, and the end; `int64[columns + 1]`.
    """
    psi = excess_psi(reference, window, starts)
    bounds = itertools.pairwise(starts)
    p_values = np.array([same_population(reference[start:end], window[start:end]) for start, end in bounds])
    return Comparison(psi, p_values, holm(p_values))


def excess_psi(reference: np.ndarray, window: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The PSI of each column without what is expected where nothing has changed; 0 where a sample is empty.

    Half a row is added to each bin that either sample uses, so that an empty one is a small part and not none.

    Args:
        reference: As for `compare`.
        window: Likewise.
        starts: Likewise.
    """
    heads, bins = starts[:-1], np.diff(starts)
    in_reference, in_window = np.add.reduceat(reference, heads), np.add.reduceat(window, heads)
    used = reference + window > 0
    many = np.maximum(1, np.add.reduceat(used, heads, dtype=np.int64))
    p = (window + _PRIOR) / np.repeat(in_window + _PRIOR * many, bins)
    q = (reference + _PRIOR) / np.repeat(in_reference + _PRIOR * many, bins)
    measured = np.add.reduceat(np.where(used, (p - q) * np.log(p / q), 0.0), heads)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chance = (many - 1) * (1 / in_reference + 1 / in_window)
        return np.where((in_reference > 0) & (in_window > 0), measured - by_chance, 0.0)


def same_population(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's χ² test that two rows of counts are of one population: the probability of so large a difference.

    Bins in which few rows are expected are taken together.
    """
    counts = np.stack([first, second]).astype(np.float64)
    sizes = counts.sum(axis=1)
    if not sizes.all():
        return 1.0
    least = counts.sum(axis=0) * sizes.min() / sizes.sum()
    counts, least = counts[:, least > 0], least[least > 0]
    rare = least < _LEAST_EXPECTED
    if rare.any():
        together = counts[:, rare].sum(axis=1, keepdims=True)
        if least[rare].sum() < _LEAST_EXPECTED and not rare.all():
            rare[np.flatnonzero(~rare)[least[~rare].argmin()]] = True
            together = counts[:, rare].sum(axis=1, keepdims=True)
        counts = np.hstack([counts[:, ~rare], together])
    expected = counts.sum(axis=0) * sizes[:, None] / sizes.sum()
    statistic = float((((counts - expected) ** 2) / expected).sum())
    return chi_square_tail(statistic, counts.shape[1] - 1)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """The probability that χ² with whole `freedom` degrees of freedom is above `statistic`.

    The finite sums of Abramowitz and Stegun 26.4.4 and 26.4.5; 1 with no degree of freedom.
    """
    if freedom == 0 or statistic <= 0:
        return 1.0
    half, odd = statistic / 2, freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    orders = (order + odd / 2 for order in range(freedom // 2))
    return min(1.0, tail + sum(math.exp(order * math.log(half) - half - math.lgamma(order + 1)) for order in orders))


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number, so that any of them below α is wrong with probability α at most.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted

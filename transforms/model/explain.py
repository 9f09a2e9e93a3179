"""What moved a score: exact Shapley values of a forest's features (path-dependent TreeSHAP), for some flows.

A flow's margin is how far the forest prefers the class that it names to benign: the difference of the two classes'
log-odds with gradient-boosted trees, of their probabilities with a random forest. The Shapley values of the features
add up to the flow's margin less the mean margin of the training data. They are those of Lundberg et al., "From local
explanations to global understanding with explainable AI for trees" (2020), which YDF's `predict_shap` gives, too.

A tree is taken apart into the paths to its leaves, and a path into one step for each feature on it: an interval that
the value must be in, and the share z of the training rows that pass there. With o = 1 where the flow's value is in the
interval and else 0, the leaf of value v adds to the feature i of its d features

    v (oᵢ − zᵢ) ∫₀¹ ∏_{j≠i} (zⱼ (1 − t) + oⱼ t) dt,

since the weights of Shapley's sum over subsets are a Beta integral. The integrand is a polynomial of degree d − 1, so
that Gauss and Legendre's rule with ⌈d / 2⌉ points is exact. There are only 2^d answers: those of a leaf are worked out
beforehand where that fits into `TABLE_OCTETS`, and then a leaf costs a flow d comparisons and d additions.
"""

from typing import Any, NamedTuple

import numpy as np

from transforms.kernel import kernel, kernel_part
from transforms.model.folder import Model
from transforms.model.paths import MOST_STEPS, Paths, paths_of

TABLE_OCTETS = 64 << 20
"""Room for answers that are worked out beforehand; leaves that find none are worked out for each flow."""

_TABLE_STEPS = 10
_ROWS = 256
"""So many flows at a time go through all leaves: their features and sums then stay in the processor's cache."""


class _Explained(NamedTuple):
    """The trees of one class.

    Attributes:
        paths: Their leaves and steps.
        tables: Answers of leaves: for each mask of steps that a flow passes, one number for each step; `f4[k]`.
    """

    paths: Paths
    tables: np.ndarray


class Explainer:
    """Says which features moved the margins of flows.

    Args:
        model: The model.
        trees: YDF's model of it.

    Raises:
        InputError: The trees ask more than whether a feature is larger than something, or missing.
    """

    def __init__(self, model: Model, trees: Any) -> None:
        self._benign = model.classes.index(model.benign)
        self._features = len(model.features)
        classes = paths_of(model, trees)
        self._classes = [_tabulated(paths, TABLE_OCTETS // len(classes)) for paths in classes]

    def contributions(self, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """What each feature adds to each flow's margin, `float64[n, n_features]`.

        Args:
            values: The model's features, in order, NaN where a value is missing; `float32[n_features, n]`.
            classes: The class whose margin over benign is explained, for each flow; `int64[n]`.
        """
        moved = np.zeros((values.shape[1], self._features))
        for number, explained in enumerate(self._classes):
            if number == self._benign:
                moved -= _attributed(explained, values)
            elif (chosen := classes == number).any():
                moved[chosen] += _attributed(explained, np.ascontiguousarray(values[:, chosen]))
        return moved


def _tabulated(paths: Paths, octets: int) -> _Explained:
    """Works out beforehand what fits into so many octets, leaves of few steps first."""
    leaves = paths.leaves
    sizes = np.where(leaves["steps"] <= _TABLE_STEPS, leaves["steps"] << np.minimum(leaves["steps"], _TABLE_STEPS), 0)
    order = np.argsort(leaves["steps"], kind="stable")
    ends = np.cumsum(sizes[order])
    placed = (sizes[order] > 0) & (ends * 4 <= octets)
    leaves["table"][order] = np.where(placed, ends - sizes[order], -1)
    tables = np.empty(int(ends[placed].max(initial=0)), np.float32)
    if len(tables):
        tabulate(leaves, paths.steps, tables, _NODES, _WEIGHTS)
    return _Explained(paths, tables)


def _attributed(explained: _Explained, values: np.ndarray) -> np.ndarray:
    """Shapley values, `float64[n, n_features]`; `values` is `float32[n_features, n]`."""
    (leaves, steps), tables = explained
    moved = np.zeros(values.shape)
    if len(leaves):
        for first in range(0, values.shape[1], _ROWS):
            block = np.ascontiguousarray(values[:, first : first + _ROWS])
            sums = np.zeros(block.shape)
            attribute(leaves, steps, tables, _NODES, _WEIGHTS, block, sums)
            moved[:, first : first + _ROWS] = sums
    return moved.T


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss and Legendre's rules on [0, 1]; row n is the rule with n points."""
    most = (MOST_STEPS + 1) // 2
    nodes, weights = np.zeros((most + 1, most)), np.zeros((most + 1, most))
    for points in range(1, most + 1):
        at, weight = np.polynomial.legendre.leggauss(points)
        nodes[points, :points], weights[points, :points] = (at + 1) / 2, weight / 2
    return nodes, weights


_NODES, _WEIGHTS = _quadrature()


@kernel_part
def answer(steps, leaf, mask, nodes, weights, scratch, into, at):
    """What a leaf adds to each feature on its path, for flows that pass the steps in `mask`; `into[at:]`."""
    count = leaf.steps
    points = (count + 1) // 2
    for number in range(count):
        into[at + number] = 0
    for point in range(points):
        t = nodes[points, point]
        before = leaf.value * weights[points, point]
        for number in range(count):  # products of the steps before each one
            scratch[number] = before
            passes = (mask >> number) & 1
            before *= steps[leaf.first + number].share * (1 - t) + passes * t
        after = 1.0
        for back in range(count):  # and of those behind it
            number = count - 1 - back
            share = steps[leaf.first + number].share
            passes = (mask >> number) & 1
            into[at + number] += (passes - share) * scratch[number] * after
            after *= share * (1 - t) + passes * t


@kernel
def tabulate(leaves, steps, tables, nodes, weights):
    """Works out the answers of all leaves that have a place in `tables`."""
    scratch = np.empty(64)
    into = np.empty(64)
    for index in range(len(leaves)):
        leaf = leaves[index]
        if leaf.table >= 0:
            for mask in range(1 << leaf.steps):
                answer(steps, leaf, mask, nodes, weights, scratch, into, 0)
                for number in range(leaf.steps):
                    tables[leaf.table + mask * leaf.steps + number] = into[number]


@kernel
def attribute(leaves, steps, tables, nodes, weights, values, sums):
    """Adds the answers of all leaves for all flows to `sums`; it and `values` are `[n_features, n]`."""
    rows = values.shape[1]
    masks = np.empty(rows, np.int64)
    scratch = np.empty(64)
    into = np.empty(64)
    for index in range(len(leaves)):
        leaf = leaves[index]
        masks[:] = 0
        for number in range(leaf.steps):
            step = steps[leaf.first + number]
            low, high, missing, bit = step.low, step.high, step.missing, 1 << number
            column = values[step.feature]
            for row in range(rows):
                value = column[row]
                inside = (value >= low) & (not value >= high)
                absent = value != value
                masks[row] |= bit * ((absent & (missing == 1)) | inside)
        if leaf.table >= 0:
            for number in range(leaf.steps):
                column = sums[steps[leaf.first + number].feature]
                place = leaf.table + number
                for row in range(rows):
                    column[row] += tables[place + masks[row] * leaf.steps]
        else:
            for row in range(rows):
                answer(steps, leaf, masks[row], nodes, weights, scratch, into, 0)
                for number in range(leaf.steps):
                    sums[steps[leaf.first + number].feature, row] += into[number]

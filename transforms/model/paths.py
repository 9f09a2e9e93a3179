"""Trees taken apart: the paths to their leaves, one step for each feature on a path."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from transforms.model.folder import Model
from transforms.records import InputError

MOST_STEPS = 32
"""Features on one path, at the most; the bits of a mask."""

STEP = np.dtype(
    [
        ("feature", "i4"),  # which of the model's features
        ("missing", "i4"),  # 1 if a missing value passes
        ("low", "f4"),  # a value passes from here on (NaN: none does),
        ("high", "f4"),  # and below this (NaN: no bound)
        ("share", "f8"),  # of the training rows that came by, those that passed
    ],
    align=True,
)
"""What a path asks of one feature."""

LEAF = np.dtype(
    [
        ("first", "i8"),  # its first step
        ("steps", "i8"),  # how many
        ("table", "i8"),  # where its answers begin (`explain.py`); -1 without
        ("value", "f8"),
    ],
    align=True,
)
"""The end of a path."""


class Paths(NamedTuple):
    """The trees that speak for one class.

    Attributes:
        leaves: `LEAF[n]`.
        steps: `STEP[m]`.
    """

    leaves: np.ndarray
    steps: np.ndarray


class _Range(NamedTuple):
    """The values of a feature that pass."""

    low: float = -math.inf
    high: float = math.inf
    missing: bool = True
    none: bool = False
    share: float = 1.0

    def within(self, other: "_Range") -> "_Range":
        """Those that pass both."""
        return _Range(
            max(self.low, other.low),
            min(self.high, other.high),
            self.missing and other.missing,
            self.none or other.none,
            self.share * other.share,
        )


_Path = dict[int, _Range]


def paths_of(model: Model, trees: Any) -> list[Paths]:
    """For each class, the paths of the trees that speak for it; what they say adds up to the class's margin.

    With gradient-boosted trees a margin is in log-odds: of two classes, the second one has all trees and the first has
    none. With a random forest it is a probability.

    Args:
        model: The model.
        trees: YDF's model of it.

    Raises:
        InputError: A tree asks more than whether a feature is at least so much, or missing.
    """
    classes = len(model.classes)
    forest = trees.name() == "RANDOM_FOREST"
    found: list[list[tuple[_Path, float]]] = [[] for _ in range(classes)]
    walk = _Walk(model, trees.data_spec())
    count = trees.num_trees()
    votes = forest and trees.winner_takes_all()
    for number, tree in enumerate(trees.iter_trees()):
        for path, value in walk.leaves(tree.root, {}):
            if forest:
                shares = np.array(value.probability)
                shares = np.eye(classes)[shares.argmax()] if votes else shares
                for index in np.flatnonzero(shares):
                    found[index].append((path, shares[index] / count))
            else:
                found[1 if classes == 2 else number % classes].append((path, value.value))
    return [_packed(leaves) for leaves in found]


class _Walk:
    def __init__(self, model: Model, data_spec: Any) -> None:
        self._model = model
        self._columns = data_spec.columns
        self._number = {name: number for number, name in enumerate(model.features)}

    def leaves(self, node: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
        """The leaves under a node that `path` leads to, with what they say."""
        if node.is_leaf:
            yield path, node.value
            return
        name, yes, no = self._asked(node.condition)
        seen = [_rows(child) for child in (node.pos_child, node.neg_child)]
        total = sum(seen)
        for child, passed, rows in zip((node.pos_child, node.neg_child), (yes, no), seen, strict=True):
            share = rows / total if total else 0.5
            before = path.get(self._number[name], _Range())
            yield from self.leaves(child, {**path, self._number[name]: before.within(passed._replace(share=share))})

    def _asked(self, condition: Any) -> tuple[str, _Range, _Range]:
        """Which column a condition is about, and which values go either way."""
        kind = type(condition).__name__
        if kind not in (
            "NumericalHigherThanCondition",
            "DiscretizedNumericalHigherThanCondition",
            "IsMissingInCondition",
        ):
            raise InputError(
                f"--explain: model {self._model.id} has conditions that are not explained ({kind}); score without it,"
                " or train a model with axis-aligned splits"
            )
        column = self._columns[condition.attribute]
        if kind == "IsMissingInCondition":
            return column.name, _Range(none=True), _Range(missing=False)
        if kind == "NumericalHigherThanCondition":
            bound = condition.threshold
        else:
            bound = column.discretized_numerical.boundaries[condition.threshold_idx - 1]
        yes, no = bool(condition.missing), not condition.missing
        return column.name, _Range(low=bound, missing=yes), _Range(high=bound, missing=no)


def _rows(node: Any) -> float:
    """How many training rows came to a node, where it says so."""
    if node.is_leaf or node.value is not None:
        return float(node.value.num_examples)
    return _rows(node.pos_child) + _rows(node.neg_child)


def _packed(found: list[tuple[_Path, float]]) -> Paths:
    steps = [(number, step) for path, _ in found for number, step in path.items()]
    counts = np.array([len(path) for path, _ in found], np.int64)
    if counts.max(initial=0) > MOST_STEPS:
        raise InputError(f"--explain: paths of {counts.max()} features are not explained, {MOST_STEPS} are the most")
    packed = np.zeros(len(steps), STEP)
    packed["feature"] = [number for number, _ in steps]
    packed["missing"] = [step.missing for _, step in steps]
    packed["low"] = [math.nan if step.none else step.low for _, step in steps]
    packed["high"] = [math.nan if step.high == math.inf else step.high for _, step in steps]
    packed["share"] = [step.share for _, step in steps]
    leaves = np.zeros(len(found), LEAF)
    leaves["steps"] = counts
    leaves["first"] = np.cumsum(counts) - counts
    leaves["table"] = -1
    leaves["value"] = [value for _, value in found]
    return Paths(leaves, packed)

"""Gradient-boosted trees by YDF: how they are grown, and what they answer."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.tables import Table
from transforms.model.forest import ydf_library

MOST_EXACT_ROWS = 50_000
"""Of more rows, splits are looked for among 255 quantiles of a column, which takes half of the time."""

_MOST_ROWS_ALONE = 30_000
"""Of as many rows, YDF's threads spend more time on waking each other than one needs for all: 20 s against 45 s for 200
rounds over 8,500 rows and 181 columns, on two cores; at 34,000 rows both need the same."""

_LABEL, _WEIGHT = "__label", "__weight"


@dataclass(frozen=True)
class TreeSettings:
    """How trees are grown. The defaults are good for flows; `fewest_rows` was chosen on splits of one published table.

    Attributes:
        trees: How many, of each class where there are more than two.
        shrinkage: What each tree's answer is multiplied by.
        depth: Of a tree.
        attributes: The part of the features that each split may choose from: different trees look at different ones.
        fewest_rows: Of a leaf.
        subsample: The part of the rows that each tree sees.
    """

    trees: int = 200
    shrinkage: float = 0.1
    depth: int = 6
    attributes: float = 0.3
    fewest_rows: int = 2
    subsample: float = 1.0

    def as_texts(self) -> dict[str, str]:
        """Names and values, for the report."""
        return {name.replace("_", " "): str(value) for name, value in asdict(self).items()}


def grow_alone(rows: int) -> bool:
    """Whether the trees of so many rows grow in one thread: several forests may then grow beside each other."""
    return rows <= _MOST_ROWS_ALONE


def fit_trees(table: Table, settings: TreeSettings, seed: int, weights: np.ndarray | None = None) -> Any:
    """Grows trees on all rows of a table; every one of its classes must have some.

    All rows are learned from (YDF would hold a tenth back to stop early, which costs rare classes more than it saves),
    and splits are chosen by gradient and Hessian, as XGBoost and LightGBM do. The same rows give the same trees on any
    machine: YDF draws the columns of a split differently in a single thread, so that their number decides.
    """
    ydf = ydf_library()
    learner = ydf.GradientBoostedTreesLearner(
        label=_LABEL,
        label_classes=list(table.classes),
        weights=None if weights is None else _WEIGHT,
        num_trees=settings.trees,
        shrinkage=settings.shrinkage,
        max_depth=settings.depth,
        num_candidate_attributes_ratio=settings.attributes,
        min_examples=settings.fewest_rows,
        subsample=settings.subsample,
        use_hessian_gain=True,
        discretize_numerical_columns=len(table) > MOST_EXACT_ROWS,
        validation_ratio=0.0,
        random_seed=seed,
        num_threads=1 if grow_alone(len(table)) else max(2, os.cpu_count() or 2),
    )
    rows = {**table.columns, _LABEL: np.array(table.classes, dtype=object)[table.labels]}
    if weights is not None:
        rows[_WEIGHT] = weights.astype(np.float32)
    try:
        return learner.train(rows, verbose=0)
    except ValueError as error:  # YDF catches SIGINT itself
        if "interrupted by user" in str(error):
            raise KeyboardInterrupt from error
        raise


def probabilities(trees: Any, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The probability of each class; `float32[n, n_classes]`."""
    found = trees.predict(dict(columns))
    return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

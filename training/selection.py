"""Which features a model gets by with; chosen on training rows only."""

from dataclasses import replace
from typing import Any

import numpy as np

from training.split import stratified
from training.tables import Table
from training.trees import TreeSettings, fit_trees, probabilities

PERMUTATION, CATRACA, NONE = "permutation", "catraca", "none"
SELECTIONS = (NONE, PERMUTATION, CATRACA)

_HELD_PART = 0.25
_MOST_ROWS = 40_000
_TREES = 60
_MOST_TRIED = 250
_LEAST_PROBABILITY = 1e-6


def select(table: Table, how: str, most: int, settings: TreeSettings, seed: int) -> list[str]:
    """At most `most` columns of the training rows, in the table's order."""
    names = list(table.columns)
    if how == NONE or most >= len(names):
        return names
    chosen = (
        by_variance_over_correlation(table, most) if how == CATRACA else by_permutation(table, most, settings, seed)
    )
    return [name for name in names if name in chosen]


def by_variance_over_correlation(table: Table, most: int) -> list[str]:
    """The heuristic of CATRACA: columns that vary much and say what no other says.

    Columns are scaled to 0…1; the weight of each is its variance over the sum of the absolute correlations with all
    columns (Andreoni Lopez, Mattos, Duarte, Pujolle: A fast unsupervised preprocessing method for network monitoring,
    Annals of Telecommunications 74, 2019). It looks at no label. Missing values count as the column's mean.
    """
    table = _sample(table, 0)
    scaled = np.stack([_scaled(values) for values in table.columns.values()])
    variances = scaled.var(axis=1)
    centred = scaled - scaled.mean(axis=1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(axis=1))
    unit = centred / np.where(lengths, lengths, 1)[:, None]
    correlations = np.abs(unit @ unit.T).sum(axis=1)
    weights = variances / np.where(correlations, correlations, 1)
    names = list(table.columns)
    return [names[i] for i in np.argsort(-weights, kind="stable")[:most]]


def by_permutation(table: Table, most: int, settings: TreeSettings, seed: int) -> list[str]:
    """Drops the least important half again and again, until `most` columns are left.

    Trees are grown anew after each drop: of two columns that say the same, one matters once the other is gone.
    """
    table = _sample(table, seed)
    held = stratified(table.labels, _HELD_PART, np.random.default_rng(seed))
    learned, judged = table.rows(~held), table.rows(held)
    fewer = replace(settings, trees=min(settings.trees, _TREES))
    while True:
        trees = fit_trees(learned, fewer, seed)
        ranked = [name for name, _ in permutation_importance(trees, judged, seed)]
        left = ranked[: max(most, len(ranked) // 2)]
        if len(left) == most:
            return left
        learned, judged = learned.with_columns(left), judged.with_columns(left)


def permutation_importance(trees: Any, table: Table, seed: int, repeats: int = 3) -> list[tuple[str, float]]:
    """How much the log loss grows when a column is shuffled, the greatest first.

    Rows change places in the same way whichever column is shuffled. Tried are the `_MOST_TRIED` columns that trees
    gained most by, since each takes a prediction of all columns; the others count as if nothing grew.
    """
    random = np.random.default_rng(seed)
    whole = _loss(trees, table.columns, table.labels)
    again = table.rows(np.tile(np.arange(len(table)), repeats))
    shuffled = np.concatenate([random.permutation(len(table)) for _ in range(repeats)])
    tried = {name for _, name in trees.variable_importances()["SUM_SCORE"][:_MOST_TRIED]}
    grown = []
    for name, values in table.columns.items():
        loss = _loss(trees, {**again.columns, name: values[shuffled]}, again.labels) if name in tried else whole
        grown.append((name, loss - whole))
    return sorted(grown, key=lambda pair: -pair[1])


def _loss(trees: Any, columns: dict[str, np.ndarray], labels: np.ndarray) -> float:
    stated = probabilities(trees, columns)[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(stated, _LEAST_PROBABILITY, 1)).mean())


def _sample(table: Table, seed: int) -> Table:
    if len(table) <= _MOST_ROWS:
        return table
    return table.rows(stratified(table.labels, _MOST_ROWS / len(table), np.random.default_rng(seed)))


def _scaled(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    wide = np.where(known, values, values[known].mean(dtype=np.float64)).astype(np.float64)
    least, spread = wide.min(), np.ptp(wide)
    return (wide - least) / spread if spread else np.zeros(len(wide))

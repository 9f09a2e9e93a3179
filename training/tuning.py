"""Searches settings of trees at random; judged by cross-validation inside the training rows."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from training.held_out import held_out
from training.split import stratified
from training.tables import Table
from training.trees import TreeSettings

_CHOICES: dict[str, tuple[float, ...]] = {
    "trees": (100, 200, 300),
    "shrinkage": (0.05, 0.1, 0.15, 0.2),
    "depth": (4, 5, 6, 8, 10),
    "attributes": (0.15, 0.2, 0.3, 0.5, 1.0),
    "fewest_rows": (2, 5, 10, 20),
    "subsample": (0.7, 0.85, 1.0),
}
_MOST_ROWS = 50_000
_LEAST_PROBABILITY = 1e-6


class Trial(NamedTuple):
    """Settings and how good they were.

    Attributes:
        settings: What was tried.
        loss: Mean log loss on rows held back; less is better.
    """

    settings: TreeSettings
    loss: float


def tune(table: Table, trials: int, settings: TreeSettings, in_time: bool, seed: int) -> list[Trial]:
    """Tries `settings` and so many others, drawn at random; the best first.

    Args:
        table: Training rows; in order of time where `in_time`.
        trials: How many others.
        settings: Where the search begins.
        in_time: Rows held back are those of a stretch of time.
        seed: Of all that is drawn.
    """
    random = np.random.default_rng(seed)
    if len(table) > _MOST_ROWS:
        table = table.rows(stratified(table.labels, _MOST_ROWS / len(table), random))
    tried = [settings]
    for _ in range(trials):
        drawn = {name: values[random.integers(len(values))] for name, values in _CHOICES.items()}
        tried.append(replace(settings, **drawn))  # type: ignore[arg-type]
    judged = [Trial(one, _judge(table, in_time, one, seed)) for one in dict.fromkeys(tried)]
    return sorted(judged, key=lambda trial: trial.loss)


def _judge(table: Table, in_time: bool, settings: TreeSettings, seed: int) -> float:
    losses = []
    for judged, stated in held_out(table, in_time, settings, seed):
        right = stated[np.arange(len(judged)), table.labels[judged]]
        losses.append(float(-np.log(np.clip(right, _LEAST_PROBABILITY, 1)).mean()))
    return float(np.mean(losses)) if losses else 0.0

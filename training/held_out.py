"""What trees say of training rows that they have not learned from."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from training.tables import Table, with_rows_only
from training.trees import TreeSettings, fit_trees, grow_alone, probabilities

FOLDS = 5


def held_out(table: Table, in_time: bool, settings: TreeSettings, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Grows trees on parts of the rows, and asks them about others.

    Args:
        table: Training rows, in order of time where `in_time`.
        in_time: Rows that trees are asked about are those of a stretch of time; else they are drawn at random, or are
            whole groups where the table has any. Trees have learned from all other rows, later ones too: grown from
            the first quarter alone, they would be far less certain than the model is.
        settings: How trees grow.
        seed: Of all that is drawn.

    Yields:
        Places of rows, and the probabilities of the table's classes for them, `float32[n, n_classes]`.
    """
    stopped = threading.Event()

    def asked(fold: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
        learned, judged = fold
        part, there = with_rows_only(table.rows(learned))
        if len(there) < 2 or not len(judged) or stopped.is_set():
            return None
        try:
            trees = fit_trees(part, settings, seed)
        except BaseException:  # Ctrl-C, for one: the next fold shall not begin
            stopped.set()
            raise
        stated = np.zeros((len(judged), len(table.classes)), np.float32)
        stated[:, there] = probabilities(trees, {name: values[judged] for name, values in table.columns.items()})
        return stated

    folds = list(_folds(table, in_time, np.random.default_rng(seed)))
    with ThreadPoolExecutor(os.cpu_count() if grow_alone(len(table)) else 1, "held-out") as forests:
        for (_, judged), stated in zip(folds, forests.map(asked, folds), strict=True):
            if stated is not None:
                yield judged, stated


def _folds(table: Table, in_time: bool, random: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    fold = np.arange(len(table)) * FOLDS // len(table) if in_time else _fold_of_each(table, random)
    for which in range(FOLDS):
        yield np.flatnonzero(fold != which), np.flatnonzero(fold == which)


def _fold_of_each(table: Table, random: np.random.Generator) -> np.ndarray:
    """Groups, where there are some, are in one fold each; else classes are in all of them."""
    if table.groups is not None:
        names, group = np.unique(table.groups, return_inverse=True)
        if len(names) > 1:
            drawn: np.ndarray = random.permutation(len(names)) % FOLDS
            return drawn[group]
    shuffled = random.permutation(len(table))
    fold = np.empty(len(table), np.int64)
    fold[shuffled[np.argsort(table.labels[shuffled], kind="stable")]] = np.arange(len(table)) % FOLDS
    return fold

"""How good models are on published tables, beside LightGBM and XGBoost with their defaults in the same run.

    python benchmarks/quality.py                        all of it; some ten minutes on two cores
    python benchmarks/quality.py --only cicids2017 --seeds 3

Reads the labelled tables of FLOWBEAM_CORPUS or ../shared/data. Our trees grow as those of `pipelines.train`, in
the same way for every table. Needs `pip install lightgbm xgboost scikit-learn`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from training import leak_guard  # noqa: E402
from training.classes import prepared  # noqa: E402
from training.metrics import Metrics, measure  # noqa: E402
from training.selection import PERMUTATION, select  # noqa: E402
from training.split import SplitRule  # noqa: E402
from training.tables import ALL, Table, Wanted, read_table, with_rows_only  # noqa: E402
from training.trees import TreeSettings, fit_trees, probabilities  # noqa: E402

TABLES = Path(os.environ.get("FLOWBEAM_CORPUS") or TOP.parent / "shared" / "data") / "labelled"

Answers = Callable[[Table, Table, int], np.ndarray]
"""Learns from one table and answers the classes of another; the last argument is the seed."""

WINDOW = 50
RECENT, OLDER = 1000, 300
CONTINUAL = TreeSettings(trees=50)
"""How a model that is trained again every window learns: from the latest rows, and a sample of all before."""


def ours(learned: Table, judged: Table, seed: int) -> np.ndarray:
    """Our trees, as `pipelines.train` grows them."""
    part, there = with_rows_only(learned)
    return there[probabilities(fit_trees(part, TreeSettings(), seed), judged.columns).argmax(1)]


def lightgbm(learned: Table, judged: Table, seed: int) -> np.ndarray:
    """LightGBM with its defaults."""
    from lightgbm import LGBMClassifier

    return _peer(LGBMClassifier(random_state=seed, verbose=-1, n_jobs=2), learned, judged)


def xgboost(learned: Table, judged: Table, seed: int) -> np.ndarray:
    """XGBoost with its defaults."""
    from xgboost import XGBClassifier

    return _peer(XGBClassifier(random_state=seed, n_jobs=2), learned, judged)


LEARNERS: dict[str, Answers] = {"flowbeam": ours, "lightgbm": lightgbm, "xgboost": xgboost}


def _peer(model: object, learned: Table, judged: Table) -> np.ndarray:
    part, there = with_rows_only(learned)
    model.fit(np.stack(list(part.columns.values()), axis=1), part.labels)
    return there[np.asarray(model.predict(np.stack(list(judged.columns.values()), axis=1))).astype(np.int64)]


def table_of(name: str, label: str) -> Table:
    """A published table, every column of it, the benign class first."""
    return prepared(read_table([str(TABLES / name)], Wanted(ALL, label), 10**9), "")[0]


def fifths(table: Table, stratified: bool, seed: int) -> tuple[Table, Table]:
    """Four fifths and one, at random, as scikit-learn splits them."""
    from sklearn.model_selection import train_test_split

    labels = table.labels if stratified else None
    train, test = train_test_split(np.arange(len(table)), test_size=0.2, random_state=seed, stratify=labels)
    return table.rows(train), table.rows(test)


def first(table: Table, part: float) -> tuple[Table, Table]:
    """The first rows, and the others."""
    split = SplitRule.parse(f"order:{part}").apply(table, 0)
    return table.rows(split.train), table.rows(split.test)


def compared(
    table: Table, split: Callable[[int], tuple[Table, Table]], seeds: int
) -> Iterator[tuple[str, list[Metrics]]]:
    """Each learner's figures, a seed after the other: the split's and the learner's."""
    for name, answers in LEARNERS.items():
        found = []
        for seed in range(seeds):
            learned, judged = split(seed)
            found.append(measure(table.classes, judged.labels, answers(learned, judged, seed + 1)))
        yield name, found


def show(what: str, figures: Iterator[tuple[str, list[Metrics]]]) -> None:
    """A line for each learner."""
    print(f"\n{what}")
    for name, found in figures:
        accuracy = [metrics.accuracy for metrics in found]
        f1 = [metrics.macro_f1 for metrics in found]
        print(
            f"  {name:<10} accuracy {np.mean(accuracy):.4f} ± {np.std(accuracy):.4f}"
            f"   macro F1 {np.mean(f1):.4f} ± {np.std(f1):.4f}",
            flush=True,
        )


def cicids2017(seeds: int) -> None:
    """Seven classes."""
    table = table_of("cicids2017_sample.csv", "Label")
    split = partial(fifths, table, True)
    show(f"CICIDS2017 sample, 7 classes, stratified 80/20, {seeds} seeds", compared(table, split, seeds))


def twelve(seeds: int) -> None:
    """Seven classes with twelve features, chosen on the training rows of each seed."""
    table = table_of("cicids2017_sample.csv", "Label")
    found = []
    for seed in range(seeds):
        learned, judged = fifths(table, True, seed)
        chosen = select(learned, PERMUTATION, 12, TreeSettings(), seed + 1)
        answers = ours(learned.with_columns(chosen), judged.with_columns(chosen), seed + 1)
        found.append(measure(table.classes, judged.labels, answers))
    show(f"the same with 12 features by permutation, {seeds} seeds", iter([("flowbeam", found)]))


def kilo(seeds: int) -> None:
    """Two classes, at random and in time."""
    table = table_of("cicids2017_0.01km.csv", "Labelb")
    split = partial(fifths, table, False)
    show(f"cicids2017_0.01km, random 80/20, {seeds} seeds", compared(table, split, seeds))
    show("cicids2017_0.01km, first two thirds, then the last", compared(table, lambda _: first(table, 2 / 3), 1))


def iotid20(seeds: int) -> None:
    """The first tenth to learn from, with identifiers and without."""
    table = table_of("iotid20_0.01.csv", "Label")
    show(f"IoTID20, order:0.1, all columns, {seeds} seeds", compared(table, lambda _: first(table, 0.1), seeds))
    guarded = table.with_columns(leak_guard.left(table, leak_guard.guard(table, ())))
    show(f"IoTID20, order:0.1, guarded, {seeds} seeds", compared(guarded, lambda _: first(guarded, 0.1), seeds))


def window_by_window(_: int) -> None:
    """Answers a window of rows, then learns from them, and so on."""
    table = table_of("cicids2017_0.01km.csv", "Labelb")
    first = len(table) // 10
    answers = table.labels.copy()
    random = np.random.default_rng(1)
    for start in range(first, len(table), WINDOW):
        recent = np.arange(max(0, start - RECENT), start)
        older = np.sort(random.permutation(recent[0])[:OLDER]) if recent[0] else recent[:0]
        window = np.arange(start, min(start + WINDOW, len(table)))
        part, there = with_rows_only(table.rows(np.concatenate([older, recent])))
        answers[window] = there[0]
        if len(there) > 1:
            stated = probabilities(fit_trees(part, CONTINUAL, 1), table.rows(window).columns)
            answers[window] = there[stated.argmax(1)]
    judged = table.labels[first:]
    print("\ncicids2017_0.01km in its order, test then train, windows of 50 after the first tenth")
    for name, answered in (
        ("flowbeam", answers[first:]),
        ("same label as the row before", table.labels[first - 1 : -1]),
    ):
        metrics = measure(table.classes, judged, answered)
        attack = metrics.classes[table.classes[1]].f1
        print(f"  {name:<30} accuracy {metrics.accuracy:.4f}   attack F1 {attack:.4f}", flush=True)


PARTS: dict[str, tuple[Callable[[int], None], int]] = {
    "cicids2017": (cicids2017, 10),
    "twelve": (twelve, 10),
    "0.01km": (kilo, 5),
    "iotid20": (iotid20, 5),
    "test-then-train": (window_by_window, 1),
}


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    parser.add_argument("--seeds", type=int, help="instead of each part's own number")
    options = parser.parse_args()
    for name in options.only or PARTS:
        part, seeds = PARTS[name]
        started = time.monotonic()
        part(options.seeds or seeds)
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

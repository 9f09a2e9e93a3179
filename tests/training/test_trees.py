"""Trees: exact splits of few rows, quantiles of many; the same answers from memory and from disk."""

import signal
import threading

import numpy as np
import pytest
from training_testing import rows_of

from training import trees
from training.trees import TreeSettings, fit_trees, probabilities
from transforms.model.forest import load_trees

SETTINGS = TreeSettings(trees=20)


def made_up(rows, seed):
    """Two classes, apart in `a` alone; a tenth of its values is missing, always of the second class."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows)).astype(np.float32)
    attack = a > 0.5
    a[attack & (random.random(rows) < 0.3)] = np.nan
    return rows_of(attack, a=a, b=b)


@pytest.mark.parametrize(("rows", "kind"), [(800, "NUMERICAL"), (801, "DISCRETIZED_NUMERICAL")])
def test_many_rows_are_split_by_quantiles(monkeypatch, tmp_path, rows, kind):
    """Which costs next to nothing in what they answer; missing values have their side either way."""
    monkeypatch.setattr(trees, "MOST_EXACT_ROWS", 800)
    grown = fit_trees(made_up(rows, 1), SETTINGS, 1)
    assert {column.name: column.semantic.name for column in grown.input_features()} == {"a": kind, "b": kind}
    judged = made_up(2000, 2)
    stated = probabilities(grown, judged.columns)
    assert (stated.argmax(1) == judged.labels).mean() > 0.97
    grown.save(str(tmp_path / "forest"))
    assert np.array_equal(probabilities(load_trees(tmp_path / "forest"), judged.columns), stated)


@pytest.mark.parametrize("most_alone", [399, 400])
def test_the_same_rows_give_the_same_trees_however_many_cores_there_are(monkeypatch, most_alone):
    monkeypatch.setattr(trees, "_MOST_ROWS_ALONE", most_alone)
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 400)
    table = rows_of(labels, **{f"c{i}": random.normal(size=400) + labels * i / 20 for i in range(20)})
    stated = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(trees.os, "cpu_count", lambda cores=cores: cores)
        stated.append(probabilities(fit_trees(table, SETTINGS, 1), table.columns))
    assert np.array_equal(stated[0], stated[1])
    assert np.array_equal(stated[0], stated[2])


def test_a_stop_while_trees_grow():
    """YDF catches Ctrl-C and tells it as an error of a value; here it is what it is elsewhere."""
    rows = made_up(2000, 1)
    trees.ydf_library()  # an interrupted import would harm the tests after this one
    stop = threading.Timer(1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    stop.start()
    with pytest.raises(KeyboardInterrupt):
        fit_trees(rows, TreeSettings(trees=1_000_000), 1)

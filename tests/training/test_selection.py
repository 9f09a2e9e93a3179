import numpy as np
import pytest
from training_testing import rows_of

from training import selection
from training.selection import by_permutation, by_variance_over_correlation, permutation_importance, select
from training.trees import TreeSettings, fit_trees

FEW = TreeSettings(trees=10)


@pytest.fixture(scope="module")
def table():
    """Column `tells` has the class in it, `again` is a copy, the rest is noise."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 600)
    tells = labels + 0.2 * random.normal(size=600)
    noise = {f"noise{i}": random.normal(size=600) for i in range(6)}
    return rows_of(labels, **noise, tells=tells, again=tells)


def test_permutation_finds_what_tells_the_class(table):
    trees = fit_trees(table, FEW, 1)
    ranked = permutation_importance(trees, table, 1)
    assert {name for name, _ in ranked[:2]} == {"tells", "again"}
    assert ranked[0][1] > 0.05
    assert abs(ranked[-1][1]) < 0.05


def test_a_column_that_no_tree_asks_about_is_not_tried(monkeypatch):
    """Shuffling it changes nothing; of thousands of columns, most are such."""
    labels = np.arange(200) % 2
    table = rows_of(labels, tells=labels, **{f"still{i}": np.zeros(200) for i in range(5)})
    trees = fit_trees(table, FEW, 1)
    asked = []
    answers = selection.probabilities
    monkeypatch.setattr(selection, "probabilities", lambda *given: asked.append(1) or answers(*given))
    ranked = permutation_importance(trees, table, 1)
    assert ranked[0][0] == "tells"
    assert [growth for _, growth in ranked[1:]] == [0.0] * 5
    assert len(asked) == 2


def test_of_two_equal_columns_one_is_enough(table):
    chosen = by_permutation(table, 2, FEW, 1)
    assert len(chosen) == 2
    assert set(chosen) & {"tells", "again"}


def test_catraca_is_variance_over_summed_absolute_correlation():
    """By hand: columns scaled to 0…1, a copy halves the weight of both."""
    x = np.array([0, 0, 1, 1], float)
    table = rows_of([0, 1, 0, 1], half=x, copy=3 * x + 2, alone=[0, 5, 0, 5], still=[7, 7, 7, 7])
    correlations = {"half": 2.0, "copy": 2.0, "alone": 1.0}
    weights = {name: 0.25 / total for name, total in correlations.items()}
    by_hand = sorted(weights, key=lambda name: -weights[name])
    assert by_variance_over_correlation(table, 4) == [*by_hand, "still"]


def test_catraca_needs_no_complete_column():
    table = rows_of([0, 1, 0, 1], gaps=[np.nan, 1, 0, np.nan], empty=[np.nan] * 4, full=[0, 1, 0, 1])
    assert by_variance_over_correlation(table, 1) == ["full"]


def test_columns_keep_their_order(table):
    assert select(table, "none", 0, FEW, 1) == list(table.columns)
    chosen = select(table, "catraca", 3, FEW, 1)
    assert chosen == sorted(chosen, key=list(table.columns).index)
    assert select(table, "permutation", 99, FEW, 1) == list(table.columns)

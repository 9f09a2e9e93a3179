"""Explanations are the Shapley values that YDF works out more slowly, and add up to the margin."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from model_testing import CLASSES, FEATURES, SET, described, made_up_flows, train

from transforms.model import explain
from transforms.model.explain import Explainer
from transforms.model.inputs import model_inputs
from transforms.model.paths import LEAF, STEP, Paths, paths_of
from transforms.model.reasons import REASONS, reasons
from transforms.records import InputError

FLOWS = made_up_flows(300)
INPUTS = model_inputs(FLOWS, SET, FEATURES)
FEATURES_IN_ORDER = described(train(FLOWS, num_trees=1)).features
VALUES = np.stack([INPUTS[name] for name in FEATURES_IN_ORDER])


def contributions_to(trees, name):
    """What the features of all flows add to the margin of one class."""
    model = described(trees)
    return Explainer(model, trees).contributions(VALUES, np.full(len(FLOWS), model.classes.index(name)))


def by_ydf(trees, name):
    """The same, by YDF."""
    model = described(trees)
    found, _ = trees.predict_shap(INPUTS)
    each = np.stack([found[feature] for feature in FEATURES_IN_ORDER], axis=1)
    benign = model.classes.index("benign")
    if each.ndim == 2:
        return -each if benign else each
    return each[:, :, model.classes.index(name)] - each[:, :, benign]


@pytest.mark.parametrize("how", [{}, {"max_depth": 8}], ids=["small", "deep"])
@pytest.mark.parametrize(
    ("classes", "name"),
    [(("benign", "flood"), "flood"), (("attack", "benign"), "attack"), (CLASSES, "flood"), (CLASSES, "scan")],
    ids=["two", "two-benign-last", "three-flood", "three-scan"],
)
def test_as_ydf(classes, name, how):
    """Missing values, repeated features on a path, every class."""
    trees = train(FLOWS, classes, **how)
    np.testing.assert_allclose(contributions_to(trees, name), by_ydf(trees, name), atol=3e-6)


@pytest.mark.parametrize("votes", [True, False], ids=["votes", "shares"])
def test_as_ydf_for_random_forests(votes):
    trees = train(FLOWS, learner="RandomForest", winner_take_all=votes)
    np.testing.assert_allclose(contributions_to(trees, "scan"), by_ydf(trees, "scan"), atol=3e-6)


def test_as_ydf_for_columns_in_bins():
    trees = train(FLOWS, discretize_numerical_columns=True, num_discretized_numerical_bins=20)
    np.testing.assert_allclose(contributions_to(trees, "scan"), by_ydf(trees, "scan"), atol=3e-6)


def test_worked_out_before_or_for_each_flow_is_the_same(monkeypatch):
    """Leaves that find no room in the table."""
    trees = train(FLOWS, max_depth=6)
    expected = contributions_to(trees, "scan")
    for room in (0, 5000):
        monkeypatch.setattr(explain, "TABLE_OCTETS", room)
        np.testing.assert_allclose(contributions_to(trees, "scan"), expected, atol=1e-6)


def test_they_add_up_to_the_margin():
    """The log-odds of the class over benign, less a number that is the same for all flows."""
    trees = train(FLOWS)
    probabilities = trees.predict(INPUTS).astype(float)
    margin = np.log(probabilities[:, 2] / probabilities[:, 0])
    rest = margin - contributions_to(trees, "scan").sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-5)
    assert margin.std() > 0.3


def test_each_flow_is_explained_for_its_own_class():
    trees = train(FLOWS)
    model = described(trees)
    classes = np.arange(len(FLOWS)) % 2 + 1
    found = Explainer(model, trees).contributions(VALUES, classes)
    for number, name in ((1, "flood"), (2, "scan")):
        chosen = classes == number
        np.testing.assert_allclose(found[chosen], contributions_to(trees, name)[chosen], atol=1e-12)
    assert Explainer(model, trees).contributions(VALUES[:, :0], classes[:0]).shape == (0, 5)


def test_the_definition_on_one_path():
    """Against Shapley's sum over all subsets, for a path of many features, some of which no training row passed."""
    rng = np.random.default_rng(5)
    count = 9
    steps, leaves = np.zeros(count, STEP), np.zeros(1, LEAF)
    steps["feature"], steps["low"], steps["high"] = np.arange(count), 0, np.nan
    steps["share"] = shares = [0.0, 1.0, *rng.random(count - 2)]
    leaves["steps"], leaves["value"], leaves["table"] = count, 2.5, -1
    values = rng.choice([-1, 1], (count, 20)).astype(np.float32)
    for octets in (0, 1 << 20):
        found = explain._attributed(explain._tabulated(Paths(leaves.copy(), steps), octets), values)
        for row in (0, 7, 19):
            passes = (values[:, row] >= 0).astype(float)
            np.testing.assert_allclose(found[row], [shapley(i, passes, shares, 2.5) for i in range(count)], atol=1e-6)


def shapley(feature, passes, shares, value):
    """The sum over the subsets of the other features."""
    count = len(passes)
    others = [number for number in range(count) if number != feature]

    def worth(known):
        return value * math.prod(passes[number] if number in known else shares[number] for number in range(count))

    return sum(
        (worth({*known, feature}) - worth(set(known))) / (count * math.comb(count - 1, size))
        for size in range(count)
        for known in combinations(others, size)
    )


class Asked(NamedTuple):
    """As YDF's conditions look; their type's name says what they ask."""

    attribute: int
    missing: bool = False


class Node(NamedTuple):
    is_leaf: bool
    value: object
    condition: object = None
    pos_child: object = None
    neg_child: object = None


class Value(NamedTuple):
    num_examples: float
    value: float = 1.0


class OneTree:
    """A forest that this YDF does not train, as it looks from outside."""

    def __init__(self, condition):
        leaves = (Node(True, Value(6.0)), Node(True, Value(2.0, -1.0)))
        self.root = Node(False, None, condition, *leaves)

    def name(self):
        return "GRADIENT_BOOSTED_TREES"

    def num_trees(self):
        return 1

    def iter_trees(self):
        return [self]

    def data_spec(self):
        return train(FLOWS, num_trees=1).data_spec()


def test_conditions_on_missing_values():
    """Only a missing value passes, whatever the others are; the other way, only a missing one does not."""
    IsMissingInCondition = type("IsMissingInCondition", (Asked,), {})
    model = described(train(FLOWS, ("benign", "flood")))
    trees = OneTree(IsMissingInCondition(attribute=1))
    found = explain._attributed(
        explain._tabulated(paths_of(model, trees)[1], 0),
        np.array([[np.nan, -np.inf, np.inf, 0]] * 5, np.float32),
    )
    np.testing.assert_allclose(found.sum(axis=1), [0.5, -1.5, -1.5, -1.5])


def test_conditions_that_are_not_explained_are_refused():
    trees = train(FLOWS, split_axis="SPARSE_OBLIQUE")
    with pytest.raises(InputError, match=r"--explain: .*NumericalSparseObliqueCondition.*axis-aligned"):
        Explainer(described(trees), trees)


def test_reasons_are_the_largest_first():
    """For alerts alone; what moved nothing is no reason, and equal ones come in the order of the set."""
    alert = np.array([False, True, True, False, True])
    values = np.array([[1, 2, np.nan], [4, 5, 6], [7, 8, 9]], np.float32)
    moved = np.array([[0.5, -2, 1], [1, 0, -1], [0, 0, 0]])
    found = reasons(alert, ("a", "b", "c"), values, moved, 2)
    assert found.type == REASONS
    assert found.to_pylist() == [
        None,
        [reason("b", 2, "lowers", -2), reason("c", None, "raises", 1)],
        [reason("a", 4, "raises", 1), reason("c", 6, "lowers", -1)],
        None,
        [],
    ]
    found.validate(full=True)
    none = reasons(np.zeros(2, bool), ("a",), np.empty((0, 1), np.float32), np.empty((0, 1)), 3)
    assert none.to_pylist() == [None, None]
    assert pa.RecordBatch.from_arrays([none], ["explanation"]).num_rows == 2


def reason(feature, value, direction, contribution):
    return {"feature": feature, "value": value, "direction": direction, "contribution": contribution}

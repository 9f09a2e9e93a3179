import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from training.metrics import CALIBRATION_BINS, MOST_POINTS, Metrics, measure

CLASSES = ("BENIGN", "flood", "scan")


def answers(rows: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers and probabilities of a model that is right more often than not; with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    weights = rng.random((rows, classes))
    weights[np.arange(rows), labels] += rng.random(rows)
    probabilities = np.round(weights / weights.sum(1, keepdims=True), 2)
    return labels, probabilities.argmax(1), probabilities


@given(st.integers(2, 300), st.integers(0, 2**32), st.integers(2, 5))
@settings(max_examples=50, deadline=None)
def test_figures_are_those_of_scikit_learn(rows, seed, classes):
    names = [f"class {i}" for i in range(classes)]
    labels, predicted, probabilities = answers(rows, seed, classes)
    measured = measure(names, labels, predicted, probabilities, benign="class 0")
    seen = np.union1d(labels, predicted)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    assert measured.rows == rows
    assert measured.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert measured.macro_f1 == pytest.approx(np.mean(f1[seen]))
    assert measured.balanced_accuracy == pytest.approx(np.mean(recall[np.unique(labels)]))
    assert np.array_equal(measured.confusion, oracle.confusion_matrix(labels, predicted, labels=range(classes)))
    for i, name in enumerate(names):
        one = measured.classes[name]
        assert one.rows == support[i]
        assert (one.precision or 0, one.recall or 0, one.f1 or 0) == pytest.approx((precision[i], recall[i], f1[i]))
        if one.roc is not None and one.precision_recall is not None:
            assert one.roc.area == pytest.approx(oracle.roc_auc_score(labels == i, probabilities[:, i]))
            assert one.precision_recall.area == pytest.approx(
                oracle.average_precision_score(labels == i, probabilities[:, i])
            )
    scores = 1 - probabilities[:, 0]
    if measured.alarms is not None:
        assert measured.alarms.roc.area == pytest.approx(oracle.roc_auc_score(labels != 0, scores))
    if measured.calibration is not None:
        assert measured.calibration.brier == pytest.approx(np.mean((scores - (labels != 0)) ** 2))
    assert measured.log_loss == pytest.approx(
        -np.mean(np.log(np.clip(probabilities[np.arange(rows), labels], 1e-15, 1)))
    )


def test_detection_at_fixed_false_alarm_rates_by_hand():
    """Of 1,000 benign rows ten reach 0.9, one of them 0.99; scans score 0.95, floods 0.5."""
    labels = np.repeat([0, 1, 2], [1000, 100, 50])
    scores = np.repeat([0.1, 0.9, 0.99, 0.5, 0.95], [990, 9, 1, 100, 50])
    probabilities = np.stack([1 - scores, scores, np.zeros(1150)], 1)
    measured = measure(CLASSES, labels, probabilities.argmax(1), probabilities, benign="BENIGN", threshold=0.9)
    assert measured.alarms is not None
    ten_thousandth, thousandth, hundredth, twentieth = measured.alarms.at_rates
    assert (ten_thousandth.threshold, ten_thousandth.detected) == (None, 0)
    odds = (9 * 19) ** 0.5  # of 0.9 and 0.95 the geometric mean
    assert thousandth.threshold == pytest.approx(odds / (1 + odds))
    assert (thousandth.false_alarms, thousandth.detected) == (1, 50)
    assert thousandth.classes == {"flood": 0.0, "scan": 1.0}
    assert hundredth.threshold == pytest.approx(0.25)
    assert (hundredth.false_alarms, hundredth.detection_rate) == (10, 1.0)
    assert twentieth.threshold == hundredth.threshold
    own = measured.alarms.at_threshold
    assert own is not None
    assert (own.allowed, own.threshold, own.false_alarms, own.detected) == (None, 0.9, 10, 50)


def test_the_json_is_what_training_promises():
    measured = measure(CLASSES, *answers(100, 1), benign="BENIGN", threshold=0.5)
    read = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert list(read)[:3] == ["rows", "accuracy", "macro_f1"]
    assert list(read["classes"]) == list(CLASSES)
    assert {"rows", "precision", "recall", "f1"} <= set(read["classes"]["scan"])
    assert read["confusion"] == [list(row) for row in measured.confusion]
    assert len(read["calibration"]["bins"]) == CALIBRATION_BINS


def test_a_class_that_the_model_does_not_know_counts_as_missed():
    """Other data may have labels that the model never saw."""
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    measured = measure(CLASSES, labels, predicted, probabilities, benign="BENIGN")
    assert measured.accuracy == 0.5
    assert measured.classes["scan"][:5] == (2, 0, None, 0.0, 0.0)
    assert measured.classes["scan"].roc is None
    assert measured.alarms is not None
    assert measured.alarms.other_rows == 3


@pytest.mark.parametrize("label", [0, 1], ids=["benign", "attack"])
def test_one_class_only_has_no_curves(label):
    labels = np.full(5, label)
    measured = measure(CLASSES, labels, labels, np.eye(3)[labels], benign="BENIGN", threshold=0.5)
    assert (measured.accuracy, measured.macro_f1, measured.majority_share) == (1, 1, 1)
    assert measured.alarms is None
    assert all(one.roc is None for one in measured.classes.values())


def test_without_probabilities_there_are_counts_alone():
    labels, predicted, _ = answers(50, 3)
    measured = measure(CLASSES, labels, predicted, benign="BENIGN")
    assert (measured.alarms, measured.calibration, measured.log_loss) == (None, None, None)


def test_curves_keep_their_ends_and_few_points():
    labels, predicted, _ = answers(20_000, 5)
    rng = np.random.default_rng(6)
    scores = np.clip(rng.normal(labels * 0.2 + 0.3, 0.2), 0, 1)
    measured = measure(CLASSES, labels, predicted, np.stack([1 - scores, scores, 0 * scores], 1), benign="BENIGN")
    assert measured.alarms is not None
    for curve in (measured.alarms.roc, measured.alarms.precision_recall):
        assert len(curve.x) <= MOST_POINTS
    roc = measured.alarms.roc
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert oracle.auc(roc.x, roc.y) == pytest.approx(roc.area, abs=1e-3)


def test_calibration_says_what_came_true():
    """Of 10 rows stated at 0.25, five come true: 0.25 off."""
    labels = np.repeat([0, 1], 5)
    stated = np.full(10, 0.25)
    measured = measure(["ok", "bad"], labels, labels, np.stack([1 - stated, stated], 1), benign="ok")
    assert measured.calibration is not None
    assert measured.calibration.of == "alarm"
    assert measured.calibration.bins[2] == (0.2, 0.3, 10, 0.25, 0.5)
    assert measured.calibration.error == pytest.approx(0.25)


def test_the_majority_is_told():
    """What always answering the most frequent class would give stands beside the accuracy."""
    measured = measure(CLASSES, np.array([1, 1, 1, 0]), np.array([1, 1, 1, 1]))
    assert (measured.majority_class, measured.majority_share) == ("flood", 0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CLASSES, np.array([], int), np.array([], int)), "there are no rows to judge"),
        ((CLASSES, np.array([3]), np.array([0])), "labels: 3 to 3, but there are 3 classes"),
        ((CLASSES, np.array([0]), np.array([-1])), "predicted: -1 to -1, but there are 3 classes"),
        ((CLASSES, np.array([0.5]), np.array([0])), r"labels: float64\[1\], not integers for 1 rows"),
        ((CLASSES, np.array([0]), np.array([0, 1])), r"predicted: int64\[2\], not integers for 1 rows"),
        ((("a", "a"), np.array([0]), np.array([0])), "a name is there twice"),
        ((CLASSES, np.array([0]), np.array([0]), np.ones((2, 3))), r"probabilities: \(2, 3\) for 1 rows of 3 classes"),
        ((CLASSES, np.array([0]), np.array([0]), np.full((1, 3), np.nan)), "some are not finite numbers"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(*arguments)


def test_order_of_rows_does_not_matter():
    labels, predicted, probabilities = answers(500, 9)
    order = np.random.default_rng(1).permutation(500)
    one, other = (
        measure(CLASSES, labels[at], predicted[at], probabilities[at], benign="BENIGN", threshold=0.4)
        for at in (np.arange(500), order)
    )
    assert isinstance(one, Metrics)
    assert one.alarms == other.alarms
    assert one.confusion == other.confusion

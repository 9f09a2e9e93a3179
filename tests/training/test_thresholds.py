import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.thresholds import MOST_LOST, alert_threshold, threshold_for


@given(
    st.lists(st.tuples(st.sampled_from(np.float32([0, 0.25, 0.5, 0.75, 1]).tolist()), st.booleans()), min_size=1),
    st.floats(0, 1),
)
@settings(max_examples=50, deadline=None)
def test_no_lower_threshold_keeps_the_rate(rows, rate):
    """The threshold keeps the rate, and any that raises more alarms does not."""
    scores = np.array([score for score, _ in rows], np.float32)
    benign = np.array([one for _, one in rows])
    threshold = threshold_for(scores, benign, rate)
    raised = scores >= threshold if threshold is not None else np.zeros(len(scores), bool)
    allowed = rate * benign.sum() + 1e-9
    assert raised[benign].sum() <= allowed
    if benign.any() and not raised.all():
        lower = scores >= scores[~raised].max()
        assert lower[benign].sum() > allowed


def test_a_threshold_between_neighbours_raises_the_same_alarms():
    """Nothing lies between two neighbouring 32-bit numbers: their middle must not become the lower one."""
    lower = np.float32(0.3)
    scores = np.array([lower, np.nextafter(lower, np.float32(1))])
    threshold = threshold_for(scores, np.array([True, False]), 0)
    assert (scores >= threshold).tolist() == [False, True]


def test_classes_that_lie_apart_are_parted_in_the_middle():
    scores, labels = np.array([0.0, 0.01, 0.2, 0.8, 0.9]), np.array([0, 0, 0, 1, 2])
    assert alert_threshold(scores, labels, 0, 0.001) == pytest.approx(0.5)


def test_the_middle_is_one_of_log_odds():
    """Odds of 1 to 999 and of 9 to 1: their geometric mean is 0.095, where the middle of the probabilities is 0.45."""
    scores, labels = np.array([0.0, 0.001, 0.9, 0.99]), np.array([0, 0, 1, 1])
    odds = (9 / 999) ** 0.5
    assert alert_threshold(scores, labels, 0, 0.001) == pytest.approx(odds / (1 + odds))
    assert threshold_for(scores, labels == 0, 0) == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize("single", [np.float32, np.float64])
def test_certain_scores_have_a_middle(single):
    """A forest of many trees says exactly 0 and 1 in single precision."""
    scores = np.array([0, 0, 1, 1], single)
    assert alert_threshold(scores, np.array([0, 0, 1, 1]), 0, 0.001) == pytest.approx(0.5)


@pytest.mark.parametrize("strays", [0, 3], ids=["none", "as-many-as-may-be"])
def test_benign_rows_that_may_raise_an_alarm_do_not_draw_the_threshold_to_the_attacks(strays):
    scores = np.array([*np.full(3000 - strays, 0.001), *np.full(strays, 0.99), *np.full(50, 0.999)])
    assert alert_threshold(scores, np.repeat([0, 1], [3000, 50]), 0, 0.001) == pytest.approx(0.5)


def test_a_stray_row_of_a_frequent_class_does_not_draw_the_threshold_to_the_benign_rows():
    """Of 500 rows one lies near the benign ones: the middle is that between these and the many."""
    scores = np.array([*np.full(100, 0.001), 0.002, *np.full(500, 0.999)])
    labels = np.array([0] * 100 + [1] * 501)
    assert alert_threshold(scores, labels, 0, 0.01) == pytest.approx(0.5)


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    """It is all that its only row is."""
    scores = np.array([*np.full(100, 0.001), 0.002, *np.full(500, 0.999)])
    assert alert_threshold(scores, np.array([0] * 100 + [2] + [1] * 500), 0, 0.009) < 0.002


@given(
    st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.integers(0, 2)), min_size=1),
    st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 1]),
)
@settings(max_examples=50, deadline=None)
def test_the_rate_is_kept_and_little_recall_is_lost(rows, rate):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    found = alert_threshold(scores, labels, 0, rate)
    lowest = threshold_for(scores, labels == 0, rate)
    assert (found is None) == (lowest is None)
    if found is None:
        return

    def recall(threshold):
        others = [(scores >= threshold)[labels == label].mean() for label in {1, 2} & set(labels.tolist())]
        return np.mean(others) if others else 0.0

    assert found >= lowest
    assert (scores[labels == 0] >= found).mean() <= rate + 1e-9
    assert recall(found) >= (1 - MOST_LOST) * recall(lowest) - 1e-9

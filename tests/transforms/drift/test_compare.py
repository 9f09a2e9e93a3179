import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.drift.compare import chi_square_tail, compare, excess_psi, holm, same_population

COUNTS = st.lists(st.integers(0, 200), min_size=4, max_size=4)


def psi(reference, window):
    return excess_psi(np.array(reference), np.array(window), np.array([0, len(reference)]))[0]


def test_psi_is_the_textbook_s_less_what_chance_gives():
    """On samples so large that chance gives nothing."""
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.25, 0.25, 0.5])
    expected = ((p - q) * np.log(p / q)).sum()
    assert psi(q * 1e9, p * 1e9) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [200, 2000, 50_000])
def test_where_nothing_has_changed_the_excess_is_0_on_average(rows):
    """However large the window is."""
    random = np.random.default_rng(rows)
    shares = np.full(11, 1 / 11)
    measured = [
        psi(random.multinomial(10_000, shares), random.multinomial(rows, shares)) * rows / (1 + rows / 10_000)
        for _ in range(500)
    ]
    assert np.mean(measured) == pytest.approx(0, abs=4 * math.sqrt(2 * 10 / 500))  # 4 errors of a mean of χ² with 10


@pytest.mark.parametrize(
    ("reference", "window"),
    [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([100, 0], [7, 0]), ([0, 0], [0, 0])],
    ids=["no-reference", "no-window", "one-bin", "nothing"],
)
def test_what_cannot_differ_does_not(reference, window):
    assert psi(reference, window) == 0
    assert same_population(np.array(reference), np.array(window)) == 1


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@settings(max_examples=50)
def test_columns_are_compared_each_for_itself(first, second, third, fourth):
    starts = np.array([0, 4, 8])
    together = compare(np.array(first + second), np.array(third + fourth), starts)
    for place, (reference, window) in enumerate([(first, third), (second, fourth)]):
        assert together.psi[place] == pytest.approx(psi(reference, window))
        assert together.p_values[place] == same_population(np.array(reference), np.array(window))


@given(COUNTS, COUNTS)
@settings(max_examples=50)
def test_which_sample_is_the_reference_makes_no_difference(first, second):
    assert psi(first, second) == pytest.approx(psi(second, first))
    assert same_population(np.array(first), np.array(second)) == pytest.approx(
        same_population(np.array(second), np.array(first))
    )


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 10, 11])
@pytest.mark.parametrize("statistic", [1e-3, 0.5, 3.0, 20.0, 300.0, 5000.0])
def test_tails_are_scipy_s(freedom, statistic):
    stats = pytest.importorskip("scipy.stats")
    assert chi_square_tail(statistic, freedom) == pytest.approx(stats.chi2.sf(statistic, freedom), rel=1e-10)


def test_tails_in_closed_form():
    assert chi_square_tail(3.0, 2) == pytest.approx(math.exp(-1.5))
    assert chi_square_tail(4.0, 1) == pytest.approx(math.erfc(math.sqrt(2)))
    assert chi_square_tail(3.0, 0) == chi_square_tail(0.0, 5) == 1


def test_the_test_is_pearson_s():
    stats = pytest.importorskip("scipy.stats")
    counts = np.array([[120, 80, 60, 40], [30, 25, 20, 30]])
    expected = stats.chi2_contingency(counts, correction=False).pvalue
    assert same_population(*counts) == pytest.approx(expected)


def test_rare_bins_are_taken_together():
    """One row where none was expected is no proof of anything; fifty are."""
    reference = np.array([500, 500, 0, 0])
    assert same_population(reference, np.array([99, 100, 1, 0])) > 0.01
    assert same_population(reference, np.array([75, 75, 25, 25])) < 1e-10


def test_p_values_are_right_where_nothing_has_changed():
    """A tenth of them is below a tenth."""
    random = np.random.default_rng(1)
    shares = np.array([0.3, 0.3, 0.2, 0.1, 0.06, 0.03, 0.01])
    below = [
        same_population(random.multinomial(5000, shares), random.multinomial(300, shares)) < 0.1 for _ in range(1000)
    ]
    assert np.mean(below) == pytest.approx(0.1, abs=0.03)


def test_holm_is_the_worked_example():
    """α = 0.05 of 0.01, 0.04, 0.03, 0.005: the two smallest stay."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).tolist() == []

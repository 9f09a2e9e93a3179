import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.drift.decay import JUDGED, Sum, follow, in_order, nats, rule, upper_bound

TEST = rule(2000, 8, 100_000)
QUICK = rule(20, 1, 20)


def by_hand(wrong, test):
    """The definition, one answer after the other."""
    value, decayed, changes = 0, False, []
    for place, one in enumerate(wrong):
        value = min(value + test.up, 2 * test.limit) if one else max(0, value - test.down)
        if decayed != (value > 0 if decayed else value >= test.limit):
            decayed = not decayed
            changes.append((place, decayed))
    return Sum(value, decayed), changes


@given(st.lists(st.sampled_from([False] * 9 + [True]), max_size=900), st.lists(st.integers(0, 900), max_size=5))
@settings(max_examples=50)
def test_however_answers_are_divided_the_sum_is_that_of_one_after_the_other(wrong, cuts):
    expected = by_hand(wrong, QUICK)
    standing, changes, done = Sum(), [], 0
    for part in np.split(np.array(wrong, bool), sorted(min(cut, len(wrong)) for cut in cuts)):
        standing, found = follow(part, QUICK, standing)
        changes += [(done + place, decayed) for place, decayed in found]
        done += len(part)
    assert (standing, changes) == expected


def test_a_collapse_is_found_soon_and_told_once():
    """From one wrong answer in 250 to one in two; it ends when answers are right again."""
    random = np.random.default_rng(3)
    wrong = np.concatenate([random.random(5000) < 0.004, random.random(1000) < 0.5, np.zeros(2000, bool)])
    standing, ((found, decayed), (ended, still)) = follow(wrong, TEST)
    assert decayed
    assert not still
    assert 5000 <= found < 5030
    assert 6000 < ended < 7000
    assert standing == Sum(0, False)


def test_alarms_are_as_rare_as_they_were_asked_to_be():
    """At the model's own error rate, over as many flows as there may be between two alarms."""
    alarms = sum(len(follow(np.random.default_rng(seed).random(100_000) < TEST.usual, TEST)[1]) for seed in range(10))
    assert alarms <= 10


@pytest.mark.parametrize(
    ("judged", "wrong", "usual", "worse"),
    [(2000, 0, 0.0019, 0.0519), (2000, 8, 0.0079, 0.0579), (1000, 100, 0.1202, 0.2403), (10, 10, 0.9, 0.99)],
    ids=["never-wrong", "good", "poor", "always-wrong"],
)
def test_the_rule_follows_from_how_the_model_was_judged(judged, wrong, usual, worse):
    """What few rows cannot tell is held to be the model's own."""
    made = rule(judged, wrong, 100_000)
    assert (made.usual, made.worse) == (pytest.approx(usual, abs=1e-4), pytest.approx(worse, abs=1e-4))
    assert made.up > 0 < made.down
    assert nats(made.limit) == pytest.approx(math.log(100_000))


def test_the_bound_is_wilson_s():
    """The interval of 10 in 100 is 5.5 % to 17.4 %."""
    assert upper_bound(100, 10) == pytest.approx(0.1744, abs=1e-4)


def test_flows_are_in_the_order_of_their_end():
    rows = np.array([(5, 0, 1, True), (4, 9, 0, False), (5, 0, 0, False), (4, 1, 0, True)], JUDGED)
    assert in_order(rows).tolist() == [rows[at].item() for at in (3, 1, 2, 0)]

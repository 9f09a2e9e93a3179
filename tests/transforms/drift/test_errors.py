import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.drift import errors
from transforms.drift.decay import JUDGED, rule
from transforms.drift.errors import ErrorsMonitor

TEST = rule(2000, 8, 100_000)


def judged(wrong, first=0):
    rows = np.zeros(len(wrong), JUDGED)
    rows["end_ns"] = rows["id_low"] = np.arange(first, first + len(wrong))
    rows["wrong"] = wrong
    return rows


def collapse(good=2000, bad=300, after=1200):
    random = np.random.default_rng(1)
    return judged(np.concatenate([random.random(good) < 0.003, random.random(bad) < 0.7, np.zeros(after, bool)]))


def told(monitor, *parts):
    rows = [row for part in parts for row in monitor.add(part)]
    return [*rows, *monitor.report()]


def alarms(rows):
    return [(row["event"], row["window_end_ns"]) for row in rows if row["event"] != "answers_compared"]


def test_decay_is_told_where_it_is_found_and_recovery_where_it_ends():
    """With the error rate of the labelled flows before it."""
    rows = told(ErrorsMonitor("m", TEST), collapse())
    (decayed, at), (recovered, later) = alarms(rows)
    assert (decayed, recovered) == ("model_decayed", "model_recovered")
    assert 2000 < at < 2020 < 2300 < later
    (row,) = (row for row in rows if row["event"] == "model_decayed")
    assert row["flows"] == 200
    assert row["error_rate"] == row["wrong"] / 200 > row["usual_error_rate"] == TEST.usual
    assert row["level"] == 1


def test_every_labelled_flow_is_in_one_row():
    rows = [row for row in told(ErrorsMonitor("m", TEST), collapse()) if row["event"] == "answers_compared"]
    assert [row["flows"] for row in rows] == [1000, 1000, 1000, 500]
    assert sum(row["wrong"] for row in rows) == collapse()["wrong"].sum()
    assert [(row["window_start_ns"], row["window_end_ns"]) for row in rows[:2]] == [(0, 999), (1000, 1999)]


@given(st.lists(st.integers(0, 3500), max_size=6), st.integers(0, 1000), st.integers(0, 6))
@settings(max_examples=25)
def test_order_batches_repetition_and_restarts_change_no_verdict(cuts, seed, restart):
    """Labels come in any order; what was told last is what the flows in order tell."""
    expected = alarms(told(ErrorsMonitor("m", TEST), collapse(after=0)))
    order = np.random.default_rng(seed).permutation(2300)
    monitor = ErrorsMonitor("m", TEST)
    rows = []
    for done, part in enumerate(np.split(collapse(after=0)[order], sorted(min(cut, 2300) for cut in cuts))):
        if done == restart:
            kept, monitor = monitor.to_bytes(), ErrorsMonitor("m", TEST)
            monitor.restore(kept)
        rows += monitor.add(part)
        assert list(monitor.add(part)) == []
    assert alarms(rows)[-1][0] == expected[-1][0] == "model_decayed"


def test_labels_in_order_give_the_same_rows_however_they_are_cut():
    whole = told(ErrorsMonitor("m", TEST), collapse())
    assert told(ErrorsMonitor("m", TEST), *np.split(collapse(), [1, 999, 2003, 2004, 3100])) == whole


def test_flows_beyond_those_that_are_kept_are_folded(monkeypatch):
    """They are still part of the sum; labels of older flows count where the kept ones begin."""
    whole = alarms(told(ErrorsMonitor("m", TEST), collapse()))
    monkeypatch.setattr(errors, "KEPT", 100)
    monitor = ErrorsMonitor("m", TEST)
    assert alarms(told(monitor, *np.split(collapse(), range(50, 3500, 50)))) == whole
    assert len(monitor.to_bytes()) < 101 * JUDGED.itemsize + 100
    late = judged(np.ones(20, bool))
    late["id_high"] = 1
    assert [event for event, _ in alarms(told(monitor, late))] == ["model_decayed"]


def test_labels_of_older_flows_may_take_an_alarm_back():
    """Ten wrong answers in a row are decay; with a thousand right ones among them, they are not."""
    wrong, right = judged(np.ones(10, bool)), judged(np.zeros(1000, bool))
    wrong["end_ns"] *= 100
    right["id_high"] = 1
    monitor = ErrorsMonitor("m", TEST)
    assert [event for event, _ in alarms(told(monitor, wrong))] == ["model_decayed"]
    assert [event for event, _ in alarms(told(monitor, right))] == ["model_recovered"]


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001])
def test_a_report_is_about_what_no_row_was_about(rows):
    made = told(ErrorsMonitor("m", TEST), judged(np.zeros(rows, bool)))
    assert sum(row["flows"] for row in made) == rows
    assert list(ErrorsMonitor("m", TEST).report()) == []

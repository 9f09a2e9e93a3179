import numpy as np
import pytest
from drift_testing import NOON_NS, SECOND_NS, scored, usual, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.drift.inputs import MOST_OPEN, InputsMonitor, InputsRule, Part
from transforms.drift.models import read_watched
from transforms.model.inputs import model_inputs

RULE = InputsRule(100 * SECOND_NS, 30 * SECOND_NS, least_flows=50)
FIRST = NOON_NS // RULE.window_ns


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    write_model(folder)
    return read_watched(folder)


def part(watched, window=0, rows=300, seed=5, newest_s=None, **changed):
    columns = usual(rows, seed) | changed
    flows = scored(watched.model.id, range(rows), columns)
    counts = watched.binning.counts(
        model_inputs(flows, "cic@1", watched.features), columns["score"], np.zeros(rows, np.int64)
    )[0]
    newest_ns = NOON_NS + (100 * (window + 1) if newest_s is None else newest_s) * SECOND_NS
    return Part(FIRST + window, newest_ns, rows, counts)


def events(noticed):
    return [(one.row["event"], one.row["window_start_ns"] // RULE.window_ns - FIRST, one.crossed) for one in noticed]


def test_windows_tell_whether_inputs_are_as_they_were(watched):
    """The alarm begins once, however long it lasts; a small window neither begins nor ends it."""
    monitor = InputsMonitor(watched, RULE)
    wider = {"flow_duration_us": np.arange(300) * 10_000}
    for one in (
        part(watched, 0),
        part(watched, 1, **wider),
        part(watched, 2, rows=20),
        part(watched, 3, **wider),
        part(watched, 4),
        part(watched, 5, **wider),
    ):
        monitor.add(one)
    assert events(monitor.close(everything=True)) == [
        ("inputs_compared", 0, False),
        ("inputs_changed", 1, True),
        ("inputs_too_few", 2, False),
        ("inputs_changed", 3, False),
        ("inputs_compared", 4, False),
        ("inputs_changed", 5, True),
    ]


def test_a_row_names_the_feature_that_changed(watched):
    monitor = InputsMonitor(watched, RULE)
    monitor.add(part(watched, fwd_packets=np.full(300, 1000)))
    (noticed,) = monitor.close(everything=True)
    row = noticed.row
    first = row["features"][0]
    assert first["feature"] == "Total Fwd Packet"
    assert first["psi"] > 1
    assert first["p_adjusted"] < 1e-10
    assert row["features_changed"] == 1
    assert {one["feature"] for one in row["features"][1:]} == {"score", "Flow Duration"}
    assert row["psi"] == pytest.approx(np.mean([one["psi"] for one in row["features"] if one["feature"] != "score"]))
    assert (row["flows"], row["window_end_ns"] - row["window_start_ns"]) == (300, RULE.window_ns)


def test_a_score_that_changed_is_told_and_is_no_alarm_of_inputs(watched):
    monitor = InputsMonitor(watched, RULE)
    monitor.add(part(watched, score=np.full(300, 0.9, np.float32)))
    (noticed,) = monitor.close(everything=True)
    assert noticed.row["event"] == "inputs_compared"
    assert noticed.row["score_psi"] > 1
    assert noticed.row["features"][0]["feature"] == "score"


@given(st.permutations(range(6)), st.integers(0, 6))
@settings(max_examples=30)
def test_order_of_parts_and_restarts_change_nothing(watched, order, restart):
    parts = [part(watched, number // 2, 100, number, 400) for number in range(6)]
    expected = InputsMonitor(watched, RULE)
    for one in parts:
        expected.add(one)
    monitor = InputsMonitor(watched, RULE)
    for done, number in enumerate(order):
        if done == restart:
            kept, monitor = monitor.to_bytes(), InputsMonitor(watched, RULE)
            monitor.restore(kept)
        monitor.add(Part.from_bytes(parts[number].to_bytes()))
    assert list(monitor.close()) == list(expected.close())


def test_endless_windows_are_compared_when_flows_come_that_ended_later(watched):
    """By the lateness; what comes then is late, and counts in no window."""
    monitor = InputsMonitor(watched, RULE)
    assert monitor.add(part(watched, 0, newest_s=129)) == 0
    assert events(monitor.close()) == []
    assert monitor.add(part(watched, 1, newest_s=130)) == 0
    assert events(monitor.close()) == [("inputs_compared", 0, False)]
    assert monitor.add(part(watched, 0, rows=7)) == 7
    assert events(monitor.close(everything=True)) == [("inputs_compared", 1, False)]


def test_so_many_windows_are_open_and_no_more(watched):
    monitor = InputsMonitor(watched, RULE)
    for window in range(MOST_OPEN + 3):
        monitor.add(part(watched, window, 10, newest_s=0))
    assert [window for _, window, _ in events(monitor.close())] == [0, 1, 2]


@pytest.mark.parametrize("most", [0, 255, 256, 70_000, 1 << 40])
def test_counts_of_any_size_travel(most):
    sent = Part(-3, 17, 5, np.array([0, most]))
    received = Part.from_bytes(sent.to_bytes())
    assert received[:3] == sent[:3]
    assert received.counts.tolist() == [0, most]

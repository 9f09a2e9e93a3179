"""Active periods, idle gaps and sub-flows."""

import itertools
from types import SimpleNamespace

import pytest
from flow_testing import described, fold_family, nearly, one_flow, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.features import activity

COLUMNS = ("min", "max", "mean", "std")


def by_hand(flow, timeout_s):
    times = [int(time) for time in flow["time_ns"]]
    expected = {}
    for infix, limit_ns in (("", round(timeout_s * 1e9)), ("_1s", 1_000_000_000)):
        periods, idle = [[times[0]]], []
        for before, after in itertools.pairwise(times):
            if after - before > limit_ns:
                idle.append(after - before)
                periods.append([])
            periods[-1].append(after)
        for kind, values in (("active", [period[-1] - period[0] for period in periods]), ("idle", idle)):
            for column in COLUMNS:
                expected[f"{kind}{infix}_{column}_us"] = described(values, divisor=1e3)[column]
            expected[f"{kind}{infix}_count"] = len(values)
    expected["subflows"] = len(periods)
    for side, port in (("fwd", 1234), ("rev", 80)):
        rows = flow[flow["src_port"] == port]
        expected[f"{side}_subflow_packets"] = len(rows) / len(periods)
        for octets in ("payload_octets", "ip_octets"):
            expected[f"{side}_subflow_{octets}"] = sum(map(int, rows[octets])) / len(periods)
    return expected


@settings(max_examples=80, deadline=None)
@given(one_flow(), st.sampled_from((0.5, 1.0, 5.0, 7.5)))
def test_periods_equal_those_of_the_list(flow, timeout_s):
    """Periods, gaps and sub-flows equal those found by cutting the list of times."""
    found = fold_family(activity, flow, settings=SimpleNamespace(activity_timeout_s=timeout_s))
    assert found == nearly(by_hand(flow, timeout_s), rel=1e-9)


@pytest.mark.parametrize(
    ("gap_s", "periods"), [(4.999_999_999, 1), (5, 1), (5.000_000_001, 2)], ids=["inside", "exactly", "just-over"]
)
def test_a_gap_of_exactly_the_timeout_is_not_idle(gap_s, periods):
    """Only a gap longer than the timeout parts two periods."""
    found = fold_family(activity, packets([0, 1, 1 + gap_s]))
    assert (found["active_count"], found["idle_count"]) == (periods, periods - 1)


def test_by_hand():
    """Active 0–2 s and 12–13 s, idle 10 s; at one second the gap of 2 s parts too."""
    found = fold_family(activity, packets([0, 2, 12, 13]))
    assert [found[f"active_{name}_us"] for name in COLUMNS] == [1e6, 2e6, 1.5e6, pytest.approx(0.5**0.5 * 1e6)]
    assert [found[f"idle_{name}_us"] for name in COLUMNS] == [10e6, 10e6, 10e6, 0]
    assert [found[f"active_1s_{name}_us"] for name in COLUMNS[:3]] == [0, 1e6, pytest.approx(1e6 / 3)]
    assert [found[f"idle_1s_{name}_us"] for name in COLUMNS[:3]] == [2e6, 10e6, 6e6]
    assert (found["active_count"], found["idle_count"]) == (2, 1)
    assert (found["active_1s_count"], found["idle_1s_count"], found["subflows"]) == (3, 2, 3)


def test_timeout_in_fractions_of_a_second_is_exact():
    """0.1 s is 100,000,000 ns, not what a float makes of it."""
    settings = SimpleNamespace(activity_timeout_s=0.1)
    assert fold_family(activity, packets([0, 0.1]), settings=settings)["idle_count"] == 0
    assert fold_family(activity, packets([0, 0.100_000_001]), settings=settings)["idle_count"] == 1

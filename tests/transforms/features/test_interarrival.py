"""Gaps between packets and their jitter."""

import itertools

import pytest
from flow_testing import described, fold_family, nearly, one_flow, packets
from hypothesis import given, settings

from transforms.features import interarrival


def by_hand(flow):
    expected = {}
    sent = flow["src_port"] == 1234
    for name, rows in (("fwd", flow[sent]), ("rev", flow[~sent]), ("flow", flow)):
        times = [int(time) for time in rows["time_ns"]]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        turns = [abs(after - before) for before, after in itertools.pairwise(gaps)]
        for column, value in described(gaps, divisor=1e3).items():
            if column != "variance":
                expected[f"{name}_iat_{column}_us"] = value
        expected[f"{name}_jitter_us"] = described(turns, divisor=1e3)["mean"]
    return expected


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_gaps_equal_plain_statistics(flow):
    """The gaps of each side and of both, and their jitter, equal those of the list of times."""
    assert fold_family(interarrival, flow) == nearly(by_hand(flow))


def test_by_hand():
    """Packets at 0, 1, 3 s forward and 2 s back: gaps 1, 2 forward; none back; 1, 1, 1 together."""
    found = fold_family(interarrival, packets([0, 1, 2, 3], forward=[True, True, False, True]))
    assert [found[f"fwd_iat_{name}_us"] for name in ("min", "max", "mean", "total")] == [1e6, 2e6, 1.5e6, 3e6]
    assert found["fwd_iat_std_us"] == pytest.approx(0.5**0.5 * 1e6)
    assert found["fwd_jitter_us"] == 1e6
    assert [found[f"rev_iat_{name}_us"] for name in ("min", "max", "mean", "std", "total")] == [None] * 5
    assert (found["flow_iat_mean_us"], found["flow_iat_std_us"], found["flow_jitter_us"]) == (1e6, 0, 0)


def test_one_gap_has_no_jitter():
    """Jitter takes two gaps; std of one gap is 0."""
    found = fold_family(interarrival, packets([0, 1]))
    assert (found["fwd_iat_std_us"], found["fwd_jitter_us"]) == (0, None)


def test_beacon_with_a_microsecond_of_deviation():
    """A minute's beacon that deviates by ±1 µs over a week is measured as that: nothing cancels."""
    at_ns = [60_000_000_000 * n + (1000 if n % 2 else 0) for n in range(1001)]
    flow = packets([0] * 1001)
    flow["time_ns"] += at_ns
    found = fold_family(interarrival, flow)
    assert found["fwd_iat_std_us"] == pytest.approx((1000 / 999) ** 0.5, rel=1e-9)
    assert found["fwd_jitter_us"] == 2


def test_gaps_of_a_decade_do_not_overflow():
    """Squares of gaps need more than 64 bits."""
    year_s = 365 * 86_400
    found = fold_family(interarrival, packets([0, year_s, 11 * year_s]))
    assert found["fwd_iat_max_us"] == 10 * year_s * 1e6
    assert found["fwd_iat_std_us"] == pytest.approx(9 * year_s * 1e6 / 2**0.5)

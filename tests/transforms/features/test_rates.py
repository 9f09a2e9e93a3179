"""Rates over the flow's duration, and the ratio of the sides."""

import pytest
from flow_testing import fold_family, nearly, one_flow, packets
from hypothesis import given, settings

from transforms.features import rates


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_rates_equal_plain_division(flow):
    """Every rate is a sum over the seconds between first and last packet."""
    found = fold_family(rates, flow)
    sent = flow["src_port"] == 1234
    seconds = int(flow["time_ns"][-1] - flow["time_ns"][0]) / 1e9
    expected = {}
    for name, rows in (("fwd", flow[sent]), ("rev", flow[~sent]), ("flow", flow)):
        expected[f"{name}_packets_per_s"] = len(rows) / seconds if seconds else None
        for octets in ("payload_octets", "ip_octets"):
            expected[f"{name}_{octets}_per_s"] = sum(map(int, rows[octets])) / seconds if seconds else None
    expected["down_up_ratio"] = sum(~sent) / sum(sent) if sent.any() else None
    assert found == nearly(expected)


def test_by_hand():
    """Two packets up and one down within 4 s."""
    found = fold_family(rates, packets([0, 1, 4], payload=[0, 10, 30], forward=[True, False, True]))
    assert [found[f"{name}_packets_per_s"] for name in ("fwd", "rev", "flow")] == [0.5, 0.25, 0.75]
    assert [found[f"{name}_payload_octets_per_s"] for name in ("fwd", "rev", "flow")] == [7.5, 2.5, 10]
    assert [found[f"{name}_ip_octets_per_s"] for name in ("fwd", "rev", "flow")] == [27.5, 12.5, 40]
    assert found["down_up_ratio"] == 0.5


def test_side_that_is_silent_has_a_rate_of_zero():
    """No answer within a flow that took time is 0 packets per second; only no duration is null."""
    found = fold_family(rates, packets([0, 1]))
    assert (found["rev_packets_per_s"], found["down_up_ratio"]) == (0, 0)


@pytest.mark.parametrize(
    ("sent", "ratio"),
    [([True, False, False], 2), ([True, True, True, False], 1 / 3), ([True], 0), ([False], None)],
    ids=["more-down", "more-up", "no-answer", "nothing-up"],
)
def test_down_up_ratio_needs_no_duration(sent, ratio):
    """Packets of the responder for each of the initiator, null only without the latter."""
    assert fold_family(rates, packets([0] * len(sent), forward=sent))["down_up_ratio"] == ratio

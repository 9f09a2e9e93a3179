"""Statistics of packet lengths."""

import pytest
from flow_testing import described, fold_family, fold_flows, nearly, one_flow, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.features import lengths

KINDS = ("payload_octets", "ip_octets", "frame_octets")


def by_hand(flow):
    sent = flow["src_port"] == 1234
    return {
        f"{name}_{kind}_{column}": value
        for name, rows in (("fwd", flow[sent]), ("rev", flow[~sent]), ("flow", flow))
        for kind in KINDS
        for column, value in described([int(octets) for octets in rows[kind]]).items()
        if column != "total"
    }


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_lengths_equal_plain_statistics(flow):
    """Minimum, maximum, mean, std and variance of each side and of both equal those of the list of lengths."""
    assert fold_family(lengths, flow) == nearly(by_hand(flow))


@settings(max_examples=20, deadline=None)
@given(st.lists(one_flow(max_packets=6), min_size=2, max_size=5))
def test_flows_of_a_batch_do_not_touch_each_other(flows):
    """A batch of finished flows has the columns that each flow has alone."""
    assert fold_flows(lengths, flows) == [fold_family(lengths, flow) for flow in flows]


def test_by_hand():
    """Payload of 0, 10 and 20 octets: mean 10, sample variance 100."""
    found = fold_family(lengths, packets([0, 1, 2], payload=[0, 10, 20]))
    names = ("min", "max", "mean", "variance", "std")
    assert [found[f"fwd_payload_octets_{name}"] for name in names] == [0, 20, 10, 100, 10]
    assert [found[f"fwd_ip_octets_{name}"] for name in names] == [40, 60, 50, 100, 10]
    assert [found[f"fwd_frame_octets_{name}"] for name in names[:2]] == [60, 74]
    assert [found[f"rev_payload_octets_{name}"] for name in names] == [None] * 5
    assert found["flow_ip_octets_mean"] == 50


def test_one_packet_has_no_deviation():
    """The sample variance of one value is 0, not null and not NaN."""
    found = fold_family(lengths, packets(payload=100))
    assert (found["fwd_payload_octets_std"], found["flow_payload_octets_variance"]) == (0, 0)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([2**31, 2**31, 2**31], 0), ([2**31, 2**31 + 1, 2**31 + 2], 1), ([0, 2**31, 2**31 - 2**30], 2.0**60)],
    ids=["equal", "one-apart", "far-apart"],
)
def test_variance_survives_sums_of_squares_beyond_64_bits(sizes, expected):
    """Lengths whose squares overflow int64 together still have their exact variance."""
    flow = packets([0, 1, 2], frame_octets=sizes)
    assert fold_family(lengths, flow)["fwd_frame_octets_variance"] == expected


def test_variance_beyond_64_bits_is_null():
    """Wire lengths that lie about gigabytes: no wrong number, no NaN, no notice; flows beside it keep theirs."""
    lies = packets(range(6), frame_octets=[0, 2**32 - 1] * 3)
    honest = packets(range(6), frame_octets=[60, 70] * 3)
    found = fold_flows(lengths, [lies, honest])
    for side in ("fwd", "flow"):
        assert [one[f"{side}_frame_octets_variance"] for one in found] == [None, 30]
        assert [one[f"{side}_frame_octets_std"] for one in found] == [None, pytest.approx(30**0.5)]
    assert (found[0]["fwd_frame_octets_max"], found[0]["fwd_frame_octets_mean"]) == (2**32 - 1, (2**32 - 1) / 2)


def test_variance_does_not_cancel():
    """One octet among many equal lengths is seen to the last digit."""
    sizes = [65_000] * 999 + [65_001]
    found = fold_family(lengths, packets(range(1000), frame_octets=sizes))
    assert found["fwd_frame_octets_variance"] == pytest.approx(0.001, rel=1e-12)

"""Histograms of payload sizes and gaps."""

import itertools

import numpy as np
import pytest
from flow_testing import fold_family, one_flow, packets
from hypothesis import given, settings

from transforms.features import histograms
from transforms.features.flow_state import FLOW

LOWER = (0, 16, 32, 64, 128, 256, 512, 1024)


def histogram(values):
    bins = [0] * 8
    for value in values:
        bins[max(index for index, lower in enumerate(LOWER) if value >= lower)] += 1
    return bins


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_histograms_equal_plain_counting(flow):
    """Of each side: payload sizes and gaps in whole milliseconds, packets without payload left out."""
    expected = {}
    for side, port in (("fwd", 1234), ("rev", 80)):
        sent = flow[(flow["src_port"] == port) & (flow["payload_octets"] > 0)]
        gaps = [after - before for before, after in itertools.pairwise(sent["time_ns"].tolist())]
        expected[f"{side}_payload_octets_histogram"] = histogram(sent["payload_octets"].tolist())
        expected[f"{side}_iat_ms_histogram"] = histogram(gap // 1_000_000 for gap in gaps)
    assert fold_family(histograms, flow) == expected


@pytest.mark.parametrize(
    ("value", "index"),
    [
        *((1, 0), (15, 0), (16, 1), (31, 1), (32, 2), (63, 2), (64, 3), (127, 3)),
        *((128, 4), (255, 4), (256, 5), (511, 5), (512, 6), (1023, 6), (1024, 7), (65_535, 7)),
    ],
)
def test_edges_of_bins(value, index):
    """Both histograms have phists' bins, their lower edges included."""
    found = fold_family(histograms, packets([0, value / 1000], payload=value))
    assert found["fwd_payload_octets_histogram"][index] == 2
    assert found["fwd_iat_ms_histogram"][index] == 1


def test_just_below_a_millisecond_is_cut():
    """15.999999 ms is in the first bin."""
    assert fold_family(histograms, packets([0, 0.015_999_999], payload=1))["fwd_iat_ms_histogram"][0] == 1


def test_gaps_reach_over_packets_without_payload_and_of_the_other_side():
    """Only the forward packets with payload count: one gap of 40 ms."""
    flow = packets([0, 0.01, 0.02, 0.04], payload=[1, 0, 1, 1], forward=[True, True, False, True])
    found = fold_family(histograms, flow)
    assert found["fwd_iat_ms_histogram"] == [0, 0, 1, 0, 0, 0, 0, 0]
    assert found["rev_iat_ms_histogram"] == [0] * 8
    assert found["rev_payload_octets_histogram"] == [1, 0, 0, 0, 0, 0, 0, 0]


def test_full_bin_stays_full():
    """A count never wraps around to a small one."""
    state, flow = np.zeros(1, histograms.STATE), np.zeros(1, FLOW)
    state["fwd"]["payload_octets"][0, 0] = histograms.FULL
    histograms.update(state[0], flow[0], packets([0], payload=1)[0], True)
    values = dict(histograms.features(state, flow))
    assert values["fwd_payload_octets_histogram"].to_pylist() == [[histograms.FULL, 0, 0, 0, 0, 0, 0, 0]]

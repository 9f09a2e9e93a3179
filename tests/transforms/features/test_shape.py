"""Ratios, entropies, small and large packets, DSCP, TTLs."""

import collections
import math

import numpy as np
import pytest
from flow_testing import fold_family, one_flow, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.features import shape


def by_hand(flow):
    sides = {"fwd": flow[flow["src_port"] == 1234], "rev": flow[flow["src_port"] == 80]}
    sent, received = (int(rows["payload_octets"].sum()) for rows in sides.values())
    expected = {"producer_consumer_ratio": (sent - received) / (sent + received) if sent + received else None}
    expected |= {f"{side}_payload_entropy": None for side in sides}
    payload = [octets for octets in flow["payload_octets"].tolist() if octets]
    expected["small_packets"] = sum(octets < 60 for octets in payload)
    expected["large_packets"] = sum(octets >= 220 for octets in payload)
    expected["dscp"] = next((tos >> 2 for tos in flow["tos"].tolist() if tos >> 2), 0)
    for side, rows in sides.items():
        ttls = rows["ttl"].tolist()
        expected[f"{side}_ttl_min"] = min(ttls, default=None)
        expected[f"{side}_ttl_max"] = max(ttls, default=None)
        expected[f"{side}_ttl_distinct"] = len(set(ttls))
    return expected


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_shape_equals_plain_python(flow):
    """Every column of random flows."""
    assert fold_family(shape, flow) == by_hand(flow)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=20))
def test_any_ttls(ttls):
    """Smallest, largest and number of different TTLs, 0 and 255 included."""
    found = fold_family(shape, packets([0] * len(ttls), ttl=ttls))
    assert (found["fwd_ttl_min"], found["fwd_ttl_max"]) == (min(ttls), max(ttls))
    assert found["fwd_ttl_distinct"] == len(set(ttls))


@pytest.mark.parametrize(
    ("payload", "small", "large"), [(0, 0, 0), (1, 1, 0), (59, 1, 0), (60, 0, 0), (219, 0, 0), (220, 0, 1)]
)
def test_bounds_of_small_and_large(payload, small, large):
    """As YAF: less than 60 octets of payload, but some; 220 or more."""
    found = fold_family(shape, packets([0], payload=payload))
    assert (found["small_packets"], found["large_packets"]) == (small, large)


@pytest.mark.parametrize(("sent", "received", "ratio"), [(1, 0, 1), (0, 5, -1), (30, 10, 0.5), (0, 0, None)], ids=str)
def test_producer_consumer_ratio(sent, received, ratio):
    """1 only sends, −1 only receives; null without payload."""
    flow = packets([0, 1], payload=[sent, received], forward=[True, False])
    assert fold_family(shape, flow)["producer_consumer_ratio"] == ratio


def test_dscp_is_the_first_that_is_not_zero():
    """ECN bits alone are no DSCP; a later value does not replace the first."""
    assert fold_family(shape, packets(range(4), tos=[0, 3, 46 << 2, 10 << 2]))["dscp"] == 46


def test_entropy_is_that_of_the_first_prefix_of_each_side():
    """Packets without a captured prefix are passed over, later ones do not replace it."""
    flow = packets(
        range(4),
        payload=[0, 9, 9, 9],
        forward=[True, True, True, False],
        payload_captured=[0, 4, 4, 0],
        payload_entropy=[np.nan, 1.5, 2.5, np.nan],
    )
    found = fold_family(shape, flow)
    assert (found["fwd_payload_entropy"], found["rev_payload_entropy"]) == (1.5, None)


def filled(*prefixes):
    flow = packets(range(len(prefixes)))
    flow["payload_captured"] = [len(prefix) for prefix in prefixes]
    flow["payload_at"] = np.cumsum([0, *flow["payload_captured"][:-1]])
    shape.entropy(flow, np.frombuffer(b"".join(prefixes), np.uint8))
    return flow["payload_entropy"].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=4))
def test_entropy_equals_shannon(prefixes):
    """Each prefix by itself; NaN stays where there is none."""
    found = filled(b"first", *prefixes)[1:]
    for prefix, entropy in zip(prefixes, found, strict=True):
        shares = [count / len(prefix) for count in collections.Counter(prefix).values()]
        expected = sum(share * -math.log2(share) for share in shares)
        assert entropy == (pytest.approx(expected, abs=1e-6) if prefix else pytest.approx(np.nan, nan_ok=True))


@pytest.mark.parametrize(
    ("prefix", "bits"), [(b"a", 0), (b"ab" * 50, 1), (bytes(range(256)), 8), (b"x" * 5000, 0), (b"xy" * 5000, 1)]
)
def test_entropy_by_hand(prefix, bits):
    """One value, two alike, all values; longer than the table of logarithms."""
    assert filled(prefix) == pytest.approx([bits], abs=1e-6)


def test_prefix_outside_of_the_payloads_is_refused():
    """A block with a wrong offset never reads foreign memory."""
    flow = packets([0], payload_captured=4, payload_at=1)
    with pytest.raises(ValueError, match="outside"):
        shape.entropy(flow, np.zeros(4, np.uint8))

"""Bursts of payload."""

import pytest
from flow_testing import fold_family, fold_flows, one_flow, packets
from hypothesis import given, settings

from transforms.features import bursts


def by_hand(flow):
    expected = {}
    start = int(flow["time_ns"][0])
    for side, port in (("fwd", 1234), ("rev", 80)):
        runs = []
        for packet in flow[(flow["src_port"] == port) & (flow["payload_octets"] > 0)]:
            if not runs or packet["time_ns"] - runs[-1][-1]["time_ns"] > 1_000_000_000:
                runs.append([])
            runs[-1].append(packet)
        found = [run for run in runs if len(run) >= 3]
        expected[f"{side}_burst_count"] = len(found)
        kept = found[:15]
        first = [int(run[0]["time_ns"]) for run in kept]
        last = [int(run[-1]["time_ns"]) for run in kept]
        expected[f"{side}_burst_packets"] = [len(run) for run in kept]
        expected[f"{side}_burst_octets"] = [sum(int(packet["payload_octets"]) for packet in run) for run in kept]
        expected[f"{side}_burst_start_us"] = [(at - start) // 1000 for at in first]
        expected[f"{side}_burst_duration_us"] = [(end - at) // 1000 for at, end in zip(first, last, strict=True)]
    return expected


@settings(max_examples=80, deadline=None)
@given(one_flow(max_packets=60))
def test_bursts_equal_those_of_plain_python(flow):
    """Runs of packets with payload, at most a second apart, of three or more."""
    assert fold_family(bursts, flow) == by_hand(flow)


def test_by_hand():
    """Two bursts forward, the second still open at the end, none back."""
    flow = packets(
        [0, 1, 1.5, 2.5, 2.6, 10, 10.1, 10.2, 11],
        payload=[0, 10, 20, 30, 40, 1, 1, 1, 0],
        forward=[True, True, True, True, False, True, True, True, True],
    )
    found = fold_family(bursts, flow)
    assert found["fwd_burst_count"] == 2
    assert found["fwd_burst_packets"] == [3, 3]
    assert found["fwd_burst_octets"] == [60, 3]
    assert found["fwd_burst_start_us"] == [1_000_000, 10_000_000]
    assert found["fwd_burst_duration_us"] == [1_500_000, 200_000]
    assert (found["rev_burst_count"], found["rev_burst_packets"]) == (0, [])


@pytest.mark.parametrize(
    ("gap_s", "found"), [(1, [3]), (1.000_000_001, [])], ids=["exactly-a-second", "a-nanosecond-more"]
)
def test_gap_of_a_second_still_joins(gap_s, found):
    """The third packet of a burst may come one second after the second, no later."""
    flow = packets([0, 0.5, 0.5 + gap_s], payload=1)
    assert fold_family(bursts, flow)["fwd_burst_packets"] == found


def test_bursts_beyond_the_fifteenth_are_counted():
    """17 bursts: 15 kept, 17 counted, whether the last is finished or open."""
    at_s = [10 * burst + 0.1 * packet for burst in range(17) for packet in range(3)]
    for length in (len(at_s), len(at_s) - 3):
        found = fold_family(bursts, packets(at_s[:length], payload=1))
        assert found["fwd_burst_count"] == length // 3
        assert found["fwd_burst_start_us"] == [10_000_000 * burst for burst in range(15)]


def test_fifteenth_burst_may_be_the_open_one():
    """The last place is taken by the run that is open at the end."""
    at_s = [10 * burst + 0.1 * packet for burst in range(15) for packet in range(3)]
    found = fold_family(bursts, packets(at_s, payload=[1] * 42 + [2] * 3))
    assert found["fwd_burst_count"] == 15
    assert found["fwd_burst_octets"] == [3] * 14 + [6]


def test_long_and_large_bursts_are_exact():
    """A burst of over 2³² octets that begins and lasts over 2³² µs, finished and open."""
    two_hours_s = 7_200
    at_s = [0, *(two_hours_s + second for second in range(two_hours_s))]
    flow = packets(at_s, payload=1_000_000)
    for more in ([], [3 * two_hours_s]):
        found = fold_family(bursts, packets([*at_s, *more], payload=1_000_000))
        assert found["fwd_burst_octets"] == [two_hours_s * 1_000_000]
        assert found["fwd_burst_start_us"] == [two_hours_s * 1_000_000]
        assert found["fwd_burst_duration_us"] == [(two_hours_s - 1) * 1_000_000]
    assert flow["payload_octets"][1:].sum(dtype="i8") > 1 << 32


def test_flows_of_one_batch_keep_apart():
    """Only some flows of a batch have bursts."""
    one, none = packets([0, 0.1, 0.2], payload=1), packets([0, 0.1], payload=1)
    found = fold_flows(bursts, [none, one, none, one])
    assert [row["fwd_burst_packets"] for row in found] == [[], [3], [], [3]]

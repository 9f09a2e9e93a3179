"""Bulk transfers."""

import pytest
from flow_testing import fold_family, nearly, one_flow, packets
from hypothesis import given, settings

from transforms.features import bulk


def by_hand(flow):
    runs = []
    for packet in flow[flow["payload_octets"] > 0]:
        side = "fwd" if packet["src_port"] == 1234 else "rev"
        time, octets = int(packet["time_ns"]), int(packet["payload_octets"])
        if not runs or runs[-1][0] != side or time - runs[-1][1][-1][0] > 1_000_000_000:
            runs.append((side, []))
        runs[-1][1].append((time, octets))
    expected = {}
    for side in ("fwd", "rev"):
        bulks = [run for owner, run in runs if owner == side and len(run) >= 4]
        octets = sum(octets for run in bulks for _, octets in run)
        seconds = sum(run[-1][0] - run[0][0] for run in bulks) / 1e9
        expected[f"{side}_bulk_count"] = len(bulks)
        expected[f"{side}_bulk_octets_mean"] = octets / len(bulks) if bulks else None
        expected[f"{side}_bulk_packets_mean"] = sum(map(len, bulks)) / len(bulks) if bulks else None
        expected[f"{side}_bulk_octets_per_s"] = octets / seconds if seconds else None
    return expected


@settings(max_examples=100, deadline=None)
@given(one_flow(max_packets=40))
def test_bulks_equal_those_of_the_list(flow):
    """Bulks equal the runs of four payload packets or more in the list of packets."""
    assert fold_family(bulk, flow) == nearly(by_hand(flow))


@pytest.mark.parametrize(("n", "bulks"), [(3, 0), (4, 1), (9, 1)])
def test_four_packets_make_a_bulk(n, bulks):
    """Three payload packets are none, four are one, and more belong to the same."""
    found = fold_family(bulk, packets(range(n), payload=100))
    assert found["fwd_bulk_count"] == bulks
    assert found["fwd_bulk_packets_mean"] == (n if bulks else None)
    assert found["fwd_bulk_octets_per_s"] == (n * 100 / (n - 1) if bulks else None)


@pytest.mark.parametrize(("gap_s", "bulks"), [(1, 1), (1.000_000_001, 0)], ids=["exactly", "just-over"])
def test_a_gap_of_exactly_a_second_does_not_end_a_bulk(gap_s, bulks):
    """Only a gap longer than a second ends a run."""
    assert fold_family(bulk, packets([0, 1, 2, 2 + gap_s], payload=1))["fwd_bulk_count"] == bulks


def test_acknowledgements_do_not_interrupt():
    """Packets without payload, of either side, neither count nor interrupt; the gap is one between payload packets."""
    sent = [True, False, True, True, False, True, True]
    sizes = [10, 0, 10, 0, 0, 10, 10]
    found = fold_family(bulk, packets([0, 0.4, 0.8, 1.2, 1.5, 1.8, 2], payload=sizes, forward=sent))
    assert (found["fwd_bulk_count"], found["fwd_bulk_packets_mean"], found["fwd_bulk_octets_mean"]) == (1, 4, 40)
    assert found["rev_bulk_count"] == 0


def test_payload_of_the_other_side_interrupts():
    """Three and three payload packets, with one of the other side between, are no bulk."""
    flow = packets(range(7), payload=1, forward=[True, True, True, False, True, True, True])
    assert fold_family(bulk, flow)["fwd_bulk_count"] == 0


def test_two_bulks_are_averaged_and_their_idle_time_is_not_theirs():
    """Bulks of 4 and 6 packets, 3 s and 5 s, with a pause between: 1,000 octets in 8 s."""
    found = fold_family(bulk, packets([*range(4), *range(20, 26)], payload=100))
    assert (found["fwd_bulk_count"], found["fwd_bulk_packets_mean"], found["fwd_bulk_octets_mean"]) == (2, 5, 500)
    assert found["fwd_bulk_octets_per_s"] == 125


def test_bulk_that_took_no_time_has_no_speed():
    """Four packets of one instant are a bulk without octets per second."""
    found = fold_family(bulk, packets([0] * 4, payload=100))
    assert (found["fwd_bulk_count"], found["fwd_bulk_octets_mean"], found["fwd_bulk_octets_per_s"]) == (1, 400, None)

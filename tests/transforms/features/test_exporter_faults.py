"""Faults of other exporters, by their names on the reference page: a few packets and an answer by hand for each."""

import math

import pytest
from flow_testing import fold_family, packets

from transforms.features import activity, bulk, counters, flags, interarrival, lengths, rates, windows
from transforms.records import ACK, FIN, PSH, SYN, URG

FAMILIES = (activity, bulk, counters, flags, interarrival, lengths, rates, windows)


def test_d5_push_and_urgent_are_counted_in_every_packet():
    """PSH and URG of later packets count too, each for the side that sent it."""
    sent = [SYN, ACK | PSH, ACK | PSH | URG, ACK | PSH, ACK | URG]
    found = fold_family(flags, packets(range(5), flags=sent, forward=[True, True, False, True, False]))
    assert (found["fwd_psh_count"], found["rev_psh_count"], found["flow_psh_count"]) == (2, 1, 3)
    assert (found["fwd_urg_count"], found["rev_urg_count"], found["flow_urg_count"]) == (0, 2, 2)


def test_d6_flags_are_counts_and_not_marks():
    """Three FINs are 3, not 1."""
    assert fold_family(flags, packets(range(3), flags=FIN | ACK))["flow_fin_count"] == 3


def test_d7_active_and_idle_are_durations():
    """Two seconds of activity before and 1 s after 10 s of silence, whatever the date."""
    found = fold_family(activity, packets([0, 2, 12, 13]))
    assert (found["active_max_us"], found["active_min_us"], found["idle_max_us"]) == (2e6, 1e6, 10e6)


def test_d8_last_active_period_counts():
    """A flow without a gap has one active period, its duration; one with a gap has two."""
    whole = fold_family(activity, packets([0, 1, 3]))
    assert [whole[f"active_{name}_us"] for name in ("min", "max", "mean", "std")] == [3e6, 3e6, 3e6, 0]
    assert (whole["active_count"], whole["idle_count"], whole["idle_mean_us"]) == (1, 0, None)
    assert fold_family(activity, packets([0, 1, 8, 12]))["active_mean_us"] == 2.5e6
    single = fold_family(activity, packets())
    assert (single["active_mean_us"], single["active_count"]) == (0, 1)


def test_d9_bulk_belongs_to_the_side_that_sent_it():
    """Five payload packets of the responder, acknowledged, are a bulk of the responder alone."""
    sizes, sent = [100, 0] * 5, [False, True] * 5
    found = fold_family(bulk, packets([n / 10 for n in range(10)], payload=sizes, forward=sent))
    assert (found["rev_bulk_count"], found["rev_bulk_packets_mean"], found["rev_bulk_octets_mean"]) == (1, 5, 500)
    assert found["rev_bulk_octets_per_s"] == pytest.approx(625)
    assert (found["fwd_bulk_count"], found["fwd_bulk_octets_mean"], found["fwd_bulk_octets_per_s"]) == (0, None, None)


def test_d10_packets_close_together_are_one_subflow():
    """Ten packets without a gap above 1 s are one sub-flow, not ten."""
    found = fold_family(activity, packets(range(10), payload=50))
    assert (found["subflows"], found["fwd_subflow_packets"], found["fwd_subflow_payload_octets"]) == (1, 10, 500)


def test_d11_subflows_are_gaps_plus_one():
    """One gap above 1 s parts two sub-flows."""
    found = fold_family(activity, packets([0, 0.5, 3, 3.5], forward=[True, True, True, False]))
    assert (found["subflows"], found["fwd_subflow_packets"], found["rev_subflow_packets"]) == (2, 1.5, 0.5)


def test_d12_first_packet_length_counted_once():
    """The first of two packets weighs as much as the second."""
    found = fold_family(lengths, packets([0, 1], payload=[100, 300]))
    assert (found["fwd_payload_octets_mean"], found["flow_payload_octets_mean"]) == (200, 200)
    assert found["flow_payload_octets_variance"] == 20_000


def test_d13_down_up_ratio_is_a_real_division():
    """One packet down for two up is 0.5, not 0."""
    assert fold_family(rates, packets([0, 1, 2], forward=[True, True, False]))["down_up_ratio"] == 0.5


def test_d14_bulk_and_subflow_averages_are_real_divisions():
    """Nine packets in two bulks are 4.5; three packets in two sub-flows are 1.5."""
    bulks = fold_family(bulk, packets([*range(4), *range(20, 25)], payload=11))
    assert (bulks["fwd_bulk_packets_mean"], bulks["fwd_bulk_octets_mean"]) == (4.5, 49.5)
    assert bulks["fwd_bulk_octets_per_s"] == pytest.approx(99 / 7)
    subflows = fold_family(activity, packets([0, 1, 3], payload=1))
    assert (subflows["fwd_subflow_packets"], subflows["fwd_subflow_payload_octets"]) == (1.5, 1.5)


def test_d15_first_window_of_the_responder_stays():
    """The reverse initial window is that of the SYN+ACK, not of the last packet."""
    flow = packets(
        range(4),
        forward=[True, False, True, False],
        flags=[SYN, SYN | ACK, ACK, ACK],
        tcp_window=[64_240, 65_160, 502, 509],
    )
    found = fold_family(windows, flow)
    assert (found["fwd_tcp_window_first"], found["rev_tcp_window_first"]) == (64_240, 65_160)
    assert (found["fwd_tcp_window_min"], found["rev_tcp_window_min"]) == (502, 509)


def test_d16_first_packet_with_payload_counts():
    """A flow whose first packet carries payload has it among its payload packets."""
    assert fold_family(counters, packets([0, 1, 2], payload=[10, 0, 10]))["fwd_payload_packets"] == 2
    assert fold_family(counters, packets(payload=10))["fwd_payload_packets"] == 1


@pytest.mark.parametrize("n", [1, 5], ids=["one-packet", "five-at-once"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__.rpartition(".")[2])
def test_d17_zero_duration_gives_no_infinity_and_no_nan(family, n):
    """Packets of one instant, one or several, from one side or both: every value is null or finite."""
    for sent in (True, False, [index % 2 == 0 for index in range(n)]):
        for name, value in fold_family(family, packets([0] * n, payload=10, forward=sent)).items():
            assert value is None or math.isfinite(value), name


def test_d17_rates_of_zero_duration_are_null():
    """There is no speed without time."""
    found = fold_family(rates, packets([0, 0], payload=10, forward=[True, False]))
    assert {name for name, value in found.items() if value is not None} == {"down_up_ratio"}


def test_p3_true_minimum_of_zero_stays():
    """A minimum of 0 is not taken for "unset" and replaced by the next value."""
    sizes = fold_family(lengths, packets([0, 0, 1, 9], payload=[0, 500, 600, 700]))
    assert (sizes["fwd_payload_octets_min"], sizes["flow_payload_octets_min"]) == (0, 0)
    gaps = fold_family(interarrival, packets([0, 0, 1, 9]))
    assert (gaps["fwd_iat_min_us"], gaps["flow_iat_min_us"]) == (0, 0)
    periods = fold_family(activity, packets([0, 9, 12]))
    assert (periods["active_min_us"], periods["active_max_us"]) == (0, 3e6)
    windows_found = fold_family(windows, packets([0, 1], tcp_window=[0, 500]))
    assert (windows_found["fwd_tcp_window_first"], windows_found["fwd_tcp_window_min"]) == (0, 0)


def test_p3_first_gap_after_idle_counts():
    """The gap that follows an idle one is a gap like the others."""
    found = fold_family(interarrival, packets([0, 10, 12, 13]))
    assert (found["fwd_iat_min_us"], found["fwd_iat_mean_us"]) == (1e6, pytest.approx(13e6 / 3))


def test_p3_mean_and_std_are_not_cut_to_whole_numbers():
    """Payloads of 1, 2 and 2: mean 5⁄3, std √⅓; gaps of 1 ns and 2 ns: mean 0.0015 µs."""
    sizes = fold_family(lengths, packets([0, 1e-9, 3e-9], payload=[1, 2, 2]))
    assert sizes["fwd_payload_octets_mean"] == pytest.approx(5 / 3)
    assert sizes["fwd_payload_octets_std"] == pytest.approx((1 / 3) ** 0.5)
    assert fold_family(interarrival, packets([0, 1e-9, 3e-9]))["fwd_iat_mean_us"] == 0.0015

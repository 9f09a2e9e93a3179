"""Header octets, payload packets and times of each side."""

import pytest
from flow_testing import START_NS, fold_family, one_flow, packets
from hypothesis import given, settings

from transforms import records
from transforms.features import counters


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_counters_are_plain_sums(flow):
    """Every column equals what plain Python finds in the list of packets."""
    found = fold_family(counters, flow)
    sent = flow["src_port"] == 1234
    for side, rows in (("fwd", flow[sent]), ("rev", flow[~sent])):
        whole = [int(row["header_octets"]) for row in rows if row["transport"] == records.TRANSPORT_WHOLE]
        times = [int(time) for time in rows["time_ns"]]
        assert found[f"{side}_header_octets"] == sum(int(octets) for octets in rows["header_octets"])
        assert found[f"{side}_ip_header_octets"] == sum(int(octets) for octets in rows["ip_header_octets"])
        assert found[f"{side}_payload_packets"] == sum(1 for octets in rows["payload_octets"] if octets > 0)
        assert found[f"{side}_header_octets_min"] == min(whole, default=None)
        assert found[f"{side}_start_ns"] == min(times, default=None)
        assert found[f"{side}_end_ns"] == max(times, default=None)
        assert found[f"{side}_duration_us"] == ((max(times) - min(times)) / 1e3 if times else None)
    assert found["flow_duration_us"] == int(flow["time_ns"][-1] - flow["time_ns"][0]) / 1e3


def test_one_packet_has_a_duration_of_zero_and_no_answer_has_none():
    """A side without packets has no times; a single packet takes no time."""
    found = fold_family(counters, packets())
    assert found["flow_duration_us"] == 0
    assert (found["fwd_start_ns"], found["fwd_end_ns"], found["fwd_duration_us"]) == (START_NS, START_NS, 0)
    assert (found["rev_start_ns"], found["rev_end_ns"], found["rev_duration_us"]) == (None, None, None)


def test_sub_microsecond_durations_survive():
    """One nanosecond is 0.001 µs, not 0."""
    assert fold_family(counters, packets([0, 1e-9]))["flow_duration_us"] == 0.001


def test_later_fragment_is_no_smallest_header():
    """A later fragment carries no transport header; its 0 octets are not the smallest one."""
    flow = packets(
        [0, 1],
        header_octets=[32, 0],
        transport=[records.TRANSPORT_WHOLE, records.TRANSPORT_NONE],
        fragment=[records.FRAGMENT_FIRST, records.FRAGMENT_RESOLVED],
    )
    assert fold_family(counters, flow)["fwd_header_octets_min"] == 32


@pytest.mark.parametrize(("protocol", "expected"), [(records.UDP, 8), (records.ICMPV6, 8), (records.TCP, 20)])
def test_header_of_any_protocol_counts(protocol, expected):
    """The smallest header is that of the transport, whichever it is."""
    assert fold_family(counters, packets(protocol=protocol))["fwd_header_octets_min"] == expected

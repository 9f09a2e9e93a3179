"""The first packets one by one."""

import itertools

from flow_testing import fold_family, fold_flows, one_flow, packets
from hypothesis import given, settings

from transforms.features import first_packets


def by_hand(flow):
    signs = [1 if port == 1234 else -1 for port in flow["src_port"].tolist()]
    times = flow["time_ns"].tolist()
    gaps = [0, *((after - before) // 1000 for before, after in itertools.pairwise(times))]
    payload = flow["payload_octets"].tolist()
    return {
        "splt_direction": signs[:20],
        "splt_ip_octets": flow["ip_octets"].tolist()[:20],
        "splt_frame_octets": flow["frame_octets"].tolist()[:20],
        "splt_iat_us": gaps[:20],
        "first_payload_directions": [sign for sign, octets in zip(signs, payload, strict=True) if octets][:8],
    }


@settings(max_examples=60, deadline=None)
@given(one_flow(max_packets=30))
def test_lists_equal_those_of_plain_python(flow):
    """Up to 20 packets, up to 8 with payload, in order."""
    assert fold_family(first_packets, flow) == by_hand(flow)


def test_by_hand():
    """Three packets, 1.5 µs and 2 s apart."""
    found = fold_family(
        first_packets, packets([0, 1.5e-6, 2.0000015], payload=[0, 10, 20], forward=[True, False, True])
    )
    assert found == {
        "splt_direction": [1, -1, 1],
        "splt_ip_octets": [40, 50, 60],
        "splt_frame_octets": [60, 64, 74],
        "splt_iat_us": [0, 1, 2_000_000],
        "first_payload_directions": [-1, 1],
    }


def test_twenty_first_packet_is_left_out():
    """SPLT ends at 20 packets, payload directions at 8 of their own, wherever those lie."""
    flow = packets(range(40), payload=[0] * 25 + [1] * 15, forward=[True] * 25 + [False] * 15)
    found = fold_family(first_packets, flow)
    assert found["splt_direction"] == [1] * 20
    assert found["first_payload_directions"] == [-1] * 8


def test_gap_of_weeks_is_exact():
    """A gap beyond 32 bits of microseconds, 71 minutes, is kept."""
    fortnight_s = 14 * 86_400
    assert fold_family(first_packets, packets([0, fortnight_s]))["splt_iat_us"] == [0, fortnight_s * 1_000_000]


def test_jumbogram_keeps_its_length():
    """Lengths above 16 bits, as of offloaded segments, are kept."""
    found = fold_family(first_packets, packets([0], payload=100_000))
    assert found["splt_ip_octets"] == [100_040]
    assert found["splt_frame_octets"] == [100_054]


def test_flows_of_one_batch_keep_apart():
    """Lists of several flows, empty ones between."""
    found = fold_flows(first_packets, [packets([0], payload=1), packets([0, 1]), packets([0, 1], payload=1)])
    assert [row["first_payload_directions"] for row in found] == [[1], [], [1, 1]]

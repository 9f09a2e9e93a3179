"""Counts of TCP flags."""

from flow_testing import fold_family, one_flow, packets
from hypothesis import given, settings

from transforms import records
from transforms.features import flags


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_flags_are_counted_one_by_one(flow):
    """Each count is the number of whole TCP headers of that side with the flag's bit."""
    found = fold_family(flags, flow)
    telling = flow[(flow["protocol"] == records.TCP) & (flow["transport"] == records.TRANSPORT_WHOLE)]
    for side, rows in (
        ("fwd", telling[telling["src_port"] == 1234]),
        ("rev", telling[telling["src_port"] == 80]),
        ("flow", telling),
    ):
        for name in ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"):
            expected = sum(1 for value in rows["tcp_flags"] if value & getattr(records, name))
            assert found[f"{side}_{name.lower()}_count"] == expected


def test_flags_of_what_is_no_whole_tcp_header_are_not_counted():
    """UDP, a cut header and a later fragment say nothing about flags, whatever the row holds."""
    cut = packets([0, 1], flags=255, transport=[records.TRANSPORT_TRUNCATED, records.TRANSPORT_NONE])
    assert set(fold_family(flags, cut).values()) == {0}
    assert set(fold_family(flags, packets(protocol=records.UDP, tcp_flags=255)).values()) == {0}

"""TCP windows of each side."""

from flow_testing import fold_family, one_flow, packets
from hypothesis import given, settings

from transforms import records
from transforms.features import windows


@settings(max_examples=60, deadline=None)
@given(one_flow())
def test_windows_equal_those_of_the_list(flow):
    """First, smallest and zero windows are those of the side's whole TCP headers."""
    found = fold_family(windows, flow)
    for side, port in (("fwd", 1234), ("rev", 80)):
        seen = [
            int(row["tcp_window"])
            for row in flow
            if row["src_port"] == port
            and row["protocol"] == records.TCP
            and row["transport"] == records.TRANSPORT_WHOLE
        ]
        assert found[f"{side}_tcp_window_first"] == (seen[0] if seen else None)
        assert found[f"{side}_tcp_window_min"] == min(seen, default=None)
        assert found[f"{side}_tcp_window_zero_count"] == seen.count(0)


def test_first_window_of_zero_is_a_value():
    """Zero is a window; null is the absence of one."""
    found = fold_family(windows, packets([0, 1], tcp_window=[0, 512]))
    assert (found["fwd_tcp_window_first"], found["fwd_tcp_window_min"], found["fwd_tcp_window_zero_count"]) == (0, 0, 1)
    assert (found["rev_tcp_window_first"], found["rev_tcp_window_min"], found["rev_tcp_window_zero_count"]) == (
        None,
        None,
        0,
    )


def test_cut_header_is_not_the_first_window():
    """The first window is that of the first header that is whole."""
    flow = packets([0, 1], tcp_window=[0, 512], transport=[records.TRANSPORT_TRUNCATED, records.TRANSPORT_WHOLE])
    assert fold_family(windows, flow)["fwd_tcp_window_first"] == 512


def test_udp_has_no_window():
    """Only TCP has windows."""
    assert fold_family(windows, packets(protocol=records.UDP))["fwd_tcp_window_first"] is None

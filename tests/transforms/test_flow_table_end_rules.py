"""When a flow ends, rule by rule, at the exact nanosecond."""

import numpy as np
import pytest
from flow_testing import START_NS, packets
from table_testing import CLOSE, HANDSHAKE, S, assembled, batch, connection, ends, rows_of, seconds, table_of

from transforms.records import ACK, FIN, RST, SYN, UDP, InputError
from transforms.rules import Rules

NS = 1e-9
OPEN = HANDSHAKE
TRAIL = (True, ACK, 101, 501, 0)
NEW_SYN = (True, SYN, 7000, 0, 0)


def parts(rows):
    """Part, packets, end reason, start in seconds of each flow."""
    return [
        (r["flow_part"], r["fwd_packets"] + r["rev_packets"], r["end_reason"], seconds(r["flow_start_ns"]))
        for r in rows
    ]


@pytest.mark.parametrize(
    ("gap_s", "expected"),
    [(10 - NS, [(2, 4)]), (10, [(1, 1), (1, 4)]), (10 + NS, [(1, 1), (1, 4)])],
    ids=["just-inside", "exactly-the-timeout", "beyond"],
)
def test_idle_timeout_is_exclusive(gap_s, expected):
    """Packets exactly one idle timeout apart belong to two flows."""
    assert ends(assembled(packets([0, gap_s], protocol=UDP), idle_timeout_s=10)) == expected


def test_idle_is_measured_from_the_last_packet_of_either_side():
    """Ten packets 9 s apart, sides in turn, are one flow with a timeout of 10 s."""
    rows = packets(range(0, 90, 9), forward=[True, False] * 5, protocol=UDP)
    assert ends(assembled(rows, idle_timeout_s=10)) == [(10, 4)]


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        ([0, 9, 18, 20 - NS], [(0, 4, 4, 0)]),
        ([0, 9, 18, 20], [(0, 3, 2, 0), (1, 1, 4, 20)]),
        ([0, 9, 18, 20, 29, 38, 40], [(0, 3, 2, 0), (1, 3, 2, 20), (2, 1, 4, 40)]),
        ([0, 9, 18, 28 - NS], [(0, 3, 2, 0), (1, 1, 4, 28 - NS)]),
        ([0, 9, 18, 28], [(0, 3, 2, 0), (0, 1, 4, 28)]),
        ([0, 5, 10, 20], [(0, 3, 1, 0), (0, 1, 4, 20)]),
    ],
    ids=["inside", "exactly", "twice", "next-part-late", "idle-meanwhile", "idle-at-the-same-time"],
)
def test_active_timeout_splits(at_s, expected):
    """A part ends at its first packet + 20 s, if its last + idle is later; what comes then is the next part."""
    found = parts(assembled(packets(at_s, protocol=UDP), idle_timeout_s=10, active_timeout_s=20))
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in expected], abs=1e-6)


def test_part_is_known_at_its_active_timeout_whether_or_not_more_comes():
    """`advance` to first + active gives the part; one nanosecond earlier it does not."""
    table = table_of(Rules(idle_timeout_s=10, active_timeout_s=20))
    table.add(batch(packets([0, 9, 18], protocol=UDP)))
    assert rows_of(table.advance(START_NS + 20 * S - 1)) == []
    assert ends(rows_of(table.advance(START_NS + 20 * S))) == [(3, 2)]
    table.add(batch(packets([27], protocol=UDP), 1))
    (row,) = rows_of(table.finish(START_NS + 27 * S))
    assert (row["flow_part"], row["flow_first_ns"], row["flow_start_ns"]) == (1, START_NS, START_NS + 27 * S)
    assert rows_of(table.finish(START_NS + 99 * S)) == []


def test_flow_that_goes_idle_between_parts_puts_out_nothing_more():
    """Its last part is out already: time alone, and then the end, give no empty part."""
    table = table_of(Rules(idle_timeout_s=50, active_timeout_s=20))
    table.add(batch(packets([0, 9], protocol=UDP)))
    assert ends(rows_of(table.advance(START_NS + 30 * S))) == [(2, 2)]
    assert table.open_flows == 1
    assert rows_of(table.advance(START_NS + 59 * S)) == []
    assert table.open_flows == 0
    assert rows_of(table.finish(START_NS + 59 * S)) == []


def test_next_part_keeps_direction_tcp_state_and_first_time():
    """The responder's packet begins part 1: still reverse; the connection then closes by FINs of both parts."""
    rows = connection([0, 1, 2, 9, 18, 21, 22], [*OPEN, CLOSE[0], (True, ACK, 101, 500, 0), *CLOSE[1:]])
    one, two = assembled(rows, end_ns=START_NS + 30 * S, idle_timeout_s=10, active_timeout_s=20)
    assert (one["fwd_packets"], one["rev_packets"], one["end_reason"]) == (4, 1, 2)
    assert (two["fwd_packets"], two["rev_packets"], two["end_reason"]) == (1, 1, 3)
    assert (two["flow_first_ns"], two["src_port"], two["flow_part"]) == (START_NS, 1234, 1)
    assert one["flow_id"] != two["flow_id"]


@pytest.mark.parametrize("restart", [False, True], ids=["at-once", "dormant"])
def test_syn_of_another_connection_after_the_active_timeout_is_no_part(restart):
    """The part ended by the active rule, the flow by port reuse: the SYN begins part 0 of another flow."""
    table = table_of(Rules(idle_timeout_s=10, active_timeout_s=20))
    table.add(batch(connection([0, 1, 9, 18], [*OPEN, TRAIL])))
    rows = rows_of(table.advance(START_NS + 20 * S)) if restart else []
    table.add(batch(connection([21], [NEW_SYN]), 1))
    rows += rows_of(table.finish(START_NS + 21 * S))
    assert [row[:3] for row in parts(rows)] == [(0, 4, 2), (0, 1, 4)]


@pytest.mark.parametrize(
    ("close", "at_s"),
    [
        (CLOSE, [3, 4, 5]),
        (((False, FIN | ACK, 500, 100, 0), (True, FIN | ACK, 100, 501, 0), (False, ACK, 501, 101, 0)), [3, 4, 5]),
        (((True, RST, 100, 0, 0),), [5]),
        (((False, RST | ACK, 500, 100, 0),), [5]),
    ],
    ids=["initiator-first", "responder-first", "reset", "reset-by-responder"],
)
@pytest.mark.parametrize(("gap_s", "expected"), [(5 - NS, 1), (5, 2)], ids=["just-inside", "exactly-the-linger"])
def test_what_trails_the_close_belongs_to_it_for_the_linger(close, at_s, gap_s, expected):
    """The close is at 5 s; a packet before 10 s belongs to the flow, one from then on opens another."""
    rows = connection([0, 1, 2, *at_s, 5 + gap_s], [*OPEN, *close, TRAIL])
    found = assembled(rows)
    assert len(found) == expected
    assert found[0]["end_reason"] == 3
    assert sum(row["fwd_packets"] + row["rev_packets"] for row in found) == len(rows)


def test_linger_counts_from_the_close_and_not_from_what_trails():
    """Close at 5 s, ACKs at 7, 9 and 11 s: the last one opens a flow."""
    found = assembled(connection([0, 1, 2, 3, 4, 5, 7, 9, 11], [*OPEN, *CLOSE, TRAIL, TRAIL, TRAIL]))
    assert ends(found) == [(8, 3), (1, 4)]


def test_linger_replaces_the_idle_deadline_and_the_active_one():
    """With a linger of 100 s a packet 50 s after the close still belongs to it, idle 10 s and active 20 s or not."""
    rows = connection([0, 1, 2, 3, 4, 5, 55], [*OPEN, *CLOSE, TRAIL])
    assert ends(assembled(rows, idle_timeout_s=10, active_timeout_s=20, tcp_linger_s=100)) == [(7, 3)]


@pytest.mark.parametrize(("last_ack", "closed"), [(501, True), (500, False)], ids=["covers-the-fin", "one-octet-short"])
def test_close_needs_both_fins_acknowledged(last_ack, closed):
    """The flow ends only once the second FIN is acknowledged as well."""
    rows = connection([0, 1, 2, 3, 4, 5], [*OPEN, *CLOSE[:2], (True, ACK, 101, last_ack, 0)])
    assert ends(assembled(rows)) == [(6, 3 if closed else 4)]


def test_acknowledgement_of_a_fin_wraps():
    """A FIN with 10 octets at 2³² − 5 ends at 6; the acknowledgement 6 covers it, 2³² − 5 does not."""
    begin = [(True, SYN, 2**32 - 6, 0, 0), (False, SYN | ACK, 499, 2**32 - 5, 0), (True, ACK, 2**32 - 5, 500, 0)]
    fins = [(True, FIN | ACK, 2**32 - 5, 500, 10), (False, FIN | ACK, 500, 2**32 - 5, 0), (True, ACK, 6, 501, 0)]
    rows = connection(range(7), [*begin, *fins, (False, ACK, 501, 6, 0)])
    assert ends(assembled(rows)) == [(7, 3)]
    assert ends(assembled(rows[:-1])) == [(6, 4)]


def test_a_fin_with_a_syn_is_acknowledged_behind_both():
    """A SYN+FIN of sequence 99 ends at 101; an acknowledgement of 100 covers its SYN alone."""
    begin = [(True, SYN | FIN, 99, 0, 0), (False, SYN | ACK, 499, 100, 0), (False, FIN | ACK, 500, 100, 0)]
    rows = connection(range(5), [*begin, (True, ACK, 101, 501, 0), (False, ACK, 501, 101, 0)])
    assert ends(assembled(rows)) == [(5, 3)]
    assert ends(assembled(rows[:-1])) == [(4, 4)]


def test_truncated_reset_and_fragments_close_nothing():
    """Flags of a cut header are not known, a later fragment has none."""
    for column, value in (("transport", 2), ("transport", 0)):
        rows = connection([0, 1], [(True, ACK, 100, 500, 0), (True, RST, 100, 0, 0)])
        rows[column][1] = value
        assert ends(assembled(rows)) == [(2, 4)]


@pytest.mark.parametrize(
    ("before", "syn", "expected"),
    [
        (OPEN, NEW_SYN, [3, 1]),
        (OPEN, (True, SYN, 99, 0, 0), [4]),
        (OPEN, (False, SYN, 7000, 0, 0), [3, 1]),
        (OPEN, (False, SYN, 499, 0, 0), [4]),
        (OPEN[:2], NEW_SYN, [3]),
        (OPEN[:1], NEW_SYN, [2]),
        (((True, ACK, 100, 500, 0),), NEW_SYN, [1, 1]),
        (((True, ACK, 100, 500, 0),), (False, SYN, 7000, 0, 0), [1, 1]),
        (((True, SYN, 99, 0, 0), (False, RST | ACK, 0, 100, 0)), NEW_SYN, [2, 1]),
        (((True, SYN, 99, 0, 0), (False, RST | ACK, 0, 100, 0)), (True, SYN, 99, 0, 0), [3]),
        ((*OPEN, *CLOSE), NEW_SYN, [6, 1]),
        ((*OPEN, *CLOSE), (True, SYN | ACK, 7000, 0, 0), [7]),
        (OPEN, (True, SYN | ACK, 7000, 0, 0), [4]),
    ],
    ids=[
        "after-handshake", "repeated-syn", "from-the-responder", "responder-repeats", "half-answered", "half-open",
        "begun-without-syn", "begun-without-syn-other-side", "refused", "refused-and-repeated", "while-closing",
        "syn-ack-while-closing", "syn-ack",
    ],
)  # fmt: skip
def test_port_reuse(before, syn, expected):
    """A SYN without ACK and of another sequence begins a flow once the handshake is complete or the flow is closing."""
    rows = connection([n / 10 for n in range(len(before) + 1)], [*before, syn])
    found = assembled(rows)
    assert [row["fwd_packets"] + row["rev_packets"] for row in found] == expected
    if len(found) == 2:
        assert found[0]["end_reason"] == 3
        assert found[1]["src_port"] == (1234 if syn[0] else 80)


def test_idle_comes_before_port_reuse_and_the_close_before_idle():
    """A SYN that comes an idle timeout later finds the flow ended by idle; after a close, by the close."""
    assert ends(assembled(connection([0, 1, 2, 12], [*OPEN, NEW_SYN]), idle_timeout_s=10)) == [(3, 1), (1, 4)]
    closed = connection([0, 1, 2, 3, 4, 5, 99], [*OPEN, *CLOSE, NEW_SYN])
    assert ends(assembled(closed, idle_timeout_s=10)) == [(6, 3), (1, 4)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (("tcp", "idle", "active", "reuse"), [(6, 3), (1, 1), (1, 1), (1, 4)]),
        (("idle",), [(7, 1), (1, 1), (1, 4)]),
        (("tcp", "idle"), [(7, 3), (1, 1), (1, 4)]),
        (("reuse",), [(6, 3), (3, 4)]),
        (("active",), [(8, 2), (1, 4)]),
        ((), [(9, 4)]),
    ],
    ids=lambda value: "-".join(map(str, value)) or "none",
)
def test_end_rules_choose(rules, expected):
    """Only the chosen rules end flows: a close at 5 s, a new SYN at 6 s, an ACK at 18 s, one at 40 s."""
    rows = connection([0, 1, 2, 3, 4, 5, 6, 18, 40], [*OPEN, *CLOSE, NEW_SYN, TRAIL, TRAIL])
    assert ends(assembled(rows, end_rules=rules, idle_timeout_s=10, active_timeout_s=25)) == expected


@pytest.mark.parametrize("times", [[-(1 << 62), 1 << 61], [0, (1 << 63) - 1], [-(1 << 63), -1]], ids=str)
def test_rule_that_is_off_never_ends_a_flow(times):
    """Not even after 200 years."""
    rows = packets([0, 0], protocol=UDP)
    rows["time_ns"] = times
    assert ends(assembled(rows, end_rules=())) == [(2, 4)]


def test_last_nanoseconds_there_are():
    """Flows whose deadline lies beyond int64 are open until the input ends."""
    rows = packets([0, 0, 0], protocol=UDP)
    rows["time_ns"] = [(1 << 63) - 9, (1 << 63) - 2, (1 << 63) - 1]
    assert ends(assembled(rows)) == [(3, 4)]


@pytest.mark.parametrize(
    ("end_s", "expected"), [(10 - NS, 4), (10, 1), (99, 1)], ids=["before-idle", "exactly", "after"]
)
def test_end_of_input_tells_idle_from_forced(end_s, expected):
    """Last + idle ≤ the end of the sensor's input gives 1, otherwise 4."""
    end_ns = START_NS + round(end_s * S)
    assert ends(assembled(packets(protocol=UDP), end_ns=end_ns, idle_timeout_s=10)) == [(1, expected)]


def test_end_of_input_closes_what_is_closing():
    """A connection that lingers at the end has ended by itself: 3."""
    assert ends(assembled(connection([0, 1, 2, 3, 4, 5], [*OPEN, *CLOSE]))) == [(6, 3)]
    assert ends(assembled(packets(flags=RST))) == [(1, 3)]


def test_ordinal_tells_flows_of_one_nanosecond_apart():
    """Three resets at once, no linger: three flows of one key and one first time, with ids of their own."""
    found = assembled(packets([0, 0, 0], flags=RST), tcp_linger_s=0)
    assert ends(found) == [(1, 3)] * 3
    assert len({row["flow_id"] for row in found}) == 3
    alone = assembled(packets([0], flags=RST))
    assert alone[0]["flow_id"] in {row["flow_id"] for row in found}


def test_interim_records_are_cumulative_and_only_of_what_changed():
    """At 10 s and 20 s, with the packets before; nothing at 30 s; the final record has the highest number."""
    rows = packets([0, 5, 10, 35], protocol=UDP)
    other = packets([15, 36], protocol=UDP, src_port=9)
    together = np.concatenate([rows, other])
    found = assembled(together, interim_interval_s=10)
    mine = [
        (r["record_kind"], r["record_number"], r["fwd_packets"], r["end_reason"])
        for r in found
        if r["src_port"] == 1234
    ]
    assert mine == [("interim", 0, 2, None), ("interim", 1, 3, None), ("final", 2, 4, 4)]
    assert len({row["flow_id"] for row in found}) == 2


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("idle_timeout_s", 0),
        ("active_timeout_s", 1e-10),
        ("tcp_linger_s", -1),
        ("end_rules", ("fin",)),
        ("icmp_key", "x"),
        ("max_open_flows", 0),
        ("community_id_seed", 65536),
        ("idle_timeout_s", float("nan")),
    ],
    ids=str,
)
def test_wrong_settings_are_named(setting, value):
    """The message says which setting is wrong."""
    with pytest.raises(InputError, match=f"--{setting}"):
        Rules(**{setting: value})

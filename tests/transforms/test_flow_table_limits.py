"""What a table holds at most, and what happens then."""

import logging

import numpy as np
from flow_testing import START_NS, packets
from table_testing import S, assembled, batch, ends, rows_of, table_of

from transforms import table_layout
from transforms.records import RST, UDP
from transforms.rules import Rules


def hosts(at_s, numbers):
    """One packet of each host."""
    rows = packets(at_s, protocol=UDP)
    rows["src_lo"] += np.array(numbers, np.uint64)
    return rows


def test_full_table_ends_the_flow_that_was_idle_longest(caplog):
    """Room for two, three hosts: the first one's flow, older but busy, stays; reason 5, counted, one warning."""
    table = table_of(Rules(max_open_flows=2))
    table.add(batch(hosts([0, 1, 2, 3, 4], [0, 1, 0, 2, 3])))
    with caplog.at_level(logging.WARNING):
        found = rows_of(table.finish(START_NS + 4 * S))
    assert [(row["src_ip"], row["end_reason"]) for row in found] == [
        ("10.0.0.1", 5), ("10.0.0.2", 5), ("10.0.0.3", 4), ("10.0.0.4", 4),
    ]  # fmt: skip
    assert table.counts["flows_evicted"] == 2
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "max_open_flows" in caplog.text


def test_flow_that_is_due_leaves_room():
    """Open means open in event time: what ended exactly now is not in the way, and not evicted."""
    assert ends(assembled(hosts([0, 10], [0, 1]), idle_timeout_s=10, max_open_flows=1)) == [(1, 1), (1, 4)]
    resets = hosts([0, 0], [0, 1])
    resets["protocol"], resets["tcp_flags"] = 6, RST
    assert {reason for _, reason in ends(assembled(resets, tcp_linger_s=5, max_open_flows=2))} == {3}


def test_a_successor_needs_no_room():
    """In a full table a flow may follow another of its own key."""
    rows = hosts([0, 20, 40], [0, 0, 0])
    assert ends(assembled(rows, idle_timeout_s=10, max_open_flows=1)) == [(1, 1), (1, 1), (1, 4)]


def test_dormant_flow_counts_and_can_be_evicted():
    """Between two parts a flow keeps its place; evicted there, it puts out nothing more."""
    table = table_of(Rules(idle_timeout_s=100, active_timeout_s=10, max_open_flows=1))
    table.add(batch(hosts([0], [0])))
    assert ends(rows_of(table.advance(START_NS + 10 * S))) == [(1, 2)]
    assert table.open_flows == 1
    table.add(batch(hosts([20, 21], [1, 1]), 1))
    assert ends(rows_of(table.finish(START_NS + 21 * S))) == [(2, 4)]
    assert table.counts["flows_evicted"] == 1


def test_flood_of_one_packet_flows_costs_little_memory():
    """200,000 hosts of one packet: no more than 500 octets each, in the arrays of the table, and no rows of states."""
    n = 200_000
    table = table_of(Rules())
    for at in range(0, n, 50_000):
        table.add(batch(hosts([at / 1e6] * 50_000, np.arange(at, at + 50_000)), at))
        assert rows_of(table.advance(START_NS + at * 1000 + 1)) == []
    assert table.open_flows == n
    arrays = (table._heads, table._deadlines, table._free, table._closed, table._slots, table._rows, table._free_rows)
    assert sum(array.nbytes for array in arrays[:5]) < 500 * n
    assert table._counts[table_layout.TOP_ROW] == table_layout.RESERVED_ROWS
    assert len(table.to_bytes()) < 300 * n

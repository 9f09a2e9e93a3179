"""What survives a restart."""

import numpy as np
import pytest
from flow_testing import START_NS, packets
from table_testing import COLUMNS, S, batch, ends, restored, rows_of, table_of

from transforms import snapshot
from transforms.features import counters, lengths
from transforms.features.families import FAMILIES
from transforms.flow_table import FlowTable
from transforms.records import UDP, InputError
from transforms.rules import Rules

DTYPES = {"b": np.dtype("i8"), "a": np.dtype("u1")}


def test_arrays_and_settings_come_back():
    """Whatever order they were given in; the copies can be written to."""
    meta, arrays = snapshot.unpack(snapshot.pack({"x": -1}, {"b": np.arange(3), "a": np.ones(2, np.uint8)}), DTYPES)
    assert meta == {"x": -1}
    assert {name: rows.tolist() for name, rows in arrays.items()} == {"a": [1, 1], "b": [0, 1, 2]}
    arrays["b"][0] = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: b"", "no flow table snapshot"),
        (lambda whole: b"PAR1" + whole, "no flow table snapshot"),
        (lambda whole: whole[:8] + b"\x63" + whole[9:], "version 99"),
        (lambda whole: whole[:20], "breaks off in its header"),
        (lambda whole: whole[:-1], "breaks off in b"),
    ],
    ids=["empty", "foreign", "newer", "cut-header", "cut-rows"],
)
def test_what_is_no_snapshot_is_refused(change, message):
    """One line says what is wrong with it."""
    with pytest.raises(InputError, match=message):
        snapshot.unpack(change(snapshot.pack({}, {"b": np.arange(3)})), DTYPES)


def test_other_layout_or_families_are_refused():
    """Rows of another size, a table of other families."""
    with pytest.raises(InputError, match="rows of 8 octets, here 1"):
        snapshot.unpack(snapshot.pack({}, {"b": np.arange(3)}), {"b": np.dtype("u1")})
    whole = table_of(Rules()).to_bytes()
    with pytest.raises(InputError, match=r"octets|families"):
        FlowTable.from_bytes(whole, Rules(), (counters, lengths), COLUMNS)


def test_flows_that_ended_and_wait_are_in_it():
    """`advance` with `at_least` keeps ended flows back; a snapshot has them and those between two parts."""
    table = table_of(Rules(idle_timeout_s=100, active_timeout_s=10))
    table.add(batch(packets([0, 1], protocol=UDP)))
    table.add(batch(packets([0, 90], protocol=UDP, src_port=9), 1))
    assert list(table.advance(START_NS + 50 * S, at_least=100)) == []
    table = restored(restored(table))
    assert table.frontier_ns == START_NS + 50 * S
    table.add(batch(packets([60], protocol=UDP), 2))
    assert ends(rows_of(table.finish(START_NS + 90 * S))) == [(2, 2), (1, 2), (1, 2), (1, 4)]


def test_sensor_counts_and_filter_come_back():
    """Duplicates of before the restart are known after it."""
    rules = Rules(drop_duplicates_s=5)
    table = FlowTable(rules, FAMILIES, COLUMNS, "north")
    table.add(batch(packets([0, 1], headers_hash=7)))
    assert rows_of(table.advance(START_NS + 2 * S)) == []
    table = restored(table)
    table.add(batch(packets([3, 9], headers_hash=7), 1))
    (row,) = rows_of(table.finish(START_NS + 9 * S))
    assert (row["sensor"], row["fwd_packets"], table.counts["duplicate"]) == ("north", 2, 2)

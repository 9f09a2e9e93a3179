"""Laws of the flow table: what holds for any packets, however they arrive."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flow_reference import reference_flows, sorted_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_testing import COLUMNS, as_table, batch, captures, restored, table_of

from transforms import flow_table
from transforms.records import PacketBatch, Stream
from transforms.rules import END_RULES, Rules
from transforms.shard import split

TIMEOUTS: dict[str, Any] = {"idle_timeout_s": 10, "active_timeout_s": 25, "tcp_linger_s": 5}
STREAMS = (Stream("local"), Stream("local", 5), Stream("local", 5, 1))
NAMES = (
    "src_ip",
    "dst_ip",
    "src_port",
    "dst_port",
    "protocol",
    "ip_version",
    "vlan_id",
    "vni",
    "flow_first_ns",
    "flow_part",
    "flow_start_ns",
    "flow_end_ns",
    "end_reason",
    "fwd_packets",
    "rev_packets",
    "fwd_ip_octets",
    "rev_ip_octets",
)


@st.composite
def rules(draw: st.DrawFn, **fixed: Any) -> Rules:
    chosen = draw(
        st.sampled_from((END_RULES, END_RULES, END_RULES, ("tcp", "idle"), ("idle",), ("reuse", "active"), ()))
    )
    return Rules(
        end_rules=chosen,
        icmp_key=draw(st.sampled_from(("type", "type", "none"))),
        ignore_vni=draw(st.booleans()),
        **{
            **TIMEOUTS,
            "tcp_linger_s": draw(st.sampled_from((5, 5, 0))),
            "active_timeout_s": draw(st.sampled_from((25, 7, 2))),
            **fixed,
        },
    )


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Few packets are as many as thousands: the table sweeps, grows and puts out after each few."""
    monkeypatch.setattr(flow_table, "_CHUNK", 3)


quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def at_once(packets: np.ndarray, rules: Rules) -> pa.Table:
    """The flow records of packets added in order and folded in one go."""
    table = table_of(rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_table, "_CHUNK", 8192)
        table.add(batch(packets))
        return as_table(table.finish(int(packets["time_ns"][-1])))


def deliveries(data: st.DataObject, packets: np.ndarray) -> list[PacketBatch]:
    """The packets as blocks of several streams, in any order inside and out; ties keep the order of identity."""
    identities = [(stream, sequence) for stream in STREAMS for sequence in range(2)]
    n = len(packets)
    owners = data.draw(st.lists(st.integers(0, len(identities) - 1), min_size=n, max_size=n))
    blocks: dict[int, list[int]] = {}
    for _, positions in itertools.groupby(range(n), key=lambda i: packets["time_ns"][i]):
        tied = list(positions)
        for position, owner in zip(tied, sorted(owners[i] for i in tied), strict=True):
            blocks.setdefault(owner, []).append(position)
    made = []
    for owner, positions in blocks.items():
        mixed = data.draw(st.permutations(positions))
        for _, tied in itertools.groupby(sorted(positions), key=lambda i: packets["time_ns"][i]):
            ordered = list(tied)
            places = sorted(mixed.index(i) for i in ordered)
            for place, position in zip(places, ordered, strict=True):
                mixed[place] = position
        stream, sequence = identities[owner]
        made.append(batch(packets[mixed], sequence, stream))
    return data.draw(st.permutations(made))


def streamed(data: st.DataObject, packets: np.ndarray, rules: Rules) -> pa.Table:
    """The flow records of packets that arrive in pieces, time advancing, the table restarting now and then."""
    table = table_of(rules)
    flows: list[pa.RecordBatch] = []
    waiting = deliveries(data, packets)
    last_ns = int(packets["time_ns"].max())
    while waiting:
        table.add(waiting.pop())
        rest_ns = min([last_ns, *(int(block.packets["time_ns"].min()) for block in waiting)])
        for back_ns in data.draw(st.lists(st.sampled_from((0, 1, 5_000_000_000)), max_size=2)):
            at_least = data.draw(st.sampled_from((1, 1, 3, 8192)))
            flows += table.advance(max(rest_ns - back_ns, -(1 << 63)), at_least)
        if data.draw(st.booleans()):
            table = restored(table)
    flows += table.finish(last_ns)
    assert table.counts["late"] == 0
    assert table.counts["packets_in_flows"] == len(packets)
    return as_table(flows)


@quick
@given(captures(), rules(), st.data())
def test_any_order_any_batching_and_any_restart_give_the_same_flows(packets, rules, data):
    """Blocks in any order, time advancing in any steps, snapshots in between: each record is equal in each column."""
    assert streamed(data, packets, rules).equals(at_once(packets, rules))


@quick
@given(captures(), rules(interim_interval_s=7), st.data())
def test_interim_records_too(packets, rules, data):
    """Interim records are a function of the packets as well, and never the highest of their flow."""
    flows = streamed(data, packets, rules)
    assert flows.equals(at_once(packets, rules))
    numbers: dict[bytes, list[str]] = {}
    for flow_id, kind in zip(flows["flow_id"].to_pylist(), flows["record_kind"].to_pylist(), strict=True):
        numbers.setdefault(flow_id, []).append(kind)
    assert all(kinds == ["interim"] * (len(kinds) - 1) + ["final"] for kinds in numbers.values())


@quick
@given(captures(max_steps=20), rules())
def test_flows_are_those_of_the_reference(packets, rules):
    """Key, times, packets and octets each way and end reason are those of the definition in plain Python."""
    expected = reference_flows(packets, rules)
    table = table_of(rules)
    table.add(batch(packets))
    found = [row for flows in table.finish(int(packets["time_ns"][-1])) for row in flows.to_pylist()]
    assert sorted_rows(found, NAMES) == sorted_rows(expected, NAMES)
    identities = sorted_rows(expected, (*NAMES[:10], "ordinal"))
    assert len(set(identities)) == len(expected)
    assert len({row["flow_id"] for row in found}) == len(found)


@quick
@given(captures(max_steps=20), rules(interim_interval_s=0), st.integers(1, 5))
def test_shards_give_the_same_flows(packets, rules, shards):
    """Tables for each shard together give what one table gives; the end of input is the sensor's, not the shard's."""
    flows: list[pa.RecordBatch] = []
    for part in split(packets, shards):
        table = table_of(rules)
        table.add(batch(part))
        flows += table.finish(int(packets["time_ns"][-1]))
    assert as_table(flows).equals(at_once(packets, rules))


@quick
@given(captures(), rules(drop_duplicates_s=1), st.data())
def test_each_packet_is_in_a_flow_or_late_or_a_duplicate(packets, rules, data):
    """Packets added = packets in flows + late + duplicates, and the flows hold no others."""
    n = len(packets)
    packets["headers_hash"] = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    table = table_of(rules)
    flows: list[pa.RecordBatch] = []
    late = repeated = 0
    for at in data.draw(st.permutations(range(n))):
        late += len(table.add(batch(packets[at : at + 1], at)))
        if data.draw(st.booleans()):
            flows += table.advance(int(packets["time_ns"][at]))
            repeated += sum(map(len, table.take_duplicates()))
    flows += table.finish(int(packets["time_ns"][-1]))
    repeated += sum(map(len, table.take_duplicates()))
    assert (table.counts["late"], table.counts["duplicate"]) == (late, repeated)
    assert table.counts["packets_in_flows"] + late + repeated == n
    together = pa.Table.from_batches(flows, COLUMNS.schema)
    counted = sum(together["fwd_packets"].to_pylist()) + sum(together["rev_packets"].to_pylist())
    assert counted == table.counts["packets_in_flows"]

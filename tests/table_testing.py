"""What the tests of the flow table share: tables with every family, their flows as rows, captures at random."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from flow_testing import START_NS, packets
from hypothesis import strategies as st

from transforms import records
from transforms.features.families import FAMILIES
from transforms.flow_records import FlowColumns
from transforms.flow_table import FlowTable
from transforms.records import ACK, FIN, RST, SYN, PacketBatch, Stream
from transforms.rules import Rules
from transforms.settings import FlowSettings

COLUMNS: FlowColumns = FlowSettings().columns()
LOCAL = Stream("local")
S = 1_000_000_000


def batch(rows: np.ndarray, sequence: int = 0, stream: Stream = LOCAL, **more: Any) -> PacketBatch:
    """Packets as block number `sequence`."""
    observed_ns = int(rows["time_ns"].max()) if len(rows) else 0
    return PacketBatch(stream, sequence, more.pop("observed_ns", observed_ns), rows, **more)


def table_of(rules: Rules, sensor: str = "local") -> FlowTable:
    """An empty table that makes all columns."""
    return FlowTable(rules, FAMILIES, COLUMNS, sensor)


def restored(table: FlowTable) -> FlowTable:
    """The table after a restart."""
    return FlowTable.from_bytes(table.to_bytes(), table.rules, FAMILIES, COLUMNS)


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Flow records as dictionaries, by start, then part."""
    rows = [row for flows in batches for row in flows.to_pylist()]
    return sorted(rows, key=lambda row: (row["flow_start_ns"], row["flow_part"], row["record_number"]))


def assembled(rows: np.ndarray, end_ns: int | None = None, **rules: Any) -> list[dict[str, Any]]:
    """The flow records of packets added at once."""
    table = table_of(Rules(**rules))
    table.add(batch(rows))
    return rows_of(table.finish(int(rows["time_ns"].max()) if end_ns is None else end_ns))


def ends(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Packets and end reason of each flow."""
    return [(row["fwd_packets"] + row["rev_packets"], row["end_reason"]) for row in rows]


def seconds(time_ns: int) -> float:
    """Time since the builders' start."""
    return (time_ns - START_NS) / S


def as_table(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """All flow records, in an order that does not depend on when they came out."""
    flows = pa.Table.from_batches(list(batches), COLUMNS.schema)
    return flows.sort_by([("flow_id", "ascending"), ("record_number", "ascending")])


HANDSHAKE = ((True, SYN, 99, 0, 0), (False, SYN | ACK, 499, 100, 0), (True, ACK, 100, 500, 0))
"""Packets of a connection as (forward, flags, sequence number, acknowledgement, payload)."""
CLOSE = ((True, FIN | ACK, 100, 500, 0), (False, FIN | ACK, 500, 101, 0), (True, ACK, 101, 501, 0))


def connection(at_s: Sequence[float], sent: Sequence[tuple[bool, int, int, int, int]], **columns: Any) -> np.ndarray:
    """Packets of one TCP connection."""
    forward, flags, seq, ack, payload = zip(*sent, strict=True)
    return packets(at_s, payload, forward, flags, tcp_seq=seq, tcp_ack=ack, **columns)


_SCRIPTS = (
    HANDSHAKE,
    HANDSHAKE,
    CLOSE,
    CLOSE[1:] + CLOSE[:1],
    HANDSHAKE + CLOSE,
    ((True, SYN, 99, 0, 0),),
    ((True, SYN, 7000, 0, 0),),
    ((False, SYN, 7000, 0, 0),),
    ((False, SYN | ACK, 499, 100, 0),),
    ((True, RST, 100, 0, 0),),
    ((False, RST | ACK, 500, 100, 0),),
    ((True, ACK, 100, 500, 1),),
    ((False, ACK, 500, 101, 1),),
    ((False, FIN | ACK, 2**32 - 1, 101, 0), (True, ACK, 101, 0, 0)),
)
_ICMP_TYPES = ((8, 0), (0, 8), (3, 1), (13, 14), (14, 13), (0, 0))
_GAPS_NS = (0, 0, 0, 1, S, 5 * S - 1, 5 * S, 10 * S - 1, 10 * S, 10 * S + 1, 25 * S, 300 * S)
_EARLIEST, _LAST = -(1 << 63), (1 << 63) - 1


@st.composite
def captures(draw: st.DrawFn, max_steps: int = 12) -> np.ndarray:
    """Packets in time order: TCP that closes and reuses ports, UDP, ICMP, colliding keys, extreme times."""
    made: list[np.ndarray] = []
    for _ in range(draw(st.integers(1, max_steps))):
        kind = draw(st.sampled_from(("tcp", "tcp", "tcp", "udp", "icmp", "odd")))
        if kind == "tcp":
            rows = connection_rows(draw(st.sampled_from(_SCRIPTS)))
        elif kind == "udp":
            rows = packets([0], payload=[draw(st.integers(0, 9))], forward=draw(st.booleans()), protocol=records.UDP)
        elif kind == "icmp":
            ports = draw(st.sampled_from(_ICMP_TYPES))
            forward = draw(st.booleans())
            rows = packets([0], forward=forward, protocol=records.ICMP, src_port=ports[0], dst_port=ports[1])
        else:
            rows = packets([0], forward=draw(st.booleans()), **draw(st.sampled_from(_ODD)))
        rows["vlan_id"] = draw(st.sampled_from((0, 0, 0, 7)))
        rows["vni"] = draw(st.sampled_from((-1, -1, 5)))
        made.append(rows)
    together = np.concatenate(made)
    gaps = draw(st.lists(st.sampled_from(_GAPS_NS), min_size=len(together), max_size=len(together)))
    since = np.cumsum(gaps)
    begin = draw(st.sampled_from((START_NS, START_NS, 0, -7 * S, _EARLIEST, _LAST - int(since[-1]))))
    together["time_ns"] = begin + since
    if draw(st.integers(0, 7)) == 0:  # a long silence
        at = draw(st.integers(0, len(together)))
        together["time_ns"][at:] += min(1 << 62, _LAST - int(together["time_ns"][-1]))
    return together


_ODD: tuple[dict[str, Any], ...] = (
    {"src_lo": 0xFFFF0A000001, "dst_lo": 0xFFFF0A000001, "src_port": 9, "dst_port": 9},
    {"flags": 0, "transport": records.TRANSPORT_TRUNCATED},
    {"flags": 0, "transport": records.TRANSPORT_NONE, "fragment": records.FRAGMENT_LATER, "src_port": 0, "dst_port": 0},
    {"ip_version": 6},
)
"""A packet from an end to itself, one with a cut header, a later fragment, IPv6 with an IPv4 address inside."""


def connection_rows(sent: Sequence[tuple[bool, int, int, int, int]]) -> np.ndarray:
    """Packets of one connection, times to be set."""
    return connection([0] * len(sent), sent)


COLLECTED: list[Any] = []
"""What the last pipeline put out: the runner works in this process."""


def collect(element: Any) -> None:
    """Keeps an element; workers know this function by name, so it is this list that gets it."""
    COLLECTED.append(element)

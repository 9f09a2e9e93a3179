"""The flow table: packets in, flows out, by event time alone. No Beam here."""

import logging
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import pyarrow as pa

from transforms import ending, snapshot
from transforms import table_layout as layout
from transforms.duplicates import DuplicateFilter
from transforms.features.registry import field_of, states_dtype
from transforms.features.shape import entropy
from transforms.flow_records import ROWS, Finished, FlowColumns, empty
from transforms.fold import fold
from transforms.gather import gather, places, retire
from transforms.growing import GrowingArray
from transforms.order import PLAIN, PacketBuffer, read_only
from transforms.records import PACKET, InputError, PacketBatch, Stream
from transforms.rules import Rules, nanoseconds
from transforms.table_index import enter_all

_log = logging.getLogger(__name__)

_CHUNK = 8192
"""Packets folded between two sweeps."""


class FlowTable:
    """Open flows of one sensor, or of one shard of it.

    Packets wait until `advance` says that nothing before a time is missing; then they are folded in order. So flows do
    not depend on how packets were batched or ordered, nor on how often `advance` was called.

    Args:
        rules: When flows end, their key, the limits.
        families: Every family that the layout of a row has; a process should use one such list, as the fold is compiled
            for it.
        columns: The record batches to make; only the families that it needs are folded.
        sensor: Name of the sensor, part of every flow's identity.

    Attributes:
        frontier_ns: Packets before this time are late.
        counts: `packets_in_flows`, `late`, `duplicate`, and how often a limit was met: `flows_evicted`.
    """

    def __init__(
        self, rules: Rules, families: Sequence[ModuleType], columns: FlowColumns, sensor: str = "local"
    ) -> None:
        self.rules, self.sensor, self.frontier_ns = rules, sensor, -(1 << 63)
        self.counts: Counter[str] = Counter()
        self._columns = columns
        self._buffer = PacketBuffer()
        self._duplicates = DuplicateFilter(nanoseconds(rules.drop_duplicates_s)) if rules.drop_duplicates_s else None
        self._duplicate_packets: list[np.ndarray] = []
        self._interim_ns = nanoseconds(rules.interim_interval_s)
        self._boundary_ns: int | None = None
        states = states_dtype(families)
        self._states, self._row = states, layout.row_dtype(states)
        self._stateful = [family for family in families if family.STATE is not None]
        self._limits = _limits(rules, sum(1 << i for i, f in enumerate(self._stateful) if columns.needs(f)))
        self._blank = np.zeros(1, self._row)
        for family in self._stateful:
            if hasattr(family, "initial"):
                self._blank["states"][field_of(family)] = family.initial(rules)
        self._allocate(2 * _CHUNK, 2 * _CHUNK + layout.RESERVED_ROWS)

    def _allocate(self, heads: int, rows: int) -> None:
        self._head_memory = GrowingArray(heads, layout.HEAD)
        self._heads = self._head_memory.rows
        self._deadlines = np.full(heads, layout.NEVER, np.int64)
        self._free = np.empty(heads, np.int32)
        self._closed = np.empty(heads, np.int32)
        self._row_memory = GrowingArray(rows, self._row)
        self._rows = self._row_memory.rows
        self._free_rows = np.empty(rows, np.int32)
        self._rows[layout.BLANK] = self._blank[0]
        self._counts = np.zeros(7, np.int64)
        self._counts[layout.TOP_ROW] = layout.RESERVED_ROWS
        self._counts[layout.SOONEST] = layout.NEVER
        self._rehash()

    @property
    def open_flows(self) -> int:
        """Flows that have not ended, those between two parts included."""
        return int(self._counts[layout.TOP_HEAD] - self._counts[layout.FREE_HEADS] - self._counts[layout.CLOSED])

    @property
    def octets(self) -> int:
        """Memory of the open flows and of the packets that wait."""
        heads, rows = int(self._counts[layout.TOP_HEAD]), int(self._counts[layout.TOP_ROW])
        waiting = sum(piece.packets.nbytes for piece in self._buffer.pieces)
        return heads * (layout.HEAD.itemsize + 16) + rows * self._row.itemsize + self._slots.nbytes + waiting

    def add(self, batch: PacketBatch) -> np.ndarray:
        """Takes packets, in any order at or after the frontier.

        Returns:
            The late ones, which are not taken.
        """
        packets = batch.packets
        if batch.payloads:
            packets = packets.copy()
            entropy(packets, np.frombuffer(batch.payloads, np.uint8))
        late = packets["time_ns"] < self.frontier_ns
        if not late.any():
            self._buffer.add(batch, packets)
            return packets[:0]
        self.counts["late"] += int(late.sum())
        self._buffer.add(batch, packets[~late])
        return packets[late]

    def advance(self, time_ns: int, at_least: int = 1) -> Iterator[pa.RecordBatch]:
        """Folds all packets before `time_ns` and yields the flows whose deadline is then reached.

        With `at_least`, ended flows wait in the table until there are so many: larger batches cost less.
        """
        if time_ns > self.frontier_ns:
            self.frontier_ns = time_ns
            for packets in self._buffer.take(time_ns):
                yield from self._run(packets)
            yield from self._pass(time_ns, at_least)

    def finish(self, end_ns: int) -> Iterator[pa.RecordBatch]:
        """Ends all flows, and with them the table. `end_ns` is the largest packet time of the sensor's whole input."""
        self.frontier_ns = 1 << 63
        for packets in self._buffer.take(None):
            yield from self._run(packets)
        yield from self._pass(end_ns, 1)
        ending.close_all(*self._table())
        self._slots = np.empty(0, np.int64)
        yield from self._put_out(last=True)

    def take_duplicates(self) -> list[np.ndarray]:
        """The packets rejected as repeated since the last call."""
        taken, self._duplicate_packets = self._duplicate_packets, []
        return taken

    def _run(self, packets: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Folds packets that continue in time order, halting at each multiple of the interim interval."""
        if self._duplicates is not None:
            repeated = self._duplicates.repeated(packets)
            if repeated.any():
                self.counts["duplicate"] += int(repeated.sum())
                refused = packets[repeated]
                refused["payload_captured"] = 0  # their blocks' payloads are not here any more
                self._duplicate_packets.append(refused)
                packets = packets[~repeated]
        self.counts["packets_in_flows"] += len(packets)
        at = 0
        while at < len(packets):
            end = min(at + _CHUNK, len(packets))
            if self._interim_ns:
                first_ns = int(packets["time_ns"][at])
                if self._boundary_ns is not None and first_ns >= self._boundary_ns:
                    yield from self._report()
                self._boundary_ns = (first_ns // self._interim_ns + 1) * self._interim_ns
                end = at + int(np.searchsorted(packets["time_ns"][at:end], min(self._boundary_ns, (1 << 63) - 1)))
                end = max(end, at + 1)
            yield from self._fold(packets[at:end])
            at = end

    def _pass(self, time_ns: int, at_least: int) -> Iterator[pa.RecordBatch]:
        """Lets time reach `time_ns`, every packet before it being folded."""
        if self._boundary_ns is not None and self._boundary_ns <= time_ns:
            yield from self._report()
        yield from self._sweep(time_ns, at_least)

    def _report(self) -> Iterator[pa.RecordBatch]:
        """Interim records of the flows that changed and are still open at the boundary."""
        assert self._boundary_ns is not None
        yield from self._sweep(self._boundary_ns, 1)
        self._boundary_ns = None
        found = np.empty(self.open_flows, np.int32)
        changed = found[: ending.changed_flows(self._heads, self._deadlines, self._counts, found)]
        for at in range(0, len(changed), ROWS):
            which = changed[at : at + ROWS]
            yield self._batch(which, interim=True)
            self._heads["records"][which] += 1

    def _fold(self, packets: np.ndarray) -> Iterator[pa.RecordBatch]:
        at = 0
        while at < len(packets):
            self._reserve(len(packets) - at)
            fold(read_only(packets), at, *self._table())
            at = int(self._counts[layout.NEXT])
            if at < len(packets):
                self._make_room(int(packets["time_ns"][at]))
            if self._counts[layout.CLOSED] >= ROWS:
                yield from self._put_out()
        yield from self._sweep(int(packets["time_ns"][-1]) - 1, ROWS)

    def _sweep(self, time_ns: int, at_least: int) -> Iterator[pa.RecordBatch]:
        """Ends what is due at `time_ns`; puts flows out once there are `at_least` so many."""
        self._end_due(time_ns)
        if self._counts[layout.CLOSED] >= at_least:
            yield from self._put_out()

    def _end_due(self, time_ns: int) -> None:
        if self._counts[layout.SOONEST] <= time_ns:
            while ending.sweep(time_ns, *self._table()):
                self._reserve(_CHUNK)

    def _put_out(self, last: bool = False) -> Iterator[pa.RecordBatch]:
        closed = self._closed[: self._counts[layout.CLOSED]].copy()
        for at in range(0, len(closed), ROWS):
            which = closed[at : at + ROWS]
            yield self._batch(which, interim=False)
            retire(which, self._heads, self._free, self._free_rows, self._counts)
            if last:  # in the order of their heads
                self._head_memory.forget(int(which[-1]))
        self._counts[layout.CLOSED] = 0

    def _batch(self, which: np.ndarray, interim: bool) -> pa.RecordBatch:
        n = len(which)
        where, size = places(self._row, n)
        records, flows, states = empty(n, size)
        octets, row_octets = self._rows.view(np.uint8), self._row.itemsize
        gather(which, interim, self._heads, self._rows, octets, row_octets, where, self._limits, records, flows, states)
        by_field = {
            name: states[begin : begin + n * length].view(self._states[name])
            for name, (_, length, begin) in zip(self._states.names or (), where.tolist(), strict=True)
        }
        return self._columns.batch(Finished(interim, records, flows, by_field), self.sensor)

    def _make_room(self, now_ns: int) -> None:
        """Ends what is due, and in a table that is full of open flows a sixteenth: those that were idle longest."""
        linger = self._limits[layout.LINGER_NS] > 0  # without, a flow may end in its first ns; its ordinal counts
        self._end_due(now_ns if linger else now_ns - 1)
        if self.open_flows < self.rules.max_open_flows:
            return
        if not self.counts["flows_evicted"]:
            _log.warning(
                "max_open_flows: more than %d flows are open at once; those idle longest end early, with end reason 5",
                self.rules.max_open_flows,
            )
        there = self._open_heads()
        n = max(1, self.rules.max_open_flows // 16)
        oldest = np.argsort(self._heads["last_ns"][there], kind="stable")[:n]
        self.counts["flows_evicted"] += len(oldest)
        table = self._table()
        ending.evict(there[oldest], self._heads, *table[2:-1])

    def _open_heads(self) -> np.ndarray:
        return np.flatnonzero(self._deadlines[: self._counts[layout.TOP_HEAD]] != layout.NEVER)

    def _table(self) -> tuple[np.ndarray, ...]:
        return (
            self._heads,
            self._rows,
            self._deadlines,
            self._slots,
            self._free,
            self._free_rows,
            self._closed,
            self._counts,
            self._limits,
        )

    def _reserve(self, packets: int) -> None:
        """Room for the heads and rows that so many packets may need."""
        size, top = len(self._heads), int(self._counts[layout.TOP_HEAD])
        if self._counts[layout.FREE_HEADS] + size - top < packets:
            larger = max(size + size // 2, top + packets)
            del self._heads
            self._heads = self._head_memory.grow(larger)
            for name in ("_deadlines", "_free", "_closed"):
                setattr(self, name, _grown(getattr(self, name), size, larger))
            self._deadlines[size:] = layout.NEVER
            if len(self._slots) < 2 * larger:
                self._rehash()
        self._reserve_rows(2 * packets)

    def _reserve_rows(self, rows: int) -> None:
        size, top = len(self._rows), int(self._counts[layout.TOP_ROW])
        if self._counts[layout.FREE_ROWS] + size - top < rows:
            larger = max(size + size // 2, top + rows)
            del self._rows
            self._rows = self._row_memory.grow(larger)
            self._free_rows = _grown(self._free_rows, int(self._counts[layout.FREE_ROWS]), larger)

    def _rehash(self) -> None:
        size = 1 << (2 * len(self._heads) - 1).bit_length()
        self._slots = np.full(size, -1, np.int64)
        enter_all(self._heads, self._deadlines, self._slots, self._counts)

    def to_bytes(self) -> bytes:
        """A snapshot: the open flows, those that ended and are not put out yet, and the packets that wait."""
        ended = self._closed[: self._counts[layout.CLOSED]]
        there = np.concatenate([self._open_heads(), ended])
        heads = self._heads[there]
        with_row = heads["row"] >= 0
        rows = self._rows[heads["row"][with_row]]
        heads["row"][with_row] = np.arange(len(rows), dtype=np.int32)
        pieces = [[*piece.identity[0], piece.identity[1], len(piece.packets)] for piece in self._buffer.pieces]
        waiting = [piece.packets for piece in self._buffer.pieces]
        meta = {
            "sensor": self.sensor,
            "families": list(self._states.names or ()),
            "frontier_ns": self.frontier_ns,
            "boundary_ns": self._boundary_ns,
            "counts": dict(self.counts),
            "seed": int(self._limits[layout.SEED]),
            "ended": len(ended),
            "soonest": int(self._counts[layout.SOONEST]),
            "pieces": pieces,
        }
        arrays = {
            "heads": heads,
            "rows": rows,
            "deadlines": self._deadlines[there],
            "packets": np.concatenate([rows.view(PLAIN) for rows in waiting]) if waiting else np.empty(0, PLAIN),
        }
        if self._duplicates is not None:
            arrays["duplicates"] = self._duplicates.entries
        return snapshot.pack(meta, arrays)

    @classmethod
    def from_bytes(
        cls, octets: bytes, rules: Rules, families: Sequence[ModuleType], columns: FlowColumns
    ) -> "FlowTable":
        """The table that a snapshot was taken of; rules and families must be those of then.

        Raises:
            InputError: The snapshot is of another version or layout.
        """
        table = cls(rules, families, columns)
        table._restore(octets)
        return table

    def _restore(self, octets: bytes) -> None:
        dtypes = {"heads": layout.HEAD, "rows": self._row, "deadlines": np.dtype(np.int64), "packets": PACKET}
        meta, arrays = snapshot.unpack(octets, {**dtypes, "duplicates": DuplicateFilter.ENTRY})
        if meta["families"] != list(self._states.names or ()):
            raise InputError(f"flow table snapshot of families {', '.join(meta['families'])}; use the same here")
        self.sensor, self.frontier_ns, self._boundary_ns = meta["sensor"], meta["frontier_ns"], meta["boundary_ns"]
        self.counts = Counter(meta["counts"])
        self._limits[layout.SEED] = meta["seed"]
        heads, rows = arrays["heads"], arrays["rows"]
        self._allocate(len(heads) + 2 * _CHUNK, len(rows) + 2 * _CHUNK + layout.RESERVED_ROWS)
        self._heads[: len(heads)] = heads
        moved = self._heads["row"][: len(heads)]
        moved[moved >= 0] += layout.RESERVED_ROWS
        self._rows[layout.RESERVED_ROWS : layout.RESERVED_ROWS + len(rows)] = rows
        self._deadlines[: len(heads)] = arrays["deadlines"]
        self._counts[layout.TOP_HEAD] = len(heads)
        self._counts[layout.TOP_ROW] = layout.RESERVED_ROWS + len(rows)
        self._counts[layout.SOONEST] = meta["soonest"]
        self._counts[layout.CLOSED] = meta["ended"]
        self._closed[: meta["ended"]] = np.arange(len(heads) - meta["ended"], len(heads))
        self._rehash()
        at = 0
        for sensor, epoch, partition, sequence, n in meta["pieces"]:
            batch = PacketBatch(Stream(sensor, epoch, partition), sequence, 0, arrays["packets"][at : at + n])
            self._buffer.add(batch, batch.packets)
            at += n
        if self._duplicates is not None:
            self._duplicates.entries = arrays["duplicates"]
            self._duplicates.used = int(np.count_nonzero(arrays["duplicates"]["used"]))


def _grown(rows: np.ndarray, used: int, size: int) -> np.ndarray:
    larger = np.empty(size, rows.dtype)
    larger[:used] = rows[:used]
    return larger


def _limits(rules: Rules, families: int) -> np.ndarray:
    limits = np.zeros(10, np.int64)
    limits[layout.SEED] = secrets.randbits(63)
    for place, rule, seconds in (
        (layout.IDLE_NS, "idle", rules.idle_timeout_s),
        (layout.ACTIVE_NS, "active", rules.active_timeout_s),
    ):
        limits[place] = nanoseconds(seconds) if rule in rules.end_rules else layout.FOREVER
    limits[layout.LINGER_NS] = nanoseconds(rules.tcp_linger_s)
    limits[layout.TCP_RULE] = "tcp" in rules.end_rules
    limits[layout.REUSE_RULE] = "reuse" in rules.end_rules
    limits[layout.ICMP_PORTS] = rules.icmp_key == "type"
    limits[layout.VNI_IN_KEY] = not rules.ignore_vni
    limits[layout.FAMILIES] = families
    limits[layout.MAX_OPEN] = rules.max_open_flows
    return limits

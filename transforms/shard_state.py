"""What a shard knows: from blocks in any order, perhaps repeated, to flows that do not depend on it. No Beam here.

Blocks of a stream are looked at in the order of their numbers, each once, whatever order they arrive in; so everything
that follows (how far time has come, what is late, what is lost) is a function of what is on the queue.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from transforms import arrivals, avro
from transforms.arrivals import Arrival
from transforms.flow_records import FinishedFlows, FlowColumns
from transforms.flow_table import FlowTable
from transforms.records import (
    END_OF_STREAM,
    EVENT_DROPPING,
    EVENT_ENDED,
    EVENT_FROM_FUTURE,
    EVENT_JOINED,
    EVENT_KILLED,
    EVENT_LATE_PACKETS,
    EVENT_LOST_BLOCKS,
    EVENT_STALE,
    EVENT_STARTED,
    GAP_JOINED,
    GAP_LOST,
    GAP_REPLACED,
    MERGED_SENSORS,
    NO_TIME,
    REJECT_DUPLICATE,
    REJECT_FUTURE,
    REJECT_LATE,
    PacketBatch,
    Reject,
    SensorEvent,
    Stream,
)
from transforms.rules import nanoseconds
from transforms.settings import FlowSettings
from transforms.stream_line import NEVER, Line, StreamRules

Output: TypeAlias = pa.RecordBatch | FinishedFlows | Reject | SensorEvent
"""Flows that ended, packets that no flow counts, and what is to be told of sensors."""

STEP_NS = 200_000_000
"""The table follows observed time in steps of this: larger batches of flows cost less."""

STALE_NS = 10_000_000_000
"""A block that the queue received so long after it was observed shows a sensor that is behind."""

JOIN_NS = 10_000_000_000
"""On a queue without order, a stream of which nothing was seen begins where it is after so long."""

LOST_RANGES_MOST = 1000
"""As many are remembered of a stream; a block of an older one that comes after all counts as repeated."""


class Shard:
    """The flows of one shard of a sensor, or of merged sensors.

    Args:
        settings: How flows are assembled.
        columns: Makes batches of them at once, or later, together with those of other shards.
        rules: How streams are followed.
        sensor: Name of the sensor, `*` for merged ones.
        number: Number of the shard; that of a stream's partition speaks for the stream where all shards see the same.

    Of merged sensors, one that has ended holds back nobody, so the order of arrivals says what is late of its next
    epoch; how they were cut into calls of `take` does not.

    Attributes:
        counts: What was counted since the last `take_counts`.
    """

    def __init__(
        self,
        settings: FlowSettings,
        columns: FlowColumns,
        rules: StreamRules,
        sensor: str,
        number: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._settings, self._columns, self._rules = settings, columns, rules
        self._sensor, self._number = sensor, number
        self._bound_ns = nanoseconds(rules.max_out_of_orderness_s)
        self._skew_ns = nanoseconds(rules.max_clock_skew_s)
        self._gap_ns = nanoseconds(rules.gap_timeout_s)
        self._lines: dict[str, Line] = {name: Line() for name in rules.sensors if sensor == MERGED_SENSORS}
        self._table: FlowTable | None = None
        self._told: Counter[str] = Counter()
        self._end_ns = NEVER
        self._frontier_ns = NEVER

    def take(self, arrived: Iterator[Arrival] | list[Arrival]) -> Iterator[Output]:
        """Takes what arrived; the iterator must be run to its end."""
        for arrival in arrived:
            yield from self._take(arrival)
            self._frontier_ns = max(self._frontier_ns, self._reached_ns())
        if self._table is not None:
            yield from self._counted(self._table.advance(self._frontier_ns))

    def finish(self) -> Iterator[Output]:
        """Ends all flows, with reason 4: nothing will arrive any more. What waits for missing blocks is taken."""
        for sensor, line in self._lines.items():
            while line.waiting or not line.over:
                if line.over or not any(epoch == line.epoch for epoch, _ in line.waiting):
                    if not line.over:
                        yield from self._end(sensor, line, "")
                    if line.waiting:
                        self._begin(line, min(line.waiting)[0])
                    continue
                yield from self._skip(sensor, line, min(line.waiting)[1], GAP_LOST)
                yield from self._run(sensor, line)
        yield from self._close_table()

    @property
    def open_flows(self) -> int:
        """Flows that have not ended."""
        return self._table.open_flows if self._table is not None else 0

    @property
    def rests(self) -> bool:
        """Whether its sensors have ended, and nothing is left of them."""
        return self._table is None and not any(line.waiting for line in self._lines.values())

    @property
    def rests_since_ns(self) -> int | None:
        """When the queue received the last block, if the shard rests; None else, of merged sensors, or without time."""
        since_ns = max((max(line.clock_ns, line.observed_ns) for line in self._lines.values()), default=NO_TIME)
        timed = any(line.clock_ns != NO_TIME for line in self._lines.values())
        return since_ns if timed and self.rests and self._sensor != MERGED_SENSORS else None

    @property
    def octets(self) -> int:
        """Memory of the table."""
        return self._table.octets if self._table is not None else 0

    @property
    def observed_ns(self) -> int | None:
        """How far the sensor has come, as far as it was looked at; None before its first block."""
        return max((line.observed_ns for line in self._lines.values() if line.observed_ns != NEVER), default=None)

    def take_counts(self) -> Counter[str]:
        """What was counted since the last call."""
        if self._table is not None:
            self.counts.update(self._table.counts - self._told)
            self._told = Counter(self._table.counts)
        counts, self.counts = self.counts, Counter()
        return counts

    def _take(self, arrival: Arrival) -> Iterator[Output]:
        touched = {}
        for gap in arrival.gaps:
            line = self._lines.setdefault(gap.stream.sensor, Line())
            if gap.stream.epoch > line.epoch or (gap.stream.epoch == line.epoch and not line.over):
                line.gaps.setdefault(gap.stream.epoch, []).append((gap.first, gap.after, gap.reason))
                touched[gap.stream.sensor] = line
        batch = arrival.batch
        if batch is not None:
            line = self._lines.setdefault(batch.stream.sensor, Line())
            line.clock_ns = max(line.clock_ns, arrival.received_ns)
            yield from self._sort_in(line, arrival, batch)
            touched[batch.stream.sensor] = line
        for sensor, line in touched.items():
            yield from self._run(sensor, line)

    def _sort_in(self, line: Line, arrival: Arrival, batch: PacketBatch) -> Iterator[Output]:
        """Puts a block where it waits for its turn, unless that is over."""
        epoch, number = batch.stream.epoch, batch.sequence
        passed = line.passed(epoch, number)
        if (epoch, number) in line.waiting or (passed and not line.missed(epoch, number)):
            if self._speaks_for(batch.stream):
                self.counts["blocks_repeated"] += 1
        elif passed:
            line.forget(number)
            self.counts["packets_taken"] += len(batch.packets)
            yield from self._refuse(REJECT_LATE, batch, batch.packets)
        else:
            line.waiting[epoch, number] = arrival

    def _run(self, sensor: str, line: Line) -> Iterator[Output]:
        """Looks at all blocks whose turn has come."""
        while True:
            if line.over:
                epoch = line.following()
                if epoch is None:
                    return
                self._begin(line, epoch)
            arrival = line.waiting.pop((line.epoch, line.next), None)
            if arrival is not None and arrival.batch is not None:
                yield from self._look_at(sensor, line, arrival, arrival.batch)
                continue
            missing = next((gap for gap in line.gaps.get(line.epoch, ()) if gap[0] <= line.next < gap[1]), None)
            if missing is None:
                missing = self._given_up(line)
            if missing is None:
                return
            _, after, reason = missing
            if after == END_OF_STREAM:
                yield from self._end(sensor, line, reason)
            else:
                yield from self._skip(sensor, line, after, reason)

    def _given_up(self, line: Line) -> tuple[int, int, str] | None:
        """On a queue without order: what is missing for so long that it will not come."""
        waiting = [(place, arrival.received_ns) for place, arrival in line.waiting.items() if not arrival.ordered]
        if not waiting:
            return None
        joining = line.next == 0 and line.observed_ns == NEVER
        patience_ns = min(self._gap_ns, JOIN_NS) if joining else self._gap_ns
        if line.clock_ns - min(received_ns for _, received_ns in waiting) < patience_ns:
            return None
        epoch, number = min(place for place, _ in waiting)
        if epoch == line.epoch:
            return line.next, number, GAP_JOINED if joining else GAP_LOST
        return line.next, END_OF_STREAM, GAP_REPLACED

    def _begin(self, line: Line, epoch: int) -> None:
        line.epoch, line.next, line.over, line.observed_ns = epoch, 0, False, NEVER
        line.lost = []
        line.gaps = {number: gaps for number, gaps in line.gaps.items() if number >= epoch}
        if self._table is None:
            self._table = self._settings.table(self._columns, self._sensor)

    def _look_at(self, sensor: str, line: Line, arrival: Arrival, batch: PacketBatch) -> Iterator[Output]:
        """The next block of the stream."""
        assert self._table is not None
        line.next, line.partition = batch.sequence + 1, batch.stream.partition
        speaks = self._speaks_for(batch.stream)
        if speaks:
            self.counts["blocks_taken"] += 1
            self.counts.update({f"reject {reason}": count for reason, count in batch.rejects})
            self.counts["packets_taken"] += sum(count for _, count in batch.rejects)
            self.counts["interface_drops"] += batch.dropped
            yield from self._events(arrival, batch, line.observed_ns)
        self.counts["packets_taken"] += len(batch.packets)
        if arrival.received_ns != NO_TIME and batch.observed_ns - arrival.received_ns > self._skew_ns:
            yield from self._refuse(REJECT_FUTURE, batch, batch.packets)
        else:
            # of merged sensors one may come back behind the others, for whom flows have ended by now
            late = batch.packets["time_ns"] < max(line.observed_ns - self._bound_ns, self._frontier_ns)
            on_time = batch
            if late.any():
                yield from self._refuse(REJECT_LATE, batch, batch.packets[late])
                if speaks:
                    yield _event(EVENT_LATE_PACKETS, arrival, batch, int(late.sum()))
                on_time = batch._replace(packets=batch.packets[~late])
            self._table.add(on_time)
            line.observed_ns = max(line.observed_ns, batch.observed_ns)
            if batch.end:
                self._end_ns = max(self._end_ns, batch.observed_ns)
        if batch.end:
            yield from self._end(sensor, line, "")

    def _events(self, arrival: Arrival, batch: PacketBatch, since_ns: int) -> Iterator[SensorEvent]:
        """What a block shows of its sensor, which was observed up to `since_ns` before."""
        if since_ns == NEVER:
            since_ns = batch.observed_ns
            yield _event(EVENT_STARTED, arrival, batch, 0)
        if batch.dropped:
            yield _event(EVENT_DROPPING, arrival, batch, batch.dropped)
        if batch.ended_by:
            silence_ns = max(batch.ended_by - since_ns, 0)
            yield _event(EVENT_KILLED, arrival, batch, silence_ns)._replace(time_ns=since_ns)
        elif batch.end:
            yield _event(EVENT_ENDED, arrival, batch, 0)
        if arrival.received_ns != NO_TIME:
            behind_ns = arrival.received_ns - batch.observed_ns
            if behind_ns > STALE_NS and batch.health is not None:
                yield _event(EVENT_STALE, arrival, batch, behind_ns)
            elif -behind_ns > self._skew_ns:
                yield _event(EVENT_FROM_FUTURE, arrival, batch, len(batch.packets))

    def _skip(self, sensor: str, line: Line, after: int, reason: str) -> Iterator[Output]:
        """Goes on behind blocks that will not come."""
        if after <= line.next:
            return
        stream = Stream(sensor, line.epoch, line.partition)
        if self._speaks_for(stream):
            event = EVENT_JOINED if reason == GAP_JOINED else EVENT_LOST_BLOCKS
            self.counts["blocks_not_read" if reason == GAP_JOINED else "blocks_lost"] += after - line.next
            yield SensorEvent(*stream, event, line.observed_ns, sequence=line.next, amount=after - line.next)
        line.lost = [*line.lost[-LOST_RANGES_MOST:], (line.next, after)]
        line.next = after
        line.gaps[line.epoch] = [gap for gap in line.gaps.get(line.epoch, ()) if gap[1] > after]

    def _end(self, sensor: str, line: Line, reason: str) -> Iterator[Output]:
        """Ends the stream that is looked at; with the last one its flows end."""
        stream = Stream(sensor, line.epoch, line.partition)
        if reason and self._speaks_for(stream):
            yield SensorEvent(*stream, reason, line.observed_ns, sequence=line.next)
        line.over = True
        line.gaps.pop(line.epoch, None)
        for place in [place for place in line.waiting if place[0] <= line.epoch]:
            batch = line.waiting.pop(place).batch
            if batch is not None:
                self.counts["packets_taken"] += len(batch.packets)
                yield from self._refuse(REJECT_LATE, batch, batch.packets)
        self._end_ns = max(self._end_ns, line.observed_ns)
        if all(other.over and other.epoch >= 0 for other in self._lines.values()):
            yield from self._close_table()

    def _close_table(self) -> Iterator[Output]:
        if self._table is not None:
            yield from self._counted(self._table.finish(self._end_ns))
            self.counts.update(self._table.counts - self._told)
            self._table, self._told = None, Counter()
        self._end_ns = self._frontier_ns = NEVER

    def _reached_ns(self) -> int:
        """What the sensor, or the merged sensor that is furthest behind, shows to be over; NEVER if nothing."""
        running = [line.observed_ns for line in self._lines.values() if not line.over]
        if NEVER in running or not running or any(line.epoch < 0 for line in self._lines.values()):
            return NEVER
        frontier_ns = min(running) - self._bound_ns
        return frontier_ns - frontier_ns % STEP_NS

    def _counted(self, flows: Iterator[pa.RecordBatch]) -> Iterator[Output]:
        """Flows as they end, and the packets that were duplicates."""
        assert self._table is not None
        yield from flows
        for packets in self._table.take_duplicates():
            batch = PacketBatch(Stream(self._sensor), 0, 0, packets)
            yield Reject("assemble", REJECT_DUPLICATE, self._sensor, None, avro.encode_block(batch))

    def _refuse(self, reason: str, batch: PacketBatch, packets: np.ndarray) -> Iterator[Reject]:
        """Packets that no flow counts, as one block."""
        if len(packets):
            self.counts[f"reject {reason}"] += len(packets)
            block = avro.encode_block(batch._replace(packets=packets))
            yield Reject("assemble", reason, batch.stream.sensor, batch.sequence, block)

    def _speaks_for(self, stream: Stream) -> bool:
        """Whether this shard counts what every shard of the stream sees."""
        return stream.partition == self._number

    def to_bytes(self) -> bytes:
        """All that the shard knows, in a form that `restore` takes; its counts must have been taken before."""
        lines = {
            sensor: [line.epoch, line.partition, line.over, line.next, line.observed_ns, line.lost,
                     list(line.gaps.items()), line.clock_ns]
            for sensor, line in self._lines.items()
        }  # fmt: skip
        waiting = arrivals.pack([arrival for line in self._lines.values() for arrival in line.waiting.values()])
        table = b"" if self._table is None else self._table.to_bytes()
        about = json.dumps([lines, self._end_ns, len(waiting)]).encode()
        return b"".join([len(about).to_bytes(4, "little"), about, waiting, table])

    def restore(self, octets: bytes) -> None:
        """Makes this shard what the one was that gave these bytes.

        Raises:
            InputError: They are of another version, or of other settings.
        """
        begin = 4 + int.from_bytes(octets[:4], "little")
        lines, self._end_ns, waiting = json.loads(octets[4:begin])
        self.counts, self._lines = Counter(), {}
        for sensor, (epoch, partition, over, following, observed_ns, lost, gaps, clock_ns) in lines.items():
            told = {number: [(first, after, reason) for first, after, reason in those] for number, those in gaps}
            ranges = [(first, after) for first, after in lost]
            self._lines[sensor] = Line(
                epoch, partition, over, following, observed_ns, ranges, gaps=told, clock_ns=clock_ns
            )
        for arrival in arrivals.unpack(octets[begin : begin + waiting]):
            assert arrival.batch is not None
            stream = arrival.batch.stream
            self._lines[stream.sensor].waiting[stream.epoch, arrival.batch.sequence] = arrival
        table = octets[begin + waiting :]
        self._table, self._told = None, Counter()
        if table:
            self._table = FlowTable.from_bytes(table, self._settings.rules, self._columns.families, self._columns)
            self._told = Counter(self._table.counts)
            self._frontier_ns = self._table.frontier_ns


def _event(event: str, arrival: Arrival, batch: PacketBatch, amount: int) -> SensorEvent:
    return SensorEvent(
        *batch.stream, event, batch.observed_ns, arrival.received_ns, batch.sequence, amount, batch.health
    )

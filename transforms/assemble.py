"""From packets to flows, on Beam: two drivers of one flow table."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from transforms import avro
from transforms import coders as _coders
from transforms.flow_records import ROWS
from transforms.flow_table import FlowTable
from transforms.prefetch import ahead
from transforms.records import REJECT_DUPLICATE, REJECT_LATE, PacketBatch, Reject, Stream
from transforms.rules import nanoseconds
from transforms.settings import FlowSettings
from transforms.shard import ShardPackets

assert _coders  # imported for the coders that it registers

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]

END_REASONS = ("open", "idle", "active", "end", "forced", "resources")
"""Names of flowEndReason (IPFIX 136) by number, as counters have them."""


class AssembledFlows(NamedTuple):
    """What assembling gives."""

    flows: beam.PCollection[pa.RecordBatch]
    rejects: beam.PCollection[Reject]


class ReadReport(Protocol):
    """What reading a sensor's input tells once it is read."""

    packets_read: int
    rejects: dict[str, int]
    samples: list[Reject]
    notes: dict[str, int]


Read = Callable[[Any], tuple[ReadReport, Iterable[PacketBatch]]]
"""Opens a sensor's input: its packets in time order, and the report, complete when they are read."""


class Counted:
    """The counters of a driver. The first and last packet time are strings: a Beam distribution would overflow."""

    def __init__(self) -> None:
        self._reasons = [Metrics.counter("assemble", f"flows_ended_{name}") for name in END_REASONS]
        self._spans = Metrics.string_set("assemble", "spans_seen")

    def flows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Counts flows by end reason; interim records are no flows."""
        reasons = batch.column("end_reason").fill_null(0).to_numpy()
        for reason, n in enumerate(np.bincount(reasons)):
            if n:
                self._reasons[reason].inc(int(n))
        return batch

    def table(self, table: FlowTable) -> None:
        """Adds up what a finished table counted."""
        for name, n in table.counts.items():
            if name in (REJECT_LATE, REJECT_DUPLICATE):
                Metrics.counter("packets_rejected", name).inc(n)
            else:
                Metrics.counter("assemble", name).inc(n)

    def span(self, span: "_Span") -> None:
        """Notes the times of a sensor's first and last packet, if it had any."""
        if span.first_ns <= span.last_ns:
            self._spans.add(f"{span.first_ns} {span.last_ns}")

    def repeated(self) -> None:
        """Counts a block that was delivered again."""
        Metrics.counter("assemble", "blocks_repeated").inc()

    def report(self, report: ReadReport) -> None:
        """Adds up what reading counted."""
        Metrics.counter("read", "packets_read").inc(report.packets_read)
        for reason, n in report.rejects.items():
            Metrics.counter("packets_rejected", reason).inc(n)
        for name, n in report.notes.items():
            Metrics.counter("read", name).inc(n)


class _Span:
    """First and last packet time of what was added."""

    def __init__(self) -> None:
        self.first_ns, self.last_ns = (1 << 63) - 1, -(1 << 63)

    def add(self, packets: np.ndarray) -> None:
        if len(packets):
            self.first_ns = min(self.first_ns, int(packets["time_ns"].min()))
            self.last_ns = max(self.last_ns, int(packets["time_ns"].max()))


class AssembleCaptures(beam.PTransform):
    """Assembles bounded inputs, one sensor each, without a shuffle.

    Input: anything that `read` opens, one element a sensor. Output: flows as they close, in record batches of at most
    8,192 rows; what was rejected. Memory is that of the open flows, however long the input.

    Args:
        read: Opens an element; called on the worker.
        settings: How flows are assembled.
        max_rejects: At most so many late or repeated packets of a sensor are put out; all are counted.
        out_of_orderness_s: How far back in time packets of a later block may reach; 0 for files, read in order.
        sensor: Names the flows instead of the input's own sensor: the merged sensors of one line.
    """

    def __init__(
        self,
        read: Read,
        settings: FlowSettings,
        max_rejects: int = 10_000,
        out_of_orderness_s: float = 0.0,
        sensor: str | None = None,
    ) -> None:
        super().__init__()
        self._fn = _AssembleFn(read, settings, max_rejects, nanoseconds(out_of_orderness_s), sensor)

    def expand(self, inputs):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        outputs = inputs | "Assemble" >> beam.ParDo(self._fn).with_outputs("rejects", main="flows")
        return AssembledFlows(outputs["flows"], outputs["rejects"])


class _AssembleFn(beam.DoFn):
    def __init__(
        self, read: Read, settings: FlowSettings, max_rejects: int, out_of_orderness_ns: int, sensor: str | None
    ) -> None:
        self._read, self._settings, self._max_rejects = read, settings, max_rejects
        self._out_of_orderness_ns, self._sensor = out_of_orderness_ns, sensor

    def setup(self) -> None:
        self._columns = self._settings.columns()
        self._counted = Counted()

    def process(self, sensor_input: Any) -> Iterator[pa.RecordBatch | Rejected]:
        report, batches = self._read(sensor_input)
        table: FlowTable | None = None
        rejects: list[Reject] = []
        span = _Span()
        with ahead(batches) as arriving:
            for batch in arriving:
                if table is None:
                    table = self._settings.table(self._columns, self._sensor or batch.stream.sensor)
                span.add(batch.packets)
                late = table.add(batch)
                rejects += _packet_rejects(REJECT_LATE, late, batch, self._max_rejects - len(rejects))
                until_ns = min(batch.observed_ns - self._out_of_orderness_ns, span.last_ns)
                for flows in table.advance(until_ns, ROWS):
                    yield self._counted.flows(flows)
                rejects += _duplicate_rejects(table, self._max_rejects - len(rejects))
        if table is not None:
            for flows in table.finish(span.last_ns):
                yield self._counted.flows(flows)
            rejects += _duplicate_rejects(table, self._max_rejects - len(rejects))
            self._counted.table(table)
        self._counted.span(span)
        self._counted.report(report)
        for reject in (*report.samples, *rejects):
            yield TaggedOutput("rejects", reject)


def _packet_rejects(reason: str, packets: np.ndarray, batch: PacketBatch, most: int) -> list[Reject]:
    """Each of at most `most` packets as an Avro block of its own, which keeps all that is known of it."""
    return [
        Reject(
            "assemble",
            reason,
            batch.stream.sensor,
            batch.sequence,
            avro.encode_block(batch._replace(packets=packets[i : i + 1])),
        )
        for i in range(min(len(packets), max(most, 0)))
    ]


def _duplicate_rejects(table: FlowTable, most: int) -> list[Reject]:
    """At most `most` of the packets that the table refused since the last call, which it then forgets."""
    rejects: list[Reject] = []
    for packets in table.take_duplicates():
        batch = PacketBatch(Stream(table.sensor), 0, 0, packets)
        rejects += _packet_rejects(REJECT_DUPLICATE, packets, batch, most - len(rejects))
    return rejects


class AssembleFlows(beam.PTransform):
    """Assembles flows from blocks of packets that arrive in any order, perhaps repeated, split into shards.

    Input: `PacketBatch`, bounded, the blocks of whole streams. Output: as `AssembleCaptures`, and the same flows.

    Args:
        settings: How flows are assembled.
        shards: Number of tables for each sensor.
        merge_sensors: All sensors see one line.
        max_rejects: At most so many repeated packets of a shard are put out.
    """

    def __init__(
        self, settings: FlowSettings, shards: int = 8, merge_sensors: bool = False, max_rejects: int = 10_000
    ) -> None:
        super().__init__()
        self._split = ShardPackets(shards, merge_sensors)
        self._fn = _AssembleShardFn(settings, max_rejects)

    def expand(self, batches):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        shards = batches | "ShardPackets" >> self._split | "GroupShards" >> beam.GroupByKey()
        outputs = shards | "Assemble" >> beam.ParDo(self._fn).with_outputs("rejects", main="flows")
        return AssembledFlows(outputs["flows"], outputs["rejects"])


class _AssembleShardFn(beam.DoFn):
    def __init__(self, settings: FlowSettings, max_rejects: int) -> None:
        self._settings, self._max_rejects = settings, max_rejects

    def setup(self) -> None:
        self._columns = self._settings.columns()
        self._counted = Counted()

    def process(self, shard: tuple[tuple[str, int], Iterable[PacketBatch]]) -> Iterator[pa.RecordBatch | Rejected]:
        (sensor, number), arrived = shard
        parts: dict[tuple[Stream, int], PacketBatch] = {}
        for part in arrived:
            if (part.stream, part.sequence) in parts:
                if number == part.stream.partition % part.partitions:  # every shard has a part: one counts it
                    self._counted.repeated()
                continue
            parts[part.stream, part.sequence] = part
        table = self._settings.table(self._columns, sensor)
        rejects: list[Reject] = []
        for part, rest_ns in _by_time([part for part in parts.values() if len(part.packets)]):
            table.add(part)
            for flows in table.advance(rest_ns, ROWS):
                yield self._counted.flows(flows)
            rejects += _duplicate_rejects(table, self._max_rejects - len(rejects))
        for flows in table.finish(_end_of_input(parts.values())):
            yield self._counted.flows(flows)
        rejects += _duplicate_rejects(table, self._max_rejects - len(rejects))
        self._counted.table(table)
        for reject in rejects:
            yield TaggedOutput("rejects", reject)


def _by_time(parts: list[PacketBatch]) -> Iterator[tuple[PacketBatch, int]]:
    """The parts by their first time, each with the first time of all that come after it."""
    firsts = {id(part): int(part.packets["time_ns"].min()) for part in parts}
    ordered = sorted(parts, key=lambda part: firsts[id(part)])
    for part, following in zip_longest(ordered, ordered[1:]):
        yield part, firsts[id(following)] if following is not None else firsts[id(part)]


def _end_of_input(parts: Iterable[PacketBatch]) -> int:
    """The largest packet time of the sensor: what the end block says, else the last observed time."""
    ends = [part.observed_ns for part in parts if part.end] or [part.observed_ns for part in parts]
    return max(ends)


class ReadPackets(beam.PTransform):
    """Reads bounded inputs, one sensor each, as blocks of packets.

    Input: anything that `read` opens. Output: `PacketBatch`, in time order for each sensor; what was rejected.

    Args:
        read: Opens an element; called on the worker.
    """

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read

    def expand(self, inputs):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        outputs = inputs | "Read" >> beam.ParDo(_ReadFn(self._read)).with_outputs("rejects", main="packets")
        return outputs["packets"], outputs["rejects"]


class _ReadFn(beam.DoFn):
    def __init__(self, read: Read) -> None:
        self._read = read

    def setup(self) -> None:
        self._counted = Counted()

    def process(self, sensor_input: Any) -> Iterator[PacketBatch | Rejected]:
        report, batches = self._read(sensor_input)
        span = _Span()
        for batch in batches:
            span.add(batch.packets)
            yield batch
        self._counted.span(span)
        self._counted.report(report)
        for reject in report.samples:
            yield TaggedOutput("rejects", reject)

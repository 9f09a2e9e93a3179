"""From packets to flows, on Beam: two drivers of one flow table."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from transforms import coders as _coders
from transforms.counted import Counted, ReadReport, Span
from transforms.flow_records import ROWS, FlowColumns
from transforms.flow_table import FlowTable
from transforms.handover import BY_VALUE, Handover
from transforms.prefetch import ahead
from transforms.records import REJECT_LATE, InputError, PacketBatch, Reject, SensorEvent
from transforms.rules import nanoseconds
from transforms.settings import FlowSettings
from transforms.shard import ShardPackets
from transforms.shard_drivers import (
    TABLE_CACHE_OCTETS,
    BoundedShardFn,
    EndlessShardFn,
    MakeColumnsFn,
    duplicate_rejects,
    packet_rejects,
)
from transforms.stream_line import StreamRules

assert _coders  # imported for the coders that it registers

FLOWS_AHEAD = 4
"""Batches of flows assembled before they are asked for: what is done with flows overlaps with assembling more."""

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]


class AssembledFlows(NamedTuple):
    """What assembling gives."""

    flows: beam.PCollection[pa.RecordBatch]
    rejects: beam.PCollection[Reject]


class FollowedFlows(NamedTuple):
    """What assembling endless input gives."""

    flows: beam.PCollection[pa.RecordBatch]
    rejects: beam.PCollection[Reject]
    events: beam.PCollection[SensorEvent]


Read = Callable[[Any], tuple[ReadReport, Iterable[PacketBatch]]]
"""Opens a sensor's input: its packets in time order, and the report, complete when they are read."""


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
        line = _Line(self._sensor, self._settings, self._columns, self._out_of_orderness_ns, self._max_rejects)
        with ahead(batches) as arriving, ahead(line.flows(arriving), FLOWS_AHEAD) as assembled:
            for flows in assembled:
                yield self._counted.flows(flows)
        if line.table is not None:
            self._counted.table(line.table)
        self._counted.span(line.span)
        self._counted.report(report)
        for reject in (*report.samples, *line.rejects):
            yield TaggedOutput("rejects", reject)


class _Line:
    """What one sensor's packets become; read once, from whatever thread."""

    def __init__(
        self, sensor: str | None, settings: FlowSettings, columns: FlowColumns, out_of_orderness_ns: int, most: int
    ) -> None:
        self._sensor, self._settings, self._columns = sensor, settings, columns
        self._out_of_orderness_ns, self._max_rejects = out_of_orderness_ns, most
        self.table: FlowTable | None = None
        self.rejects: list[Reject] = []
        self.span = Span()

    def flows(self, batches: Iterable[PacketBatch]) -> Iterator[pa.RecordBatch]:
        table, end_ns = None, None
        for batch in batches:
            if table is None:
                table = self.table = self._settings.table(self._columns, self._sensor or batch.stream.sensor)
            self.span.add(batch.packets)
            if batch.end:
                end_ns = batch.observed_ns
            late = table.add(batch)
            self.rejects += packet_rejects(REJECT_LATE, late, batch, self._max_rejects - len(self.rejects))
            yield from table.advance(batch.observed_ns - self._out_of_orderness_ns, ROWS)
            self.rejects += duplicate_rejects(table, self._max_rejects - len(self.rejects))
        if table is not None:
            yield from table.finish(self.span.last_ns if end_ns is None else end_ns)
            self.rejects += duplicate_rejects(table, self._max_rejects - len(self.rejects))


class AssembleFlows(beam.PTransform):
    """Assembles flows from blocks of packets that arrive in any order, perhaps repeated, split into shards.

    Input: `PacketBatch`, or `Arrival` with what a queue says of it. Output: as `AssembleCaptures`, and the same flows.
    Bounded input is the blocks of whole streams, sorted whole. Endless input is followed in observed time: flows come
    out as soon as their sensor has observed a time at which they have ended, and `events` tells of the sensors.

    Args:
        settings: How flows are assembled.
        shards: Number of tables for each sensor.
        merge_sensors: All sensors see one line.
        max_rejects: At most so many repeated packets of a shard are put out, of bounded input.
        rules: How endless streams are followed.
        table_cache_octets: A worker process keeps tables up to this size; others are made again from state.
        handover: How packets of endless input get to the shards.
    """

    def __init__(
        self,
        settings: FlowSettings,
        shards: int = 8,
        merge_sensors: bool = False,
        max_rejects: int = 10_000,
        rules: StreamRules | None = None,
        table_cache_octets: int = TABLE_CACHE_OCTETS,
        handover: Handover = BY_VALUE,
    ) -> None:
        super().__init__()
        rules = rules or StreamRules()
        self._endless_needs_sensors = merge_sensors and not rules.sensors
        self._bounded = BoundedShardFn(settings, max_rejects)
        self._endless = EndlessShardFn(settings, rules, table_cache_octets, handover)
        self._split = ShardPackets(shards, merge_sensors, handover)
        self._columns = MakeColumnsFn(settings)

    def expand(self, batches):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        shards = batches | "ShardPackets" >> self._split
        if batches.is_bounded:
            together = shards | "GroupShards" >> beam.GroupByKey()
            outputs = together | "Assemble" >> beam.ParDo(self._bounded).with_outputs("rejects", main="flows")
            return AssembledFlows(outputs["flows"], outputs["rejects"])
        if self._endless_needs_sensors:
            raise InputError("--merge_sensors: on endless input it must be known whom to wait for; add --sensors a,b,…")
        outputs = shards | "Assemble" >> beam.ParDo(self._endless).with_outputs("rejects", "events", main="ended")
        flows = outputs["ended"] | "MakeColumns" >> beam.ParDo(self._columns).with_output_types(pa.RecordBatch)
        return FollowedFlows(flows, outputs["rejects"], outputs["events"])


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
        span = Span()
        for batch in batches:
            span.add(batch.packets)
            yield batch
        self._counted.span(span)
        self._counted.report(report)
        for reject in report.samples:
            yield TaggedOutput("rejects", reject)

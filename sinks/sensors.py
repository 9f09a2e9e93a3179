"""What whoever runs sensors should know, as Parquet files in a folder of its own: one row for each event of a sensor.

`SELECT sensor, event, sum(amount), max(time_ns) FROM 'sensors/**/*.parquet' GROUP BY ALL`. In a streaming job files are
in folders by day. Without any event, there is no folder.
"""

import logging
import os
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from sinks.hourly import HourlyCount
from sinks.row_files import RowFiles, write_rows
from transforms.records import (
    EVENT_DROPPING,
    EVENT_ENDED,
    EVENT_FROM_FUTURE,
    EVENT_JOINED,
    EVENT_KILLED,
    EVENT_LATE_PACKETS,
    EVENT_LOST_BLOCKS,
    EVENT_REPLACED,
    EVENT_SILENT,
    EVENT_STALE,
    EVENT_STARTED,
    NO_TIME,
    SensorEvent,
    SensorHealth,
)

_log = logging.getLogger(__name__)

_EVENTS = (
    EVENT_STARTED,
    EVENT_ENDED,
    EVENT_KILLED,
    EVENT_JOINED,
    EVENT_DROPPING,
    EVENT_LOST_BLOCKS,
    EVENT_LATE_PACKETS,
    EVENT_FROM_FUTURE,
    EVENT_STALE,
    EVENT_REPLACED,
    EVENT_SILENT,
)

_TROUBLES = (
    EVENT_KILLED,
    EVENT_REPLACED,
    EVENT_DROPPING,
    EVENT_LOST_BLOCKS,
    EVENT_LATE_PACKETS,
    EVENT_FROM_FUTURE,
    EVENT_SILENT,
)
"""Whoever runs sensors has to do something; `stale` is told in the job's own figures."""

_COLUMNS = (
    ("sensor", pa.string(), "Name of the sensor."),
    ("epoch", pa.int64(), "Its run: when that began, ns since the Unix epoch."),
    ("partition", pa.int32(), "The part of the queue concerned."),
    ("event", pa.string(), f"{', '.join(_EVENTS)}."),
    ("time_ns", pa.int64(), "The sensor's observed time then, since the Unix epoch; null if unknown."),
    ("received_ns", pa.int64(), "When the queue received the block that showed it; null if the queue does not say."),
    ("sequence", pa.int64(), "Number of that block, or the first of those that are missing."),
    ("amount", pa.int64(), "Packets or blocks concerned; of `stale` ns behind, of `killed` ns until the next run."),
    ("cpu_percent", pa.float64(), "Use of the sensor's processes, of one core; null where it did not say."),
    ("memory_octets", pa.int64(), "Its resident memory."),
    ("queued_blocks", pa.int64(), "Blocks that it held and the queue had not accepted."),
    ("queued_octets", pa.int64(), "Their size."),
    ("captured_packets", pa.int64(), "Packets taken from the line since its start."),
    ("clock_error_ns", pa.int64(), "Largest error of its clock; null if unknown."),
)

NAME = "sensors"

_UNKNOWN = -1


class SensorFiles(RowFiles):
    """Events of sensors as rows."""

    counter = "events_written"
    schema = pa.schema(
        [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _COLUMNS], {"record": "SensorEvent"}
    )

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(NAME, folder)

    def row(self, event: SensorEvent) -> dict[str, Any]:
        """The event and, where the sensor told it, its health."""
        row = {name: None if value == NO_TIME else value for name, value in event._asdict().items() if name != "health"}
        health = event.health._asdict() if event.health else dict.fromkeys(SensorHealth._fields)
        if health["clock_error_ns"] == _UNKNOWN:
            health["clock_error_ns"] = None
        return {**row, **health}


class WriteSensorEvents(beam.PTransform):
    """Counts the events of sensors by kind and writes them.

    Input: `SensorEvent`s, bounded or not. Every one is counted in the namespace `sensors` under its kind. In a bounded
    job a repeated bundle replaces its file; in a streaming job a finished bundle is in a journal, and in a file within
    `file_max_age_s`.

    Args:
        folder: Where files go; it is made with the first of them.
        job: As in `SinkContext`, like the rest.
        streaming: Whether the input does not end.
        file_max_age_s: When files of a streaming job appear.

    Raises:
        InputError: The folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        job: str = "job",
        streaming: bool = False,
        file_max_age_s: float = 60.0,
    ) -> None:
        super().__init__()
        self.files = SensorFiles(folder)
        self.job = job
        self.streaming = streaming
        self.file_max_age_s = file_max_age_s
        self.files.check()

    def expand(self, events: beam.PCollection[SensorEvent]) -> beam.PCollection[None]:
        """Adds the steps that count and write."""
        counted = events | "Count" >> beam.Map(_counted).with_output_types(SensorEvent)
        write = write_rows(self.files, self.job, self.streaming, self.file_max_age_s)
        return counted | ("AppendEvents" if self.streaming else "WriteFiles") >> beam.ParDo(write)


_told = HourlyCount()


def rows_of(event: SensorEvent) -> pa.RecordBatch:
    """The event as a batch of one row."""
    return SensorFiles("").batch([event])


def _counted(event: SensorEvent) -> SensorEvent:
    Metrics.counter("sensors", event.event).inc()
    if event.event in _TROUBLES and _told.add(f"{event.sensor} {event.event}") == 1:
        _log.warning("sensor %s: %s: the first of this hour", event.sensor, event.event)
    return event

"""Reading a queue to its end: on one machine stream by stream, as captures are read, or with Beam."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

import queues
from sources import number_runs
from sources.captures import ReadReport, ReadSettings
from sources.number_runs import Runs
from transforms import avro
from transforms.records import (
    FRAGMENT_LATER,
    TRANSPORT_TRUNCATED,
    Delivery,
    InputError,
    PacketBatch,
    Reject,
    Stream,
)

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]

_log = logging.getLogger(__name__)


class QueueInput(NamedTuple):
    """What a queue holds of one stream. All packets of a flow are in one.

    Attributes:
        url: The queue.
        stream: Sensor, epoch and partition.
        parts: Files or the like, in the order of its blocks.
        damage: One line for each part of the queue that cannot be used at all; told with the first stream.
    """

    url: str
    stream: Stream
    parts: tuple[str, ...]
    damage: tuple[str, ...] = ()


def queue_inputs(url: str) -> list[QueueInput]:
    """The streams of a queue such as `spool:DIR`.

    Raises:
        InputError: There is no such queue, or nothing in it can be read.
    """
    reader = queues.open_reader(url)
    inputs = [QueueInput(url, stream, parts) for stream, parts in sorted(reader.parts().items())]
    return [inputs[0]._replace(damage=tuple(reader.damage)), *inputs[1:]]


def read_packets(
    queue_input: QueueInput,
    settings: ReadSettings,
    report: ReadReport,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[PacketBatch]:
    """Batches of a stream, by number, each once; packets keep the order that they were captured in.

    The report says of the packets what it said when they were captured. Blocks that cannot be decoded are samples, with
    step `decode`, and a line under `damage`, as are blocks that are missing and a stream without end.

    Args:
        queue_input: The stream and its part of the queue.
        settings: Payload prefixes are cut to `headers.payload_octets`; the rest was settled at the capture.
        report: Counts what was read; complete when the iterator ends.
        on_progress: Called with `report.octets_read` as it grows.

    Raises:
        InputError: If nothing of the stream can be read.
    """
    report.damage += queue_input.damage
    reader = queues.open_reader(queue_input.url)
    seen = _Seen()
    for part in queue_input.parts:
        try:
            for message in reader.read(part):
                report.octets_read += len(message.octets)
                batch = _decoded(message, settings.max_rejects, report)
                if batch is None:
                    continue
                if seen.before(batch):
                    report.blocks_repeated += 1
                    continue
                _count(batch, report)
                yield batch.with_payloads_up_to(settings.headers.payload_octets)
                if on_progress is not None:
                    on_progress(report.octets_read)
        except queues.Damaged as damage:
            report.damage.append(str(damage))
    report.damage += seen.complaints(queue_input.url)
    if not seen.streams:
        raise InputError("; ".join(report.damage))


def _decoded(message: queues.Message, max_rejects: int, report: ReadReport) -> PacketBatch | None:
    try:
        return avro.decode_block(message.octets, message.source)
    except avro.BlockDecodeError as error:
        line = f"{message.source}: block at offset {message.position} is left out: {error}"
        report.damage.append(line)
        if len(report.samples) < max_rejects:
            reject = Reject("decode", str(error), message.source, message.position, message.octets)
            report.samples.append(reject)
        return None


def _count(batch: PacketBatch, report: ReadReport) -> None:
    rejects = dict(batch.rejects)
    report.rejects.update(rejects)
    report.packets_read += len(batch.packets) + sum(rejects.values())
    report.transport_truncated += int(np.count_nonzero(batch.packets["transport"] == TRANSPORT_TRUNCATED))
    report.fragments_unresolved += int(np.count_nonzero(batch.packets["fragment"] == FRAGMENT_LATER))
    report.interface_drops += batch.dropped


class _Seen:
    """Which blocks have come."""

    def __init__(self) -> None:
        self.streams: dict[Stream, Runs] = {}
        self._ended: set[Stream] = set()

    def before(self, batch: PacketBatch) -> bool:
        """Whether the block has come before; from now on it has."""
        if not number_runs.add(self.streams.setdefault(batch.stream, []), batch.sequence):
            return True
        if batch.end:
            self._ended.add(batch.stream)
        return False

    def complaints(self, url: str) -> Iterable[str]:
        """A line for each stream with gaps or without end."""
        for stream, runs in self.streams.items():
            name = f"{url}: sensor {stream.sensor}"
            numbers = runs[-1][1]
            missing = numbers - sum(after - first for first, after in runs)
            if missing:
                yield f"{name}: {missing} of {numbers} blocks are missing; flows lack their packets"
            if stream not in self._ended:
                yield f"{name}: its last block is missing; the capture was stopped, or still runs"


class QueueDeliveries(NamedTuple):
    """What reading a queue gives: blocks as they lie there, perhaps repeated, and what could not be read."""

    deliveries: beam.PCollection[Delivery]
    rejects: beam.PCollection[Reject]


class ReadQueue(beam.PTransform):
    """Reads a bounded queue; the blocks are for `DecodePackets`.

    Output: `deliveries`, one block per element in the single-object encoding, in any order; `rejects`, the pieces at
    which damaged files break off. What follows them in their file is lost, which is one warning.

    Args:
        url: The queue, such as `spool:DIR`; the workers must reach it under this name.

    Raises:
        InputError: There is no such queue, or nothing in it can be read.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        reader = queues.open_reader(url)
        self._parts = [part for parts in reader.parts().values() for part in parts]
        for line in reader.damage:
            _log.warning("%s", line)

    def expand(self, pipeline):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        parts = pipeline | "Parts" >> beam.Create(self._parts)
        outputs = parts | "Read" >> beam.ParDo(_ReadPartFn(self._url)).with_outputs("rejects", main="deliveries")
        return QueueDeliveries(outputs["deliveries"], outputs["rejects"])


class _ReadPartFn(beam.DoFn):
    def __init__(self, url: str) -> None:
        self._url = url
        self._read = Metrics.counter("read_queue", "blocks_read")
        self._damaged = Metrics.counter("read_queue", "parts_damaged")

    def process(self, part: str) -> Iterator[Delivery | Rejected]:
        try:
            for message in queues.open_reader(self._url).read(part):
                self._read.inc()
                yield Delivery(*message)
        except queues.Damaged as damage:
            self._damaged.inc()
            _log.warning("%s", damage)
            reject = Reject("read", "damaged", damage.source, damage.position, damage.piece)
            yield TaggedOutput("rejects", reject)

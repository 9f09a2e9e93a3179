"""From the octets of a queue to batches of packets."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms import avro
from transforms import coders as _coders
from transforms.records import PacketBatch, Reject

assert _coders  # imported for the coders that it registers

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]


class DecodedPackets(NamedTuple):
    """What decoding gives."""

    packets: beam.PCollection[PacketBatch]
    rejects: beam.PCollection[Reject]


class DecodePackets(beam.PTransform):
    """Decodes queue payloads; each ends up in exactly one of the two outputs.

    Input: one Avro `PacketBlock` per element, in any order, perhaps repeated. Output: `packets`, at the event time of
    each block's first packet, an empty block at its `observed_ns`; `rejects`, what could not be read, with step, reason
    and the payload itself.
    """

    def expand(self, payloads):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        outputs = payloads | "Decode" >> beam.ParDo(_DecodeFn()).with_outputs("rejects", main="packets")
        return DecodedPackets(outputs["packets"], outputs["rejects"])


def timestamp_of(batch: PacketBatch) -> Timestamp:
    """The event time of a batch, cut to microseconds as Beam's times are; never a flow's time."""
    time_ns = int(batch.packets["time_ns"][0]) if len(batch.packets) else batch.observed_ns
    return Timestamp(micros=time_ns // 1000)


class _DecodeFn(beam.DoFn):
    def __init__(self) -> None:
        self._decoded = Metrics.counter("decode", "blocks_decoded")
        self._packets = Metrics.counter("decode", "packets_decoded")
        self._undecodable = Metrics.counter("decode", "blocks_undecodable")

    def process(self, payload: bytes) -> Iterator[PacketBatch | Rejected]:
        try:
            batch = avro.decode_block(payload)
        except avro.BlockDecodeError as error:
            self._undecodable.inc()
            reject = Reject("decode", str(error), error.source, error.position, payload)
            yield TaggedOutput("rejects", reject)
            return
        self._decoded.inc()
        self._packets.inc(len(batch.packets))
        yield TimestampedValue(batch, timestamp_of(batch))

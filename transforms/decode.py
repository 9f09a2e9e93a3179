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
from transforms.arrivals import Arrival
from transforms.records import NO_TIME, Delivery, PacketBatch, Reject

assert _coders  # imported for the coders that it registers

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]


class DecodedPackets(NamedTuple):
    """What decoding gives."""

    arrivals: beam.PCollection[Arrival]
    rejects: beam.PCollection[Reject]


class DecodePackets(beam.PTransform):
    """Decodes what a queue delivered; each block ends up in exactly one of the two outputs.

    Input: `Delivery`, one Avro `PacketBlock` each, in any order, perhaps repeated. Output: `arrivals`, at the event
    time of each block's first packet, an empty block at its `observed_ns`; `rejects`, what could not be read, with
    step, reason and the payload itself. Gaps that come with a damaged block go on without it.

    Args:
        payload_octets: Payload prefixes are cut to as many; None keeps them as they are.
    """

    def __init__(self, payload_octets: int | None = None) -> None:
        super().__init__()
        self._payload_octets = payload_octets

    def expand(self, deliveries):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        decode = beam.ParDo(_DecodeFn(self._payload_octets))
        outputs = deliveries | "Decode" >> decode.with_outputs("rejects", main="arrivals")
        return DecodedPackets(outputs["arrivals"], outputs["rejects"])


def timestamp_of(batch: PacketBatch) -> Timestamp:
    """The event time of a batch, cut to microseconds as Beam's times are; never a flow's time."""
    time_ns = int(batch.packets["time_ns"][0]) if len(batch.packets) else batch.observed_ns
    return Timestamp(micros=time_ns // 1000)


class _DecodeFn(beam.DoFn):
    def __init__(self, payload_octets: int | None) -> None:
        self._payload_octets = payload_octets
        self._decoded = Metrics.counter("decode", "blocks_decoded")
        self._packets = Metrics.counter("decode", "packets_decoded")
        self._undecodable = Metrics.counter("decode", "blocks_undecodable")
        self._in_queue = Metrics.distribution("decode", "observed_to_received_ms")

    def process(self, delivery: Delivery) -> Iterator[Arrival | Rejected]:
        octets, source, position, received_ns, follows, ordered, gaps = delivery
        try:
            batch = avro.decode_block(octets, source) if octets else None
        except avro.BlockDecodeError as error:
            self._undecodable.inc()
            yield TaggedOutput("rejects", Reject("decode", str(error), source, position, octets))
            batch = None
        if batch is None:
            if gaps:
                yield Arrival(None, received_ns, follows, ordered, gaps)
            return
        self._decoded.inc()
        self._packets.inc(len(batch.packets))
        if received_ns != NO_TIME:
            self._in_queue.update((received_ns - batch.observed_ns) // 1_000_000)
        if self._payload_octets is not None:
            batch = batch.with_payloads_up_to(self._payload_octets)
        yield TimestampedValue(Arrival(batch, received_ns, follows, ordered, gaps), timestamp_of(batch))

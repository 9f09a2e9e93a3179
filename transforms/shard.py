"""Splits packet blocks by flow, so that shards can be assembled on their own."""

from collections.abc import Iterator

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms import coders as _coders
from transforms.arrivals import Arrival
from transforms.handover import BY_VALUE, Handover
from transforms.identity import packet_shard
from transforms.kernel import kernel
from transforms.records import MERGED_SENSORS, PACKET, InputError, PacketBatch

assert _coders  # imported for the coders that it registers

MOST_PACKETS = 131_072
"""A bundle's parts are handed on once they have as many packets."""


@kernel
def _split(packets, shards, of, begins, out):
    """Stable counting sort by shard: shard *s* gets `out[begins[s]:begins[s + 1]]`."""
    for i in range(len(packets)):
        shard = np.int64(packet_shard(packets[i]) % np.uint64(shards))
        of[i] = shard
        begins[shard + 1] += 1
    for shard in range(shards):
        begins[shard + 1] += begins[shard]
    at = begins.copy()
    for i in range(len(packets)):
        out[at[of[i]]] = packets[i]
        at[of[i]] += 1


def split(packets: np.ndarray, shards: int) -> list[np.ndarray]:
    """The packets of each shard, in their order; all packets of a flow, both ways, are in one."""
    begins = np.zeros(shards + 1, np.int64)
    out = np.empty(len(packets), PACKET)
    _split(packets, shards, np.empty(len(packets), np.int64), begins, out)
    return [out[begins[shard] : begins[shard + 1]] for shard in range(shards)]


class ShardPackets(beam.PTransform):
    """Hands every shard its part of every block, if only an empty one: so it knows how far time has come.

    Input: `PacketBatch` or `Arrival`, in any order. Output: `((sensor, shard), octets)`, what `handover` gives for
    all that a bundle has for the shard, or some of it; stream, sequence and observed time are those of the whole
    blocks. A stream of one of several partitions concerns only the shards *s* with *s* mod partitions = partition. A
    sensor whose partitions do not fit the shards fails the bundle: its packets would be in no flow.

    Args:
        shards: Number of shards.
        merge_sensors: All sensors see one line: their packets make flows together, of the sensor `*`.
        handover: How the parts get there.
    """

    def __init__(self, shards: int, merge_sensors: bool = False, handover: Handover = BY_VALUE) -> None:
        super().__init__()
        self._fn = _SplitFn(shards, merge_sensors, handover)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Applies the transform."""
        return batches | "Split" >> beam.ParDo(self._fn).with_output_types(tuple[tuple[str, int], bytes])


class _SplitFn(beam.DoFn):
    def __init__(self, shards: int, merge_sensors: bool, handover: Handover) -> None:
        self._shards, self._merge, self._handover = shards, merge_sensors, handover
        self._waited = Metrics.counter("shard", "ms_held_back")

    def start_bundle(self) -> None:
        self._waited.inc(round(1000 * self._handover.wait()))
        self._parts: dict[tuple[str, int], list[Arrival]] = {}
        self._packets = 0

    def process(
        self, element: PacketBatch | Arrival, timestamp: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[WindowedValue]:
        # Prism would sort what waits for a shard by its times, and of merged sensors the queue's order counts
        self._timestamp = MIN_TIMESTAMP if self._merge and not self._handover.lasting else timestamp
        arrival = element if isinstance(element, Arrival) else Arrival(element)
        for gap in arrival.gaps:
            for shard in range(gap.stream.partition, self._shards, gap.partitions):
                self._part(gap.stream.sensor, shard).append(Arrival(None, arrival.received_ns, gaps=(gap,)))
        if arrival.batch is not None:
            for shard, packets in self._split(arrival.batch):
                part = arrival._replace(batch=arrival.batch._replace(packets=packets), gaps=())
                self._part(arrival.batch.stream.sensor, shard).append(part)
            self._packets += len(arrival.batch.packets)
        if self._packets > MOST_PACKETS:
            yield from self._packed()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._packed()

    def _part(self, sensor: str, shard: int) -> list[Arrival]:
        return self._parts.setdefault((MERGED_SENSORS if self._merge else sensor, shard), [])

    def _packed(self) -> Iterator[WindowedValue]:
        """What the shards get, each `((sensor, shard), octets)`."""
        for key, parts in self._parts.items():
            yield WindowedValue((key, self._handover.give(parts)), self._timestamp, [GlobalWindow()])
        self._parts, self._packets = {}, 0

    def _split(self, batch: PacketBatch) -> Iterator[tuple[int, np.ndarray]]:
        """The packets of each shard that the stream concerns."""
        sensor = batch.stream.sensor
        partition, partitions = batch.stream.partition, batch.partitions
        if self._shards % partitions or partition >= partitions:
            raise InputError(
                f"--shards: {self._shards} is no multiple of the {partitions} partitions that sensor"
                f" {sensor!r} writes to (here number {partition}); make it one"
            )
        for shard, packets in enumerate(split(batch.packets, self._shards)):
            if shard % partitions == partition:
                yield shard, packets
            elif len(packets):
                raise InputError(
                    f"sensor {sensor!r}: block {batch.sequence} of partition {partition} has packets of"
                    f" another partition; it must be split by the shard hash modulo {partitions}"
                )

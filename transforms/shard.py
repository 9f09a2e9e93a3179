"""Splits packet blocks by flow, so that shards can be assembled on their own."""

from collections.abc import Iterator

import apache_beam as beam
import numpy as np

from transforms import coders  # noqa: F401 - registers the coder of PacketBatch
from transforms.identity import packet_shard
from transforms.kernel import kernel
from transforms.records import MERGED_SENSORS, PACKET, InputError, PacketBatch


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

    Input: `PacketBatch`, in any order. Output: `((sensor, shard), PacketBatch)`; stream, sequence and observed time are
    those of the whole block. A stream of one of several partitions concerns only the shards *s* with *s* mod
    partitions = partition. A sensor whose partitions do not fit the shards fails the bundle: its packets would be in no
    flow.

    Args:
        shards: Number of shards.
        merge_sensors: All sensors see one line: their packets make flows together, of the sensor `*`.
    """

    def __init__(self, shards: int, merge_sensors: bool = False) -> None:
        super().__init__()
        self.shards, self.merge_sensors = shards, merge_sensors

    def expand(self, batches: beam.PCollection[PacketBatch]) -> beam.PCollection:
        """Applies the transform."""
        return batches | "Split" >> beam.ParDo(_SplitFn(self.shards, self.merge_sensors)).with_output_types(
            tuple[tuple[str, int], PacketBatch]
        )


class _SplitFn(beam.DoFn):
    def __init__(self, shards: int, merge_sensors: bool) -> None:
        self._shards, self._merge = shards, merge_sensors

    def process(self, batch: PacketBatch) -> Iterator[tuple[tuple[str, int], PacketBatch]]:
        sensor = MERGED_SENSORS if self._merge else batch.stream.sensor
        partition, partitions = batch.stream.partition, batch.partitions
        if self._shards % partitions or partition >= partitions:
            raise InputError(
                f"--shards: {self._shards} is no multiple of the {partitions} partitions that sensor"
                f" {batch.stream.sensor!r} writes to (here number {partition}); make it one"
            )
        for shard, packets in enumerate(split(batch.packets, self._shards)):
            if shard % partitions == partition:
                yield (sensor, shard), batch._replace(packets=packets)
            elif len(packets):
                raise InputError(
                    f"sensor {batch.stream.sensor!r}: block {batch.sequence} of partition {partition} has packets of"
                    f" another partition; it must be split by the shard hash modulo {partitions}"
                )

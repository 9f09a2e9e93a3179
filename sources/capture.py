"""Batches of packets onto a queue."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from queues import QueueWriter
from sources.captures import ReadReport
from transforms import avro
from transforms.records import PACKET, PacketBatch, Stream


def publish(batches: Iterable[PacketBatch], queue: QueueWriter) -> int:
    """Encodes blocks onto the queue in capture order; waits while it is full, never drops. Returns their number."""
    blocks = 0
    for batch in batches:
        queue.put(avro.encode_block(batch))
        blocks += 1
    return blocks


def closed(batches: Iterable[PacketBatch], sensor: str, report: ReadReport) -> Iterator[PacketBatch]:
    """The batches of a sensor's files with what was refused between them, and the block that ends their stream.

    The counts in all blocks add up to those of `report`, so that whoever reads the queue knows of every packet read. A
    sensor without packets gives one block, the end.

    Args:
        batches: As `captures.read_packets` gives them, with the same `report`.
        sensor: Name of the sensor.
        report: Is complete when `batches` ends.
    """
    told: Counter[str] = Counter()
    dropped = 0
    end = PacketBatch(Stream(sensor), 0, 0, np.zeros(0, PACKET), end=True)
    for batch in batches:
        refused, lost = Counter(report.rejects), report.interface_drops
        yield batch._replace(rejects=tuple(sorted((refused - told).items())), dropped=lost - dropped)
        told, dropped = refused, lost
        end = end._replace(stream=batch.stream, sequence=batch.sequence + 1, observed_ns=batch.observed_ns)
    rejects = tuple(sorted((report.rejects - told).items()))
    yield end._replace(rejects=rejects, dropped=report.interface_drops - dropped)

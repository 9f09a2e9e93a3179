"""How far a Kafka partition was read, as a runner keeps it."""

from dataclasses import dataclass

from apache_beam.coders import Coder

from sources.queue_order import QueueOrder
from sources.streaming.reading_tracker import Reading


@dataclass
class PartitionProgress:
    """What was read of a partition.

    Attributes:
        offset: Where to go on.
        order: What the order of the blocks before tells.
    """

    offset: int
    order: QueueOrder


class PartitionReadingCoder(Coder):
    """A reading of a partition: whether it is over, the offset, the order."""

    def encode(self, value: Reading) -> bytes:
        """One octet, eight octets, and the rest."""
        progress: PartitionProgress = value.progress
        return bytes([value.over]) + progress.offset.to_bytes(8, "big", signed=True) + progress.order.to_bytes()

    def decode(self, encoded: bytes) -> Reading:
        """The inverse."""
        offset = int.from_bytes(encoded[1:9], "big", signed=True)
        return Reading(PartitionProgress(offset, QueueOrder.from_bytes(encoded[9:])), bool(encoded[0]))

    def is_deterministic(self) -> bool:
        """It is no key."""
        return False

"""Beam coders of the element types: deterministic, registered when this module is imported."""

import apache_beam as beam
import pyarrow as pa

from transforms import arrivals, avro
from transforms.arrivals import Arrival
from transforms.records import PacketBatch


class PacketBatchCoder(beam.coders.Coder):
    """A batch as the Avro block that it would be on a queue."""

    def encode(self, value: PacketBatch) -> bytes:
        """The block's octets."""
        return avro.encode_block(value)

    def decode(self, encoded: bytes) -> PacketBatch:
        """The batch of a block."""
        return avro.decode_block(encoded)

    def estimate_size(self, value: PacketBatch) -> int:
        """Octets in memory: Beam samples sizes for its metrics, and would encode the batch to know its own."""
        return value.packets.nbytes + len(value.payloads)

    def is_deterministic(self) -> bool:
        """Equal batches give equal octets."""
        return True

    def to_type_hint(self) -> type:
        """The element type."""
        return PacketBatch


class RecordBatchCoder(beam.coders.Coder):
    """A record batch as an Arrow IPC stream."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Schema and batch."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as stream:
            stream.write_batch(value)
        return sink.getvalue().to_pybytes()

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The one batch of a stream."""
        with pa.ipc.open_stream(encoded) as stream:
            return stream.read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Octets in memory; as above."""
        return value.get_total_buffer_size()

    def is_deterministic(self) -> bool:
        """Equal batches give equal octets."""
        return True

    def to_type_hint(self) -> type:
        """The element type."""
        return pa.RecordBatch


class ArrivalCoder(beam.coders.Coder):
    """An arrival as shards keep it."""

    def encode(self, value: Arrival) -> bytes:
        """Block, and what the queue says of it."""
        return arrivals.pack([value])

    def decode(self, encoded: bytes) -> Arrival:
        """The one arrival."""
        return next(arrivals.unpack(encoded))

    def estimate_size(self, value: Arrival) -> int:
        """Octets in memory; as above."""
        return 100 if value.batch is None else value.batch.packets.nbytes + len(value.batch.payloads)

    def is_deterministic(self) -> bool:
        """Equal arrivals give equal octets."""
        return True

    def to_type_hint(self) -> type:
        """The element type."""
        return Arrival


beam.coders.registry.register_coder(Arrival, ArrivalCoder)
beam.coders.registry.register_coder(PacketBatch, PacketBatchCoder)
beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)

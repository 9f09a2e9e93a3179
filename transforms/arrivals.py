"""Blocks as a queue delivered them, decoded: what shards are fed with, and its form on the way to them."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from transforms import avro
from transforms.records import NO_TIME, Gap, PacketBatch, Stream


class Arrival(NamedTuple):
    """A block that came, or the part of it that concerns a shard.

    Attributes:
        batch: The block; None if there are only gaps to tell.
        received_ns: As in `Delivery`, like all that follow.
        follows: Epoch of the stream that must have ended before.
        ordered: The reader tells every gap.
        gaps: Numbers that will not come.
    """

    batch: PacketBatch | None
    received_ns: int = NO_TIME
    follows: int = -1
    ordered: bool = True
    gaps: tuple[Gap, ...] = ()


def pack(arrivals: list[Arrival]) -> bytes:
    """The arrivals as bytes, each with the Avro block of its batch: their size, and an LZ4 frame, half as large."""
    pieces = []
    for batch, received_ns, follows, ordered, gaps in arrivals:
        block = b"" if batch is None else avro.encode_block(batch)
        about = json.dumps([received_ns, follows, ordered, gaps], separators=(",", ":")).encode()
        pieces += [len(about).to_bytes(4, "little"), len(block).to_bytes(4, "little"), about, block]
    joined = b"".join(pieces)
    return len(joined).to_bytes(8, "little") + pa.compress(joined, "lz4", asbytes=True)


def unpack(octets: bytes) -> Iterator[Arrival]:
    """The inverse of `pack`."""
    size = int.from_bytes(octets[:8], "little")
    octets = pa.decompress(memoryview(octets)[8:], size, "lz4", asbytes=True)
    at = 0
    while at < len(octets):
        begin = at + 8
        middle = begin + int.from_bytes(octets[at : at + 4], "little")
        at = middle + int.from_bytes(octets[begin - 4 : begin], "little")
        received_ns, follows, ordered, gaps = json.loads(octets[begin:middle])
        told = tuple(Gap(Stream(*stream), *rest) for stream, *rest in gaps)
        batch = avro.decode_block(octets[middle:at]) if at > middle else None
        yield Arrival(batch, received_ns, follows, ordered, told)

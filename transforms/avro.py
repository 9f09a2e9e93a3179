"""Packet blocks as they travel on a queue: Avro single-object encoding of schemas/packet_block.avsc.

A message is C3 01, the CRC-64-AVRO fingerprint of the schema, and the block in Avro binary. The current schema has a
decoder of its own; blocks of other versions are read with fastavro by schema resolution.
"""

import functools
import io
import json
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from transforms import avro_columns, avro_kernels
from transforms.records import PACKET, PacketBatch, SensorHealth, Stream

FINGERPRINT = bytes.fromhex("8aceb8d5d8abc4f0")
"""CRC-64-AVRO of the current schema's Parsing Canonical Form, little-endian as messages carry it."""

MARKER = b"\xc3\x01"
"""Begins a single-object message (Avro 1.8 and later, "Single-object encoding")."""

HEADER_OCTETS = len(MARKER) + len(FINGERPRINT)

PACKET_OCTETS_MOST = avro_kernels.PACKET_OCTETS_MOST
"""Of a packet in a message, its payload prefix aside."""

MESSAGE_OCTETS_MOST = 2**31 - 1
"""Of a message; offsets in `PACKET` rows have 32 bits."""

_LEAST_LONG, _MOST_LONG, _MOST_INT = -(2**63), 2**63 - 1, 2**31 - 1
_SCHEMA_FOLDER = Path(__file__).parent / "schemas"
_HEALTH_TIMES_AND_COUNTS = SensorHealth._fields[1:]


class BlockDecodeError(ValueError):
    """A message is not a packet block; the text is one of a few, so that it can be counted under it.

    Attributes:
        source: File, topic or address that the message came from, as far as the caller told.
        position: Octet of the message where it stops to make sense; None if it is not one place.
    """

    def __init__(self, reason: str, source: str = "", position: int | None = None) -> None:
        super().__init__(reason)
        self.source = source
        self.position = position


@functools.cache
def schema_text() -> str:
    """The current schema, as files carry it: JSON on one line."""
    return json.dumps(json.loads((_SCHEMA_FOLDER / "packet_block.avsc").read_text()), ensure_ascii=False)


@functools.cache
def current_schema() -> dict[str, Any]:
    """The current schema as Python values."""
    schema: dict[str, Any] = json.loads(schema_text())
    return schema


@functools.cache
def known_schemas() -> dict[bytes, dict[str, Any]]:
    """Every version that can be read, by fingerprint: the files of the folder `schemas`."""
    schemas = (json.loads(path.read_text()) for path in sorted(_SCHEMA_FOLDER.glob("*.avsc")))
    return {fingerprint_of(schema): schema for schema in schemas}


def fingerprint_of(schema: dict[str, Any]) -> bytes:
    """CRC-64-AVRO of a schema's Parsing Canonical Form, little-endian.

    Raises:
        ValueError: It is no Avro schema.
    """
    from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form

    try:
        return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    except (SchemaParseException, UnknownType, LookupError, TypeError, AttributeError) as error:
        raise ValueError("no Avro schema") from error


def encode_block(batch: PacketBatch) -> bytes:
    """One message for one batch. Equal batches give equal bytes (`rejects` are sorted).

    `payload_entropy` is not carried: it follows from the payload.

    Raises:
        ValueError: A row or number is outside what `PACKET` or the schema allows; that is a fault of the program.
    """
    packets = np.require(batch.packets, PACKET, ("C", "W"))
    payloads = np.frombuffer(batch.payloads, np.uint8)
    carried = int(packets["payload_captured"].sum(dtype=np.int64))
    out = np.empty(len(packets) * avro_kernels.PACKET_OCTETS_MOST + carried, np.uint8)
    written = avro_kernels.encode_packets(packets, payloads, out)
    if written < 0:
        raise ValueError(
            f"packet {-1 - written} of block {batch.sequence} of {batch.stream} breaks the rules of PACKET"
        )
    count = encode_long(len(packets)) if len(packets) else b""
    return b"".join((MARKER, FINGERPRINT, _encoded_header(batch), count, out[:written].data, b"\0"))


def row_encoder(columns: pa.Schema) -> avro_columns.RowEncoder:
    """What makes single-object messages of the rows of record batches with these columns; it can be pickled.

    Raises:
        ValueError: A column has no Avro name, or a type that Avro has not.
    """
    schema = avro_columns.schema_of(columns)
    return avro_columns.RowEncoder(columns, schema, MARKER + fingerprint_of(schema))


def decode_block(message: bytes, source: str = "") -> PacketBatch:
    """The batch in a message.

    Any bytes give a batch or the one error; memory is bounded by a small multiple of the message. The batch's
    `payload_entropy` is NaN.

    Raises:
        BlockDecodeError: The message is no packet block, its schema is unknown, or it is damaged.
    """
    fingerprint = _fingerprint_in(message, source)
    if fingerprint == FINGERPRINT:
        return _decode(message, HEADER_OCTETS, source)
    schema = known_schemas().get(fingerprint)
    if schema is None:
        raise BlockDecodeError(f"unknown schema {fingerprint.hex()}", source, len(MARKER))
    return decode_with_schema(message[HEADER_OCTETS:], schema, 1, source)[0]


def decode_header(message: bytes, source: str = "") -> PacketBatch:
    """The batch in a message without its packets, which are not looked at.

    Raises:
        BlockDecodeError: As for `decode_block`.
    """
    if _fingerprint_in(message, source) != FINGERPRINT:
        batch = decode_block(message, source)
        return batch._replace(packets=batch.packets[:0], payloads=b"")
    return _decoded_header(_Cursor(message, HEADER_OCTETS, source))


def decode_with_schema(data: bytes, schema: dict[str, Any], count: int = 1, source: str = "") -> list[PacketBatch]:
    """The batches in bare Avro binary of some version of the schema, by Avro's schema resolution.

    Raises:
        BlockDecodeError: The schema cannot be resolved to the current one, or the data are damaged.
    """
    from fastavro import parse_schema, schemaless_reader, schemaless_writer
    from fastavro.read import SchemaResolutionError
    from fastavro.schema import SchemaParseException, UnknownType

    stream = io.BytesIO(data)
    batches: list[PacketBatch] = []
    try:
        parsed = parse_schema(schema)
        while len(batches) < count:
            resolved = io.BytesIO()
            schemaless_writer(resolved, _parsed_schema(), schemaless_reader(stream, parsed, _parsed_schema()))
            batches.append(_decode(resolved.getvalue(), 0, source))
    except (SchemaResolutionError, SchemaParseException, UnknownType) as error:
        raise BlockDecodeError("schema does not resolve to PacketBlock", source) from error
    except BlockDecodeError as error:  # its position is that in the resolved block
        raise BlockDecodeError(str(error), source) from error
    except _FASTAVRO_ERRORS as error:
        raise BlockDecodeError("damaged block", source, stream.tell()) from error
    if stream.tell() != len(data):
        raise BlockDecodeError("octets after the block", source, stream.tell())
    return batches


_FASTAVRO_ERRORS = (EOFError, ValueError, TypeError, LookupError, OverflowError, AttributeError)
"""What fastavro raises on bytes that are not of the schema it was given."""


@functools.cache
def _parsed_schema() -> Any:
    from fastavro import parse_schema

    schema = parse_schema(json.loads(schema_text()))
    packet = next(field for field in schema["fields"] if field["name"] == "packets")["type"]["items"]
    for field in packet["fields"]:  # fastavro gives defaults of octets as they stand in JSON, where Avro means Latin-1
        if isinstance(field.get("default"), str):
            field["default"] = field["default"].encode("latin-1")
    return schema


def _fingerprint_in(message: bytes, source: str) -> bytes:
    if not message.startswith(MARKER) or len(message) < HEADER_OCTETS:
        raise BlockDecodeError("not a single-object Avro message", source, 0)
    if len(message) > MESSAGE_OCTETS_MOST:
        raise BlockDecodeError("message of more than 2 GiB", source)
    return message[len(MARKER) : HEADER_OCTETS]


def _decode(octets: bytes, at: int, source: str) -> PacketBatch:
    cursor = _Cursor(octets, at, source)
    header = _decoded_header(cursor)
    padded = np.empty(len(octets) + avro_kernels.PADDING, np.uint8)
    padded[: len(octets)] = np.frombuffer(octets, np.uint8)
    padded[len(octets) :] = 0
    payloads = np.empty(len(octets), np.uint8)
    payloads_octets = 0
    parts = []
    while count := cursor.long():
        end_of_part = None
        if count < 0:  # Avro: a negative count is followed by the size of the part, for readers that skip it
            size = cursor.long(0)
            end_of_part = cursor.at + size
        if abs(count) > (len(octets) - cursor.at) // avro_kernels.PACKET_OCTETS_LEAST:
            cursor.fail("damaged block")
        part = np.zeros(abs(count), PACKET)
        at, end = avro_kernels.decode_packets(padded, cursor.at, len(octets), part, payloads, payloads_octets)
        if at < 0:
            cursor.at = end
            cursor.fail("damaged packet")
        if end_of_part not in (None, at):
            cursor.fail("damaged block")
        cursor.at, payloads_octets = at, end
        parts.append(part)
    if cursor.at != len(octets):
        cursor.fail("octets after the block")
    packets = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, PACKET), *parts])
    return header._replace(packets=packets, payloads=payloads[:payloads_octets].tobytes())


def _encoded_header(batch: PacketBatch) -> bytes:
    """Everything before the packets, in the schema's order."""
    sensor = batch.stream.sensor.encode()
    pieces = [
        encode_long(len(sensor)),
        sensor,
        encode_long(batch.stream.epoch),
        encode_long(batch.stream.partition, 0, _MOST_INT),
        encode_long(batch.partitions, 1, _MOST_INT),
        encode_long(batch.sequence, 0),
        encode_long(batch.observed_ns),
        b"\1" if batch.end else b"\0",
        encode_long(batch.ended_by, 0),
        encode_long(batch.dropped, 0),
    ]
    if batch.rejects:
        pieces.append(encode_long(len(batch.rejects)))
        for reason, rejected in batch.rejects:
            name = reason.encode()
            pieces += encode_long(len(name)), name, encode_long(rejected, 0)
    pieces.append(b"\0")
    if batch.health is None:
        pieces.append(b"\0")
    else:
        pieces += b"\2", struct.pack("<d", batch.health.cpu_percent)
        pieces += (encode_long(number) for number in batch.health[1:])
    return b"".join(pieces)


def _decoded_header(cursor: "_Cursor") -> PacketBatch:
    sensor = cursor.text()
    epoch = cursor.long()
    partition = cursor.long(0, _MOST_INT)
    partitions = cursor.long(1, _MOST_INT)
    sequence = cursor.long(0)
    observed_ns = cursor.long()
    end = cursor.boolean()
    ended_by = cursor.long(0)
    dropped = cursor.long(0)
    rejects: dict[str, int] = {}
    while count := cursor.long():
        if count < 0:
            cursor.long(0)
        for _ in range(abs(count)):
            reason = cursor.text()
            rejects[reason] = cursor.long(0)
    health = None
    if cursor.long(0, 1):
        cpu_percent = struct.unpack("<d", cursor.octets(8))[0]
        health = SensorHealth(cpu_percent, *(cursor.long() for _ in _HEALTH_TIMES_AND_COUNTS))
    return PacketBatch(
        Stream(sensor, epoch, partition), sequence, observed_ns, np.zeros(0, PACKET), b"", partitions, end, dropped,
        tuple(sorted(rejects.items())), health, ended_by,
    )  # fmt: skip


def encode_long(value: int, least: int = _LEAST_LONG, most: int = _MOST_LONG) -> bytes:
    """A number in the range as Avro writes it: zigzag, seven bits an octet."""
    if not least <= value <= most:
        raise ValueError(f"{value} in the head of a block is not between {least} and {most}")
    bits = (value << 1) ^ (value >> 63)
    out = bytearray()
    while bits >= 128:
        out.append(bits & 127 | 128)
        bits >>= 7
    out.append(bits)
    return bytes(out)


class _Cursor:
    """A place in a message that moves on as the head of the block is read."""

    def __init__(self, message: bytes, at: int, source: str) -> None:
        self.message = message
        self.at = at
        self.source = source

    def fail(self, reason: str) -> NoReturn:
        raise BlockDecodeError(reason, self.source, self.at)

    def long(self, least: int = _LEAST_LONG, most: int = _MOST_LONG) -> int:
        """A number in the range; at most ten octets long."""
        bits = 0
        for index, octet in enumerate(self.message[self.at : self.at + 10]):
            bits |= (octet & 127) << (7 * index)
            if octet < 128:
                value = (bits >> 1) ^ -(bits & 1)
                if not least <= value <= most:
                    break
                self.at += index + 1
                return value
        self.fail("damaged block")

    def octets(self, count: int) -> bytes:
        """So many octets, all of them."""
        octets = self.message[self.at : self.at + count]
        if len(octets) < count:
            self.fail("damaged block")
        self.at += count
        return octets

    def boolean(self) -> bool:
        """One octet, 0 or 1."""
        octet = self.octets(1)
        if octet not in (b"\0", b"\1"):
            self.fail("damaged block")
        return octet == b"\1"

    def text(self) -> str:
        """A string: its length and UTF-8."""
        begin = self.at
        try:
            return self.octets(self.long(0)).decode()
        except UnicodeDecodeError:
            self.at = begin
            self.fail("damaged block")

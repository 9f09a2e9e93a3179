"""Avro object container files of packet blocks: the format, without names and folders."""

import bz2
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NoReturn

from queues import Damaged, Message
from transforms import avro

MAGIC = b"Obj\x01"
"""Begins an object container file (Avro specification, "Object Container Files")."""

BLOCK_OCTETS_MOST = 256 << 20
"""Of one block, unpacked; a file that claims more is damaged."""

SYNC_OCTETS = 16

_PIECE_OCTETS = 4096
_HEADER_OCTETS_MOST = 16 << 20


def file_header(codec: str, sync: bytes) -> bytes:
    """What a file begins with; `sync` is its own marker, repeated after each block."""
    metadata = {"avro.schema": avro.schema_text().encode(), "avro.codec": codec.encode()}
    pieces = [MAGIC, avro.encode_long(len(metadata))]
    for key, value in metadata.items():
        pieces += avro.encode_long(len(key)), key.encode(), avro.encode_long(len(value)), value
    return b"".join((*pieces, b"\0", sync))


def object_block(packed: bytes, sync: bytes) -> tuple[bytes, ...]:
    """One object, packed as the codec of the file has it, in pieces that follow one another."""
    return avro.encode_long(1), avro.encode_long(len(packed)), packed, sync


class ContainerReader:
    """Reads the packet blocks of a file, whichever version of the schema they have and however many lie together.

    Args:
        path: Name of the file.
        file: The file itself, at its beginning.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0  # where the piece begins that is being read

    def messages(self, start: int = 0) -> Iterator[Message]:
        """Every block, with the single-object header of the current schema.

        Args:
            start: Position of a message that was read before; reading begins there.

        Raises:
            Damaged: It is no file of packet blocks, or breaks off.
        """
        current = avro.current_schema()
        schema, unpack = self._header(current)
        sync = self._octets(SYNC_OCTETS)
        self._file.seek(max(start, self._file.tell()))
        while (at := self._file.tell()) < self._size:
            self._at = at
            count, octets = self._long(), self._long()
            packed = self._octets(octets)
            if self._octets(SYNC_OCTETS) != sync or count < 0:
                self._fail("no sync marker after the block")
            try:
                data = unpack(packed)
            except (ValueError, zlib.error, OSError, EOFError, lzma.LZMAError) as error:
                self._fail(f"a block that does not unpack ({error})")
            if count == 1 and schema is current:
                yield Message(avro.MARKER + avro.FINGERPRINT + data, self._path, at)
                continue
            try:  # another version of the schema, or several blocks in one object block: some tool rewrote the file
                batches = avro.decode_with_schema(data, schema, count, self._path)
            except avro.BlockDecodeError as error:
                self._fail(str(error))
            for batch in batches:
                yield Message(avro.encode_block(batch), self._path, at)

    def _header(self, current: dict[str, Any]) -> tuple[dict[str, Any], Callable[[bytes], bytes]]:
        """The schema, `current` itself where it means the same; and what undoes the codec."""
        if self._size == 0:
            self._fail("empty file")
        if self._file.read(len(MAGIC)) != MAGIC:
            self._fail("not an Avro object container file")
        metadata: dict[bytes, bytes] = {}
        while entries := self._long():
            if entries < 0:
                self._long()
            for _ in range(abs(entries)):
                key = self._octets(self._long(_HEADER_OCTETS_MOST))
                metadata[key] = self._octets(self._long(_HEADER_OCTETS_MOST))
        codec = metadata.get(b"avro.codec", b"null").decode(errors="replace")
        if codec not in UNPACK:
            self._fail(f"codec {codec} cannot be read; rewrite the file with {' or '.join(UNPACK)}")
        text = metadata.get(b"avro.schema", b"").decode(errors="replace")
        if text == avro.schema_text():
            return current, UNPACK[codec]
        try:
            schema = json.loads(text)
            name = schema["name"]
            known = avro.fingerprint_of(schema) == avro.FINGERPRINT
        except (ValueError, LookupError, TypeError, RecursionError):
            name = None
        if name not in ("PacketBlock", "flowbeam.PacketBlock"):
            self._fail("its schema is not that of packet blocks")
        return current if known else schema, UNPACK[codec]

    def _long(self, most: int = 2**63 - 1) -> int:
        bits = 0
        for shift in range(0, 70, 7):
            octet = self._octets(1)[0]
            bits |= (octet & 127) << shift
            if octet < 128:
                break
        number = (bits >> 1) ^ -(bits & 1)
        if octet >= 128 or number > most:
            self._fail("a number that cannot be")
        return number

    def _octets(self, count: int) -> bytes:
        if not 0 <= count <= self._size - self._file.tell():
            self._fail("it breaks off" if count > 0 else "a number that cannot be")
        return self._file.read(count)

    def _fail(self, reason: str) -> NoReturn:
        self._file.seek(self._at)
        piece = self._file.read(_PIECE_OCTETS)
        line = f"{self._path}: {reason}"
        if self._at:
            line = f"{self._path}: damaged at offset {self._at}: {reason}; read up to there"
        raise Damaged(line, self._path, self._at, piece)


def _limited(octets: bytes) -> bytes:
    if len(octets) > BLOCK_OCTETS_MOST:
        raise ValueError("too large")
    return octets


def _inflate(packed: bytes) -> bytes:
    return _limited(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, BLOCK_OCTETS_MOST + 1))


def _unpack_bzip2(packed: bytes) -> bytes:
    return _limited(bz2.BZ2Decompressor().decompress(packed, BLOCK_OCTETS_MOST + 1))


def _unpack_xz(packed: bytes) -> bytes:
    return _limited(lzma.LZMADecompressor(memlimit=512 << 20).decompress(packed, BLOCK_OCTETS_MOST + 1))


def _unpack_zstandard(packed: bytes) -> bytes:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(io.BytesIO(packed))
        return _limited(reader.read(BLOCK_OCTETS_MOST + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _deflating() -> Callable[[bytes], bytes]:
    def deflate(octets: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(octets) + packer.flush()

    return deflate


def _packing_zstandard() -> Callable[[bytes], bytes]:
    import zstandard

    pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor(level=1).compress
    return pack


PACK: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "null": lambda: _limited,
    "deflate": _deflating,
    "zstandard": _packing_zstandard,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "null": _limited,
    "deflate": _inflate,
    "bzip2": _unpack_bzip2,
    "xz": _unpack_xz,
    "zstandard": _unpack_zstandard,
}

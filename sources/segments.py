"""Pieces of a sensor's buffer: blocks in a file, or in memory while the disk takes none.

A file begins with a line of JSON, what its writer knew of its streams; records follow: a head with lengths and a
checksum, and the block as it goes to the queue. A record that a killed process left unfinished is told by these.
"""

import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_HEAD = struct.Struct("<IIqq")
"""Octets of the block, CRC-32 of the rest of the head and the block, when it was kept, the largest packet time."""

_TIMES = struct.Struct("<qq")
_MAGIC = b"flowbeam blocks 1 "
_PREFACE_OCTETS_MOST = 16 << 20


class Record(NamedTuple):
    """A block in the buffer.

    Attributes:
        message: The block as it goes to the queue.
        kept_ns: When it was closed, by the clock of the machine.
        latest_ns: The largest packet time of its sensor's input until then.
    """

    message: bytes
    kept_ns: int
    latest_ns: int


class Segment(Protocol):
    """Records in order, of which the first were handed over, and of those the first are settled.

    One thread appends, another hands over and settles.

    Attributes:
        records: How many there are.
        handed: How many of them were handed over.
        settled: How many of these are settled.
        octets: Room that they take.
    """

    records: int
    handed: int
    settled: int
    octets: int

    def append(self, record: Record) -> None:
        """Adds a record, wholly or not at all: then `OSError` says why."""

    def next(self) -> Record:
        """Hands over the next record; there is one."""

    def settle(self, count: int) -> None:
        """Notes that so many more of those handed over are settled."""

    def rewind(self) -> None:
        """Notes that those handed over and not settled have to be handed over again."""

    def oldest_ns(self) -> int:
        """When the first record was kept that is not settled; there is one."""

    def remove(self) -> None:
        """Frees the room."""


class MemorySegment:
    """A piece in memory, lost with the process."""

    def __init__(self) -> None:
        self.records = self.handed = self.settled = self.octets = 0
        self._waiting: deque[Record] = deque()
        self._handed: deque[Record] = deque()

    def append(self, record: Record) -> None:
        """Adds a record."""
        self._waiting.append(record)
        self.octets += _HEAD.size + len(record.message)
        self.records += 1

    def next(self) -> Record:
        """Hands over the next record."""
        record = self._waiting.popleft()
        self._handed.append(record)
        self.handed += 1
        return record

    def settle(self, count: int) -> None:
        """Forgets so many."""
        for _ in range(count):
            self.octets -= _HEAD.size + len(self._handed.popleft().message)
        self.settled += count

    def rewind(self) -> None:
        """Those not settled come again."""
        self._waiting.extendleft(reversed(self._handed))
        self._handed.clear()
        self.handed = self.settled

    def oldest_ns(self) -> int:
        """When the first record was kept that is not settled."""
        return (self._handed or self._waiting)[0].kept_ns

    def remove(self) -> None:
        """Nothing is left to free."""


class FileSegment:
    """A piece in a file. Data is not forced to the disk: it outlives a killed process, not a power cut.

    Args:
        path: The file; it is not there yet.
        preface: What is known of its streams.

    Attributes:
        path: The file.
        preface: What its writer knew of its streams.
        damage: What is wrong with a file that was opened again; None if nothing is.
    """

    def __init__(self, path: Path, preface: dict[str, Any]) -> None:
        self._begin(path, preface, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            line = _MAGIC + json.dumps(preface, separators=(",", ":")).encode() + b"\n"
            self._write(line)
        except OSError:
            self.remove()
            raise
        self._handed_to = self._settled_to = self.octets

    def _begin(self, path: Path, preface: dict[str, Any], descriptor: int) -> None:
        self.path, self.preface, self._descriptor = path, preface, descriptor
        self.records = self.handed = self.settled = self.octets = 0
        self.damage: str | None = None
        self._handed_to = self._settled_to = 0
        self._in_flight: deque[int] = deque()  # where each ends

    @classmethod
    def reopened(cls, path: Path) -> "FileSegment":
        """A file that another process has left; its records are those that `recover` finds.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no such file.
        """
        segment = cls.__new__(cls)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            line, newline, _ = os.pread(descriptor, _PREFACE_OCTETS_MOST, 0).partition(b"\n")
            if not (newline and line.startswith(_MAGIC)):
                raise ValueError("it does not begin as a buffer of blocks does")
            segment._begin(path, json.loads(line.removeprefix(_MAGIC)), descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        segment._handed_to = segment._settled_to = segment.octets = len(line) + 1
        return segment

    def recover(self) -> Iterator[Record]:
        """The whole records of a file that was opened again; what follows the last one is cut off.

        Raises:
            OSError: It cannot be read.
        """
        size = os.fstat(self._descriptor).st_size
        for record, end in self._found(size):
            self.records += 1
            self.octets = end
            yield record
        if self.octets < size:
            self.damage = f"{size - self.octets:,} octets of an unfinished block"
            os.ftruncate(self._descriptor, self.octets)

    def append(self, record: Record) -> None:
        """Adds a record, wholly or not at all."""
        times = _TIMES.pack(record.kept_ns, record.latest_ns)
        head = _HEAD.pack(len(record.message), zlib.crc32(record.message, zlib.crc32(times)), *record[1:])
        self._write(head, record.message)
        self.records += 1

    def next(self) -> Record:
        """Hands over the next record."""
        record, end = self._read(self._handed_to)
        self._in_flight.append(end)
        self._handed_to = end
        self.handed += 1
        return record

    def settle(self, count: int) -> None:
        """Notes that so many more are settled."""
        for _ in range(count):
            self._settled_to = self._in_flight.popleft()
        self.settled += count

    def skip(self, count: int) -> None:
        """Notes that the first so many were settled before the file was opened again."""
        for _ in range(count):
            self.next()
        self.settle(count)

    def rewind(self) -> None:
        """Those not settled come again."""
        self._in_flight.clear()
        self._handed_to, self.handed = self._settled_to, self.settled

    def oldest_ns(self) -> int:
        """When the first record was kept that is not settled."""
        _, _, kept_ns, _ = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, self._settled_to))
        return int(kept_ns)

    def close(self) -> None:
        """Closes the file and leaves it."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Closes the file and deletes it."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)

    def _found(self, size: int) -> Iterator[tuple[Record, int]]:
        """The whole records of a file of so many octets, and where each ends."""
        at = self.octets
        while at + _HEAD.size <= size:
            octets, checksum, *times = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, at))
            if at + _HEAD.size + octets > size:
                return
            record, at = self._read(at)
            if zlib.crc32(record.message, zlib.crc32(_TIMES.pack(*times))) != checksum:
                return
            yield record, at

    def _read(self, at: int) -> tuple[Record, int]:
        octets, _, kept_ns, latest_ns = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, at))
        message = os.pread(self._descriptor, octets, at + _HEAD.size)
        return Record(message, kept_ns, latest_ns), at + _HEAD.size + octets

    def _write(self, *pieces: bytes) -> None:
        wanted = sum(map(len, pieces))
        try:
            written = os.pwritev(self._descriptor, pieces, self.octets)
            while written < wanted:  # a full disk takes a part before it says so
                rest = b"".join(pieces)[written:]
                written += os.pwrite(self._descriptor, rest, self.octets + written)
        except OSError:
            os.ftruncate(self._descriptor, self.octets)
            raise
        self.octets += wanted

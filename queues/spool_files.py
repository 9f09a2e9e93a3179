"""Files of a spool: their names, which tell what is in them, and how they are written."""

import fcntl
import functools
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from queues.object_files import SYNC_OCTETS, file_header, object_block
from transforms.records import Stream

SUFFIX = ".avro"

_LONGEST_SENSOR, _KEPT_OF_LONGER = 120, 100
_HASH_OCTETS = 8
_SHORTENED = _KEPT_OF_LONGER + 1 + 2 * _HASH_OCTETS
_NAME = re.compile(r"([^.]+)\.(\d{20,})\.(\d{5,})\.(\d{12,})\.avro")


class SpoolName(NamedTuple):
    """What the name of a file tells; in the order in which files are read.

    Attributes:
        sensor: The sensor, as `sensor_text` has it.
        epoch: Of the file's stream.
        partition: Of the file's stream.
        sequence: Number of the first block.
        text: The name itself.
    """

    sensor: str
    epoch: int
    partition: int
    sequence: int
    text: str


@functools.lru_cache(1024)
def sensor_text(sensor: str) -> str:
    """How names of files write a sensor; long names are shortened, with a hash of the whole."""
    text = quote(sensor, safe="").replace(".", "%2E")
    if len(text) > _LONGEST_SENSOR:
        text = f"{text[:_KEPT_OF_LONGER]}~{hashlib.blake2b(sensor.encode(), digest_size=_HASH_OCTETS).hexdigest()}"
    return text or "%"


def sensor_of(text: str) -> str | None:
    """The sensor that a name writes so; None if only the blocks tell."""
    if len(text) == _SHORTENED and text[_KEPT_OF_LONGER] == "~":
        return None
    return "" if text == "%" else unquote(text)


def name_of(stream: Stream, sequence: int) -> str:
    """The file of the blocks from this number on; names sort in the order of the stream."""
    return f"{beginning_of(stream._replace(sensor=sensor_text(stream.sensor)))}{sequence:012d}{SUFFIX}"


def beginning_of(stream: Stream) -> str:
    """How the names of a stream's files begin; its sensor is as `sensor_text` has it."""
    return f"{stream.sensor}.{stream.epoch:020d}.{stream.partition:05d}."


def parsed(name: str) -> SpoolName | None:
    """What a name tells; None if it is no name that `name_of` gives."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    sensor, epoch, partition, sequence = match.groups()
    return SpoolName(sensor, int(epoch), int(partition), int(sequence), name)


def names_in(folder: Path) -> list[str]:
    """The complete files of a folder, in order of their names.

    Raises:
        OSError: The folder cannot be listed.
    """
    return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith("."))


class OpenFile:
    """A container file that is being written under a hidden name, and locked as long as its writer lives.

    Args:
        folder: Where it will lie.
        name: What it will be called.
        codec: Of its blocks.

    Attributes:
        octets: Its size so far.

    Raises:
        OSError: It cannot be made; nothing is left of it then.
    """

    def __init__(self, folder: Path, name: str, codec: str) -> None:
        self.octets = 0
        self._path = folder / name
        self._hidden = folder / f".{name}.{secrets.token_hex(8)}"
        self._sync = hashlib.blake2b(name.encode(), digest_size=SYNC_OCTETS).digest()
        self._torn = False
        self._file = open(self._hidden, "xb", buffering=0)  # noqa: SIM115 - closed by complete or discard
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(file_header(codec, self._sync))
        except OSError:
            self.discard()
            raise

    def append(self, packed: bytes) -> None:
        """Adds one object. What is in the file stays whole when that fails.

        Raises:
            OSError: The disk is full or broken; the object may be added later.
        """
        self._write(b"".join(object_block(packed, self._sync)))

    def complete(self) -> None:
        """Gives the file its name, and closes it.

        Raises:
            OSError: It has not got its name; that may be tried again.
        """
        self._mend()
        os.rename(self._hidden, self._path)
        self._file.close()

    def discard(self) -> None:
        """Removes the file, and frees the space that it took."""
        self._file.close()
        self._hidden.unlink(missing_ok=True)

    def _write(self, octets: bytes) -> None:
        self._mend()
        left = memoryview(octets)
        self._torn = True
        while left:
            left = left[self._file.write(left) :]
        self._torn = False
        self.octets += len(octets)

    def _mend(self) -> None:
        """Takes away what was written of an object whose end found no room."""
        if self._torn:
            self._file.truncate(self.octets)
            self._file.seek(self.octets)
            self._torn = False


def remove_orphans(folder: Path, sensor: str) -> None:
    """Removes files of a sensor that no process writes any more: their blocks were never settled."""
    beginning = f".{sensor_text(sensor)}."
    for name in os.listdir(folder):
        if not name.startswith(beginning) or f"{SUFFIX}." not in name:
            continue
        path = folder / name
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):  # written just now, or just completed
            continue

"""A queue in a folder: Avro object container files of packet blocks, which any Avro tool reads.

Each stream has files of its own, each object is one block. A file is written under a hidden name and renamed when it is
complete, so that whoever lists the folder sees whole files only. That outlives a killed process; data is not forced to
the disk, a power cut may lose the last seconds.

`spool:DIR`, or with settings `spool:DIR?codec=deflate&file_octets=1000000`. Blocks are stored as they are by default
(`null`), 71 octets a packet in a capture of mixed TCP and UDP. deflate makes 27 of them, but only 0.8 M packets/s;
zstandard makes 24 at 5 M packets/s, and not every Avro tool reads it.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote

from queues import Damaged, Message
from queues.object_files import BLOCK_OCTETS_MOST, PACK, SYNC_OCTETS, ContainerReader, file_header, object_block
from transforms import avro
from transforms.records import InputError, Stream

SUFFIX = ".avro"

FILE_OCTETS = 256 << 20
"""A file is closed once it is larger, so that workers can share a spool."""


def open_writer(rest: str) -> "SpoolWriter":
    """The writer of `spool:` + `rest`."""
    folder, settings = _settings_of(rest)
    codec = settings.pop("codec", "null")
    if codec not in PACK:
        raise InputError(f"spool:{rest}: codec {codec} is not one of {', '.join(PACK)}")
    octets = settings.pop("file_octets", str(FILE_OCTETS))
    if not octets.isdecimal() or int(octets) == 0:
        raise InputError(f"spool:{rest}: file_octets {octets} is not a positive number")
    _refuse_more(rest, settings)
    return SpoolWriter(folder, codec, int(octets))


def open_reader(rest: str) -> "SpoolReader":
    """The reader of `spool:` + `rest`."""
    folder, settings = _settings_of(rest)
    _refuse_more(rest, settings)
    return SpoolReader(folder)


def _settings_of(rest: str) -> tuple[Path, dict[str, str]]:
    folder, _, settings = rest.partition("?")
    if not folder:
        raise InputError("spool: names no folder; write spool:DIR")
    return Path(folder), dict(parse_qsl(settings, keep_blank_values=True))


def _refuse_more(rest: str, settings: dict[str, str]) -> None:
    if settings:
        raise InputError(f"spool:{rest}: unknown setting {next(iter(settings))}")


class SpoolWriter:
    """Writes blocks into files of a folder, one open file for each stream.

    Args:
        folder: Made if it is not there.
        codec: How blocks are packed: `null`, `deflate` or `zstandard`.
        file_octets: A file is closed once it has as many.
    """

    def __init__(self, folder: Path, codec: str = "null", file_octets: int = FILE_OCTETS) -> None:
        self.octets_written = 0
        self._folder = folder
        self._codec = codec
        self._pack = PACK[codec]()
        self._file_octets = file_octets
        self._begun: set[Stream] = set()
        self._open: dict[Stream, _OpenFile] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{secrets.token_hex(8)}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            _refuse(folder, error)

    def put(self, message: bytes) -> None:
        """Appends a block to its stream; the file of an ended stream is completed.

        Raises:
            InputError: The disk is full or the folder gone; or it holds this stream already, from another capture.
        """
        if len(message) > BLOCK_OCTETS_MOST:
            raise InputError(f"a block of {len(message):,} octets is too large for a spool; lower --block_packets")
        block = avro.decode_header(message)
        try:
            file = self._open.get(block.stream) or self._begin(block.stream, block.sequence)
            written = file.append(self._pack(message[avro.HEADER_OCTETS :]))
            self.octets_written += written
            if block.end or file.octets >= self._file_octets:
                self._open.pop(block.stream).complete()
        except OSError as error:
            _refuse(self._folder, error)

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Completes all files; after an error those that are not complete are removed instead."""
        files, self._open = list(self._open.values()), {}
        for file in files:
            if kind is not None:
                file.discard()
                continue
            try:
                file.complete()
            except OSError as failure:
                _refuse(self._folder, failure)

    def _begin(self, stream: Stream, sequence: int) -> "_OpenFile":
        name = _name_of(stream)
        if stream not in self._begun:
            if any(path.name.startswith(name) for path in _files_in(self._folder)):
                raise InputError(
                    f"{self._folder} already holds blocks of sensor {stream.sensor} from another capture; "
                    "choose another folder or --sensor"
                )
            self._begun.add(stream)
        file = _OpenFile(self._folder, f"{name}.{sequence:012d}{SUFFIX}", self._codec)
        self.octets_written += file.octets
        self._open[stream] = file
        return file


def _name_of(stream: Stream) -> str:
    """How the names of a stream's files begin; they sort in the order of the stream."""
    sensor = quote(stream.sensor, safe="").replace(".", "%2E")
    if len(sensor) > 120:
        sensor = f"{sensor[:100]}~{hashlib.blake2b(stream.sensor.encode(), digest_size=8).hexdigest()}"
    return f"{sensor or '%'}.{stream.epoch:020d}.{stream.partition:05d}"


class _OpenFile:
    """A container file that is being written under a hidden name."""

    def __init__(self, folder: Path, name: str, codec: str) -> None:
        self.octets = 0
        self._path = folder / name
        self._hidden = folder / f".{name}.{secrets.token_hex(8)}"
        self._sync = hashlib.blake2b(name.encode(), digest_size=SYNC_OCTETS).digest()
        self._file = open(self._hidden, "xb")  # noqa: SIM115 - closed by complete or discard
        self._write(file_header(codec, self._sync))

    def append(self, packed: bytes) -> int:
        """Adds one object; returns the octets that it took."""
        before = self.octets
        self._write(*object_block(packed, self._sync))
        return self.octets - before

    def complete(self) -> None:
        """Closes the file and gives it its name."""
        try:
            self._file.close()
            os.rename(self._hidden, self._path)
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes the file, and frees the space that it took."""
        try:
            self._file.close()
        except OSError as error:  # what is buffered does not fit either
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
        self._hidden.unlink(missing_ok=True)

    def _write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._file.write(piece)
            self.octets += len(piece)


def _refuse(folder: Path, error: OSError) -> NoReturn:
    raise InputError(f"{folder}: cannot be written to: {error.strerror or error}") from error


class _SpoolFile(NamedTuple):
    """A file of the spool, in the order in which files are read."""

    stream: Stream
    sequence: int
    path: str


class SpoolReader:
    """Reads the files of a folder that are complete.

    Args:
        folder: The spool; hidden files and other suffixes than .avro are not looked at.

    Raises:
        InputError: The folder does not exist.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; a spool is written with python -m pipelines.capture")
        self.damage: list[str] = []
        self._folder = folder

    def parts(self) -> dict[Stream, tuple[str, ...]]:
        """The files of each stream, by first block; those that cannot be used are lines of `damage`.

        Raises:
            InputError: The folder has no files of packet blocks.
        """
        files = []
        for path in _files_in(self._folder):
            try:
                for message in self.read(str(path)):
                    block = avro.decode_header(message.octets, str(path))
                    files.append(_SpoolFile(block.stream, block.sequence, str(path)))
                    break
                else:
                    self.damage.append(f"{path}: no blocks")
            except Damaged as damage:
                self.damage.append(str(damage))
            except avro.BlockDecodeError as error:
                self.damage.append(f"{path}: {error}")
        if not files:
            nothing = f"{self._folder}: no Avro files in this folder; name one that pipelines.capture has written"
            raise InputError("; ".join(self.damage) or nothing)
        streams: dict[Stream, list[str]] = {}
        for file in sorted(files):
            streams.setdefault(file.stream, []).append(file.path)
        return {stream: tuple(paths) for stream, paths in streams.items()}

    def read(self, part: str) -> Iterator[Message]:
        """The blocks of a file.

        Raises:
            Damaged: It is no file of packet blocks, or breaks off.
        """
        try:
            with open(part, "rb") as file:
                yield from ContainerReader(part, file).messages()
        except OSError as error:
            raise Damaged(f"{part}: {error.strerror}", part, 0) from error


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))

"""A queue in a folder: Avro object container files of packet blocks, which any Avro tool reads.

Each stream has files of its own, each object is one block. A file is written under a hidden name and renamed when it is
complete, so that whoever lists the folder sees whole files only. That outlives a killed process; data is not forced to
the disk, a power cut may lose the last seconds.

`spool:DIR`, or with settings `spool:DIR?codec=deflate&file_octets=1000000`. Blocks are stored as they are by default
(`null`), 71 octets a packet in a capture of mixed TCP and UDP. deflate makes 27 of them, but only 0.8 M packets/s;
zstandard makes 24 at 5 M packets/s, and not every Avro tool reads it.

A sensor completes a file once it is as large, `file_max_age_s` (1) after its first block, and where a stream ends; it
writes `partitions` (1) streams. Remove files that were read as you like; readers keep in mind what they have read.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl

from queues import Damaged, Message
from queues.object_files import PACK, ContainerReader
from queues.spool_files import names_in, parsed, sensor_of
from queues.spool_live import LiveSpool
from transforms import avro
from transforms.records import InputError, PacketBatch, Stream

FILE_OCTETS = 256 << 20
"""A file is closed once it is larger, so that workers can share a spool."""


FILE_MAX_AGE_S = 1.0
"""A sensor's file is closed so long after its first block."""

PARTITIONS_MOST = 10_000

_DECIMAL = re.compile(r"\d+(\.\d+)?")


def open_live(rest: str) -> LiveSpool:
    """The writer of `spool:` + `rest`, for a sensor."""
    folder, settings = _settings_of(rest)
    codec, octets = _codec_and_size(rest, settings)
    age = settings.pop("file_max_age_s", str(FILE_MAX_AGE_S))
    if not _DECIMAL.fullmatch(age) or float(age) == 0:
        raise InputError(f"spool:{rest}: file_max_age_s {age} is not a positive number of seconds")
    partitions = settings.pop("partitions", "1")
    if not partitions.isdecimal() or not 1 <= int(partitions) <= PARTITIONS_MOST:
        raise InputError(f"spool:{rest}: partitions {partitions} is not a number from 1 to {PARTITIONS_MOST:,}")
    _refuse_more(rest, settings)
    try:
        _probe(folder)
        return LiveSpool(folder, codec, octets, float(age), int(partitions))
    except OSError as error:
        _refuse(folder, error)


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


def _codec_and_size(rest: str, settings: dict[str, str]) -> tuple[str, int]:
    codec = settings.pop("codec", "null")
    if codec not in PACK:
        raise InputError(f"spool:{rest}: codec {codec} is not one of {', '.join(PACK)}")
    octets = settings.pop("file_octets", str(FILE_OCTETS))
    if not octets.isdecimal() or int(octets) == 0:
        raise InputError(f"spool:{rest}: file_octets {octets} is not a positive number")
    return codec, int(octets)


def _refuse_more(rest: str, settings: dict[str, str]) -> None:
    if settings:
        raise InputError(f"spool:{rest}: unknown setting {next(iter(settings))}")


def _probe(folder: Path) -> None:
    """Makes the folder if it is not there, and a file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(8)}.probe"
    probe.touch()
    probe.unlink()


def _refuse(folder: Path, error: OSError) -> NoReturn:
    raise InputError(f"{folder}: cannot be written to: {error.strerror or error}") from error


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
        """The files of each stream, by first block, as their names tell: only files with other names are looked into.

        Of those, the unusable ones are lines of `damage`.

        Raises:
            InputError: The folder has no files of packet blocks.
        """
        streams: dict[Stream, list[tuple[int, str]]] = {}
        sensors: dict[str, str | None] = {}
        for name in names_in(self._folder):
            path = str(self._folder / name)
            told = parsed(name)
            sensor = None if told is None else sensors.setdefault(told.sensor, sensor_of(told.sensor))
            if told is not None and sensor is not None:
                streams.setdefault(Stream(sensor, told.epoch, told.partition), []).append((told.sequence, path))
            elif block := self._first_block(path):
                streams.setdefault(block.stream, []).append((block.sequence, path))
                if told is not None:
                    sensors[told.sensor] = block.stream.sensor
        if not streams:
            nothing = f"{self._folder}: no Avro files in this folder; name one that pipelines.capture has written"
            raise InputError("; ".join(self.damage) or nothing)
        return {stream: tuple(path for _, path in sorted(files)) for stream, files in sorted(streams.items())}

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

    def _first_block(self, path: str) -> PacketBatch | None:
        """The head of a file's first block; None if there is none, which is a line of `damage`."""
        try:
            for message in self.read(path):
                return avro.decode_header(message.octets, path)
            self.damage.append(f"{path}: no blocks")
        except Damaged as damage:
            self.damage.append(str(damage))
        except avro.BlockDecodeError as error:
            self.damage.append(f"{path}: {error}")
        return None

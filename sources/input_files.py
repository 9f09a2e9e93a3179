"""Which files a person means by names, patterns and folders, and which sensor each belongs to."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from sources.capture_file import CaptureFile
from sources.octets import STANDARD_INPUT, Unreadable
from sources.window import Window
from transforms.records import InputError

SUFFIXES = tuple(
    f".{kind}{packed}" for kind in ("pcap", "pcapng", "cap", "ntar", "snoop") for packed in ("", ".gz", ".zst", ".xz")
)
"""What the captures of a folder are usually called; others are found by what they begin with."""

_LOG = logging.getLogger(__name__)


class SensorInput(NamedTuple):
    """The files of one observation point, merged by time.

    Attributes:
        sensor: Its name.
        files: Paths in sorted order; `-` is standard input.
    """

    sensor: str
    files: tuple[str, ...]


def sensor_inputs(
    inputs: Sequence[str], sensor: str = "local", sensor_from: Literal["all", "file", "folder"] = "all"
) -> list[SensorInput]:
    """Expands folders and patterns, and gives each sensor its files; a file that is named twice is read once.

    Args:
        inputs: Files, glob patterns (`**` goes into folders), folders (searched to any depth), `-`.
        sensor: Name of the sensor; with `file` or `folder` that of standard input.
        sensor_from: `all`: one sensor; `file`, `folder`: one of each, named by its path from the folder common to all.

    Raises:
        InputError: If there is no such file, a pattern matches nothing, or a folder has no captures.
    """
    files: dict[tuple[int, int] | str, str] = {}
    for name in inputs:
        for path in _expand(name):
            files.setdefault(_identity(path), path)
    paths = sorted(files.values())
    if not paths:
        raise InputError("no input: name a capture file, a folder, a pattern, or - for standard input")
    if sensor_from == "all":
        return [SensorInput(sensor, tuple(paths))]
    named = [path for path in paths if path != STANDARD_INPUT]
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in named]) if named else ""
    sensors: dict[str, list[str]] = {}
    for path in paths:
        sensors.setdefault(sensor if path == STANDARD_INPUT else _sensor_of(path, common, sensor_from), []).append(path)
    return [SensorInput(name, tuple(members)) for name, members in sorted(sensors.items())]


def _sensor_of(path: str, common: str, sensor_from: str) -> str:
    absolute = os.path.abspath(path)
    if sensor_from == "file":
        return os.path.relpath(absolute, common)
    folder = os.path.relpath(os.path.dirname(absolute), common)
    return os.path.basename(common) or common if folder == os.curdir else folder


def _identity(path: str) -> tuple[int, int] | str:
    if path == STANDARD_INPUT:
        return path
    try:
        status = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    return status.st_dev, status.st_ino


def _expand(name: str) -> Iterator[str]:
    if name == STANDARD_INPUT or os.path.isfile(name):
        yield name
    elif os.path.isdir(name):
        yield from _captures_of(name)
    elif os.path.exists(name):
        yield name  # a named pipe, or /dev/stdin
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise InputError(f"{name}: no file matches this pattern")
        files = [path for path in matches if not os.path.isdir(path)]
        if files:
            yield from files
        else:
            for folder in matches:
                yield from _captures_of(folder)
    else:
        raise InputError(f"{name}: there is no such file or folder")


def _captures_of(folder: str) -> Iterator[str]:
    def leave_out(error: OSError) -> None:
        if error.filename == folder:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
        _LOG.warning("%s: cannot be read and is left out: %s", error.filename, error.strerror)

    found = 0
    for place, folders, names in os.walk(folder, onerror=leave_out):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and (name.lower().endswith(SUFFIXES) or _is_capture(path)):
                found += 1
                yield path
    if not found:
        raise InputError(f"{folder}: no capture files in this folder (pcap, pcapng, snoop; plain, gzip, zstd or xz)")


def _is_capture(path: str) -> bool:
    try:
        CaptureFile(path, Window()).close()
    except Unreadable:
        return False
    return True

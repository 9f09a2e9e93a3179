"""Reads what tells of attacks, whatever it is written as."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timezone, tzinfo
from pathlib import Path
from typing import BinaryIO

from training.labels.alerts import read_suricata, read_zeek
from training.labels.attack_table import read_attack_table
from training.labels.attacks import Teller
from training.labels.rules import Rules
from training.labels.truth import read_truth
from transforms.records import InputError

AUTO, TABLE, SURICATA, ZEEK, TRUTH = "auto", "table", "suricata", "zeek", "truth"
FORMATS = (AUTO, TABLE, SURICATA, ZEEK, TRUTH)

LONGEST_LINE = 16 << 20
"""Octets of a line; a longer one is no event."""

LARGEST_TABLE = 64 << 20
"""Octets of a table of attacks, which is held at once."""

_LOOKED_AT = 1 << 16


@dataclass
class ReadSettings:
    """How files are understood.

    Attributes:
        format: One of `FORMATS`.
        zone: Of times that name none.
        overlap: A flow belongs to a table's attack also if it began before it.
        slack_ns: How far beside its time an attack or event may be.
        window_ns: A notice about hosts concerns so much time before and after.
        benign: What benign flows are called.
    """

    format: str = AUTO
    zone: tzinfo = timezone.utc
    overlap: bool = False
    slack_ns: int = 0
    window_ns: int = 300 * 1_000_000_000
    benign: str = "benign"


def read_tellers(path: Path, settings: ReadSettings) -> list[Teller]:
    """Everything that a file tells of, by precedence.

    Raises:
        InputError: It cannot be read; the message has file, line and what is wrong there.
    """
    with _opened(path) as file:
        found = settings.format if settings.format != AUTO else _format_of(path, file.read(_LOOKED_AT))
    if found == TRUTH:
        return [read_truth(path, settings.benign)]
    with _opened(path) as file:
        if found == SURICATA:
            return list(read_suricata(path, _lines(path, file), settings.slack_ns))
        if found == ZEEK:
            return list(read_zeek(path, _lines(path, file), settings.slack_ns, settings.window_ns))
        octets = file.read(LARGEST_TABLE + 1)
    if len(octets) > LARGEST_TABLE:
        raise InputError(f"{path}: is larger than a table of attacks can be ({LARGEST_TABLE >> 20} MB)")
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: is no UTF-8; save the table as UTF-8") from error
    return [Rules(read_attack_table(path, text, settings.zone), settings.overlap, settings.slack_ns)]


def _format_of(path: Path, begin: bytes) -> str:
    """What kind of file begins so."""
    first = begin.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if first.startswith((b"#separator", b"#fields")):
        return ZEEK
    if first.startswith(b"{"):
        if b'"event_type"' in first:
            return SURICATA
        if b'"note"' in first:
            return ZEEK
    names = {name.strip().strip(b'"') for name in first.split(b",")}
    if b"flow_id" in names:
        return TRUTH
    if _stem(path).suffix.lower() in (".csv", ".json", ".yaml", ".yml"):
        return TABLE
    raise InputError(f"{path}: is neither a table of attacks (.csv, .yaml, .json) nor a log of Suricata or Zeek")


def _stem(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's octets, decompressed."""
    try:
        with open(path, "rb") as raw:
            is_compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield io.BufferedReader(gzip.GzipFile(fileobj=raw)) if is_compressed else raw  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines by number, empty ones left out, and a last one that is still being written."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InputError(f"{path}:{number}: is longer than {LONGEST_LINE >> 20} MB; this is no log of events")
        if line.endswith(b"\n") or not line.startswith(b"{") or line.endswith(b"}"):
            if line.strip():
                yield number, line

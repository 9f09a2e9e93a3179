"""Reads a table of attacks: CSV, YAML or JSON; one entry for each attack, the first that holds for a flow counts."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from training.labels.attacks import NEEDS, Attack, needs_of
from training.labels.rules import ALWAYS, ANY, DIRECTIONS, Ranges, Rule
from transforms.enrich.address_numbers import HOST_BITS, NO_NETWORK, network_numbers
from transforms.records import InputError
from transforms.times import time_ns

COLUMNS = (
    "name", "category", "start", "end", "addresses", "networks", "victims", "ports", "source_ports", "protocol",
    "direction", "needs", "comment",
)  # fmt: skip
"""What an entry may have; all but `name` may be missing or empty."""

MOST_ENTRIES = 100_000

PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "ip-in-ip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "rsvp": 46, "gre": 47,
    "esp": 50, "ah": 51, "icmp6": 58, "icmpv6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112,
    "l2tp": 115, "sctp": 132, "udp-lite": 136, "udplite": 136,
}  # fmt: skip

_ARROWS = {"->": "from", "<-": "to", "<->": "any", "both": "any", "either": "any"}
_CRITERIA = ("start", "end", "addresses", "networks", "victims", "ports", "source_ports", "protocol")
T = TypeVar("T")


class _Entry:
    """One entry of a table, and where it stands: in words for a mistake, and in short."""

    def __init__(self, at: str, place: int, values: Mapping[str, Any]) -> None:
        self.at = at
        self.place = place
        self._values = values

    def text(self, name: str) -> str:
        """A value that is one text or number."""
        value = self._values.get(name)
        if isinstance(value, list | dict):
            raise self.wrong(name, "is a list; give one value")
        return "" if value is None else str(value).strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """A value that is a list, or a text of parts."""
        value = self._values.get(name)
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, list | dict) for one in value)):
            raise self.wrong(name, "is not a plain list")
        parts = map(str, value) if isinstance(value, list) else re.split(r"[\s,;|]+", self.text(name))
        return tuple(part.strip() for part in parts if part.strip())

    def read(self, name: str, reader: Callable[[str], T]) -> T:
        """A value by way of a reader whose complaints get the entry's place."""
        try:
            return reader(self.text(name))
        except (ValueError, OverflowError) as error:
            raise self.wrong(name, f"{self.text(name)} {error}") from error

    def wrong(self, name: str, why: str) -> InputError:
        """The mistake in one line."""
        return InputError(f"{self.at}: {name}: {why}")


def read_attack_table(path: Path, text: str, zone: tzinfo) -> list[Rule]:
    """The rules of a table, in its order.

    Args:
        path: Where it is from; the ending tells how it is written, as CSV if it says nothing.
        text: What it says.
        zone: Of times that name none.

    Raises:
        InputError: File, line, column and what is wrong there.
    """
    rules: list[Rule] = []
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() in _ENTRIES]
    for entry in _ENTRIES[suffixes[-1] if suffixes else ".csv"](path, text):
        if len(rules) == MOST_ENTRIES:
            raise InputError(f"{path}: more than {MOST_ENTRIES:,} attacks; give alerts as a log of Suricata or Zeek")
        rules.append(_rule(entry, path.name, zone))
    if not rules:
        raise InputError(f"{path}: has no attacks")
    return rules


def _rule(entry: _Entry, file: str, zone: tzinfo) -> Rule:
    name, category = entry.text("name"), entry.text("category")
    if not name:
        raise entry.wrong("name", "is empty")
    if not any(entry.texts(criterion) for criterion in _CRITERIA):
        raise entry.wrong("name", f"{name} would be every flow; say when, where or what")
    needs = entry.text("needs").lower() or needs_of(name, category)
    if needs not in NEEDS:
        raise entry.wrong("needs", f"{needs} is none of {', '.join(NEEDS)}")
    direction = entry.text("direction").lower()
    direction = _ARROWS.get(direction, direction) or ANY
    if direction not in DIRECTIONS:
        raise entry.wrong("direction", f"{direction} is none of {', '.join(DIRECTIONS)}")
    start, end = (_time(entry, name, zone) for name in ("start", "end"))
    if start > end:
        raise entry.wrong("end", f"{entry.text('end')} is before start {entry.text('start')}")
    return Rule(
        Attack(name, category, f"{file}:{entry.place}", needs),
        start,
        end,
        _networks(entry, "addresses") + _networks(entry, "networks"),
        _networks(entry, "victims"),
        _ports(entry, "ports"),
        _ports(entry, "source_ports"),
        tuple(_protocol(entry, word) for word in entry.texts("protocol")),
        direction,
    )


def _time(entry: _Entry, name: str, zone: tzinfo) -> int:
    is_end = name == "end"
    return entry.read(name, lambda text: time_ns(text, zone, is_end) if text else ALWAYS[is_end])


def _networks(entry: _Entry, name: str) -> tuple[str, ...]:
    texts = entry.texts(name)
    lengths = network_numbers(pa.array(texts, pa.string())).length if texts else ()
    for text, length in zip(texts, lengths, strict=True):
        if length == NO_NETWORK:
            raise entry.wrong(name, f"{text} is no address or network such as 10.0.0.0/8")
        if length == HOST_BITS:
            raise entry.wrong(name, f"{text} has bits behind its length; did you mean the network around it?")
    return texts


def _ports(entry: _Entry, name: str) -> Ranges:
    ranges = []
    for text in entry.texts(name):
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= 65535:
            raise entry.wrong(name, f"{text} is no port or range such as 80 or 8000-8100")
        ranges.append((first, last))
    return tuple(ranges)


def _protocol(entry: _Entry, word: str) -> int:
    number = PROTOCOLS.get(word.lower(), int(word) if re.fullmatch(r"\d{1,3}", word) else 256)
    if number > 255:
        raise entry.wrong("protocol", f"{word} is no name or number of a protocol such as tcp or 6")
    return number


# --- the three ways it is written ----------------------------------------------------------------------------------


def _csv_entries(path: Path, text: str) -> Iterator[_Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            at = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
                continue
            if not header:
                header = [_column(at, cell) for cell in row]
                if "name" not in header:
                    raise InputError(f"{at}: the header has no column name; it has {', '.join(row)}")
                if len(set(header)) < len(header):
                    raise InputError(f"{at}: the header names a column twice")
                continue
            if len(row) != len(header):
                raise InputError(f"{at}: {len(row)} values for {len(header)} columns; quote values that have commas")
            yield _Entry(at, reader.line_num, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: is no CSV: {error}") from error


def _json_entries(path: Path, text: str) -> Iterator[_Entry]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON: {error}") from error
    for number, entry in enumerate(_listed(path, read), 1):
        yield _described(f"{path}: entry {number}", number, entry)


def _yaml_entries(path: Path, text: str) -> Iterator[_Entry]:
    import yaml

    class Lined(yaml.BaseLoader):  # type: ignore[misc]
        """All values as texts, and each mapping with the line that it begins in."""

    def lined(loader: Any, node: Any) -> dict[Any, Any]:
        return {**loader.construct_mapping(node, deep=True), _LINE: node.start_mark.line + 1}

    Lined.add_constructor("tag:yaml.org,2002:map", lined)
    try:
        read = yaml.load(text, Lined)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{path}{line}: is no YAML: {why}") from error
    for entry in _listed(path, read):
        line_number = entry.pop(_LINE) if isinstance(entry, dict) else 0
        yield _described(f"{path}:{line_number}" if line_number else str(path), line_number, entry)


_LINE = object()

_ENTRIES = {".csv": _csv_entries, ".json": _json_entries, ".yaml": _yaml_entries, ".yml": _yaml_entries}


def _listed(path: Path, read: Any) -> list[Any]:
    if isinstance(read, dict) and isinstance(read.get("attacks"), list):
        read = read["attacks"]
    if not isinstance(read, list):
        raise InputError(f"{path}: is no list of attacks, nor has it one under `attacks`")
    return read


def _described(at: str, place: int, entry: Any) -> _Entry:
    if not isinstance(entry, dict):
        raise InputError(f"{at}: is no attack with name, start, end, …")
    return _Entry(at, place, {_column(at, str(name)): value for name, value in entry.items()})


def _column(at: str, name: str) -> str:
    known = name.strip().lower().replace(" ", "_")
    if known not in COLUMNS:
        raise InputError(
            f"{at}: {name.strip() or 'an empty name'} is no column of attacks; those are {', '.join(COLUMNS)}"
        )
    return known

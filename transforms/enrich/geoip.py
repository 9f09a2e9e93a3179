"""Places and autonomous systems of addresses, from MaxMind DB files."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from transforms.addresses import address_texts
from transforms.enrich.address_numbers import is_ipv4
from transforms.enrich.search_tree import CORRUPT, NO_RECORD, SearchTree
from transforms.fields import Field
from transforms.records import InputError

CHECKED_RECORDS = 10_000
"""A database is refused if one of so many records cannot be read; those of a small one are checked all."""

KEPT_RECORDS = 1 << 18
"""Decoded records that are kept; when there are more, they are decoded anew as they are met."""

_LAST_SYSTEM = (1 << 32) - 1  # RFC 6793
_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR_OCTETS = 16
_BROKEN = (ValueError, RuntimeError, LookupError, TypeError, OverflowError, MemoryError, EOFError)
"""What the library raises on a broken file, beside its own error; `RuntimeError` has endless recursion."""


class Kind(NamedTuple):
    """What a database may know.

    Attributes:
        types: Words of the database types that do.
        columns: Name, type, definition and ECS name of each column, for both sides.
        extract: The columns of one record.
    """

    types: tuple[str, ...]
    columns: tuple[tuple[str, pa.DataType, str, str, str], ...]
    extract: Callable[[dict[str, Any]], tuple[Any, ...]]


def _at(record: Any, *path: str) -> Any:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _text(record: Any, *path: str) -> str | None:
    value = _at(record, *path)
    return value if isinstance(value, str) and value else None


def _number(record: Any, most: float, *path: str) -> float | None:
    value = _at(record, *path)
    return float(value) if isinstance(value, int | float) and -most <= value <= most else None


def _country(record: dict[str, Any]) -> tuple[Any, ...]:
    return _text(record, "country", "iso_code"), _text(record, "country", "names", "en")


def _place(record: dict[str, Any]) -> tuple[Any, ...]:
    country = _country(record)
    divisions = record.get("subdivisions")
    region = divisions[0] if isinstance(divisions, list) and divisions else None
    code = _text(region, "iso_code")
    latitude, longitude = _number(record, 90, "location", "latitude"), _number(record, 180, "location", "longitude")
    located = latitude is not None and longitude is not None
    return (
        *country,
        f"{country[0]}-{code}" if country[0] and code else None,
        _text(region, "names", "en"),
        _text(record, "city", "names", "en"),
        latitude if located else None,
        longitude if located else None,
    )


def _system(record: dict[str, Any]) -> tuple[Any, ...]:
    within = record if "autonomous_system_number" in record else record.get("traits")
    number = _at(within, "autonomous_system_number")
    is_one = isinstance(number, int) and number <= _LAST_SYSTEM
    return number if is_one else None, _text(within, "autonomous_system_organization")


_COUNTRY_COLUMNS = (
    ("country_iso", pa.string(), "", "Country, ISO 3166-1 alpha-2", "geo.country_iso_code"),
    ("country", pa.string(), "", "Country, in English", "geo.country_name"),
)
PLACE = Kind(
    ("City", "Enterprise", "Insights"),
    (
        *_COUNTRY_COLUMNS,
        ("region_iso", pa.string(), "", "Region, ISO 3166-2", "geo.region_iso_code"),
        ("region", pa.string(), "", "Region, in English", "geo.region_name"),
        ("city", pa.string(), "", "City, in English", "geo.city_name"),
        ("latitude", pa.float64(), "degrees", "Latitude, WGS 84", "geo.location.lat"),
        ("longitude", pa.float64(), "degrees", "Longitude, WGS 84", "geo.location.lon"),
    ),
    _place,
)
COUNTRY = Kind(("Country",), _COUNTRY_COLUMNS, _country)
SYSTEM = Kind(
    ("ASN", "ISP", "Enterprise", "Insights"),
    (
        ("asn", pa.int64(), "", "Number of the autonomous system", "as.number"),
        ("as_org", pa.string(), "", "Organization of the autonomous system", "as.organization.name"),
    ),
    _system,
)
KINDS = (PLACE, COUNTRY, SYSTEM)


def fields_of(kind: Kind) -> Iterator[Field]:
    """The columns of a kind, for both sides."""
    for side, who, ecs_side, ipfix in (("src", "initiator", "source", 16), ("dst", "responder", "destination", 17)):
        for name, type_, unit, doc, ecs in kind.columns:
            element = f"bgp{ecs_side.title()}AsNumber {ipfix}" if name == "asn" else ""
            yield Field(f"{side}_{name}", type_, unit, f"{doc}, of the {who}'s address.", element, f"{ecs_side}.{ecs}")


class Database:
    """One MaxMind DB, read from a copy of its own: what happens to the file afterwards does not reach it.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read, is broken, or knows nothing that flows are described with.
    """

    def __init__(self, path: Path) -> None:
        import maxminddb  # where no database is named, it need not be there

        self._errors = (maxminddb.InvalidDatabaseError, *_BROKEN)
        with self._one_line(path), tempfile.NamedTemporaryFile(prefix="flowbeam-geoip-", suffix=".mmdb") as copy:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            try:
                self._reader = maxminddb.open_database(copy.name)
            except self._errors:  # their texts name the copy
                raise ValueError("it has no search tree and metadata of a MaxMind DB") from None
            metadata = self._reader.metadata()
            octets = np.memmap(copy.name, np.uint8, "r")
            tree_octets = metadata.node_count * metadata.record_size // 4
            data_octets = _metadata_at(octets) - tree_octets - _SEPARATOR_OCTETS
            self._tree = SearchTree(octets, metadata.node_count, metadata.record_size, metadata.ip_version, data_octets)
            self._check()
        words = metadata.database_type
        kinds = [kind for kind in KINDS if any(word in words for word in kind.types)]
        if not kinds:
            raise InputError(
                f"--geoip {path}: a database of type {words!r} has neither places nor autonomous systems; "
                "name one of type City, Country, ASN, ISP or Enterprise"
            )
        self.kinds = tuple(kinds)
        self.built = metadata.build_epoch

    def find(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """Where in the file the record of each address is: equal places are equal records."""
        return self._tree.find(hi, lo)

    def record(self, address: str) -> Any:
        """The record of an address as it is in the file, None without.

        Raises:
            ValueError: It cannot be read.
        """
        try:
            return self._reader.get(address)
        except self._errors as error:
            raise ValueError(str(error)) from None

    def _check(self) -> None:
        leaves = self._tree.leaves(CHECKED_RECORDS)
        _, first = np.unique(leaves.place, return_index=True)
        for address in _texts(leaves.hi[first], leaves.lo[first]):
            self.record(address)

    @contextmanager
    def _one_line(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"--geoip {path}: {error.strerror or error}; name a MaxMind DB file (.mmdb)") from error
        except self._errors as error:
            why = f"broken database: {str(error).splitlines()[0]}" if str(error) else "broken database"
            raise InputError(f"--geoip {path}: {why}; fetch it again") from error


def _metadata_at(octets: np.ndarray) -> int:
    """Where the metadata begin: behind the last marker; the format lets them have 128 KB."""
    tail = octets[-(128 << 10) :].tobytes()
    return len(octets) - len(tail) + tail.rfind(_MARKER)


def _texts(hi: np.ndarray, lo: np.ndarray) -> list[str]:
    texts: list[str] = address_texts(hi, lo, np.where(is_ipv4(hi, lo), 4, 6)).to_pylist()
    return texts


class Found(NamedTuple):
    """What databases know of addresses.

    Attributes:
        columns: The kind's columns, a row for each record that is known.
        rows: `int32[n]`, the row of each address, −1 without a record.
        unreadable: `bool[n]`, whether its record cannot be read.
    """

    columns: list[pa.Array]
    rows: np.ndarray
    unreadable: np.ndarray


class Records:
    """The records of one kind in some databases, each decoded when it is first met. Not for several threads at once.

    Args:
        kind: What to take from records.
        databases: Where to look, in this order: the first that knows an address counts.
    """

    def __init__(self, kind: Kind, databases: list[Database], kept: int = KEPT_RECORDS) -> None:
        self.kind = kind
        self._databases = databases
        self._kept = kept
        self._row_of: dict[int, int] = {}
        self._columns: list[pa.Array] = []
        self._unreadable = np.zeros(0, bool)
        self._forget()

    def find(self, hi: np.ndarray, lo: np.ndarray) -> Found:
        """What is known of each address."""
        keys = np.zeros(len(hi), np.int64)
        for number, database in enumerate(self._databases):
            open_rows = np.flatnonzero(keys == 0)
            places = database.find(hi[open_rows], lo[open_rows])
            keys[open_rows] = np.where(places == NO_RECORD, 0, places << 8 | number)
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        rows = self._rows(distinct, first, hi, lo)[inverse.reshape(-1)]
        return Found(self._columns, rows, self._unreadable[rows])

    def _rows(self, distinct: np.ndarray, first: np.ndarray, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        names = distinct.tolist()
        known = list(map(self._row_of.get, names))
        if None in known:
            if len(self._row_of) + known.count(None) > self._kept:
                self._forget()
                known = list(map(self._row_of.get, names))
            new = [at for at, row in enumerate(known) if row is None]
            self._decode([names[at] for at in new], _texts(hi[first[new]], lo[first[new]]))
            known = list(map(self._row_of.get, names))
        return np.array(known, np.int32)

    def _decode(self, names: list[int], addresses: list[str]) -> None:
        nothing = (None,) * len(self.kind.columns)
        values, unreadable = [], []
        for name, address in zip(names, addresses, strict=True):
            try:
                if name < 0:
                    raise ValueError(f"the search tree does not end at {address}: {CORRUPT}")
                record = self._databases[name & 0xFF].record(address)
                values.append(self.kind.extract(record) if isinstance(record, dict) else nothing)
                unreadable.append(False)
            except ValueError:
                values.append(nothing)
                unreadable.append(True)
            self._row_of[name] = len(self._row_of) - 1
        added = zip(*values, strict=True)
        self._columns = [
            pa.concat_arrays([column, pa.array(list(more), column.type)])
            for column, more in zip(self._columns, added, strict=True)
        ]
        self._unreadable = np.concatenate([self._unreadable[:-1], unreadable, [False]])

    def _forget(self) -> None:
        self._row_of = {0: -1}
        self._columns = [pa.nulls(0, type_) for _, type_, *_ in self.kind.columns]
        self._unreadable = np.zeros(1, bool)  # the last one is that of row −1

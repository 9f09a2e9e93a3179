"""What is known of the addresses of flows, as columns: distinct addresses of a batch are looked up once."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import fields
from transforms.enrich import geoip, host_names, services, threats, zones
from transforms.enrich.address_numbers import NO_NETWORK, network_numbers
from transforms.enrich.geoip import Database, Kind, Records
from transforms.enrich.host_names import HostNames
from transforms.enrich.settings import EnrichSettings
from transforms.enrich.threats import Threats
from transforms.enrich.watched import Watched
from transforms.enrich.zones import Zones
from transforms.fields import Field
from transforms.records import InputError

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Files are looked at no oftener."""

PROBLEMS = ("geoip_unreadable", "reverse_dns_late", "geoip_outdated", "zones_outdated", "threats_outdated")
"""What `enrichment_problem` can say; several are joined by commas."""

_UNREADABLE, _LATE, _GEOIP_OUTDATED, _ZONES_OUTDATED, _THREATS_OUTDATED = (1 << bit for bit in range(len(PROBLEMS)))
_PROBLEM_TEXTS = pa.array(
    [
        ",".join(name for bit, name in enumerate(PROBLEMS) if problems >> bit & 1) or None
        for problems in range(1 << len(PROBLEMS))
    ]
)

PROBLEM = Field(
    "enrichment_problem",
    pa.string(),
    "",
    "What the flow is enriched with may be incomplete: `geoip_unreadable`, `reverse_dns_late`; or of an older state of "
    "the files: `geoip_outdated`, `zones_outdated`, `threats_outdated`. Null otherwise.",
)

FIELDS = (
    *geoip.fields_of(geoip.PLACE),
    *geoip.fields_of(geoip.SYSTEM),
    *zones.FIELDS,
    *host_names.FIELDS,
    *threats.FIELDS,
    services.FIELD,
    PROBLEM,
)
"""All columns that there can be, in order."""


class Addresses(NamedTuple):
    """The addresses of a batch of flows.

    Attributes:
        texts: The distinct ones.
        hi: Their high halves.
        lo: Their low halves.
        src: For each flow the row of its initiator's address.
        dst: For each flow that of its responder's.
    """

    texts: pa.StringArray
    hi: np.ndarray
    lo: np.ndarray
    src: np.ndarray
    dst: np.ndarray


def addresses_of(flows: pa.RecordBatch) -> Addresses:
    """The distinct addresses of both sides."""
    both = (
        pa.chunked_array([flows["src_ip"], flows["dst_ip"]]).combine_chunks().dictionary_encode(null_encoding="encode")
    )
    texts, rows = both.dictionary, both.indices.to_numpy()
    hi, lo, length = network_numbers(texts)
    if (length == NO_NETWORK).any():
        hi, lo = np.where(length == NO_NETWORK, 0, hi), np.where(length == NO_NETWORK, 0, lo)
    return Addresses(texts, hi, lo, rows[: len(flows)], rows[len(flows) :])


class Enrichment:
    """Databases, zones, lists and names, kept up to date. One for all threads of a process.

    Args:
        settings: Where they are.

    Attributes:
        fields: The columns that are added, in order.

    Raises:
        InputError: A file cannot be used; the message names it.
    """

    def __init__(self, settings: EnrichSettings) -> None:
        self._settings = settings
        self._databases = [_watched_database(Path(path)) for path in settings.geoip]
        self._zones = _watched_zones(Path(settings.zones)) if settings.zones else None
        self._threats = _watched_threats(tuple(map(Path, settings.threats))) if settings.threats else None
        self._names = (
            HostNames(settings.reverse_dns_threads, settings.reverse_dns_wait_s) if settings.reverse_dns else None
        )
        self._kinds = _kinds_of(self._databases)
        self._join_databases()
        self.fields = tuple(self._fields())
        self._schema = fields.arrow_schema(self.fields)
        self._lock = threading.Lock()
        self._looked_s = time.monotonic()
        self._read_again = self._refused = 0
        if (
            self._threats is not None
            and self._threats.value.domains
            and not (settings.reverse_dns or settings.threat_columns)
        ):
            _log.warning(
                "--threats: no column is searched for its domains (%s); give --reverse_dns or --threat_columns",
                f"{self._threats.value.domains:,}",
            )

    def append(self, flows: pa.RecordBatch) -> pa.RecordBatch:
        """The flows with the columns of `fields` after their own."""
        self._settings.check(flows.schema)
        addresses = addresses_of(flows)
        with self._lock:
            self._look()
            problems = np.full(len(flows), self._outdated(), np.uint8)
            found = [(kind, records.find(addresses.hi, addresses.lo)) for kind, records in self._records]
            known_zones = self._zones.value if self._zones is not None else None
            known_threats = self._threats.value if self._threats is not None else None
        columns: list[pa.Array] = []
        for _, (values, rows, unreadable) in found:
            for side in (addresses.src, addresses.dst):
                columns += _taken(values, rows[side])
                problems |= unreadable[side] * np.uint8(_UNREADABLE)
        if known_zones is not None:
            rows = known_zones.find(addresses.hi, addresses.lo)
            src, dst = rows[addresses.src], rows[addresses.dst]
            columns += [*_taken(known_zones.columns, src), *_taken(known_zones.columns, dst)]
            columns.append(known_zones.localities(src, dst))
        candidates: list[tuple[str, np.ndarray]] = []
        if known_threats is not None:
            rows = known_threats.find(addresses.hi, addresses.lo)
            candidates = [("src", rows[addresses.src]), ("dst", rows[addresses.dst])]
        if self._names is not None:
            texts, late = self._names.find(addresses.texts.to_pylist())
            names, is_late = pa.array(texts, pa.string()), np.array(late, bool)
            columns += [names.take(pa.array(addresses.src)), names.take(pa.array(addresses.dst))]
            problems |= (is_late[addresses.src] | is_late[addresses.dst]) * np.uint8(_LATE)
            if known_threats is not None:
                rows = known_threats.find_names(names)
                candidates += [("src", rows[addresses.src]), ("dst", rows[addresses.dst])]
        if known_threats is not None:
            for name in self._settings.threat_columns:
                texts_of = flows[name].dictionary_encode(null_encoding="encode")
                candidates.append(("dst", known_threats.find_names(texts_of.dictionary)[texts_of.indices.to_numpy()]))
            columns += known_threats.columns(candidates)
        protocol, src_port, dst_port = (flows[name].to_numpy() for name in ("protocol", "src_port", "dst_port"))
        columns += [services.services(protocol, src_port, dst_port), _PROBLEM_TEXTS.take(pa.array(problems))]
        schema = pa.schema([*flows.schema, *self._schema], flows.schema.metadata)
        return pa.RecordBatch.from_arrays([*flows.columns, *columns], schema=schema)

    def take_counts(self) -> tuple[int, int]:
        """How often changed files were read again, and how often refused, since it was asked last."""
        with self._lock:
            counts = self._read_again, self._refused
            self._read_again = self._refused = 0
        return counts

    def _fields(self) -> Iterator[Field]:
        for kind in self._kinds:
            yield from geoip.fields_of(kind)
        if self._zones is not None:
            yield from zones.FIELDS
        if self._names is not None:
            yield from host_names.FIELDS
        if self._threats is not None:
            yield from threats.FIELDS
        yield from (services.FIELD, PROBLEM)

    def _join_databases(self) -> None:
        self._records: list[tuple[Kind, Records]] = []
        for kind in self._kinds:
            databases = [
                watched.value for watched in self._databases if set(watched.value.kinds) & set(_served_by(kind))
            ]
            self._records.append((kind, Records(kind, databases)))

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        if self._looked_at(self._databases):
            self._join_databases()
        self._looked_at([watched for watched in (self._zones, self._threats) if watched is not None])

    def _looked_at(self, files: Iterable[Watched[Any]]) -> bool:
        """Whether one of them has a new value."""
        states = [file.look() for file in files]
        self._read_again += states.count(True)
        self._refused += states.count(False)
        return True in states

    def _outdated(self) -> int:
        outdated = 0
        for problem, files in (
            (_GEOIP_OUTDATED, self._databases),
            (_ZONES_OUTDATED, [self._zones] if self._zones else []),
            (_THREATS_OUTDATED, [self._threats] if self._threats else []),
        ):
            outdated |= problem * any(file.outdated for file in files)
        return outdated


def _watched_database(path: Path) -> Watched[Database]:
    """A database that knows at least what it did at first: columns are fixed when a job starts."""
    known: set[Kind] = set()

    def load() -> Database:
        database = Database(path)
        if not known <= set(database.kinds):
            raise InputError(f"--geoip {path}: is of another type than when the job began; give one of the same type")
        known.update(database.kinds)
        return database

    return Watched((path,), load)


def _watched_zones(path: Path) -> Watched[Zones]:
    return Watched((path,), lambda: Zones(path))


def _watched_threats(paths: tuple[Path, ...]) -> Watched[Threats]:
    return Watched(paths, lambda: Threats([one for path in paths for one in threats.read_lists(path)]))


def _served_by(kind: Kind) -> tuple[Kind, ...]:
    """The kinds of databases that know what `kind` asks: those of countries know the countries of places."""
    return (geoip.PLACE, geoip.COUNTRY) if kind is geoip.PLACE else (kind,)


def _kinds_of(databases: Sequence[Watched[Database]]) -> list[Kind]:
    there = {kind for watched in databases for kind in watched.value.kinds}
    if geoip.PLACE in there:
        there.discard(geoip.COUNTRY)
    return [kind for kind in geoip.KINDS if kind in there]


def _taken(columns: Sequence[pa.Array], rows: np.ndarray) -> list[pa.Array]:
    """The rows of each column; null for row −1."""
    if (rows < 0).all():
        return [pa.nulls(len(rows), column.type) for column in columns]
    wanted = pa.array(rows, mask=rows < 0)
    return [pc.take(column, wanted) for column in columns]


_shared: dict[EnrichSettings, Enrichment] = {}
_sharing = threading.Lock()


def enrichment_of(settings: EnrichSettings) -> Enrichment:
    """The enrichment of this process for some settings: files are read once for all steps and threads.

    Raises:
        InputError: A file cannot be used.
    """
    with _sharing:
        if settings not in _shared:
            _shared.clear()
            _shared[settings] = Enrichment(settings)
        return _shared[settings]

"""The captures of the corpus, which of them a run takes, and our flows of one, assembled without Beam."""

import csv
import hashlib
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from transforms.records import PacketBatch
from transforms.settings import FlowSettings

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS") or Path(__file__).parents[2] / "shared" / "data")
CHECK_ALL = bool(os.environ.get("FLOWBEAM_CHECK_ALL"))

SAMPLE = 150
"""Captures of a run without FLOWBEAM_CHECK_ALL."""

FEATURES = ("flowtbag@1",)
"""A small feature set: what is compared are keys and counters, which every record has."""


class Capture(NamedTuple):
    """A row of captures.csv.

    Attributes:
        name: Path below the folder `captures`.
        packets: As many as Wireshark finds.
        kinds: Format, byte order, unit of time, link types and tags: what the sample has to have one of.
        expected: Files below `expected` that say something about it.
    """

    name: str
    packets: int
    kinds: frozenset[str]
    expected: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return CORPUS / "captures" / self.name

    def expected_by(self, tool: str) -> list[Path]:
        """What a tool says about it."""
        return [CORPUS / "expected" / path for path in self.expected if path.startswith(f"{tool}/")]


@cache
def all_captures() -> tuple[Capture, ...]:
    """Every capture, by name."""
    with open(CORPUS / "captures.csv", newline="", encoding="utf-8") as lines:
        return tuple(sorted(map(_capture, csv.DictReader(lines))))


def _capture(row: dict[str, str]) -> Capture:
    kinds = [row[column] for column in ("format", "endian", "ts_unit")]
    kinds += [*row["link_types"].split("+"), *re.findall(r"[^\s,]+", row["tags"])]
    name = row["file"].removeprefix("captures/")
    return Capture(name, int(row["packets"]), frozenset(kinds), tuple(row["expected"].split()))


@cache
def chosen_captures() -> tuple[Capture, ...]:
    """All captures if FLOWBEAM_CHECK_ALL is set, else always the same sample, in which nothing that exists is missing.

    The order is that of a hash of the names. First come captures of kinds that are not there yet, those of most kinds
    first; the rest is filled up with captures of which other tools say something.
    """
    if CHECK_ALL:
        return all_captures()
    shuffled = sorted(
        all_captures(),
        key=lambda capture: (not capture.expected, hashlib.sha256(capture.name.encode()).digest()),
    )
    sample: dict[str, Capture] = {}
    seen: set[str] = set()
    for capture in sorted(shuffled, key=lambda capture: -len(capture.kinds)):
        if not capture.kinds <= seen:
            seen |= capture.kinds
            sample[capture.name] = capture
    for capture in shuffled:
        if len(sample) >= SAMPLE:
            break
        sample.setdefault(capture.name, capture)
    return tuple(sorted(sample.values()))


class Assembled(NamedTuple):
    """What became of one capture.

    Attributes:
        report: Of reading it.
        counts: Of the flow table.
        flows: One dictionary for each flow, with the columns asked for.
    """

    report: ReadReport
    counts: Counter[str]
    flows: list[dict[str, Any]]


COUNTERS = tuple(f"{side}_{what}" for side in ("fwd", "rev") for what in ("packets", "frame_octets", "ip_octets"))
KEY = ("src_ip", "src_port", "dst_ip", "dst_port", "protocol", "vlan_id")


def assemble(
    path: Path, settings: FlowSettings, reading: ReadSettings | None = None, columns: Iterable[str] = ()
) -> Assembled:
    """One capture through reader and flow table."""
    report = ReadReport()
    batches = read_packets(SensorInput("local", (str(path),)), reading or ReadSettings(), report)
    counts, flows = fold(batches, settings, columns)
    return Assembled(report, counts, flows)


def fold(
    batches: Iterable[PacketBatch], settings: FlowSettings, columns: Iterable[str] = ()
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Batches in order of time through one flow table: what it counted, and the flows."""
    table = settings.table(settings.columns(), "local")
    wanted = [*KEY, *COUNTERS, *columns]
    flows: list[dict[str, Any]] = []
    last_ns = -(1 << 63)
    for batch in batches:
        last_ns = max(last_ns, int(batch.packets["time_ns"].max(initial=last_ns)))
        table.add(batch)
        flows += _rows(table.advance(batch.observed_ns), wanted)
    flows += _rows(table.finish(last_ns), wanted)
    return table.counts, flows


def _rows(batches: Iterable[pa.RecordBatch], columns: list[str]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.select(columns).to_pylist()]


def address(text: str) -> str:
    """An IP address in the one spelling that all sides are brought to."""
    return str(ipaddress.ip_address(text))


def biflow(
    src: tuple[str, int], dst: tuple[str, int], forward: tuple[int, int], reverse: tuple[int, int], *rest: Any
) -> tuple[Any, ...]:
    """A flow without direction: each end with the packets and octets that it sent, in a fixed order; then the rest."""
    ends = sorted([((address(src[0]), src[1]), forward), ((address(dst[0]), dst[1]), reverse)])
    return (*ends, *rest)


def our_biflow(flow: dict[str, Any], octets: str) -> tuple[Any, ...]:
    """`biflow` of one of our rows; `octets` is `frame` or `ip`."""
    return biflow(
        (flow["src_ip"], flow["src_port"]),
        (flow["dst_ip"], flow["dst_port"]),
        (flow["fwd_packets"], flow[f"fwd_{octets}_octets"]),
        (flow["rev_packets"], flow[f"rev_{octets}_octets"]),
        flow["protocol"],
        flow["vlan_id"],
    )


def one_by_one(check: Callable[[Capture], str | None], captures: Iterable[Capture]) -> list[str]:
    """What is wrong with each capture, as `check` says; an error tells which capture it is about."""
    wrong = []
    for capture in captures:
        try:
            said = check(capture)
        except Exception as error:
            raise AssertionError(f"{capture.name}: {error!r}") from error
        if said:
            wrong.append(f"{capture.name}: {said}")
    return wrong

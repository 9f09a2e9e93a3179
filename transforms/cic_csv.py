"""Reads published tables of CICFlowMeter's columns, in any of their four spellings, into canonical columns."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from transforms import fields
from transforms.csv_text import Utf8File, column_names, lines_of
from transforms.features import cic, sets
from transforms.fields import Field
from transforms.records import InputError

SPELLINGS = ("cic", "cse2018", "ids2017", "python")
"""As in `cic.Spelled`. IoTID20 is `cse2018` with underscores."""

LABEL = Field("label", pa.string(), "", "What a person said the flow is.")

_US_PER_S = 1e6
_PACKETS_AND_RATE = ("fwd_packets", "rev_packets", "flow_packets_per_s")
_DERIVED = {"Flow ID", "flow_id"}
_ALIASES = {"Fwd Header Length.1": "fwd_header_octets"}
_PYTHON_ALIASES = {"cwe_flag_count": "flow_cwr_count"}
_WINDOWS = {"fwd_tcp_window_first", "rev_tcp_window_first"}
_NUMBER = r"(?i)^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?(inf|infinity|nan)$"
_ISO_TIME = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?$"
_DAY_FIRST_TIMES = ("%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M")


@dataclass
class CicReport:
    """What was found in a file; the counts grow while it is read.

    Attributes:
        spelling: One of `SPELLINGS`, the one that most of the header's names belong to.
        missing: Canonical columns of `cic@1`, and `label`, that the file has not.
        ignored: Columns of the file that mean nothing here.
        duplicates: Columns of the file that say again what an earlier one says; the earlier one is read.
        time_unit: Of the file's times: `us`, or `s` in the Python port since 0.3; empty until a row tells.
        rows: Rows that were yielded.
        repeated_headers: Rows dropped because they are the header again (CSE-CIC-IDS2018).
        empty_rows: Rows dropped because every value is empty (CIC-IDS2017, Thursday).
        malformed_rows: Lines dropped because they have another number of columns than the header.
        nulls: Values that became null, by reason and column: `empty`; `absent` (a window of −1); `not_finite`
            (Infinity, NaN); `negative` (none of the columns can be); `unreadable` (no number or time, or outside the
            column's type).
    """

    spelling: str
    missing: tuple[str, ...]
    ignored: tuple[str, ...]
    duplicates: tuple[str, ...]
    time_unit: str = "us"
    rows: int = 0
    repeated_headers: int = 0
    empty_rows: int = 0
    malformed_rows: int = 0
    nulls: dict[str, Counter[str]] = field(default_factory=dict)

    def count_nulls(self, reason: str, column: str, values: int) -> None:
        """Adds to `nulls`."""
        if values:
            self.nulls.setdefault(reason, Counter())[column] += values


class _Source(NamedTuple):
    """Where a canonical column stands in the file."""

    at: str
    header: str
    field: Field


class CicRows(Iterator[pa.RecordBatch]):
    """The rows of one file, a block at a time; memory does not depend on its length.

    Attributes:
        path: The file.
        schema: Schema of the batches: `cic@1`'s canonical columns that the file has, in the set's order, then `label`.
        report: What was found, complete once the last batch was taken.
    """

    def __init__(self, path: str, label: str, block_octets: int) -> None:
        self.path = path
        header = column_names(path)
        self.report, self._sources = _understood(path, header, label)
        self.schema = fields.arrow_schema(source.field for source in self._sources)
        self._batches = self._read(len(header), block_octets)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def _read(self, columns: int, block_octets: int) -> Iterator[pa.RecordBatch]:
        wanted = [source.at for source in self._sources]
        try:
            blocks = arrow_csv.open_csv(
                Utf8File(self.path),
                arrow_csv.ReadOptions(
                    skip_rows=1,
                    column_names=[str(i) for i in range(columns)],
                    block_size=block_octets,
                    use_threads=False,
                ),
                arrow_csv.ParseOptions(invalid_row_handler=self._skip_malformed),
                arrow_csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
                ),
            )
            for block in blocks:
                yield self._canonical(block)
        except (pa.ArrowInvalid, OSError) as error:
            if "Empty CSV file" in str(error):  # a header and nothing else
                return
            raise InputError(f"{self.path}: cannot be read as CSV: {error}") from error

    def _skip_malformed(self, row: arrow_csv.InvalidRow) -> str:
        self.report.malformed_rows += lines_of(row.text)
        return "skip"

    def _canonical(self, block: pa.RecordBatch) -> pa.RecordBatch:
        block = self._without_empty_rows(self._without_repeated_headers(block))
        if not self.report.time_unit:
            self.report.time_unit = self._time_unit(block)
        values = [_reader(source)(block.column(source.at), source, self.report) for source in self._sources]
        self.report.rows += len(block)
        return pa.RecordBatch.from_arrays(values, schema=self.schema)

    def _time_unit(self, block: pa.RecordBatch) -> str:
        """The unit in which rate times duration is the number of packets; seconds without a rate to tell by."""
        known = {source.field.name: source for source in self._sources}
        if not known.keys() >= {"flow_duration_us", *_PACKETS_AND_RATE}:
            return "s"
        duration, fwd, rev, rate = (
            _floats(block.column(known[name].at)).fill_null(0).to_numpy()
            for name in ("flow_duration_us", *_PACKETS_AND_RATE)
        )
        telling = (duration > 0) & (fwd + rev > 0) & (rate > 0) & np.isfinite(rate)
        if not telling.any():
            return "s" if (duration > 0).any() else ""
        measured = duration[telling] * rate[telling] / (fwd + rev)[telling]
        return "s" if np.median(measured) < np.sqrt(_US_PER_S) else "us"

    def _without_repeated_headers(self, block: pa.RecordBatch) -> pa.RecordBatch:
        source = self._sources[0]
        if (
            source.field.type == pa.string()
        ):  # an address could be called anything; a number is never called by its header
            source = next(source for source in self._sources if source.field.type != pa.string())
        repeated = pc.equal(pc.ascii_trim_whitespace(block.column(source.at)), source.header)
        if not repeated.true_count:
            return block
        self.report.repeated_headers += repeated.true_count
        return block.filter(pc.invert(repeated))

    def _without_empty_rows(self, block: pa.RecordBatch) -> pa.RecordBatch:
        empty = pc.equal(pc.binary_length(block.column(0)), 0)
        for column in block.columns[1:]:
            if not empty.true_count:
                return block
            empty = pc.and_(empty, pc.equal(pc.binary_length(column), 0))
        self.report.empty_rows += empty.true_count
        return block.filter(pc.invert(empty)) if empty.true_count else block


def read_cic_csv(path: str, label: str = "Label", block_octets: int = 4 << 20) -> CicRows:
    """Opens a CSV of CICFlowMeter's columns, plain or compressed (`.gz`, `.bz2`, `.zst`).

    The spelling is found by the header; names may have spaces around them, and underscores for spaces. Times of the
    Python port, seconds since its version 0.3, become µs. `flow_start_ns` takes the file's clock as UTC: none of these
    tables names its zone, dates are read day first, and afternoons on a 12-hour clock without AM or PM (CIC-IDS2017)
    stay 12 hours behind.

    Args:
        path: The file.
        label: Header of its label; upper and lower case are the same.
        block_octets: How much is read at once.

    Raises:
        InputError: The file cannot be read, or its header is none of the four.
    """
    return CicRows(path, label, block_octets)


def _names(spelling: str) -> dict[str, str]:
    names = {getattr(row, spelling): row.canonical for row in (*cic.IDENTIFICATION, *cic.FEATURES)}
    if spelling == "python":
        return names | _PYTHON_ALIASES
    return {_spaced(name): canonical for name, canonical in (names | _ALIASES).items()}


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _understood(path: str, header: list[str], label: str) -> tuple[CicReport, list[_Source]]:
    tables = {spelling: _names(spelling) for spelling in SPELLINGS}

    def key(name: str, spelling: str) -> str:
        return name if spelling == "python" else _spaced(name)

    fitting = {
        spelling: sum(key(name, spelling) in table for name in set(header)) for spelling, table in tables.items()
    }
    spelling = max(SPELLINGS, key=fitting.__getitem__)
    # A name means the same in the three spellings with µs, so a table that mixes them is read too.
    table = tables["python"] if spelling == "python" else tables["cic"] | tables["cse2018"] | tables["ids2017"]
    meanings = [table.get(key(name, spelling)) for name in header]
    at_label = next((i for i, name in enumerate(header) if name.lower() == label.lower()), None)
    unknown = [
        name
        for i, (name, meaning) in enumerate(zip(header, meanings, strict=True))
        if meaning is None and i != at_label and key(name, spelling) not in _DERIVED
    ]
    features = {row.canonical for row in cic.FEATURES}
    if features.isdisjoint(meanings) or 2 * len(unknown) > len(header):
        raise InputError(
            f"{path}: not a table of CICFlowMeter's columns: {len(header) - len(unknown)} of {len(header)} fit, "
            f"these do not: {sets.some(unknown)}"
        )
    ordered = dict.fromkeys(row.canonical for row in (*cic.IDENTIFICATION, *cic.FEATURES))
    sources = []
    for canonical in ordered:
        if canonical in meanings:
            at = meanings.index(canonical)
            sources.append(_Source(str(at), header[at], sets.CANONICAL[canonical]))
    if at_label is not None:
        sources.append(_Source(str(at_label), header[at_label], LABEL))
    read = {int(source.at) for source in sources}
    return CicReport(
        spelling=spelling,
        missing=tuple(
            name for name in (*ordered, *([] if at_label is not None else ["label"])) if name not in meanings
        ),
        ignored=tuple(unknown),
        duplicates=tuple(header[i] for i, meaning in enumerate(meanings) if meaning is not None and i not in read),
        time_unit="" if spelling == "python" else "us",
    ), sources


def _reader(source: _Source) -> Callable[[pa.Array, _Source, CicReport], pa.Array]:
    if source.field.name == "flow_start_ns":
        return _times
    return _words if source.field.type == pa.string() else _numbers


def _words(texts: pa.Array, source: _Source, report: CicReport) -> pa.Array:
    texts = pc.utf8_trim_whitespace(texts)
    empty = pc.equal(texts, "")
    report.count_nulls("empty", source.field.name, empty.true_count)
    return pc.if_else(empty, pa.scalar(None, pa.string()), texts)


def _numbers(texts: pa.Array, source: _Source, report: CicReport) -> pa.Array:
    name, type_ = source.field.name, source.field.type
    parsed = _parsed(texts, source, report)
    null = parsed.is_null().to_numpy(zero_copy_only=False)
    values = parsed.fill_null(0).to_numpy()

    def reject(bad: np.ndarray, reason: str) -> None:
        report.count_nulls(reason, name, int(bad.sum()))
        null[bad] = True

    reject(~np.isfinite(values), "not_finite")
    if name in _WINDOWS:
        reject(~null & (values == -1), "absent")
    reject(~null & (values < 0), "negative")
    in_seconds = name.endswith("_us") and report.time_unit == "s"
    values = np.where(null, 0.0, values) * (_US_PER_S if in_seconds else 1.0)
    if pa.types.is_integer(type_):
        dtype = np.dtype(str(type_))
        largest = np.iinfo(dtype).max
        reject((values != np.floor(values)) | (values >= largest + 1.0), "unreadable")
        values = np.where(null, 0.0, values).astype(dtype)
    return pa.array(values, type_, mask=null)


def _parsed(texts: pa.Array, source: _Source, report: CicReport) -> pa.Array:
    numbers = _floats(texts)
    if numbers.null_count:
        _count_unreadable(pc.ascii_trim_whitespace(texts), numbers.is_valid(), source, report)
    return numbers


def _floats(texts: pa.Array) -> pa.Array:
    """Null where a text is no number."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.ascii_trim_whitespace(texts)
        readable = pc.match_substring_regex(trimmed, _NUMBER)
        return pc.if_else(readable, trimmed, pa.scalar(None, pa.string())).cast(pa.float64())


def _count_unreadable(texts: pa.Array, readable: pa.Array, source: _Source, report: CicReport) -> None:
    empty = pc.equal(texts, "").true_count
    report.count_nulls("empty", source.field.name, empty)
    report.count_nulls("unreadable", source.field.name, len(texts) - readable.true_count - empty)


def _times(texts: pa.Array, source: _Source, report: CicReport) -> pa.Array:
    texts = pc.ascii_trim_whitespace(texts)
    iso = pc.if_else(pc.match_substring_regex(texts, _ISO_TIME), texts, pa.scalar(None, pa.string()))
    to_seconds = pc.replace_substring(pc.utf8_slice_codeunits(iso, 0, 19), "T", " ")
    seconds = _seconds(to_seconds, "%Y-%m-%d %H:%M:%S")
    for time_format in _DAY_FIRST_TIMES:
        if not seconds.null_count:
            break
        seconds = pc.coalesce(seconds, _seconds(texts, time_format))
    fraction = pc.utf8_rpad(pc.utf8_slice_codeunits(iso, 20, 29).fill_null(""), 9, "0").cast(pa.int64())
    nanoseconds = pc.multiply(seconds, 1_000_000_000)
    within = pc.and_(pc.greater(seconds, -(2**33)), pc.less(seconds, 2**33)).fill_null(False)  # int64 ns: 1697 to 2242
    _count_unreadable(texts, within, source, report)
    return pc.if_else(within, pc.add(nanoseconds, fraction), pa.scalar(None, pa.int64()))


def _seconds(texts: pa.Array, time_format: str) -> pa.Array:
    return pc.strptime(texts, format=time_format, unit="s", error_is_null=True).cast(pa.int64())

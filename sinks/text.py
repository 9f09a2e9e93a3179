"""Flows as lines of text, `csv:FILE` and `jsonl:FILE`, in the columns of one feature set under its published names.

Cells are made a column at a time and joined a block at a time by Arrow; no row passes through Python. Interim records
go to a file of their own beside the other, `flows.interim.csv` for `flows.csv`: many sets have no column that tells
them apart.
"""

import abc
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks import places
from sinks.outputs import SinkContext, SinkUrl
from sinks.whole_file import WholeFile, WriteWholeFile, check_ends
from transforms.features import sets
from transforms.records import InputError, Reject

_SOURCES = ("src_ip", "Src IP", "srcip")
"""What feature sets call the address of the initiator."""

BLOCK_ROWS = 4096
"""Rows that are made text at a time: enough that calls cost little, few enough that memory does."""

_HEX = np.frombuffer("".join(f"{octet:02x}" for octet in range(256)).encode(), "u2")
"""Two hexadecimal digits for each octet."""


def chosen_set(url: SinkUrl, context: SinkContext) -> str:
    """Name of the feature set that a text output writes: its parameter `features`, or the only one there is.

    Raises:
        InputError: There are several and the URL does not say which, or it names one that was not chosen.
    """
    url.check_parameters("features")
    known = ", ".join(context.feature_sets)
    name = url.parameters.get("features")
    if name is None:
        if len(context.feature_sets) != 1:
            example = f"'{url}?features={context.feature_sets[0]}'"
            raise InputError(f"{url}: holds one feature set of {known}; say which: {example}")
        return context.feature_sets[0]
    if name not in context.feature_sets:
        sets.get(name)
        raise InputError(f"{url}: {name} is not among the chosen feature sets, {known}; choose it with --features")
    return name


def local_path(url: SinkUrl) -> Path | None:
    """The file that the output names; none for standard output."""
    return None if url.on_standard_output else places.local_path(str(url), url.path)


def query(reader: str, url: SinkUrl, context: SinkContext) -> str:
    """How many flows each address began, as an expression of DuckDB's Python module; `reader` is its function."""
    names = sets.get(chosen_set(url, context)).schema.names
    source = next(place for place, name in enumerate(names, 1) if name in _SOURCES)
    file = glob.escape(os.path.expanduser(url.path))
    return f"duckdb.{reader}({file!r}).aggregate('#{source}, count(*) AS flows').order('flows DESC').limit(10)"


class Lines(abc.ABC):
    """A format of one line a record.

    Attributes:
        headed: Whether a line with the names stands before the records.
    """

    headed: bool

    @abc.abstractmethod
    def header(self, schema: pa.Schema) -> bytes:
        """What stands before the records: nothing or one line."""

    @abc.abstractmethod
    def lines(self, records: pa.RecordBatch) -> pa.StringArray:
        """One line for each record, line feed included."""

    def blocks(self, records: pa.RecordBatch) -> Iterator[memoryview]:
        """The octets of the lines, a block at a time."""
        for first in range(0, len(records), BLOCK_ROWS):
            yield _octets(self.lines(records.slice(first, BLOCK_ROWS)))


class WriteText(beam.PTransform):
    """Writes flows as text: final records to the file, interim records, if there are any, to the one beside it."""

    def __init__(self, url: SinkUrl, context: SinkContext, lines: Lines) -> None:
        super().__init__()
        feature_set = chosen_set(url, context)
        place = places.local_path(str(url), url.path)
        places.check_file(str(url), place)
        check_ends(str(url), context.streaming)
        self.final = TextFile(str(url), place, feature_set, lines, "final")
        interim = place.with_name(f"{place.stem}.interim{place.suffix}")
        self.interim = TextFile(str(url), interim, feature_set, lines, "interim")
        self.job = context.job

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the steps that write either file."""
        written = [
            flows | label >> WriteWholeFile(file, self.job)
            for label, file in (("WriteFinal", self.final), ("WriteInterim", self.interim))
        ]
        return written | "FlattenRejects" >> beam.Flatten()


class TextFile(WholeFile):
    """A text file of the records of one kind, `final` or `interim`; without any, there is no interim file."""

    def __init__(self, named: str, place: Path, feature_set: str, lines: Lines, kind: str) -> None:
        super().__init__(named, place, "flows_written" if kind == "final" else "interim_records_written")
        self.feature_set = feature_set
        self.lines = lines
        self.kind = kind

    def chosen(self, flows: pa.RecordBatch) -> pa.RecordBatch:
        """The records of the file's kind."""
        wanted = pc.equal(flows["record_kind"], self.kind)
        return flows if pc.all(wanted).as_py() else flows.filter(wanted)

    def write_part(self, part: Path, batches: Iterator[pa.RecordBatch]) -> None:
        """Writes the header, if there is one, and the lines."""
        published = sets.get(self.feature_set).published
        with open(part, "wb") as file:
            for batch in batches:
                records = published(batch)
                if file.tell() == 0:
                    file.write(self.lines.header(records.schema))
                for block in self.lines.blocks(records):
                    file.write(block)

    def join(self, parts: list[Path], fresh: Path) -> None:
        """Appends the lines of the later parts to the first."""
        if not parts and self.kind == "interim":
            self.place.unlink(missing_ok=True)  # an earlier job's, which would be taken for this one's
            return
        if parts:
            os.replace(parts[0], fresh)
        else:
            fresh.write_bytes(self.lines.header(sets.get(self.feature_set).schema))
        with open(fresh, "ab") as whole:
            for part in parts[1:]:
                with open(part, "rb") as lines:
                    if self.lines.headed:
                        lines.readline()
                    shutil.copyfileobj(lines, whole, 1 << 20)
        os.replace(fresh, self.place)


def cells(column: pa.Array) -> pa.Array:
    """The values as text; null, NaN and the infinities are null.

    Octets become hexadecimal digits, a list `[1,2]`.
    """
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_dictionary(kind):
        return cells(column.cast(kind.value_type))
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return _hexadecimal(column)
    if pa.types.is_list(kind):
        return bracketed(column, cells(column.flatten()))
    if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column)).as_py():
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))
    return column.cast(pa.string())


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are text that a format may have to quote, and no number, truth value or list."""
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_list)
    return not any(is_plain(kind) for is_plain in plain)


def holds(texts: pa.StringArray, characters: bytes) -> bool:
    """Whether any of `texts` has one of `characters`, all of them ASCII."""
    octets = bytes(_octets(texts))
    return len(octets.translate(None, characters)) != len(octets)


def _octets(texts: pa.StringArray) -> memoryview:
    """All the texts end to end."""
    data = texts.buffers()[2]
    if data is None:
        return memoryview(b"")
    bounds = _offsets(texts)
    return memoryview(data)[bounds[0] : bounds[-1]]


def _offsets(texts: pa.StringArray | pa.BinaryArray) -> np.ndarray:
    return np.frombuffer(texts.buffers()[1], "i4")[texts.offset : texts.offset + len(texts) + 1]


def _hexadecimal(column: pa.FixedSizeBinaryArray | pa.BinaryArray) -> pa.Array:
    if pa.types.is_binary(column.type):
        offsets = _offsets(column)
    else:
        offsets = np.arange(column.offset, column.offset + len(column) + 1, dtype="i4") * column.type.byte_width
    octets = np.frombuffer(column.buffers()[-1] or b"", "u1")[offsets[0] : offsets[-1]]
    offsets = (offsets - offsets[0]) * 2
    texts = pa.StringArray.from_buffers(len(column), pa.py_buffer(offsets), pa.py_buffer(_HEX[octets]))
    return pc.if_else(column.is_valid(), texts, pa.scalar(None, pa.string())) if column.null_count else texts


def bracketed(lists: pa.ListArray, values: pa.StringArray) -> pa.StringArray:
    """JSON arrays of the values, which are those of `lists.flatten()`; null where a list is, and in it."""
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate(([0], np.cumsum(counts))).astype("i4")
    texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), values.fill_null("null")), ",")
    texts = pc.binary_join_element_wise("[", texts, "]", "")
    return pc.if_else(lists.is_valid(), texts, pa.scalar(None, pa.string())) if lists.null_count else texts

"""Rows of Arrow record batches as Avro single-object messages, a column at a time.

The schema follows from the Arrow schema: a record with a field for each column, in order, each `["null", TYPE]` with
default null where the column may be null, so that schemas that only add columns resolve to each other. A few rows at a
time have each a slot that is surely large enough and stays in the cache; every column is written to all the slots, and
then these are put together.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.avro_kernels import put_long
from transforms.chunks import CHUNK, copied
from transforms.kernel import kernel

NAMESPACE = "flowbeam"

CACHED_ROWS, CACHED_OCTETS = 64, 1 << 20
"""So many rows are written at a time, column after column; fewer where they are long."""

_LONG_OCTETS = 10
_TIME_UNITS = {"ms": "timestamp-millis", "us": "timestamp-micros", "ns": "timestamp-nanos"}

_LONG, _FIXED, _OCTETS, _COUNTED, _LIST = range(5)
"""What is written of a row: a number; octets, always as many; octets, as they are; with their length before them; or,
of items, with their number before them and a zero behind."""

_NO_OCTETS = np.zeros(0, np.uint8)


class Rows(NamedTuple):
    """Encoded rows: row `i` is `octets[bounds[i]:bounds[i + 1]]`."""

    octets: np.ndarray
    bounds: np.ndarray


def schema_of(columns: pa.Schema) -> dict[str, Any]:
    """The Avro schema of records with these columns; unit and definition are in it.

    The record is named as the metadata `record` of the columns says, or `Flow`.

    Raises:
        ValueError: A column has no Avro name, or a type that Avro has not.
    """
    name = (columns.metadata or {}).get(b"record", b"Flow").decode()
    return {
        "type": "record",
        "name": name,
        "namespace": NAMESPACE,
        "fields": [_avro_field(field, name) for field in columns],
    }


def _avro_field(field: pa.Field, record: str) -> dict[str, Any]:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", field.name):
        raise ValueError(f"{field.name} is no name of Avro")
    described: dict[str, Any] = {"name": field.name}
    about = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    described |= {key: about[key] for key in ("doc", "unit") if key in about}
    kind = _avro_type(field.type, f"{record}_{field.name}")
    if field.nullable:
        return {**described, "type": ["null", kind], "default": None}
    return {**described, "type": kind}


def _avro_type(kind: pa.DataType, name: str) -> Any:
    types = pa.types
    if types.is_dictionary(kind):
        return _avro_type(kind.value_type, name)
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) and kind != pa.uint64():
        return "long" if kind.bit_width == 64 or kind == pa.uint32() else "int"
    if types.is_float32(kind) or types.is_float64(kind):
        return "float" if types.is_float32(kind) else "double"
    if types.is_string(kind) or types.is_large_string(kind):
        return "string"
    if types.is_fixed_size_binary(kind):
        return {"type": "fixed", "name": name, "size": kind.byte_width}
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_timestamp(kind) and kind.unit in _TIME_UNITS:
        return {"type": "long", "logicalType": _TIME_UNITS[kind.unit]}
    if types.is_list(kind) or types.is_large_list(kind):
        items = _avro_type(kind.value_type, f"{name}_item")
        return {"type": "array", "items": ["null", items] if kind.value_field.nullable else items}
    if types.is_struct(kind):
        return {"type": "record", "name": name, "fields": [_avro_field(field, name) for field in kind]}
    raise ValueError(f"{name}: Avro has no {kind}")


class RowEncoder:
    """Makes messages of the rows of record batches of one schema.

    Args:
        columns: Names and types of the batches' columns.
        schema: Their Avro schema.
        prefix: What stands before each record: marker and fingerprint, or nothing.
    """

    def __init__(self, columns: pa.Schema, schema: dict[str, Any], prefix: bytes = b"") -> None:
        self.schema = schema
        self._columns = columns
        self._prefix = np.frombuffer(prefix, np.uint8)

    def messages(self, records: pa.RecordBatch) -> list[bytes]:
        """One message for each row, in order."""
        rows = encoded(
            [(records.column(field.name), field.nullable) for field in self._columns], len(records), self._prefix
        )
        octets = rows.octets.tobytes()
        return [octets[begin:end] for begin, end in pairwise(rows.bounds.tolist())]


def encoded(columns: list[tuple[pa.Array, bool]], rows: int, prefix: np.ndarray = _NO_OCTETS) -> Rows:
    """The rows of columns side by side; with each column whether it may be null."""
    gathered = _Columns(rows)
    for column, nullable in columns:
        gathered.add(column, nullable)
    return gathered.encoded(prefix)


class _Columns:
    """Columns in the shape in which a kernel takes them.

    Args:
        rows: How many each has.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._about: list[tuple[int, bool, int, int]] = []  # kind, nullable, place, octets of a row if they are fixed
        self._valid: list[np.ndarray | bool] = []
        self._longs: list[np.ndarray] = []
        self._octets: list[np.ndarray] = []
        self._bounds: list[np.ndarray] = []
        self._counts: list[np.ndarray | int] = []
        self._place = 0
        self._longest = 0  # of the octets of any row
        self._most = 0  # that come to them

    def add(self, column: pa.Array, nullable: bool) -> None:
        """Adds a column on the right."""
        kind, types = column.type, pa.types
        if types.is_dictionary(kind):
            self.add(column.cast(kind.value_type), nullable)
            return
        if column.null_count and not nullable:
            raise ValueError("a column that is never null has nulls")
        self._valid.append(column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else True)
        self._most += nullable
        if types.is_struct(kind):
            fields = [(column.field(index), kind.field(index).nullable) for index in range(kind.num_fields)]
            self._add_octets(_OCTETS, nullable, *encoded(fields, self._rows))
        elif types.is_list(kind) or types.is_large_list(kind):
            counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
            items = column.flatten()  # what lies under a null is not in it
            octets, bounds = encoded([(items, kind.value_field.nullable)], len(items))
            self._add_octets(_LIST, nullable, octets, bounds[np.concatenate((_FIRST, np.cumsum(counts)))], counts)
        elif types.is_integer(kind) or types.is_timestamp(kind):
            self._about.append((_LONG, nullable, len(self._longs), 0))
            self._longs.append(
                _fixed(column).view(f"i{kind.bit_width // 8}" if types.is_timestamp(kind) else str(kind))
            )
            self._most += _LONG_OCTETS
        elif types.is_boolean(kind) or types.is_floating(kind) or types.is_fixed_size_binary(kind):
            octets = _fixed(column.cast(pa.uint8()) if types.is_boolean(kind) else column)
            width = 1 if types.is_boolean(kind) else kind.bit_width // 8
            self._about.append((_FIXED, nullable, self._place, width))
            self._append(octets)
            self._most += width
        else:
            column = column.cast(pa.binary())
            bounds = np.frombuffer(column.buffers()[1] or bytes(4), np.int32)[column.offset :][: self._rows + 1]
            self._add_octets(_COUNTED, nullable, np.frombuffer(column.buffers()[2] or b"", np.uint8), bounds)

    def encoded(self, prefix: np.ndarray) -> Rows:
        """The rows, with `prefix` before each."""
        rows = self._rows
        most = self._most + len(prefix)
        out = np.empty(most * rows + sum(map(len, self._octets)) + CHUNK, np.uint8)
        ends = np.zeros(rows + 1, np.int64)
        longest = most + self._longest + CHUNK
        _put_rows(
            np.array(self._about, np.int64).reshape(-1, 4),
            _stacked(self._valid, rows, np.bool_),
            _stacked(self._longs, rows, np.int64),
            np.concatenate([*self._octets, _PADDING]),
            _stacked(self._bounds, rows + 1, np.int64),
            _stacked(self._counts, rows, np.int64),
            np.concatenate([prefix, _PADDING]),
            np.empty((max(1, min(CACHED_ROWS, CACHED_OCTETS // longest)), longest), np.uint8),
            out,
            ends,
        )
        return Rows(out[: ends[-1]], ends)

    def _add_octets(
        self, kind: int, nullable: bool, octets: np.ndarray, bounds: np.ndarray, counts: np.ndarray | int = 0
    ) -> None:
        self._about.append((kind, nullable, len(self._bounds), 0))
        self._bounds.append(bounds + np.int64(self._place - bounds[0]))
        self._counts.append(counts)
        self._append(octets[bounds[0] : bounds[-1]])
        self._longest += int(np.diff(bounds).max(initial=0))
        self._most += _LONG_OCTETS + 1

    def _append(self, octets: np.ndarray) -> None:
        self._octets.append(octets)
        self._place += len(octets)


_FIRST = np.zeros(1, np.int64)
_PADDING = np.zeros(CHUNK, np.uint8)


def _fixed(column: pa.Array) -> np.ndarray:
    """Octets of values of one length as they are in memory; under a null, any."""
    width = column.type.bit_width // 8
    octets = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return octets[column.offset * width : (column.offset + len(column)) * width]


def _stacked(columns: Sequence[np.ndarray | int], rows: int, kind: Any) -> np.ndarray:
    stacked = np.empty((len(columns), rows), kind)
    for row, column in enumerate(columns):
        stacked[row] = column
    return stacked


@kernel
def _put_rows(about, valid, longs, octets, bounds, counts, prefix, slots, out, ends):
    """Writes every row: a few at a time, column after column, to slots that are long enough, then together."""
    columns, rows = valid.shape
    cached, most = slots.shape
    slots = slots.reshape(-1)
    prefix_octets = len(prefix) - CHUNK
    at = np.empty(cached, np.int64)
    for first in range(0, rows, cached):
        number = min(cached, rows - first)
        for i in range(number):
            at[i] = copied(slots, i * most, prefix, 0, prefix_octets)
        for column in range(columns):
            kind, nullable, place, width = about[column, 0], about[column, 1], about[column, 2], about[column, 3]
            for i in range(number):
                row, end = first + i, at[i]
                there = valid[column, row]
                if nullable:
                    slots[end] = 2 if there else 0
                    end += 1
                if not there:
                    pass
                elif kind == _LONG:
                    end = put_long(slots, end, longs[place, row])
                elif kind == _FIXED:
                    end = copied(slots, end, octets, place + row * width, place + (row + 1) * width)
                else:
                    begin, after = bounds[place, row], bounds[place, row + 1]
                    if kind == _COUNTED:
                        end = put_long(slots, end, after - begin)
                    elif counts[place, row]:
                        end = put_long(slots, end, counts[place, row])
                    end = copied(slots, end, octets, begin, after)
                    if kind == _LIST:
                        slots[end] = 0
                        end += 1
                at[i] = end
        for i in range(number):
            ends[first + i + 1] = copied(out, ends[first + i], slots, i * most, at[i])

"""Rows of Arrow record batches as Avro single-object messages, a column at a time.

The schema follows from the Arrow schema: a record with a field for each column, in order, each `["null", TYPE]` with
default null where the column may be null, so that schemas that only add columns resolve to each other. Every row has a
slot of the output that is surely large enough; each column is written to all the slots, a few hundred rows at a time so
that these stay in the cache.
"""

import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.avro_kernels import put_long
from transforms.kernel import kernel

NAMESPACE = "flowbeam"

CACHED_ROWS = 256
"""So many rows are written at a time, column after column."""

_LONG_OCTETS = 10
_TIME_UNITS = {"ms": "timestamp-millis", "us": "timestamp-micros", "ns": "timestamp-nanos"}
_ALL = np.zeros(0, np.bool_)


class Slots(NamedTuple):
    """Encoded rows: row `i` is `octets[begins[i]:ends[i]]`."""

    octets: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


def schema_of(columns: pa.Schema, name: str = "Flow") -> dict[str, Any]:
    """The Avro schema of records with these columns; unit and definition are in it.

    Raises:
        ValueError: A column has no Avro name, or a type that Avro has not.
    """
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
        slots = encoded(
            [(records.column(field.name), field.nullable) for field in self._columns], len(records), self._prefix
        )
        octets = slots.octets.tobytes()
        return [octets[begin:end] for begin, end in zip(slots.begins.tolist(), slots.ends.tolist(), strict=True)]


def encoded(columns: list[tuple[pa.Array, bool]], rows: int, prefix: np.ndarray | None = None) -> Slots:
    """The rows of columns side by side; with each column whether it may be null."""
    writers = [_writer(column, nullable) for column, nullable in columns]
    most = np.full(rows, 0 if prefix is None else len(prefix), np.int64)
    for writer in writers:
        most += writer.octets_most()
    begins = np.cumsum(most) - most
    out = np.empty(int(most.sum()), np.uint8)
    at = begins.copy()
    for first in range(0, rows, CACHED_ROWS):
        after = min(first + CACHED_ROWS, rows)
        if prefix is not None and len(prefix):
            put_same(prefix, first, after, out, at)
        for writer in writers:
            writer.put(first, after, out, at)
    return Slots(out, begins, at)


def _writer(column: pa.Array, nullable: bool) -> "_Writer":
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return _writer(column.cast(kind.value_type), nullable)
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else _ALL
    if not nullable and len(valid):
        raise ValueError("a column that is never null has nulls")
    if types.is_struct(kind):
        fields = [(column.field(index), kind.field(index).nullable) for index in range(kind.num_fields)]
        return _Octets(nullable, valid, encoded(fields, len(column)))
    if types.is_list(kind) or types.is_large_list(kind):
        return _Lists(nullable, valid, column)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return _Texts(nullable, valid, column.cast(pa.binary()))
    if types.is_fixed_size_binary(kind):
        width = kind.byte_width
        octets = np.frombuffer(column.buffers()[1] or b"", np.uint8)
        return _Fixed(nullable, valid, octets[column.offset * width : (column.offset + len(column)) * width], width)
    if types.is_timestamp(kind):
        column = column.cast(pa.int64())
    values = (column.fill_null(False if types.is_boolean(kind) else 0) if len(valid) else column).to_numpy(
        zero_copy_only=False
    )
    if types.is_integer(column.type):
        return _Longs(nullable, valid, values.astype(np.int64, copy=False))
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return _Fixed(nullable, valid, little.view(np.uint8), little.itemsize)


class _Writer(ABC):
    """A column on its way; `nullable` values are preceded by the branch of their union."""

    def __init__(self, nullable: bool, valid: np.ndarray) -> None:
        self.nullable, self.valid = nullable, valid

    @abstractmethod
    def octets_most(self) -> Any:
        """How much room each row needs, at most."""

    @abstractmethod
    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        """Writes rows from `first` to before `after` at their places, and moves these on."""


class _Longs(_Writer):
    def __init__(self, nullable: bool, valid: np.ndarray, values: np.ndarray) -> None:
        super().__init__(nullable, valid)
        self._values = values

    def octets_most(self) -> int:
        return 1 + _LONG_OCTETS

    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        put_longs(self._values, self.valid, self.nullable, first, after, out, at)


class _Fixed(_Writer):
    def __init__(self, nullable: bool, valid: np.ndarray, octets: np.ndarray, width: int) -> None:
        super().__init__(nullable, valid)
        self._octets, self._width = octets, width

    def octets_most(self) -> int:
        return 1 + self._width

    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        put_fixed(self._octets, self._width, self.valid, self.nullable, first, after, out, at)


class _Octets(_Writer):
    """What is encoded already."""

    def __init__(self, nullable: bool, valid: np.ndarray, slots: Slots) -> None:
        super().__init__(nullable, valid)
        self._slots = slots

    def octets_most(self) -> np.ndarray:
        return self._slots.ends - self._slots.begins + 1

    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        put_octets(*self._slots, False, self.valid, self.nullable, first, after, out, at)


class _Texts(_Writer):
    """Octets that their length precedes."""

    def __init__(self, nullable: bool, valid: np.ndarray, column: pa.BinaryArray) -> None:
        super().__init__(nullable, valid)
        bounds = _offsets(column)
        self._slots = Slots(np.frombuffer(column.buffers()[2] or b"", np.uint8), bounds[:-1], bounds[1:])

    def octets_most(self) -> np.ndarray:
        return self._slots.ends - self._slots.begins + 1 + _LONG_OCTETS

    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        put_octets(*self._slots, True, self.valid, self.nullable, first, after, out, at)


class _Lists(_Writer):
    """Avro arrays of one part: count, items, 0."""

    def __init__(self, nullable: bool, valid: np.ndarray, column: pa.ListArray) -> None:
        super().__init__(nullable, valid)
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        self._bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        items = column.flatten()  # what lies under a null is not in it
        self._slots = encoded([(items, column.type.value_field.nullable)], len(items))
        self._sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(self._slots.ends - self._slots.begins)))

    def octets_most(self) -> np.ndarray:
        return self._sums[self._bounds[1:]] - self._sums[self._bounds[:-1]] + 2 + _LONG_OCTETS

    def put(self, first: int, after: int, out: np.ndarray, at: np.ndarray) -> None:
        put_lists(self._bounds, *self._slots, self.valid, self.nullable, first, after, out, at)


def _offsets(column: pa.BinaryArray) -> np.ndarray:
    if not len(column):
        return np.zeros(1, np.int64)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    return offsets.astype(np.int64)


@kernel
def put_same(octets, first, after, out, at):
    """Writes the same octets to each row."""
    for row in range(first, after):
        for i in range(len(octets)):
            out[at[row] + i] = octets[i]
        at[row] += len(octets)


@kernel
def put_longs(values, valid, nullable, first, after, out, at):
    """Writes a number to each row."""
    for row in range(first, after):
        place = at[row]
        there = len(valid) == 0 or valid[row]
        if nullable:
            out[place] = 2 if there else 0
            place += 1
        if there:
            place = put_long(out, place, values[row])
        at[row] = place


@kernel
def put_fixed(octets, width, valid, nullable, first, after, out, at):
    """Writes `width` octets to each row."""
    for row in range(first, after):
        place = at[row]
        there = len(valid) == 0 or valid[row]
        if nullable:
            out[place] = 2 if there else 0
            place += 1
        if there:
            for i in range(width):
                out[place + i] = octets[row * width + i]
            place += width
        at[row] = place


@kernel
def put_octets(octets, begins, ends, counted, valid, nullable, first, after, out, at):
    """Writes so many octets as each row has, `counted` or not."""
    for row in range(first, after):
        place = at[row]
        there = len(valid) == 0 or valid[row]
        if nullable:
            out[place] = 2 if there else 0
            place += 1
        if there:
            length = ends[row] - begins[row]
            if counted:
                place = put_long(out, place, length)
            for i in range(length):
                out[place + i] = octets[begins[row] + i]
            place += length
        at[row] = place


@kernel
def put_lists(bounds, octets, begins, ends, valid, nullable, first, after, out, at):
    """Writes an array to each row, of items that are encoded already."""
    for row in range(first, after):
        place = at[row]
        there = len(valid) == 0 or valid[row]
        if nullable:
            out[place] = 2 if there else 0
            place += 1
        if there:
            count = bounds[row + 1] - bounds[row]
            if count:
                place = put_long(out, place, count)
                for item in range(bounds[row], bounds[row + 1]):
                    for i in range(begins[item], ends[item]):
                        out[place] = octets[i]
                        place += 1
            out[place] = 0
            place += 1
        at[row] = place

"""Columns as Cassandra's native protocol writes their values: octets for each, None where there is no value."""

import socket
import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.cassandra_tables import is_address

Cell = bytes | None

_NO_CELL = struct.pack(">i", -1)
_FIRST_DAY = 1 << 31
"""1970-01-01 as a `date`."""

DAY_NS, HOUR_NS = 86_400_000_000_000, 3_600_000_000_000


def cells(column: pa.Array, field: pa.Field) -> list[Cell]:
    """The values of a column in the type that `cassandra_tables.cql_type` gives it."""
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        known = cells(column.dictionary, field.with_type(kind.value_type))
        return [None if place is None else known[place] for place in column.indices.to_pylist()]
    if types.is_list(kind):
        return _lists(column)
    if types.is_struct(kind):
        return _structs(column)
    if is_address(field):
        return _addresses(column)
    if types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind):
        return column.cast(pa.binary()).to_pylist()
    values = _plain(column.fill_null(False if types.is_boolean(kind) else 0))
    if column.null_count:
        octets = values.astype(object)
        octets[column.is_null().to_numpy(zero_copy_only=False)] = None
        return octets.tolist()
    return values.tolist()


def days(starts_ns: np.ndarray) -> list[Cell]:
    """The UTC days of times, as `date`."""
    return _voids((starts_ns // DAY_NS + _FIRST_DAY).astype(">u4")).tolist()


def hours(starts_ns: np.ndarray) -> list[Cell]:
    """The UTC hours of times, as `timestamp`."""
    return _voids((starts_ns // HOUR_NS * 3_600_000).astype(">i8")).tolist()


def longs(values: np.ndarray) -> list[Cell]:
    """Numbers as `bigint`."""
    return _voids(values.astype(">i8")).tolist()


def _plain(column: pa.Array) -> np.ndarray:
    """Values of a type of fixed length, without nulls: octets each."""
    values = column.to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_boolean(kind):
        return _voids(values.astype("u1"))
    if pa.types.is_uint64(kind):  # a varint has a sign
        wide = np.zeros(len(values), np.dtype([("sign", "u1"), ("value", ">u8")]))
        wide["value"] = values
        return wide.view("V9")
    if pa.types.is_floating(kind):
        return _voids(values.astype(values.dtype.newbyteorder(">")))
    return _voids(values.astype(">i8" if kind.bit_width == 64 or pa.types.is_uint32(kind) else ">i4"))


def _voids(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(f"V{values.dtype.itemsize}")


def _addresses(column: pa.StringArray) -> list[Cell]:
    """Each distinct address once; what is none stays a text, which the server refuses."""
    distinct = column.dictionary_encode()
    known = [_address(text) for text in distinct.dictionary.to_pylist()]
    return [None if place is None else known[place] for place in distinct.indices.to_pylist()]


def _address(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return text.encode()


def _structs(column: pa.StructArray) -> list[Cell]:
    """Tuples: each member with its length."""
    members = [
        cells(column.field(index), column.type.field(index).with_name("")) for index in range(column.type.num_fields)
    ]
    texts = map(b"".join, zip(*(map(_counted, member) for member in members), strict=True))
    return [text if there else None for text, there in zip(texts, column.is_valid().to_pylist(), strict=True)]


def _lists(column: pa.ListArray) -> list[Cell]:
    """Lists: their length, then each item with its own."""
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    ends = np.cumsum(counts)
    items = column.flatten()
    if _is_plain(items.type) and not items.null_count:
        values = _plain(items)
        counted = np.zeros(len(items), np.dtype([("octets", ">i4"), ("value", values.dtype)]))
        counted["octets"], counted["value"] = values.itemsize, values
        return _rows_of_lists(column, counts, counted.tobytes(), ends * counted.itemsize, counts * counted.itemsize)
    each = cells(items, column.type.value_field.with_name(""))
    lengths = np.fromiter(((4 if item is None else 4 + len(item)) for item in each), np.int64, len(each))
    places = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    octets = b"".join(map(_counted, each))
    return _rows_of_lists(column, counts, octets, places[ends], places[ends] - places[ends - counts])


def _rows_of_lists(
    column: pa.ListArray, counts: np.ndarray, octets: bytes, ends: np.ndarray, lengths: np.ndarray
) -> list[Cell]:
    heads = _voids(counts.astype(">i4")).tolist()
    rows = zip(heads, (ends - lengths).tolist(), ends.tolist(), column.is_valid().to_pylist(), strict=True)
    return [head + octets[begin:end] if there else None for head, begin, end, there in rows]


def _is_plain(kind: pa.DataType) -> bool:
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _counted(cell: Cell) -> bytes:
    return _NO_CELL if cell is None else struct.pack(">i", len(cell)) + cell

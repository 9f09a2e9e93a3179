"""Flows as the rows that BigQuery's `insertAll` takes: JSON made a column at a time, no row passes through Python."""

import base64
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks import text
from sinks.bigquery_schema import TIMES, microseconds
from sinks.json_values import escaped

REQUEST_OCTETS = 8 << 20
"""A request holds less; BigQuery takes 10 MB."""

REQUEST_ROWS = 5_000
"""A request holds no more rows; BigQuery takes 50,000, and advises fewer."""

_EXACT = 1 << 53
"""Larger numbers lose digits where JSON is read as floating point: they go as text, which BigQuery takes, too."""

_BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "u1")


class Request(NamedTuple):
    """What goes to BigQuery at a time.

    Attributes:
        rows: `{"insertId":…,"json":{…}}`, one for each record.
        first: Number of the first one in the batch.
    """

    rows: pa.StringArray
    first: int

    @property
    def body(self) -> bytes:
        """The request's JSON."""
        rows = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(self.rows)], pa.int32()), self.rows), ",")
        return b"".join((b'{"skipInvalidRows":true,"rows":[', rows[0].as_buffer(), b"]}"))

    def halves(self) -> list["Request"]:
        """The request in two."""
        middle = len(self.rows) // 2
        return [Request(self.rows[:middle], self.first), Request(self.rows[middle:], self.first + middle)]


def requests(flows: pa.RecordBatch) -> Iterator[Request]:
    """The rows of a batch in requests that BigQuery takes.

    `insertId` is the flow's id and the record's number: BigQuery drops what it saw a minute ago.
    """
    for start in range(0, len(flows), REQUEST_ROWS):
        rows = json_rows(flows.slice(start, REQUEST_ROWS))
        ends = np.cumsum(pc.binary_length(rows).to_numpy() + 1)
        first = 0
        while first < len(rows):
            before = int(ends[first - 1]) if first else 0
            end = max(first + 1, int(np.searchsorted(ends, before + REQUEST_OCTETS, "right")))
            yield Request(rows[first:end], start + first)
            first = end


def json_rows(flows: pa.RecordBatch) -> pa.StringArray:
    """One `{"insertId":…,"json":{…}}` for each record; what is null is left out."""
    ids = pc.binary_join_element_wise(
        text.cells(flows["flow_id"]), flows["record_number"].cast(pa.string()), pa.scalar("-")
    )
    names, columns = [], []
    for field, column in zip(flows.schema, flows.columns, strict=True):
        for added in (name for name, source in TIMES.items() if source == field.name):
            names.append(added)
            columns.append(microseconds(column))
        names.append(field.name)
        columns.append(column)
    pieces: list[pa.Array | pa.Scalar | str] = ['{"insertId":"', ids, '","json":{"record_number":']
    pieces.append(flows["record_number"].cast(pa.string()))  # never null: all others can begin with a comma
    for name, column in zip(names, columns, strict=True):
        key = f",{json.dumps(name)}:"
        if name == "record_number" or column.null_count == len(column):
            continue
        pieces += [_member(key, column)] if column.null_count else [key, _values(column)]
    return pc.binary_join_element_wise(*pieces, "}}", "", null_handling="replace", null_replacement="")


def _objects(names: list[str], columns: list[pa.Array]) -> pa.StringArray:
    """JSON objects of those values that are there."""
    members = [_member(f",{json.dumps(name)}:", column) for name, column in zip(names, columns, strict=True)]
    inside = pc.binary_join_element_wise(*members, "", null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inside, 1), "}", "")


def _member(key: str, column: pa.Array) -> pa.StringArray:
    """Key and value, null where the value is."""
    return pc.binary_join_element_wise(key, _values(column), "")


def _values(column: pa.Array) -> pa.StringArray:
    """The values as JSON that BigQuery reads as what they are; null stays null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary).take(column.indices)
    if pa.types.is_list(kind):
        return text.bracketed(column, _values(column.flatten()))  # BigQuery refuses a null in a list, and says so
    if pa.types.is_struct(kind):
        inner = _objects([field.name for field in kind], column.flatten())
        return pc.if_else(column.is_valid(), inner, pa.scalar(None, pa.string()))
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return _quoted(_base64(column))
    if pa.types.is_timestamp(kind):
        return _quoted(column.cast(pa.timestamp("us", "UTC")).cast(pa.string()))
    if pa.types.is_string(kind):
        return _quoted(escaped(column))
    cells = column.cast(pa.string())
    if pa.types.is_integer(kind) and kind.bit_width == 64 and not _is_exact(column):
        return _quoted(cells)
    if pa.types.is_floating(kind) and not _is_finite(column):
        named = pc.replace_substring(pc.replace_substring(cells, "inf", "Infinity"), "nan", "NaN")
        return pc.if_else(pc.is_finite(column), cells, _quoted(named))
    return cells


def _is_exact(column: pa.Array) -> bool:
    bounds = pc.min_max(column).as_py()
    return bounds["min"] is None or (bounds["min"] > -_EXACT and bounds["max"] < _EXACT)


def _is_finite(column: pa.Array) -> bool:
    return pc.all(pc.is_finite(column)).as_py() is not False


def _quoted(cells: pa.StringArray) -> pa.StringArray:
    return pc.binary_join_element_wise('"', cells, '"', "")


def _base64(column: pa.Array) -> pa.StringArray:
    if not pa.types.is_fixed_size_binary(column.type):  # rare, and as a rule a few values many times
        encoded = column.dictionary_encode()
        texts = [
            None if octets is None else base64.b64encode(octets).decode() for octets in encoded.dictionary.to_pylist()
        ]
        return pa.array(texts, pa.string()).take(encoded.indices)
    width, rows = column.type.byte_width, len(column)
    octets = np.frombuffer(column.buffers()[1], "u1")[column.offset * width :][: rows * width].reshape(rows, width)
    triples = np.zeros((rows, -(-width // 3), 3), "u4")
    triples.reshape(rows, -1)[:, :width] = octets
    bits = triples[:, :, 0] << 16 | triples[:, :, 1] << 8 | triples[:, :, 2]
    digits = _BASE64[np.stack([bits >> shift & 63 for shift in (18, 12, 6, 0)], axis=-1)].reshape(rows, -1)
    if width % 3:
        digits[:, width % 3 - 3 :] = ord("=")
    offsets = np.arange(rows + 1, dtype="i4") * digits.shape[1]
    texts = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits)))
    return pc.if_else(column.is_valid(), texts, pa.scalar(None, pa.string())) if column.null_count else texts

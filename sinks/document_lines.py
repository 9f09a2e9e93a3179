"""Lines of JSON assembled from columns: what stands between the values is constant, nulls are left out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks import text
from sinks.decimals import INTEGER_OCTETS, REAL_OCTETS, put_integer, put_real
from transforms.chunks import CHUNK, copied
from transforms.kernel import kernel

CACHED_ROWS, CACHED_OCTETS = 64, 1 << 20
"""So many rows are written at a time, one column after another, so that these stay in the cache."""

_CONSTANT, _INTEGER, _REAL, _TEXT, _LIST = range(5)
"""What the values of a piece are."""


class Piece(NamedTuple):
    """A part of every line.

    Attributes:
        before: What stands before the value.
        values: One for each line: texts as they are to be written, or what `is_written`; None for a piece that is
            constant.
        after: What stands behind the value. Where the value is null, there is nothing of the piece.
    """

    before: bytes
    values: pa.Array | None = None
    after: bytes = b""


class Lines(NamedTuple):
    """Line `i` is `octets[bounds[i]:bounds[i + 1]]`."""

    octets: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def line(self, number: int) -> bytes:
        """The octets of one line."""
        return self.octets[self.bounds[number] : self.bounds[number + 1]].tobytes()

    def between(self, first: int, after: int) -> memoryview:
        """The octets of the lines from `first` to before `after`."""
        return self.octets[self.bounds[first] : self.bounds[after]].data


def is_written(kind: pa.DataType) -> bool:
    """Whether values of the type are numbers, or lists of them, that are made text as they are put into the lines."""
    if pa.types.is_list(kind):
        return _is_integer(kind.value_type)
    return _is_integer(kind) or pa.types.is_float64(kind)


def _is_integer(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) and not pa.types.is_uint64(kind)


def assembled(pieces: Sequence[Piece], rows: int) -> Lines:
    """The pieces of each line, end to end; what is not finite is null."""
    kinds, places = np.zeros((2, len(pieces)), np.int64)
    valid = np.ones((len(pieces), rows), np.bool_)
    numbers: dict[int, list[np.ndarray]] = {_INTEGER: [], _REAL: []}
    parts: dict[int, list[np.ndarray]] = {_TEXT: [], _LIST: []}
    offsets: list[np.ndarray] = []
    longest = total = CHUNK
    for number, piece in enumerate(pieces):
        if piece.values is None:
            continue
        column = _writable(piece.values)
        kind = _kind(column.type)
        kinds[number] = kind
        if column.null_count:
            valid[number] = pc.is_valid(column).to_numpy(zero_copy_only=False)
        if kind in numbers:
            places[number] = len(numbers[kind])
            numbers[kind].append(_fixed(column))
        else:
            bounds = np.frombuffer(column.buffers()[1] or bytes(4), np.int32)[column.offset :][: rows + 1]
            octets = np.frombuffer(column.buffers()[2] or b"", np.uint8) if kind == _TEXT else _fixed(column.values)
            begins = sum(map(len, parts[kind]))
            places[number] = len(offsets)
            offsets.append(bounds.astype(np.int64) + (begins - int(bounds[0])))
            parts[kind].append(octets[bounds[0] : bounds[-1]])
            each = _LIST_OCTETS if kind == _LIST else 1
            longest += int(np.diff(bounds).max(initial=0)) * each + 2
            total += int(bounds[-1] - bounds[0]) * each + 2 * rows
    befores, before_ends = _end_to_end([piece.before for piece in pieces])
    afters, after_ends = _end_to_end([piece.after for piece in pieces])
    always = int(before_ends[-1] + after_ends[-1])
    always += INTEGER_OCTETS * len(numbers[_INTEGER]) + REAL_OCTETS * len(numbers[_REAL])
    cached = max(1, min(CACHED_ROWS, CACHED_OCTETS // (longest + always)))
    lines, bounds = np.empty(total + always * rows, np.uint8), np.zeros(rows + 1, np.int64)
    _assemble(
        kinds,
        places,
        valid,
        _stacked(numbers[_INTEGER], rows, np.int64),
        _stacked(numbers[_REAL], rows, np.float64),
        np.concatenate([*parts[_TEXT], _PADDING]),
        np.concatenate([_NO_LIST, *parts[_LIST]], dtype=np.int64),
        _stacked(offsets, rows + 1, np.int64),
        (befores, before_ends),
        (afters, after_ends),
        np.empty((cached, longest + always), np.uint8),
        lines,
        bounds,
    )
    return Lines(lines[: bounds[-1]], bounds)


_PADDING, _NO_LIST = np.zeros(CHUNK, np.uint8), np.zeros(0, np.int64)
_LIST_OCTETS = INTEGER_OCTETS + 1
"""Of a number in a list, with the comma behind it."""


def _writable(column: pa.Array) -> pa.Array:
    """The values as `_assemble` takes them."""
    if not is_written(column.type) or (pa.types.is_list(column.type) and column.values.null_count):
        return text.cells(column)
    return column


def _kind(kind: pa.DataType) -> int:
    if pa.types.is_list(kind):
        return _LIST
    if pa.types.is_string(kind):
        return _TEXT
    return _REAL if pa.types.is_float64(kind) else _INTEGER


def _fixed(column: pa.Array) -> np.ndarray:
    """Numbers as they are in memory; under a null, any."""
    values = np.frombuffer(column.buffers()[1] or b"", str(column.type))  # Arrow and numpy share these names
    return values[column.offset : column.offset + len(column)]


def _stacked(columns: list[np.ndarray], rows: int, kind: Any) -> np.ndarray:
    stacked = np.empty((len(columns), rows), kind)
    for row, column in enumerate(columns):
        stacked[row] = column
    return stacked


def _end_to_end(constants: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([0, *map(len, constants)])
    return np.frombuffer(b"".join((*constants, bytes(CHUNK))), np.uint8), ends


@kernel
def _assemble(kinds, places, valid, integers, reals, texts, items, offsets, before, after, slots, lines, bounds):
    """Writes every line: a few rows at a time, column after column, to slots that are long enough, then together."""
    befores, before_ends = before
    afters, after_ends = after
    pieces, rows = valid.shape
    cached, most = slots.shape
    slots = slots.reshape(-1)
    at = np.empty(cached, np.int64)
    for first in range(0, rows, cached):
        count = min(cached, rows - first)
        for i in range(count):
            at[i] = i * most
        for piece in range(pieces):
            kind, place = kinds[piece], places[piece]
            for i in range(count):
                row = first + i
                if not valid[piece, row] or (kind == _REAL and not np.isfinite(reals[place, row])):
                    continue
                end = copied(slots, at[i], befores, before_ends[piece], before_ends[piece + 1])
                if kind == _INTEGER:
                    end = put_integer(slots, end, integers[place, row])
                elif kind == _REAL:
                    end = put_real(slots, end, reals[place, row])
                elif kind == _TEXT:
                    end = copied(slots, end, texts, offsets[place, row], offsets[place, row + 1])
                elif kind == _LIST:
                    slots[end] = 91
                    end += 1
                    for item in range(offsets[place, row], offsets[place, row + 1]):
                        end = put_integer(slots, end, items[item])
                        slots[end] = 44
                        end += 1
                    if offsets[place, row] < offsets[place, row + 1]:
                        end -= 1
                    slots[end] = 93
                    end += 1
                at[i] = copied(slots, end, afters, after_ends[piece], after_ends[piece + 1])
        for i in range(count):
            bounds[first + i + 1] = copied(lines, bounds[first + i], slots, i * most, at[i])

"""Lines of JSON assembled from columns of text: what stands between the values is constant, nulls are left out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sinks import text
from transforms.kernel import kernel, kernel_part

_NOTHING = np.zeros(0, np.uint8)

_EXACT = float(1 << 53)
"""Below it, every integer is a floating-point number of its own."""


class Piece(NamedTuple):
    """A part of every line.

    Attributes:
        before: What stands before the value.
        values: One for each line: texts as they are to be written, or numbers; None for a piece that is constant.
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


def assembled(pieces: Sequence[Piece], rows: int) -> Lines:
    """The pieces of each line, end to end."""
    texts: list[np.ndarray] = []
    integers: list[np.ndarray] = []
    offsets = np.zeros((len(pieces), rows + 1), np.int64)
    valid = np.ones((len(pieces), rows), np.bool_)
    places = np.full(len(pieces), -1)
    begins = 0
    for number, piece in enumerate(pieces):
        if piece.values is None:
            continue
        column = _writable(piece.values)
        if pa.types.is_integer(column.type):
            places[number] = len(integers)
            integers.append(column.fill_null(0).to_numpy())
        else:
            ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + rows + 1]
            octets = column.buffers()[2]
            if octets is not None:
                texts.append(np.frombuffer(octets, np.uint8)[ends[0] : ends[-1]])
                np.add(ends, begins - int(ends[0]), out=offsets[number])
                begins += len(texts[-1])
        if column.null_count:
            valid[number] = pc.is_valid(column).to_numpy(zero_copy_only=False)
    befores, before_ends = _end_to_end([piece.before for piece in pieces])
    afters, after_ends = _end_to_end([piece.after for piece in pieces])
    joined = np.concatenate(texts) if texts else _NOTHING
    numbers = np.stack(integers) if integers else np.zeros((1, rows), np.int64)
    bounds = _bounds(offsets, numbers, places, valid, np.diff(before_ends) + np.diff(after_ends))
    lines = np.empty(int(bounds[-1]), np.uint8)
    _assemble(joined, offsets, numbers, places, valid, befores, before_ends, afters, after_ends, bounds, lines)
    return Lines(lines, bounds)


def _writable(column: pa.Array) -> pa.Array:
    """The values as int64 where that can be, which is written in a fifth of the time, else as text."""
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return column.cast(pa.int64())
    if pa.types.is_float64(kind):
        values = column.fill_null(0).to_numpy()
        if (np.abs(values) < _EXACT).all() and (np.rint(values) == values).all():
            whole = pa.array(values.astype(np.int64))
            return pc.if_else(column.is_valid(), whole, pa.scalar(None, pa.int64())) if column.null_count else whole
    return text.cells(column)


def _end_to_end(constants: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([0, *map(len, constants)])
    return np.frombuffer(b"".join(constants) or b"\0", np.uint8), ends


@kernel_part
def _digits(number):
    """How many octets a number takes."""
    digits = 1
    if number < 0:
        digits = 2
    else:
        number = -number  # of the negative numbers there is one more
    while number <= -10:
        number = (number + (10 - number % 10) % 10) // 10
        digits += 1
    return digits


@kernel
def _bounds(offsets, numbers, places, valid, around):
    """Where each line begins, and the end of the last one. A null may have octets of its own: they do not count."""
    pieces, rows = valid.shape
    bounds = np.zeros(rows + 1, np.int64)
    for piece in range(pieces):
        place = places[piece]
        for row in range(rows):
            if valid[piece, row]:
                bounds[row + 1] += around[piece] + offsets[piece, row + 1] - offsets[piece, row]
                if place >= 0:
                    bounds[row + 1] += _digits(numbers[place, row])
    for row in range(rows):
        bounds[row + 1] += bounds[row]
    return bounds


@intrinsic
def _copied(context, to, at, octets, begin, end):
    """Copies `octets[begin:end]` to `to[at:]`, and returns where the next octet goes. Loops take twice as long."""

    def generated(context, builder, signature, arguments):
        to, at, octets, begin, end = arguments
        target = context.make_array(signature.args[0])(context, builder, to).data
        source = context.make_array(signature.args[2])(context, builder, octets).data
        count = builder.sub(end, begin)
        cgutils.raw_memcpy(builder, builder.gep(target, [at]), builder.gep(source, [begin]), count, 1)
        return builder.add(at, count)

    return types.int64(to, types.int64, octets, types.int64, types.int64), generated


@kernel_part
def _put(lines, at, number):
    """Writes a number, and returns where the next octet goes."""
    end = at + _digits(number)
    if number < 0:
        lines[at] = 45
    else:
        number = -number
    place = end
    while True:
        place -= 1
        digit = (10 - number % 10) % 10
        lines[place] = 48 + digit
        number = (number + digit) // 10
        if number == 0:
            return end


@kernel
def _assemble(texts, offsets, numbers, places, valid, befores, before_ends, afters, after_ends, bounds, lines):
    """Writes every line to its place."""
    pieces, rows = valid.shape
    for row in range(rows):
        at = bounds[row]
        for piece in range(pieces):
            if valid[piece, row]:
                at = _copied(lines, at, befores, before_ends[piece], before_ends[piece + 1])
                if places[piece] >= 0:
                    at = _put(lines, at, numbers[places[piece], row])
                elif offsets[piece, row + 1] > offsets[piece, row]:
                    at = _copied(lines, at, texts, offsets[piece, row], offsets[piece, row + 1])
                if after_ends[piece + 1] > after_ends[piece]:
                    at = _copied(lines, at, afters, after_ends[piece], after_ends[piece + 1])

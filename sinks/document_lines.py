"""Lines of JSON assembled from columns of text: what stands between the values is constant, nulls are left out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from transforms.kernel import kernel

_NOTHING = np.zeros(0, np.uint8)


class Piece(NamedTuple):
    """A part of every line.

    Attributes:
        before: What stands before the value.
        texts: One value for each line, as it is to be written; None for a piece that is constant.
        after: What stands behind the value. Where the value is null, there is nothing of the piece.
    """

    before: bytes
    texts: pa.StringArray | None = None
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
    offsets = np.zeros((len(pieces), rows + 1), np.int64)
    valid = np.ones((len(pieces), rows), np.bool_)
    begins = 0
    for number, (_, column, _) in enumerate(pieces):
        if column is None:
            continue
        bounds = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + rows + 1]
        octets = column.buffers()[2]
        if octets is not None:
            texts.append(np.frombuffer(octets, np.uint8)[bounds[0] : bounds[-1]])
            np.add(bounds, begins - int(bounds[0]), out=offsets[number])
            begins += len(texts[-1])
        if column.null_count:
            valid[number] = pc.is_valid(column).to_numpy(zero_copy_only=False)
    befores, before_ends = _end_to_end([piece.before for piece in pieces])
    afters, after_ends = _end_to_end([piece.after for piece in pieces])
    joined = np.concatenate(texts) if texts else _NOTHING
    bounds = _bounds(offsets, valid, np.diff(before_ends) + np.diff(after_ends))
    lines = np.empty(int(bounds[-1]), np.uint8)
    _assemble(joined, offsets, valid, befores, before_ends, afters, after_ends, bounds, lines)
    return Lines(lines, bounds)


def _end_to_end(constants: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([0, *map(len, constants)])
    return np.frombuffer(b"".join(constants) or b"\0", np.uint8), ends


@kernel
def _bounds(offsets, valid, around):
    """Where each line begins, and the end of the last one. A null may have octets of its own: they do not count."""
    pieces, rows = valid.shape
    bounds = np.zeros(rows + 1, np.int64)
    for piece in range(pieces):
        for row in range(rows):
            if valid[piece, row]:
                bounds[row + 1] += around[piece] + offsets[piece, row + 1] - offsets[piece, row]
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


@kernel
def _assemble(texts, offsets, valid, befores, before_ends, afters, after_ends, bounds, lines):
    """Writes every line to its place."""
    pieces, rows = valid.shape
    for row in range(rows):
        at = bounds[row]
        for piece in range(pieces):
            if valid[piece, row]:
                at = _copied(lines, at, befores, before_ends[piece], before_ends[piece + 1])
                at = _copied(lines, at, texts, offsets[piece, row], offsets[piece, row + 1])
                at = _copied(lines, at, afters, after_ends[piece], after_ends[piece + 1])

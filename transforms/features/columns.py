"""A column of a published feature set: its name, the canonical columns behind it, how they become its values."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NS_PER_MS = 1_000_000

Kind = Literal["identity", "feature", "label"]


class Conversion(NamedTuple):
    """How values change on their way from canonical columns to a published one.

    Attributes:
        doc: What it does, for the reference; empty for nothing.
        apply: The canonical arrays, in the column's order, to the published array.
    """

    doc: str
    apply: Callable[..., pa.Array]


def _unchanged(values: pa.Array) -> pa.Array:
    return values


UNCHANGED = Conversion("", _unchanged)


class Column(NamedTuple):
    """One column of a published set.

    Attributes:
        name: Published name, exactly as the tool writes it.
        canonical: The canonical columns it is made of.
        conversion: How they become its values.
        kind: `identity` names a flow or its time and gives its class away (never train on it), `feature` describes it,
            `label` is what a person said about it.
    """

    name: str
    canonical: tuple[str, ...]
    conversion: Conversion = UNCHANGED
    kind: Kind = "feature"


def zero(values: pa.Array) -> pa.Array:
    """The values, 0 where there is none: for sets that promise a number everywhere."""
    return values.fill_null(0) if values.null_count else values


def _sum(*terms: pa.Array) -> pa.Array:
    total = zero(terms[0])
    for term in terms[1:]:
        total = pc.add_checked(total, zero(term))
    return total


def _milliseconds(microseconds: pa.Array) -> pa.Array:
    return pc.divide(zero(microseconds).cast(pa.float64()), 1000.0)


def _whole_milliseconds(nanoseconds: pa.Array) -> pa.Array:
    return pa.array(zero(nanoseconds).to_numpy() // NS_PER_MS)


def _whole_milliseconds_between(first: pa.Array, last: pa.Array) -> pa.Array:
    return pc.subtract(_whole_milliseconds(last), _whole_milliseconds(first))


def _utc_text(nanoseconds: pa.Array) -> pa.Array:
    # A cast to µs alone would cut towards 1970; strftime prints as many decimals of the second as the type has.
    whole = pc.floor_temporal(nanoseconds.cast(pa.timestamp("ns")), unit="microsecond")
    return pc.strftime(whole.cast(pa.timestamp("us")), format="%Y-%m-%d %H:%M:%S")


ZERO = Conversion("null → 0", zero)
SUM = Conversion("sum", _sum)
MILLISECONDS = Conversion("µs → ms, null → 0", _milliseconds)
WHOLE_MILLISECONDS = Conversion("ns → whole ms (down), null → 0", _whole_milliseconds)
WHOLE_MILLISECONDS_BETWEEN = Conversion("each ns → whole ms (down), second less first", _whole_milliseconds_between)
UTC_TEXT = Conversion("ns → `YYYY-MM-DD HH:MM:SS.ffffff`, UTC", _utc_text)


def padded(values: pa.ListArray, length: int, padding: float) -> np.ndarray:
    """The first `length` of each list as the rows of a matrix, short ones filled up with `padding`; a null is empty."""
    flat = values.flatten().to_numpy(zero_copy_only=False)
    counts = zero(pc.list_value_length(values)).to_numpy()
    position = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = position < length
    matrix = np.full((len(values), length), padding, flat.dtype)
    matrix[np.repeat(np.arange(len(values)), counts)[kept], position[kept]] = flat[kept]
    return matrix


def as_lists(matrix: np.ndarray) -> pa.ListArray:
    """The rows of a matrix as lists."""
    rows, length = matrix.shape
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, pa.array(matrix.ravel()))

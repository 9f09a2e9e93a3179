"""Short sequences of values: how a family keeps them in little memory, and how they become list columns.

Octets of a long burst (2³² octets pass a 10 Gbit/s line in four seconds) and microseconds (2³² are 71 minutes, less
than a flow may last) need more than 32 bits. They are kept in 48, as a `u4` and a `u2` array, a quarter less than
`i8`; larger values, above 2.8e14 octets or 8.9 years, stay at the largest one.
"""

import numpy as np
import pyarrow as pa

from transforms.kernel import kernel
from transforms.octets import copy_octets

LARGEST = (1 << 48) - 1
LOW = (1 << 32) - 1


def joined(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The 48-bit values whose lower 32 and upper 16 bits are given, as int64."""
    values: np.ndarray = low.astype(np.int64) | high.astype(np.int64) << 32
    return values


def offsets(counts: np.ndarray) -> np.ndarray:
    """Where each list begins, and the last one ends, if they have these lengths and stand one behind the other."""
    ends = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=ends[1:])
    return ends


def beginnings(values: np.ndarray, counts: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """The first `counts[row]` values of each row of a matrix, written behind `begin[row]`.

    Args:
        values: Matrix whose rows are contiguous, such as an array field of records.
        counts: How many of each row, `int64[n]`.
        begin: `offsets` of the lists; what is not written of them is undefined.
    """
    lists_of = np.empty(begin[-1], values.dtype)
    octets = values.itemsize * values.shape[1]
    if len(lists_of):
        stride = values.strides[0]
        flat = np.lib.stride_tricks.as_strided(values[0].view(np.uint8), (stride * (len(values) - 1) + octets,), (1,))
        _copy_beginnings(flat, stride, values.itemsize, counts, begin, lists_of.view(np.uint8))
    return lists_of


@kernel
def _copy_beginnings(rows, stride, item, counts, begin, target):
    for row in range(len(counts)):
        if counts[row]:
            copy_octets(target, np.int64(begin[row]) * item, rows, row * stride, counts[row] * item)


def lists(values: np.ndarray, begin: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """A list column of items that stand one list behind the other; `begin` as `offsets` has it."""
    return pa.ListArray.from_arrays(pa.array(begin), pa.array(values, kind))

"""Short sequences of values: how a family keeps them in little memory, and how they become list columns.

Octets of a long burst (2³² octets pass a 10 Gbit/s line in four seconds) and microseconds (2³² are 71 minutes, less
than a flow may last) need more than 32 bits. They are kept in 48, as a `u4` and a `u2` array, a quarter less than
`i8`; larger values, above 2.8e14 octets or 8.9 years, stay at the largest one.
"""

import numpy as np
import pyarrow as pa

LARGEST = (1 << 48) - 1
LOW = (1 << 32) - 1


def joined(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The 48-bit values whose lower 32 and upper 16 bits are given, as int64."""
    values: np.ndarray = low.astype(np.int64) | high.astype(np.int64) << 32
    return values


def lists(
    values: np.ndarray, counts: np.ndarray, kind: pa.DataType, rows: np.ndarray | slice = slice(None)
) -> pa.ListArray:
    """The beginnings of the rows of a matrix as a list column.

    Args:
        values: Matrix with a row for each of `rows`.
        counts: Length of each list of the column.
        kind: Type of the items.
        rows: Rows of the column that have a row in `values`; all others must have count 0.
    """
    used = np.arange(values.shape[1]) < counts[rows, None]
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[used], kind))

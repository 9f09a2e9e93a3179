"""Arrow columns from what numpy made; columns that hold one value throughout share one piece of memory.

Most columns of a flood of one-packet flows, and many of any batch, are null or one number in all rows. Memory that is
touched for the first time costs more than the comparison that finds them: 4 µs a page, 16 pages a column of a batch.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa


def column(values: Any, type_: pa.DataType, n: int) -> pa.Array:
    """A column of `n` rows from an array, a masked array, an Arrow array, or None for nothing but nulls."""
    if values is None:
        return nulls(type_, n)
    if isinstance(values, pa.Array):
        return values if values.type == type_ else values.cast(type_)
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if mask.all():
            return nulls(type_, n)
        if mask.any():
            return pa.array(values.data, type_, mask=mask)
        values = values.data
    if isinstance(values, np.ndarray) and is_constant(values):
        return _repeated(values[:1].tobytes(), values.dtype, type_, len(values))
    return pa.array(values, type_)


@lru_cache(128)
def nulls(type_: pa.DataType, n: int) -> pa.Array:
    """`n` nulls."""
    return pa.nulls(n, type_)


@lru_cache(128)
def constant(text: str | None, n: int) -> pa.Array:
    """A text in each of `n` rows."""
    return pa.repeat(pa.scalar(text, pa.string()), n)


def is_constant(values: np.ndarray) -> bool:
    """Whether these are numbers, all with the same bits."""
    if len(values) == 0 or values.dtype.kind not in "biuf":
        return False
    bits = values.view(f"u{values.itemsize}")
    return bool(bits[0] == bits[-1] and (bits == bits[0]).all())


@lru_cache(128)
def _repeated(octets: bytes, dtype: np.dtype, type_: pa.DataType, n: int) -> pa.Array:
    return pa.repeat(pa.array(np.frombuffer(octets, dtype), type_)[0], n)

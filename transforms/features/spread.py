"""Minimum, maximum and variance of whole numbers whose count and sum are known from elsewhere."""

from collections.abc import Iterator

import numpy as np

from transforms.kernel import kernel

SPREAD = np.dtype([("min", "i8"), ("max", "i8"), ("m2", "f8")], align=True)
"""Zeros before the first value. `m2` is the sum of squared differences from the mean (squares of ns overflow int64)."""


@kernel
def add(spread, value, count, total):
    """Adds a whole number; `count` and `total` are of all values, this one included (Youngs and Cramer 1971)."""
    if count == 1:
        spread.min = value
        spread.max = value
        return
    spread.min = min(spread.min, value)
    spread.max = max(spread.max, value)
    delta = np.float64(count) * value - total
    spread.m2 += delta * delta / (np.float64(count) * (count - 1))


def added(spreads: np.ndarray, value: np.ndarray, count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """A copy of finished rows, with one more value added to each; as `add`."""
    first = count == 1
    more = np.empty(len(spreads), SPREAD)
    more["min"] = np.where(first, value, np.minimum(spreads["min"], value))
    more["max"] = np.where(first, value, np.maximum(spreads["max"], value))
    delta = count.astype(np.float64) * value - total
    more["m2"] = spreads["m2"] + delta * delta / (count.astype(np.float64) * np.maximum(count - 1, 1))
    return more


def columns_us(spreads: np.ndarray, count: np.ndarray, total: np.ndarray) -> Iterator[np.ma.MaskedArray]:
    """`min`, `max`, `mean` and sample `std` of nanoseconds as microseconds; null where there is no value."""
    none = count == 0
    for values in (
        spreads["min"] / 1e3,
        spreads["max"] / 1e3,
        total / (np.maximum(count, 1) * 1e3),
        np.sqrt(spreads["m2"] / np.maximum(count - 1, 1)) / 1e3,
    ):
        yield np.ma.MaskedArray(values, none)

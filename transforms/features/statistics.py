"""Running minimum, maximum, mean and variance of whole numbers."""

from collections.abc import Iterator

import numpy as np

from transforms.kernel import kernel

STATISTICS = np.dtype(
    [("count", "i8"), ("total", "i8"), ("min", "i8"), ("max", "i8"), ("mean", "f8"), ("m2", "f8")], align=True
)
"""`m2` is the sum of squared differences from the mean (Welford 1962): squares of nanoseconds overflow int64."""


@kernel
def add(statistics, value):
    """Adds one whole number."""
    statistics.count += 1
    statistics.total += value
    if statistics.count == 1:
        statistics.min = value
        statistics.max = value
        statistics.mean = value
        return
    delta = value - statistics.mean
    statistics.mean += delta / statistics.count
    statistics.m2 += delta * (value - statistics.mean)
    statistics.min = min(statistics.min, value)
    statistics.max = max(statistics.max, value)


def merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The statistics of two disjoint samples together (Chan, Golub, LeVeque 1979)."""
    both = np.zeros(one.shape, STATISTICS)
    both["count"] = one["count"] + other["count"]
    both["total"] = one["total"] + other["total"]
    weight = np.maximum(both["count"], 1)
    delta = other["mean"] - one["mean"]
    both["mean"] = one["mean"] + delta * other["count"] / weight
    both["m2"] = one["m2"] + other["m2"] + delta * delta * (one["count"] / weight * other["count"])
    without, alone = one["count"] == 0, other["count"] == 0
    for name, choose in (("min", np.minimum), ("max", np.maximum)):
        both[name] = np.where(without, other[name], np.where(alone, one[name], choose(one[name], other[name])))
    return both


def variance(statistics: np.ndarray) -> np.ndarray:
    """Sample variance (n - 1); 0 for fewer than two values."""
    return statistics["m2"] / np.maximum(statistics["count"] - 1, 1)


def columns(statistics: np.ndarray, names: tuple[str, ...], divisor: float = 1.0) -> Iterator[np.ma.MaskedArray]:
    """`min`, `max`, `mean`, `std`, `variance` or `total`, as named, divided by `divisor`; null where there is no value."""
    none = statistics["count"] == 0
    for name in names:
        if name == "std":
            values = np.sqrt(variance(statistics)) / divisor
        elif name == "variance":
            values = variance(statistics) / divisor**2
        elif name == "mean":
            values = statistics["total"] / np.maximum(statistics["count"], 1) / divisor
        else:
            values = statistics[name] if divisor == 1.0 else statistics[name] / divisor
        yield np.ma.array(values, mask=none)

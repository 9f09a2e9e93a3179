"""Packet lengths: payload, IP and frame octets of each side, and of both together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel, kernel_part

LENGTHS = np.dtype([("min", "u4"), ("max", "u4"), ("squares", "i8")], align=True)
"""Number and sum are in `FLOW`. The sum of squares is kept modulo 2⁶⁴: `_columns` needs no more."""

SIDE = np.dtype([("payload_octets", LENGTHS), ("ip_octets", LENGTHS), ("frame_octets", LENGTHS)], align=True)
STATE = np.dtype([("fwd", SIDE), ("rev", SIDE)], align=True)
"""Lengths of each side, as whole numbers: exact, and those of the flow are their sums."""


def _fields() -> Iterator[Field]:
    for side, whose in (
        ("fwd", "of a packet of the initiator"),
        ("rev", "of a packet of the responder"),
        ("flow", "of a packet of either side"),
    ):
        for length, what in (("payload", "transport payload"), ("ip", "IP total length"), ("frame", "frame length")):
            for column, unit, kind, doc in (
                ("min", "octets", pa.int64(), "Smallest"),
                ("max", "octets", pa.int64(), "Largest"),
                ("mean", "octets", pa.float64(), "Mean"),
                ("std", "octets", pa.float64(), "Sample standard deviation of the"),
                ("variance", "octets²", pa.float64(), "Sample variance of the"),
            ):
                yield Field(f"{side}_{length}_octets_{column}", kind, unit, f"{doc} {what} {whose}.")


FIELDS = tuple(_fields())
COLUMNS = ("min", "max", "mean", "std", "variance")


def initial(settings: Any) -> np.ndarray:
    """The state before any packet: minima that every length replaces."""
    state = np.zeros((), STATE)
    for side in ("fwd", "rev"):
        for length in SIDE.fields or ():
            state[side][length]["min"] = np.iinfo(np.uint32).max
    return state


@kernel_part
def _add(lengths, octets):
    lengths.min = min(lengths.min, octets)
    lengths.max = max(lengths.max, octets)
    lengths.squares += np.int64(octets) * np.int64(octets)


@kernel
def update(state, flow, packet, forward):
    """Adds the lengths of `packet` to those of its side."""
    side = state.fwd if forward else state.rev
    _add(side.payload_octets, packet.payload_octets)
    _add(side.ip_octets, packet.ip_octets)
    _add(side.frame_octets, packet.frame_octets)


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """The columns of finished flows; null for a side without packets."""
    (_, fwd), (_, rev) = sides(flows)
    columns = {}
    for name, side in sides(flows):
        count = side["packets"].copy()
        none = count == 0
        for length in SIDE.names or ():
            if none.all():
                yield from ((f"{name}_{length}_{column}", None) for column in COLUMNS)
                continue
            columns[name, length] = _columns(count, side[length].copy(), states[name][length])
            for column, values in zip(COLUMNS, columns[name, length], strict=True):
                yield f"{name}_{length}_{column}", np.ma.MaskedArray(values, none)
    count = fwd["packets"] + rev["packets"]
    for length in SIDE.names or ():
        if ("rev", length) in columns:
            both = _merged(states["fwd"][length], states["rev"][length])
            columns["fwd", length] = _columns(count, fwd[length] + rev[length], both)
        for column, values in zip(COLUMNS, columns["fwd", length], strict=True):
            yield f"flow_{length}_{column}", values


def _merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    both = np.empty(one.shape, LENGTHS)
    both["min"] = np.minimum(one["min"], other["min"])
    both["max"] = np.maximum(one["max"], other["max"])
    both["squares"] = one["squares"] + other["squares"]
    return both


def _columns(count: np.ndarray, total: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """`COLUMNS` of `count` lengths that sum up to `total`; sample variance, 0 for fewer than two.

    Squares are first taken about the whole number nearest to the mean. That is exact modulo 2⁶⁴, so it matters neither
    that a sum of squares overflowed nor that large squares cancel; the little that is left is a float's work. Where
    that sum itself may be 2⁶³ or more, as between stated lengths of nothing and of gigabytes, there is no variance.
    """
    n = np.maximum(count, 1).astype(np.float64)
    mean = total / n
    near = np.rint(mean).astype(np.int64)
    rest = total - near * count
    about_near = lengths["squares"] - near * (total + rest)
    variance = (about_near - rest * (rest / n)) / np.maximum(n - 1, 1)
    span = lengths["max"].astype(np.float64) - lengths["min"]
    unknown = n * (span * span) >= 2.0**65  # squares about the mean sum up to a quarter of this at most
    if unknown.any():
        variance = np.ma.MaskedArray(np.where(unknown, 0, variance), unknown)
    return lengths["min"], lengths["max"], mean, np.sqrt(variance), variance

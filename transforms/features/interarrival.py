"""Gaps between consecutive packets, of each side and of either side, and how much they vary from one to the next."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features import spread
from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel, kernel_part

GAPS = np.dtype(
    [
        ("spread", spread.SPREAD),
        ("latest_ns", "i8"),
        ("variation_ns", "i8"),  # sum of absolute differences of successive gaps
    ],
    align=True,
)
"""Gaps in ns. Their number is one less than the packets, their sum the time from the first packet to the last."""

STATE = np.dtype([("fwd", GAPS), ("rev", GAPS), ("flow", GAPS)], align=True)
"""Gaps of each side, and of the flow whichever side sent."""


def _fields() -> Iterator[Field]:
    for name, whose in (
        ("fwd", "packets of the initiator"),
        ("rev", "packets of the responder"),
        ("flow", "packets of either side"),
    ):
        gaps = f"between consecutive {whose}"
        for column, doc in (
            ("iat_min_us", f"Smallest gap {gaps}."),
            ("iat_max_us", f"Largest gap {gaps}."),
            ("iat_mean_us", f"Mean gap {gaps}."),
            ("iat_std_us", f"Sample standard deviation of the gaps {gaps}."),
            ("iat_total_us", f"Sum of the gaps {gaps}."),
            ("jitter_us", f"Mean absolute difference of successive gaps {gaps}; null with fewer than two gaps."),
        ):
            yield Field(f"{name}_{column}", pa.float64(), "us", doc)


FIELDS = tuple(_fields())
COLUMNS = ("iat_min", "iat_max", "iat_mean", "iat_std", "iat_total", "jitter")


@kernel_part
def _add(gaps, gap_ns, count, total_ns):
    if count > 1:
        gaps.variation_ns += abs(gap_ns - gaps.latest_ns)
    gaps.latest_ns = gap_ns
    spread.add(gaps.spread, gap_ns, count, total_ns)


@kernel
def update(state, flow, packet, forward):
    """Adds the gaps that `packet` closes; `flow` still describes the packets before it."""
    if flow.packets == 0:
        return
    _add(state.flow, packet.time_ns - flow.last_ns, flow.packets, packet.time_ns - flow.first_ns)
    side = flow.fwd if forward else flow.rev
    if side.packets > 0:
        gaps = state.fwd if forward else state.rev
        _add(gaps, packet.time_ns - side.last_ns, side.packets, packet.time_ns - side.first_ns)


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ma.MaskedArray | None]]:
    """The columns of finished flows, µs; null where there are fewer than two packets."""
    for name, totals in (*sides(flows), ("flow", flows)):
        gaps = states[name]
        count = np.maximum(totals["packets"] - 1, 0)
        if not count.any():
            yield from ((f"{name}_{column}_us", None) for column in COLUMNS)
            continue
        total = totals["last_ns"] - totals["first_ns"]
        statistics = spread.columns_us(gaps["spread"], count, total)
        for column, values in zip(("min", "max", "mean", "std"), statistics, strict=True):
            yield f"{name}_iat_{column}_us", values
        yield f"{name}_iat_total_us", np.ma.MaskedArray(total / 1e3, count == 0)
        jitter = gaps["variation_ns"] / (np.maximum(count - 1, 1) * 1e3)
        yield f"{name}_jitter_us", np.ma.MaskedArray(jitter, count < 2)

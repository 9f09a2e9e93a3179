"""Active periods and the idle gaps between them, at the person's threshold and at one second; sub-flows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.features import spread
from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel, kernel_part

SECOND_NS = 1_000_000_000

PERIODS = np.dtype(
    [
        ("idle", spread.SPREAD),
        ("active", spread.SPREAD),
        ("idle_total_ns", "i8"),
        ("since_ns", "i8"),  # begin of the present active period, once idle_count > 0
        ("idle_count", "u4"),
    ],
    align=True,
)
"""Idle gaps, and the active periods that ended with one. All time is one or the other, so no sum of periods is kept."""

STATE = np.dtype([("timeout_ns", "i8"), ("by_timeout", PERIODS), ("by_second", PERIODS)], align=True)
"""A gap longer than `timeout_ns`, or than a second, ends an active period."""


def _fields() -> Iterator[Field]:
    for infix, threshold in (("", "`activity_timeout_s`"), ("_1s", "1 s")):
        for kind, what in (
            ("active", f"active periods, which gaps longer than {threshold} part; the last one counts"),
            ("idle", f"gaps longer than {threshold}; null without one"),
        ):
            for column, doc in (
                ("min", "Shortest of the"),
                ("max", "Longest of the"),
                ("mean", "Mean of the"),
                ("std", "Sample standard deviation of the"),
            ):
                yield Field(f"{kind}{infix}_{column}_us", pa.float64(), "us", f"{doc} {what}.")
            yield Field(f"{kind}{infix}_count", pa.int64(), "", f"Number of the {what.partition(';')[0]}.")
    yield Field("subflows", pa.int64(), "", "Parts of the flow between gaps longer than 1 s: their number plus 1.")
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        for total, unit in (("packets", "packets"), ("payload_octets", "octets"), ("ip_octets", "octets")):
            doc = f"`{side}_{total}` of the {who} for each sub-flow, on average."
            yield Field(f"{side}_subflow_{total}", pa.float64(), unit, doc)


FIELDS = tuple(_fields())


def initial(settings: Any) -> np.ndarray:
    """The state before any packet, with `settings.activity_timeout_s` to the nanosecond."""
    state = np.zeros((), STATE)
    state["timeout_ns"] = round(settings.activity_timeout_s * 1e9)
    return state


@kernel_part
def _part(periods, first_ns, last_ns, time_ns):
    if periods.idle_count == 0:
        periods.since_ns = first_ns
    periods.idle_count += 1
    count = np.int64(periods.idle_count)
    spread.add(periods.active, last_ns - periods.since_ns, count, last_ns - first_ns - periods.idle_total_ns)
    periods.idle_total_ns += time_ns - last_ns
    spread.add(periods.idle, time_ns - last_ns, count, periods.idle_total_ns)
    periods.since_ns = time_ns


@kernel
def update(state, flow, packet, forward):
    """Ends the active period when `packet` comes after a long gap; `flow` still describes the packets before it."""
    if flow.packets == 0:
        return
    gap_ns = packet.time_ns - flow.last_ns
    if gap_ns > state.timeout_ns:
        _part(state.by_timeout, flow.first_ns, flow.last_ns, packet.time_ns)
    if gap_ns > SECOND_NS:
        _part(state.by_second, flow.first_ns, flow.last_ns, packet.time_ns)


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """The columns of finished flows; the period that the last packet ends counts like the others."""
    first_ns, last_ns = flows["first_ns"].copy(), flows["last_ns"].copy()
    for periods, infix in ((states["by_timeout"], ""), (states["by_second"], "_1s")):
        idle_count, idle_total = periods["idle_count"].astype(np.int64), periods["idle_total_ns"].copy()
        if not idle_count.any():
            yield from _without_gaps(infix, idle_count, (last_ns - first_ns) / 1e3)
            continue
        active_count, active_total = idle_count + 1, last_ns - first_ns - idle_total
        last_period = last_ns - np.where(idle_count == 0, first_ns, periods["since_ns"])
        active = spread.added(periods["active"], last_period, active_count, active_total)
        for kind, spreads, count, total in (
            ("active", active, active_count, active_total),
            ("idle", periods["idle"], idle_count, idle_total),
        ):
            for column, values in zip(
                ("min", "max", "mean", "std"), spread.columns_us(spreads, count, total), strict=True
            ):
                yield f"{kind}{infix}_{column}_us", values
            yield f"{kind}{infix}_count", count
    subflows = states["by_second"]["idle_count"].astype(np.int64) + 1
    yield "subflows", subflows
    for name, side in sides(flows):
        for total in ("packets", "payload_octets", "ip_octets"):
            yield f"{name}_subflow_{total}", side[total] / subflows


def _without_gaps(infix: str, zeros: np.ndarray, duration_us: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """The columns of flows that were active from their first packet to the last."""
    for column in ("min", "max", "mean"):
        yield f"active{infix}_{column}_us", duration_us
    yield f"active{infix}_std_us", zeros
    yield f"active{infix}_count", zeros + 1
    for column in ("min", "max", "mean", "std"):
        yield f"idle{infix}_{column}_us", None
    yield f"idle{infix}_count", zeros

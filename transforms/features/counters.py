"""Header octets, packets with payload, times and durations; the common columns have the other totals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel
from transforms.records import TRANSPORT_WHOLE

NO_HEADER = 0xFFFF

STATE = np.dtype([("fwd", "u2"), ("rev", "u2")], align=True)
"""Smallest transport header of each side; `NO_HEADER` while there was none."""


def _fields() -> Iterator[Field]:
    for side, who, reverse in (("fwd", "initiator", ""), ("rev", "responder", "reverse ")):
        sent = f"sent by the {who}"
        for column, kind, unit, doc, ipfix in (
            ("header_octets", pa.int64(), "octets", f"Transport headers {sent}.", ""),
            ("ip_header_octets", pa.int64(), "octets", f"Innermost IP headers {sent}, extension headers included.", ""),
            ("payload_packets", pa.int64(), "packets", f"Packets with payload {sent}.", ""),
            ("start_ns", pa.int64(), "ns", f"First packet {sent}, since the Unix epoch.", "flowStartNanoseconds 156"),
            ("end_ns", pa.int64(), "ns", f"Last packet {sent}, since the Unix epoch.", "flowEndNanoseconds 157"),
            ("duration_us", pa.float64(), "us", f"From the first to the last packet {sent}; null without one.", ""),
            ("header_octets_min", pa.int64(), "octets", f"Smallest whole transport header {sent}; null without.", ""),
        ):
            yield Field(f"{side}_{column}", kind, unit, doc, ipfix and reverse + ipfix)
    yield Field(
        "flow_duration_us", pa.float64(), "us", "From the first to the last packet.", "flowDurationMicroseconds 162"
    )


FIELDS = tuple(_fields())


def initial(settings: Any) -> np.ndarray:
    """No header seen."""
    return np.array((NO_HEADER, NO_HEADER), STATE)


@kernel
def update(state, flow, packet, forward):
    """Keeps the smaller transport header; later fragments and cut ones have none to measure."""
    if packet.transport != TRANSPORT_WHOLE:
        return
    if forward:
        state.fwd = min(state.fwd, packet.header_octets)
    else:
        state.rev = min(state.rev, packet.header_octets)


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """The columns of finished flows; null for the times of a side that sent nothing."""
    for name, side in sides(flows):
        for column in ("header_octets", "ip_header_octets", "payload_packets"):
            yield f"{name}_{column}", side[column]
        none = side["packets"] == 0
        if none.all():
            yield from (
                (f"{name}_{column}", None) for column in ("start_ns", "end_ns", "duration_us", "header_octets_min")
            )
            continue
        yield f"{name}_start_ns", np.ma.MaskedArray(side["first_ns"], none)
        yield f"{name}_end_ns", np.ma.MaskedArray(side["last_ns"], none)
        yield f"{name}_duration_us", np.ma.MaskedArray((side["last_ns"] - side["first_ns"]) / 1e3, none)
        yield f"{name}_header_octets_min", np.ma.MaskedArray(states[name], states[name] == NO_HEADER)
    yield "flow_duration_us", (flows["last_ns"] - flows["first_ns"]) / 1e3

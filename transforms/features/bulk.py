"""Bulk transfers: four or more packets with payload from one side, at most 1 s apart, none of the other between."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.fields import Field
from transforms.kernel import kernel

PACKETS_OF_A_BULK = 4
LONGEST_GAP_NS = 1_000_000_000

BULKS = np.dtype([("octets", "i8"), ("duration_ns", "i8"), ("packets", "u4"), ("count", "u4")], align=True)
"""Bulks of one side together, the present one included."""

RUN = np.dtype(
    [("start_ns", "i8"), ("last_ns", "i8"), ("octets", "i8"), ("packets", "u4"), ("forward", "?")], align=True
)
"""The payload packets in a row that may become a bulk, or are one."""

STATE = np.dtype([("fwd", BULKS), ("rev", BULKS), ("run", RUN)], align=True)
"""Only one side has a run at a time: a payload packet of the other ends it."""


def _fields() -> Iterator[Field]:
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        bulks = (
            f"bulks of the {who} (4 packets with payload or more, gaps of at most 1 s, not interrupted by the other)"
        )
        for column, kind, unit, doc in (
            ("count", pa.int64(), "", f"Number of {bulks}."),
            ("octets_mean", pa.float64(), "octets", f"Payload octets for each of the {bulks}; null without one."),
            ("packets_mean", pa.float64(), "packets", f"Packets for each of the {bulks}; null without one."),
            ("octets_per_s", pa.float64(), "octets/s", f"Payload of the {bulks} over their duration; null for none."),
        ):
            yield Field(f"{side}_bulk_{column}", kind, unit, doc)


FIELDS = tuple(_fields())


@kernel
def update(state, flow, packet, forward):
    """Adds a payload packet to the run of its side, and the run to the bulks as soon as it is one."""
    if packet.payload_octets == 0:
        return
    run = state.run
    octets = np.int64(packet.payload_octets)
    if run.packets == 0 or run.forward != forward or packet.time_ns - run.last_ns > LONGEST_GAP_NS:
        run.forward = forward
        run.start_ns = packet.time_ns
        run.last_ns = packet.time_ns
        run.packets = 1
        run.octets = octets
        return
    run.packets += 1
    run.octets += octets
    bulks = state.fwd if forward else state.rev
    if run.packets == PACKETS_OF_A_BULK:
        bulks.count += 1
        bulks.packets += PACKETS_OF_A_BULK
        bulks.octets += run.octets
        bulks.duration_ns += packet.time_ns - run.start_ns
    elif run.packets > PACKETS_OF_A_BULK:
        bulks.packets += 1
        bulks.octets += octets
        bulks.duration_ns += packet.time_ns - run.last_ns
    run.last_ns = packet.time_ns


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    """The columns of finished flows; null without a bulk, and for the speed of bulks that took no time."""
    for name in ("fwd", "rev"):
        bulks = states[name]
        count, octets, duration_ns = (np.ascontiguousarray(bulks[key]) for key in ("count", "octets", "duration_ns"))
        if not count.any():
            yield f"{name}_bulk_count", count
            yield from ((f"{name}_bulk_{column}", None) for column in ("octets_mean", "packets_mean", "octets_per_s"))
            continue
        none, n = count == 0, np.maximum(count, 1)
        instant = duration_ns == 0
        yield f"{name}_bulk_count", count
        yield f"{name}_bulk_octets_mean", np.ma.MaskedArray(octets / n, none)
        yield f"{name}_bulk_packets_mean", np.ma.MaskedArray(bulks["packets"] / n, none)
        yield (
            f"{name}_bulk_octets_per_s",
            np.ma.MaskedArray(octets / (np.where(instant, 1, duration_ns) / 1e9), instant),
        )

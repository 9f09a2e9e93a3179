"""Bursts of payload in each direction (SBLT), as ipfixprobe's `bstats` plugin finds them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features import sequences
from transforms.fields import Field
from transforms.kernel import kernel, kernel_part

KEPT = 15
"""Bursts that are kept of each side; all are counted."""

MIN_PACKETS = 3
MAX_GAP_NS = 1_000_000_000

_LISTS = {
    "packets": (pa.int64(), "packets", "Packets of each"),
    "octets": (pa.int64(), "octets", "Payload of each"),
    "start_us": (pa.int64(), "us", "From the start of the flow to the first packet of each, cut to µs, for each"),
    "duration_us": (pa.int64(), "us", "From the first to the last packet of each, cut to µs, for each"),
}


def _fields() -> Iterator[Field]:
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        what = "3 or more packets with payload, no gap above 1 s"
        yield Field(f"{side}_burst_count", pa.int64(), "bursts", f"Bursts of the {who}: {what}.")
        for name, (kind, unit, doc) in _LISTS.items():
            yield Field(f"{side}_burst_{name}", pa.list_(kind), unit, f"{doc} of the first 15 bursts of the {who}.")


FIELDS = tuple(_fields())

SIDE = np.dtype(
    [
        ("open_start_ns", "i8"),  # the run of packets that the next one may join
        ("open_last_ns", "i8"),
        ("open_octets", "i8"),
        ("open_packets", "i8"),
        ("count", "i8"),  # finished bursts
        ("packets", "u4", KEPT),
        ("octets_low", "u4", KEPT),
        ("start_us_low", "u4", KEPT),
        ("duration_us_low", "u4", KEPT),
        ("octets_high", "u2", KEPT),
        ("start_us_high", "u2", KEPT),
        ("duration_us_high", "u2", KEPT),
    ],
    align=True,
)
"""The finished bursts of one side, and a run of packets that is one already or may become one."""

STATE = np.dtype([("fwd", SIDE), ("rev", SIDE)], align=True)
"""Bursts of each side.

As in bstats (ipfixprobe 5.7), packets without payload neither belong to a burst nor end one, octets are payload, and
the sides do not interrupt each other. Unlike there, a gap of exactly one second still joins (bstats: less than one),
bursts beyond the fifteenth are counted, and a flow of three packets can have one.
"""


@kernel
def update(state, flow, packet, forward):
    """Adds `packet` to the open run of its side, or begins the next run with it."""
    if packet.payload_octets == 0:
        return
    side = state.fwd if forward else state.rev
    if side.open_packets == 0 or packet.time_ns - side.open_last_ns > MAX_GAP_NS:
        if side.open_packets >= MIN_PACKETS:
            if side.count < KEPT:
                _keep(side, side.count, flow.first_ns)
            side.count += 1
        side.open_start_ns = packet.time_ns
        side.open_octets = 0
        side.open_packets = 0
    side.open_last_ns = packet.time_ns
    side.open_octets += packet.payload_octets
    side.open_packets += 1


@kernel_part
def _keep(side, index, flow_start_ns):
    """Writes the open run into its row among the finished ones."""
    octets = min(side.open_octets, sequences.LARGEST)
    start_us = min((side.open_start_ns - flow_start_ns) // 1000, sequences.LARGEST)
    duration_us = min((side.open_last_ns - side.open_start_ns) // 1000, sequences.LARGEST)
    side.packets[index] = min(side.open_packets, sequences.LOW)
    side.octets_low[index] = octets & sequences.LOW
    side.octets_high[index] = octets >> 32
    side.start_us_low[index] = start_us & sequences.LOW
    side.start_us_high[index] = start_us >> 32
    side.duration_us_low[index] = duration_us & sequences.LOW
    side.duration_us_high[index] = duration_us >> 32


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | pa.ListArray]]:
    """Counts and lists; the run that was open at the end counts if it is a burst."""
    for side in ("fwd", "rev"):
        count = states[side]["count"] + (states[side]["open_packets"] >= MIN_PACKETS)
        yield f"{side}_burst_count", count
        begin = sequences.offsets(np.minimum(count, KEPT))
        bursts = _finished(states[side], flows["first_ns"], begin)
        for name, (kind, _, _) in _LISTS.items():
            yield f"{side}_burst_{name}", sequences.lists(bursts[name], begin, kind)


def _finished(sides: np.ndarray, flow_start_ns: np.ndarray, begin: np.ndarray) -> dict[str, np.ndarray]:
    """The bursts one flow behind the other, the open run the flow's last if it is a burst for which there is room."""
    if begin[-1] == 0:
        return dict.fromkeys(_LISTS, np.empty(0, np.int64))
    count = np.minimum(sides["count"], KEPT)
    bursts = {"packets": sequences.beginnings(sides["packets"], count, begin).astype(np.int64)}
    for name in ("octets", "start_us", "duration_us"):
        low, high = (sequences.beginnings(sides[f"{name}_{half}"], count, begin) for half in ("low", "high"))
        bursts[name] = sequences.joined(low, high)
    ended = np.flatnonzero(np.diff(begin) > count)
    last = begin[ended + 1] - 1
    start_ns, last_ns = (sides[f"open_{name}_ns"][ended] for name in ("start", "last"))
    bursts["packets"][last] = sides["open_packets"][ended]
    bursts["octets"][last] = sides["open_octets"][ended]
    bursts["start_us"][last] = (start_ns - flow_start_ns[ended]) // 1000
    bursts["duration_us"][last] = (last_ns - start_ns) // 1000
    return bursts

"""Histograms of payload sizes and of the gaps between packets with payload, as ipfixprobe's `phists` has them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features import sequences
from transforms.fields import Field
from transforms.kernel import kernel

BINS = 8
"""0 to 15, 16 to 31, 32 to 63, 64 to 127, 128 to 255, 256 to 511, 512 to 1,023, and 1,024 or more."""

BIN_OF = np.array([min(step.bit_length(), BINS - 1) for step in range(65)], np.uint8)
"""The bin of a value, by a sixteenth of it; 64 stands for all above."""

FULL = (1 << 31) - 1
"""A bin that has reached this stays there, as phists' bins do at 2³² − 1."""

_WHAT = {
    "payload_octets": ("packets", "Packets with payload sent by the {}, by octets of payload"),
    "iat_ms": ("gaps", "Gaps between packets with payload sent by the {}, by whole milliseconds"),
}

FIELDS = tuple(
    Field(f"{side}_{name}_histogram", pa.list_(pa.int32()), unit, f"{what.format(who)}: 0-15, 16-31, 32-63, …, 1024+.")
    for side, who in (("fwd", "initiator"), ("rev", "responder"))
    for name, (unit, what) in _WHAT.items()
)

SIDE = np.dtype([("last_ns", "i8"), ("payload_octets", "u4", BINS), ("iat_ms", "u4", BINS)], align=True)
"""Bins, and the time of the last packet with payload."""

STATE = np.dtype([("fwd", SIDE), ("rev", SIDE)], align=True)
"""Both histograms of each side.

As in phists (ipfixprobe 5.7) without its option `includezeros`, packets without payload count in neither histogram
and end no gap. Unlike there, a gap is cut to milliseconds once: phists subtracts times that it has already cut.
"""


@kernel
def update(state, flow, packet, forward):
    """Counts `packet` and the gap since the last packet with payload of its side."""
    if packet.payload_octets == 0:
        return
    side = state.fwd if forward else state.rev
    bin_of_size = BIN_OF[min(np.int64(packet.payload_octets) >> 4, 64)]
    if side.payload_octets[bin_of_size] < FULL:
        side.payload_octets[bin_of_size] += 1
    totals = flow.fwd if forward else flow.rev
    if totals.payload_packets:
        bin_of_gap = BIN_OF[min((packet.time_ns - side.last_ns) // 16_000_000, 64)]
        if side.iat_ms[bin_of_gap] < FULL:
            side.iat_ms[bin_of_gap] += 1
    side.last_ns = packet.time_ns


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, pa.ListArray]]:
    """Eight counts for each histogram, zeros where nothing was sent."""
    begin = np.arange(0, BINS * len(states) + 1, BINS, dtype=np.int32)
    zeros = sequences.lists(np.zeros(BINS * len(states), np.int32), begin, pa.int32())
    for side in ("fwd", "rev"):
        for name in _WHAT:
            bins = np.ascontiguousarray(states[side][name]).view(np.int32).ravel()  # `FULL` at most
            yield f"{side}_{name}_histogram", sequences.lists(bins, begin, pa.int32()) if bins.any() else zeros

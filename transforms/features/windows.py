"""TCP windows of each side, as the headers state them: unscaled, whatever the segment (a RST's 0 is a 0)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.fields import Field
from transforms.kernel import kernel
from transforms.records import TCP, TRANSPORT_WHOLE

WINDOWS = np.dtype([("zero_count", "u4"), ("first", "u2"), ("min", "u2"), ("seen", "?")], align=True)
STATE = np.dtype([("fwd", WINDOWS), ("rev", WINDOWS)], align=True)
"""Windows of each side; `first` and `min` are undefined until one was `seen`."""


def _fields() -> Iterator[Field]:
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        for column, unit, doc in (
            ("first", "octets", f"Window of the {who}'s first TCP header, unscaled; null if it sent none."),
            ("min", "octets", f"Smallest window of the {who}, unscaled; null if it sent none."),
            ("zero_count", "packets", f"TCP headers of the {who} with window 0."),
        ):
            yield Field(f"{side}_tcp_window_{column}", pa.int64(), unit, doc)


FIELDS = tuple(_fields())


@kernel
def update(state, flow, packet, forward):
    """Adds the window of a whole TCP header."""
    if packet.protocol != TCP or packet.transport != TRANSPORT_WHOLE:
        return
    side = state.fwd if forward else state.rev
    if not side.seen:
        side.seen = True
        side.first = packet.tcp_window
        side.min = packet.tcp_window
    side.min = min(side.min, packet.tcp_window)
    side.zero_count += packet.tcp_window == 0


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of finished flows; null for the windows of a side without a whole TCP header."""
    for name in ("fwd", "rev"):
        side = states[name]
        unseen = ~side["seen"]
        yield f"{name}_tcp_window_first", np.ma.MaskedArray(side["first"], unseen)
        yield f"{name}_tcp_window_min", np.ma.MaskedArray(side["min"], unseen)
        yield f"{name}_tcp_window_zero_count", side["zero_count"]

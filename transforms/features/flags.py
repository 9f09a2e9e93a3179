"""How many packets carried each TCP flag."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.fields import Field
from transforms.kernel import kernel
from transforms.records import TCP, TRANSPORT_WHOLE

STATE = np.dtype([("fwd", "u4", 8), ("rev", "u4", 8)], align=True)
"""Packets of each side by flag, in the order of the bits."""

NAMES = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
"""From the lowest bit up."""


def _fields() -> Iterator[Field]:
    for side, sent in (("fwd", " sent by the initiator"), ("rev", " sent by the responder"), ("flow", "")):
        for name in NAMES:
            yield Field(f"{side}_{name}_count", pa.int64(), "packets", f"Packets with {name.upper()}{sent}.")


FIELDS = tuple(_fields())


@kernel
def update(state, flow, packet, forward):
    """Counts the flags of a whole TCP header; a later fragment or a cut header says nothing about them."""
    if packet.protocol != TCP or packet.transport != TRANSPORT_WHOLE:
        return
    counts = state.fwd if forward else state.rev
    for bit in range(8):
        counts[bit] += (packet.tcp_flags >> bit) & 1


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of finished flows."""
    fwd, rev = (np.ascontiguousarray(states[side].T, np.int64) for side in ("fwd", "rev"))
    for side, counts in (("fwd", fwd), ("rev", rev), ("flow", fwd + rev)):
        for name, values in zip(NAMES, counts, strict=True):
            yield f"{side}_{name}_count", values

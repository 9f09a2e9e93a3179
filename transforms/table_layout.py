"""What the flow table consists of: the layout of its heads and rows, and the places of its counters and settings."""

import numpy as np

from transforms import tcp
from transforms.features import flow_state
from transforms.records import PACKET

HEAD = np.dtype(
    [
        ("hash", "u8"),
        ("last_ns", "i8"),
        ("first", PACKET),
        ("row", "i4"),  # its row of states; -1 for a flow of one packet
        ("ordinal", "u4"),
        ("records", "u4"),  # interim records so far
        ("flipped", "u1"),  # the first packet came from the responder
        ("changed", "u1"),  # since the last interim record
        ("dormant", "u1"),  # between two parts: the last one is out, the next has not begun
        ("end_reason", "u1"),
    ],
    align=True,
)
"""What every open flow has: a flood of one-packet flows costs no more than this."""

THREAD = np.dtype([("flow_first_ns", "i8"), ("flow_part", "u4"), ("tcp", tcp.CONNECTION)], align=True)
"""What the parts of one flow hand on."""

NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
SCRATCH, BLANK = 0, 1
"""Rows with a purpose of their own: a one-packet flow is worked out in the first; the second starts each new row."""
RESERVED_ROWS = 2

IDLE, ACTIVE, ENDED, FORCED, RESOURCES = 1, 2, 3, 4, 5
"""flowEndReason (IPFIX 136)."""

FREE_HEADS, TOP_HEAD, CLOSED, FREE_ROWS, TOP_ROW, SOONEST, NEXT = range(7)
"""Places in `counts`: sizes of the free lists, high-water marks, flows to put out, earliest deadline, next packet."""

SEED, IDLE_NS, ACTIVE_NS, LINGER_NS, TCP_RULE, REUSE_RULE, ICMP_PORTS, VNI_IN_KEY, FAMILIES, MAX_OPEN = range(10)
"""Places in `limits`."""

FOREVER = -1
"""A delay that never passes."""


def row_dtype(states: np.dtype) -> np.dtype:
    """A row of the table for these family states."""
    return np.dtype([("thread", THREAD), ("flow", flow_state.FLOW), ("states", states)], align=True)

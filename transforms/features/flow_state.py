"""What the table keeps of each flow and every family may read."""

import numpy as np

SIDE = np.dtype(
    [
        ("packets", "i8"),
        ("frame_octets", "i8"),
        ("ip_octets", "i8"),
        ("payload_octets", "i8"),
        ("header_octets", "i8"),  # transport headers
        ("ip_header_octets", "i8"),
        ("payload_packets", "i8"),  # packets with payload
        ("first_ns", "i8"),  # undefined while packets == 0
        ("last_ns", "i8"),
        ("tcp_flags", "u1"),  # OR
    ],
    align=True,
)
"""Totals of one side."""

FLOW = np.dtype(
    [
        ("packets", "i8"),  # of both sides
        ("first_ns", "i8"),  # of this part; undefined while packets == 0
        ("last_ns", "i8"),
        ("fwd", SIDE),
        ("rev", SIDE),
        ("protocol", "u1"),
        ("end_reason", "u1"),  # IPFIX 136, once ended; 0 while open
    ],
    align=True,
)
"""The packets of a flow so far."""


def sides(flows: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    """The rows of each side under the prefix of its columns."""
    return (("fwd", flows["fwd"]), ("rev", flows["rev"]))

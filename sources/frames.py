"""Where the packets of a buffer lie: what the readers of capture files hand to the header parser."""

import numpy as np

FRAME = np.dtype(
    [
        ("time_ns", "i8"),  # capture time since the Unix epoch
        ("offset", "i8"),  # where the frame's first octet lies in the buffer
        ("captured", "u4"),  # octets that are in the buffer
        ("frame_octets", "u4"),  # octets on the wire, as the capture states them
        ("link_type", "u2"),  # LINKTYPE_* of the interface that saw it
        ("damaged", "u1"),  # 1 if its time does not fit into int64 nanoseconds: malformed
    ],
    align=True,
)
"""One packet record of a capture."""

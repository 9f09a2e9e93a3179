"""What a sensor captures from: a live line, or something that behaves like one."""

from typing import NamedTuple, Protocol

import numpy as np


class Chunk(NamedTuple):
    """What was captured since the last call; all of it may be empty. The input does not use its arrays again.

    Attributes:
        packets: `PACKET[n]`, in the order in which they were captured; fragments are not resolved yet.
        payloads: `u1[m]`, their payload prefixes end to end, `packets["payload_at"]` counts from 0.
        observed_ns: Everything before this time was captured by now, as far as the input can tell; it moves on where
            nothing is captured.
        rejects: Packets that were captured and are no rows: counts by reason.
        dropped: Packets that the kernel or the card lost.
        resolved: Later fragments have the ports of their first already.
    """

    packets: np.ndarray
    payloads: np.ndarray
    observed_ns: int
    rejects: dict[str, int]
    dropped: int
    resolved: bool = False


class LiveInput(Protocol):
    """Something to capture from."""

    def read(self, wait_s: float) -> Chunk | None:
        """The next packets; waits for them at most so long. None when the input has come to its end."""

    def close(self) -> None:
        """Gives it back."""

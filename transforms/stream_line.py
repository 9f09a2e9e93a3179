"""How the streams of a sensor are followed: the rules, and what is known of the one that is looked at."""

from dataclasses import dataclass, field

from transforms.arrivals import Arrival
from transforms.records import NO_TIME, InputError

NEVER = NO_TIME
"""Before any time that a sensor can have observed."""


@dataclass(eq=False)
class StreamRules:
    """How a shard follows its streams.

    Attributes:
        max_out_of_orderness_s: How far back in time packets of a later block may reach.
        max_clock_skew_s: A block observed more than this after the queue received it is from the future.
        gap_timeout_s: On a queue without order, a missing block is lost after so long of the queue's receive time.
        sensors: The sensors of one line that are merged; time is that of the one furthest behind.
    """

    max_out_of_orderness_s: float = 2.0
    max_clock_skew_s: float = 60.0
    gap_timeout_s: float = 600.0
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_out_of_orderness_s", "max_clock_skew_s", "gap_timeout_s"):
            if not 0 <= getattr(self, name) < 1e9:
                raise InputError(f"--{name}: {getattr(self, name):g} s; give 0 or more")


@dataclass
class Line:
    """A sensor, as far as this shard is concerned: one stream at a time.

    Attributes:
        epoch: Of the stream that is looked at, or was last; -1 before the first.
        partition: The part of the queue that it is in.
        over: It has ended; the next epoch may begin.
        next: Number of the block to be looked at next.
        observed_ns: The largest observed time of those looked at.
        lost: Ranges of numbers below `next` that were never looked at.
        waiting: Blocks that cannot be looked at yet, by epoch and number.
        gaps: What will not come, by epoch: (first, after, reason).
        clock_ns: The largest receive time seen.
    """

    epoch: int = -1
    partition: int = 0
    over: bool = True
    next: int = 0
    observed_ns: int = NEVER
    lost: list[tuple[int, int]] = field(default_factory=list)
    waiting: dict[tuple[int, int], Arrival] = field(default_factory=dict)
    gaps: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    clock_ns: int = NO_TIME

    def passed(self, epoch: int, number: int) -> bool:
        """Whether the turn of a block is over."""
        return epoch < self.epoch or (epoch == self.epoch and (self.over or number < self.next))

    def missed(self, epoch: int, number: int) -> bool:
        """Whether a block whose turn is over was not there then."""
        if epoch < self.epoch:
            return True
        return number >= self.next or any(first <= number < after for first, after in self.lost)

    def forget(self, number: int) -> None:
        """Takes a number out of those that were missed."""
        for i, (first, after) in enumerate(self.lost):
            if first <= number < after:
                self.lost[i : i + 1] = [(a, b) for a, b in ((first, number), (number + 1, after)) if a < b]
                return

    def following(self) -> int | None:
        """The epoch that may begin now; None if none may."""
        follows = {epoch: arrival.follows for (epoch, _), arrival in self.waiting.items()}
        return min((epoch for epoch, before in follows.items() if before <= self.epoch), default=None)

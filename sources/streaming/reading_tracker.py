"""Readings of a queue that can be interrupted and resumed, but not divided: a restriction for splittable DoFns."""

from collections.abc import Callable
from typing import Any, NamedTuple

from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker


class Reading(NamedTuple):
    """A restriction.

    Attributes:
        progress: What was read so far, and all that must be known to go on.
        over: Nothing more is to be read of it.
    """

    progress: Any
    over: bool = False


class Step:
    """A change of the progress, to be claimed.

    Args:
        change: Makes it; called while the runner cannot interrupt.
        last: Nothing more is to be read after it.

    Attributes:
        result: What `change` returned.
    """

    def __init__(self, change: Callable[[Any], Any], last: bool = False) -> None:
        self.last = last
        self.result: Any = None
        self._change = change

    def take(self, progress: Any) -> None:
        """Makes the change."""
        self.result = self._change(progress)


class ReadingTracker(RestrictionTracker):
    """Changes the progress with what is claimed, until the reading is interrupted or comes to its end."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def current_restriction(self) -> Reading:
        """What was read, and whether that is all."""
        return self._reading

    def try_claim(self, step: Step) -> bool:
        """Makes a step, unless the reading was interrupted."""
        if self._reading.over:
            return False
        step.take(self._reading.progress)
        if step.last:
            self._reading = self._reading._replace(over=True)
        return True

    def try_split(self, fraction: float) -> tuple[Reading, Reading] | None:
        """Interrupts the reading: all that is left goes on elsewhere. It cannot be divided otherwise."""
        if fraction != 0 or self._reading.over:
            return None
        rest, self._reading = self._reading, self._reading._replace(over=True)
        return self._reading, rest

    def current_progress(self) -> RestrictionProgress:
        """Nobody knows how much is to come."""
        return RestrictionProgress(completed=0, remaining=0 if self._reading.over else 1)

    def check_done(self) -> None:
        """Raises an error if the reading was neither interrupted nor brought to its end."""
        if not self._reading.over:
            raise ValueError("a reading was left in the middle")

    def is_bounded(self) -> bool:
        """Only once it is over."""
        return self._reading.over

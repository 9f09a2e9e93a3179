"""A queue for captures that end, on top of one for sensors: waits while it is full, though not for ever."""

import time
from types import TracebackType

from queues import LiveWriter
from transforms import avro
from transforms.records import InputError

PATIENCE_S = 60.0
"""So long may a queue accept nothing."""


class FiniteWriter:
    """Puts blocks onto a queue, and waits at the end until it has all of them.

    Args:
        writer: Does it; closed at the end.
        name: What to call the queue.
        patience_s: So long may it accept nothing.
    """

    def __init__(self, writer: LiveWriter, name: str, patience_s: float = PATIENCE_S) -> None:
        self.octets_written = 0
        self._writer, self._name, self._patience_s = writer, name, patience_s
        self._put = self._settled = 0
        self._progress_s = time.monotonic()

    def put(self, message: bytes) -> None:
        """Puts one block into the partition of its stream; waits while the queue is full.

        Raises:
            InputError: It is refused, or the queue accepts nothing for too long.
        """
        stream = avro.decode_header(message).stream
        if self._settled == self._put:
            self._progress_s = time.monotonic()  # it was the captures that gave nothing
        while not self._writer.put(message, stream.partition % self._writer.partitions, stream.sensor):
            self._wait(0.1)
        self._put += 1
        self._progress_s = time.monotonic()
        self.octets_written += len(message)
        self._wait(0.0)

    def __enter__(self) -> "FiniteWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits until the queue has all of it; after an error gives up what it has not."""
        try:
            while kind is None and self._settled < self._put:
                self._wait(0.1)
        finally:
            self._writer.close()

    def _wait(self, wait_s: float) -> None:
        settled, now_s = self._writer.settled(wait_s), time.monotonic()
        if settled > self._settled:
            self._settled, self._progress_s = settled, now_s
        elif now_s - self._progress_s > self._patience_s:
            reason = self._writer.problem or f"{self._name}: accepts nothing"
            raise InputError(f"{reason}; gave up after {self._patience_s:.0f} s")

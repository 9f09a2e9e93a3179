"""A thread that encodes and writes while the pipeline goes on: Arrow and DuckDB release the GIL there."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import pyarrow as pa

T = TypeVar("T")

WAITING_OCTETS = 40 << 20
"""How much may wait for the thread before the pipeline does."""


class Background(Generic[T]):
    """Runs `consume` over the batches that are put, in a thread of its own.

    At most `WAITING_OCTETS` and one batch wait; then `put` blocks. An error of `consume` is raised by the next call.
    """

    def __init__(self, consume: Callable[[Iterator[pa.RecordBatch]], T]) -> None:
        self._consume = consume
        self._changed = threading.Condition()
        self._waiting: deque[tuple[pa.RecordBatch, int]] = deque()
        self._waiting_octets = 0
        self._closed = self._abandoned = self._over = False
        self._result: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._thread.start()

    def put(self, batch: pa.RecordBatch) -> None:
        """Hands over a batch; waits while too much is under way."""
        octets = batch.get_total_buffer_size()  # `nbytes` takes half a millisecond for 200 columns
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_octets < WAITING_OCTETS or self._over)
            self._raise()
            self._waiting.append((batch, octets))
            self._waiting_octets += octets
            self._changed.notify_all()

    def finish(self) -> T:
        """Waits for all that was put and returns the result of `consume`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()
        return self._result

    def abandon(self) -> None:
        """Stops at the next batch, by an error in `consume`, and waits for that; what was put is lost."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._result = self._consume(self._batches())
        except BaseException as error:  # raised again in the thread that puts
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed or self._abandoned)
                if self._abandoned:
                    raise InterruptedError("abandoned")
                if not self._waiting:
                    return
                batch, octets = self._waiting.popleft()
                self._waiting_octets -= octets
                self._changed.notify_all()
            yield batch
            del batch  # not held while waiting for the next

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

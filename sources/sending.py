"""From a sensor's buffer to the queue, in a thread of its own: a queue that is slow or down stalls no capture."""

import random
import threading
import time
from collections.abc import Callable

from queues import LiveWriter
from sources.journal import Journal
from transforms import avro
from transforms.records import InputError

PATIENCE_S = 60.0
"""So long may a queue accept nothing before an impatient sender gives up."""

_AGAIN_S, _AGAIN_MOST_S = 1.0, 60.0
_FULL_WAIT_S, _SETTLE_WAIT_S, _IDLE_WAIT_S = 0.05, 0.02, 0.5


class Sender:
    """Hands over what the buffer holds, in order, and settles there what the queue has for good.

    A queue that refuses for good, such as a topic that was deleted, is opened again and again, at intervals that grow
    to a minute; then all that is not settled is handed over anew. An impatient sender fails instead.

    Args:
        journal: The buffer.
        opened: Opens the queue.
        writer: The queue, where it is open already.
        tell: Says a line to a person.
        patient: Whether to wait for the queue as long as it takes.
        partitions: Number of parts of the queue, where it is not open yet.

    Attributes:
        partitions: Number of parts of the queue, as of the last time that it was opened.
        failure: What ended the thread; None while it runs.
        up: The queue is open and has nothing to complain of.
    """

    def __init__(
        self,
        journal: Journal,
        opened: Callable[[], LiveWriter],
        writer: LiveWriter | None,
        tell: Callable[[str], None],
        patient: bool = True,
        partitions: int = 1,
    ) -> None:
        self.partitions = partitions if writer is None else writer.partitions
        self.failure: BaseException | None = None
        self.up = writer is not None
        self._journal, self._opened, self._writer, self._tell, self._patient = journal, opened, writer, tell, patient
        self._pending: tuple[bytes, int, str] | None = None
        self._handed = self._settled = 0
        self._failures = 0
        self._progress_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def drained(self, wait_s: float) -> bool:
        """Whether the queue has all that the buffer held; waits for it so long at most.

        Raises:
            BaseException: What ended the thread.
        """
        until_s = time.monotonic() + wait_s
        while self._journal.waiting and not self.failure and (left_s := until_s - time.monotonic()) > 0:
            self._journal.wait(min(left_s, 0.1))
        self.check()
        return not self._journal.waiting

    def check(self) -> None:
        """Raises what ended the thread."""
        if self.failure is not None:
            raise self.failure

    def stop(self, wait_s: float = 5.0) -> None:
        """Ends the thread; what is not settled stays in the buffer."""
        self._stopping.set()
        self._journal.wake()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except InputError as error:
                    if not self._patient:
                        raise
                    self._reject(str(error))
        except BaseException as error:  # whoever waits for this thread raises it
            self.failure = error
            self._journal.wake()
        finally:
            self._close()

    def _turn(self) -> None:
        if self._writer is None:
            self._writer = self._opened()
            self.partitions = self._writer.partitions
        all_handed = self._hand_over(self._writer)
        if all_handed and self._handed == self._settled:
            self._progress_s = time.monotonic()
            self._journal.wait(_IDLE_WAIT_S)
        else:
            self._settle(self._writer, _SETTLE_WAIT_S if all_handed else _FULL_WAIT_S)
        self._watch(self._writer.problem)

    def _hand_over(self, writer: LiveWriter) -> bool:
        """Gives the client as much as it takes; whether that was all."""
        while not self._stopping.is_set():
            if self._pending is None:
                message = self._journal.next()
                if message is None:
                    return True
                stream = avro.decode_header(message).stream
                self._pending = message, stream.partition % writer.partitions, stream.sensor
            if not writer.put(*self._pending):
                return False
            self._pending = None
            self._handed += 1
            if self._handed % 16 == 0:
                self._settle(writer, 0.0)
        return False

    def _settle(self, writer: LiveWriter, wait_s: float) -> None:
        settled = writer.settled(wait_s)
        if settled > self._settled:
            self._journal.settle(settled - self._settled)
            self._settled = settled
            self._progress_s = time.monotonic()
            self._failures = 0

    def _watch(self, problem: str | None) -> None:
        """Says when the queue stops taking blocks, and when it takes them again."""
        if problem is not None and self.up:
            self._tell(problem)
        elif problem is None and not self.up:
            self._tell(f"the queue takes blocks again; {self._journal.waiting:,} wait")
        self.up = problem is None
        if problem is not None and not self._patient and time.monotonic() - self._progress_s > PATIENCE_S:
            raise InputError(f"{problem}; gave up after {PATIENCE_S:.0f} s")

    def _reject(self, line: str) -> None:
        """The queue refuses for good, as far as it knows: wait, and open it anew."""
        if self.up:
            self._tell(f"{line}; blocks are kept, trying again")
        self.up = False
        self._close()
        self._journal.rewind()
        self._pending = None
        self._handed = self._settled = 0
        delay_s = min(_AGAIN_S * 2**self._failures, _AGAIN_MOST_S) * random.uniform(0.5, 1.0)
        self._failures = min(self._failures + 1, 16)
        self._stopping.wait(delay_s)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

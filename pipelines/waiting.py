"""Waiting for a job that may run for months, and stopping it tidily."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.flink_cluster import FlinkJob, find_job
from pipelines.terminal import say

STOP_WITHIN_S = 20.0
"""So long a runner may take to stop; what is not done by then is said."""
_LOOK_EVERY_S = 3.0


class _NoErrors(logging.Filter):
    """Drops what Beam logs of a failing job: it comes as an exception, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module != "portable_runner" or record.levelno != logging.ERROR


class RunningJob:
    """A pipeline that was submitted, whatever its runner.

    Attributes:
        result: What Beam knows of it.
        flink: What its Flink cluster knows of it; None on other runners, or where the cluster cannot be found.
    """

    def __init__(self, result: Any, options: PipelineOptions, on_flink: bool) -> None:
        self.result = result
        self._on_flink = on_flink
        self._name = getattr(result, "_job_id", "").rpartition("_")[0]
        self._options = options
        self.flink: FlinkJob | None = None
        self._told: set[int] = set()
        self._look_at = 0.0

    def wait(self) -> bool:
        """Waits for its end, or for SIGINT or SIGTERM; whether it was stopped by one of them.

        A second signal ends the process at once.

        Raises:
            Exception: The job failed.
        """
        root = logging.getLogger()
        quiet = _NoErrors()
        root.addFilter(quiet)
        failure: list[BaseException] = []
        ended = threading.Event()

        def follow() -> None:
            try:
                self.result.wait_until_finish()
            except Exception as error:
                failure.append(error)
            finally:
                ended.set()

        threading.Thread(target=follow, name="follow job", daemon=True).start()
        try:
            with _asked_to_stop() as asked:
                drained = False
                while not ended.wait(0.2) and not asked() and not drained:
                    drained = self._look()
                if not ended.is_set():
                    with _silent_workers():
                        line = self.stop()
                        ended.wait(STOP_WITHIN_S)
                    if line and not drained:
                        say(line)
                    return not drained
        finally:
            root.removeFilter(quiet)
        if failure:
            raise failure[0]
        return False

    def stop(self) -> str | None:
        """Ends the job where it runs; what it has read and not put out is read again by the next, nothing is forced.

        Returns:
            A line that tells its user what to do next.
        """
        if not self._on_flink:
            self.result.cancel()
            return None
        if self.flink is None:
            self.flink = find_job(self._options, self._name)
        if self.flink is None:
            self.result.cancel()
            return (
                f"Flink job {self._name}: still runs on a cluster not known here; cancel it there, give --flink_master"
            )
        checkpoint = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            self.flink.cancel()
            deadline = time.monotonic() + STOP_WITHIN_S
            while not self.flink.has_ended() and time.monotonic() < deadline:
                time.sleep(0.1)
            checkpoint = self.flink.last_checkpoint()
        self.result.cancel()
        return f"to go on where this job ended: --savepoint_path={checkpoint}" if checkpoint else None

    def _look(self) -> bool:
        """Says why Flink restarted the job; whether nothing is left to do, which Flink does not call an end."""
        if not self._on_flink or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            if self.flink is None:
                self.flink = find_job(self._options, self._name)
            if self.flink is None:
                return False
            for at, reason in self.flink.failures().items():
                if at not in self._told:
                    self._told.add(at)
                    say(f"Flink restarts the job: {reason}")
            return self.flink.is_drained()
        except (OSError, ValueError, KeyError):
            return False  # the cluster is restarting, or the job has just ended: the result tells


@contextlib.contextmanager
def _silent_workers() -> Generator[None, None, None]:
    """Workers in this process complain, bundle by bundle, that they were cut off; that is what was asked for."""
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _asked_to_stop() -> Generator[Callable[[], bool], None, None]:
    """Catches SIGINT and SIGTERM; gives what tells whether one came. The second finds what was there before."""
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        asked.set()
        restore()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        restore()

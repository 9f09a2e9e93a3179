"""What a person sees: log lines, a progress bar, the summary; and how mistakes are told."""

import atexit
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn

from sinks.command import STOPPING, say, signals_to
from transforms.records import InputError

_IN_TRACEBACK = re.compile(r"InputError: (.+)$", re.MULTILINE)
_STEPS = re.compile(r" \[while running .*$", re.DOTALL)


class _Lines(logging.Handler):
    """Says what is logged; above the progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def configure_logging() -> None:
    """Warnings as plain lines on standard error, and what model scores; without Beam's chatter about failing steps."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)
    logging.getLogger("transforms.model").setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


@contextmanager
def stoppable(clean_up: Callable[[], object]) -> Generator[None, None, None]:
    """Ctrl-C, a closed terminal or SIGTERM end the process at once: one line, status 128 and the signal's number.

    Threads may be waiting for input that never comes, so nothing waits for them. A signal that is ignored stays so.

    Args:
        clean_up: Called first; threads still run then.
    """

    def stop(number: int) -> None:
        for signal_number in STOPPING:
            signal.signal(signal_number, signal.SIG_IGN)
        progress.end()
        clean_up()
        say("stopped; no half-written file is left")
        os._exit(128 + number)

    with signals_to(stop):
        yield


def leave(status: int) -> NoReturn:
    """Ends the process now that all is written: taking compiled code apart would add half a second to a short run.

    What was to end with the process, such as a runner that Beam started, is ended.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def mistake_in(error: BaseException) -> str | None:
    """The line to show if a runner's error began as an `InputError`, on whatever worker; else None."""
    if isinstance(error, InputError):
        return _STEPS.sub("", str(error))
    found = _IN_TRACEBACK.findall(str(error))
    return _STEPS.sub("", found[-1]).replace("\\'", "'") if found else None


@contextmanager
def mistakes_told() -> Generator[None, None, None]:
    """A runner's error that began as an `InputError`, on whatever worker, leaves as one with its line alone."""
    try:
        yield
    except Exception as error:
        mistake = mistake_in(error)
        if mistake is None:
            raise
        raise InputError(mistake) from error


class Progress:
    """A progress bar over octets; silent unless shown."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def show(self, total: int | None) -> None:
        """Begins, on a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = ("reading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("reading", total=total)
        self._bar.start()

    def advance(self, octets: int) -> None:
        """So many octets more were read."""
        if self._bar is not None:
            self._bar.advance(self._task, octets)

    def end(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


progress = Progress()
"""The one bar of the process. Steps that run elsewhere find it silent."""


class Advance:
    """Tells the progress bar what one input gave since the last time; called with all that it gave so far."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, octets_read: int) -> None:
        """So many octets of the input are read by now."""
        progress.advance(octets_read - self._told)
        self._told = octets_read

"""What a person sees: log lines, a progress bar, the summary; and how mistakes are told."""

import logging
import re
import sys
from argparse import ArgumentParser
from typing import Any, NoReturn

from transforms.records import InputError

_IN_TRACEBACK = re.compile(r"InputError: (.+?)(?: \[while running .*)?$", re.MULTILINE)


class OneLineParser(ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError` with the message."""
        raise InputError(f"{message}; see --help")


def configure_logging() -> None:
    """Warnings as plain lines on standard error; Beam's own chatter about failing steps only if asked for by a handler."""
    logging.basicConfig(format="flowbeam: %(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def say(message: str) -> None:
    """One line on standard error."""
    print(f"flowbeam: {message}", file=sys.stderr)


def mistake_in(error: BaseException) -> str | None:
    """The line to show if a runner's error began as an `InputError`, on whatever worker; else None."""
    if isinstance(error, InputError):
        return str(error)
    found = _IN_TRACEBACK.findall(str(error))
    return str(found[-1]).replace("\\'", "'") if found else None


class Progress:
    """A progress bar over octets; silent unless shown."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def show(self, total: int | None) -> None:
        """Begins, on a terminal."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = ("reading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, transient=True)
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

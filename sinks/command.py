"""What every command does alike: its options, its mistakes and its stop are one line, and an exit status."""

import difflib
import gc
import re
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from transforms.records import InputError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what a service manager sends, a closed terminal."""


class OneLineParser(ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Raises `InputError` with the message, and with the option that an unknown one is like."""
        unknown = re.match(r"unrecognized arguments: (--\w+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, 1) if unknown else []
        raise InputError(f"{message}; did you mean {near[0]}?" if near else f"{message}; see --help")


def say(message: str) -> None:
    """One line on standard error."""
    print(f"flowbeam: {message}", file=sys.stderr, flush=True)


def status_of(work: Callable[[], int | None]) -> int:
    """Does a command's work, and tells its exit status.

    A mistake is one line and status 2. Ctrl-C, a closed terminal or SIGTERM are one line and 128 and the signal's
    number: the work is left by a `KeyboardInterrupt`, and removes what it has half done.

    Args:
        work: Gives the status where it is not 0.
    """
    if not gc.isenabled():  # a process of its own, and all that is loaded by now stays: nobody need look at it again
        gc.freeze()
        gc.enable()
    numbers: list[int] = []

    def stop(number: int) -> None:
        numbers.append(number)
        raise KeyboardInterrupt

    with signals_to(stop):
        try:
            return work() or 0
        except InputError as error:
            say(str(error))
            return 2
        except KeyboardInterrupt:
            say("stopped; no half-written file is left")
            return 128 + (numbers or STOPPING)[0]


@contextmanager
def signals_to(
    act: Callable[[int], None], numbers: Sequence[signal.Signals] = STOPPING
) -> Generator[Callable[[], None], None, None]:
    """Has signals call `act` meanwhile; one that is ignored stays so. Outside the main thread nothing is caught.

    Gives what puts back earlier what was there before.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}

    def caught(number: int, _: FrameType | None) -> None:
        act(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, caught)
    try:
        yield restore
    finally:
        restore()

"""What all commands do alike: mistakes, Ctrl-C and other signals are one line and a status."""

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from command_testing import ENVIRONMENT

from sinks import bigquery, cassandra, parquet, search_bulk
from sinks.command import STOPPING, signals_to, status_of
from transforms.records import InputError

STOPPED = "flowbeam: stopped; no half-written file is left\n"


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (raising(InputError("--x: is wrong")), 2, "flowbeam: --x: is wrong\n"),
        (raising(KeyboardInterrupt()), 130, STOPPED),
    ],
    ids=["done", "a-status-of-its-own", "a-mistake", "interrupted-by-others"],
)
def test_the_status_tells_how_it_ended(work, status, line, capsys):
    assert (status_of(work), capsys.readouterr().err) == (status, line)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_unwinds_the_work(number, capsys):
    """What is half done is removed by the work's own clean-up, and the handler from before is back."""
    before, cleaned = signal.getsignal(number), []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    assert status_of(work) == 128 + number
    assert (capsys.readouterr().err, cleaned, signal.getsignal(number)) == (STOPPED, [True], before)


def test_an_ignored_signal_stays_ignored():
    """`nohup` has a command go on when its terminal is closed."""
    came: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_to(came.append) as restore:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            restore()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize(
    "command",
    [bigquery.main, cassandra.main, parquet.main, lambda words: search_bulk.main("elasticsearch", words)],
    ids=["bigquery", "cassandra", "parquet", "elasticsearch"],
)
def test_a_wrong_option_of_a_sink_is_one_line(command, capsys):
    assert command(["--wrong"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("flowbeam: ")
    assert line.endswith("; see --help\n")
    assert line.count("\n") == 1


AT_LOGGING = """
import builtins
load = builtins.__import__
def stopped(name, *rest):
    if name == "logging":
        raise KeyboardInterrupt
    return load(name, *rest)
builtins.__import__ = stopped
import pipelines
"""


@pytest.mark.parametrize("code", ["import sinks; raise KeyboardInterrupt", AT_LOGGING], ids=["later", "at-once"])
def test_a_stop_during_the_start_of_a_sink(code):
    """While modules are being imported there is no traceback either, from the first of them on."""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"flowbeam: stopped\n")

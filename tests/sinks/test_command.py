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


LOADED = """
import builtins, signal, sys
load = builtins.__import__
def stopped(name, *rest):
    if name == "logging":
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            sys.exit("was made something else")
    return load(name, *rest)
signal.signal(signal.SIGINT, {before})
sys.argv[0] = "{command}"
builtins.__import__ = stopped
import {package}
"""


@pytest.mark.parametrize("package", ["pipelines", "sinks"])
@pytest.mark.parametrize(
    ("command", "before", "ended"),
    [
        ("-m", "signal.default_int_handler", (-signal.SIGINT, b"flowbeam: stopped\n")),
        ("-m", "signal.SIG_IGN", (0, b"")),
        ("other", "signal.default_int_handler", (1, b"was made something else\n")),
    ],
    ids=["command", "ignored", "library"],
)
def test_a_stop_while_a_command_is_loaded(package, command, before, ended):
    """One line and the signal's own status, from the first module on; whoever imports us keeps Python's way."""
    code = LOADED.format(package=package, command=command, before=before)
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert (done.returncode, done.stderr) == ended

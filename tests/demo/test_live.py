"""The live demo as a person runs it: on a terminal, until Ctrl-C."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import psutil
import pytest
from command_testing import ENVIRONMENT, TOP
from servers.processes import wait_until

LIMIT_S = 180


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, of this demo alone."""
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


class Terminal:
    """A terminal with the demo in front.

    Attributes:
        process: The shell that stands for `make`: Ctrl-C must not reach it, as it would call that an error.
        shown: All that was shown, without colours.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        demo = [sys.executable, str(TOP / "demo" / "live.py"), "--folder", str(folder), *arguments]
        shell = ["sh", "-c", '"$@"; echo "status $?"', "sh", *demo]
        self.process = subprocess.Popen(
            shell,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=ENVIRONMENT,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling one
        )
        os.close(theirs)
        self._ours = ours
        self.shown = ""

    def read_until(self, condition: Callable[[], bool], what: str) -> None:
        """Takes what is shown until something holds for it."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {LIMIT_S} s\n{self.shown}"
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.shown += re.sub(r"\x1b\[\d*m", "", os.read(self._ours, 65536).decode(errors="replace"))
                except OSError:  # everybody has gone
                    assert condition(), self.shown
                    return

    def press_ctrl_c(self) -> None:
        os.write(self._ours, b"\x03")

    def close(self) -> None:
        os.close(self._ours)
        self.process.kill()
        self.process.wait()


def test_the_demo_shows_flows_and_stops_in_order(prism, scratch, tmp_path):
    """Ctrl-C: the sensor ends its stream, the job has every packet in a flow, files are whole, nothing is left."""
    terminal = Terminal(tmp_path / "live", "--no_broker", "--packets=20000")
    try:
        terminal.read_until(
            lambda: re.search(r" tcp .* s  end\r?$", terminal.shown, re.MULTILINE) is not None, "flows are shown"
        )
        (demo,) = psutil.Process(terminal.process.pid).children()
        beside = demo.children(recursive=True)
        assert {"prism"} < {one.name() for one in beside}
        terminal.press_ctrl_c()
        terminal.read_until(lambda: "status " in terminal.shown, "the demo ends")
        shown = terminal.shown
    finally:
        terminal.close()
    assert "status 0" in shown
    read, in_flows = _figures(shown)
    assert read == in_flows > 0
    assert "Traceback" not in shown
    wait_until(lambda: not any(one.is_running() for one in beside), 5, "all of it has ended")
    assert list(scratch.glob("flowbeam-*")) == []
    flows = f"'{tmp_path}/live/flows/*/*.parquet'"
    assert duckdb.sql(f"SELECT sum(fwd_packets + rev_packets) FROM {flows}").fetchall() == [(read,)]


def _figures(shown: str) -> list[int]:
    """Packets read, and packets in flows, as the job's summary has them."""
    (line,) = [line for line in shown.splitlines() if line.startswith("packets ")]
    return [int(word.replace(",", "")) for word in line.split() if word[0].isdigit()]


def test_a_demo_that_is_told_at_once_has_not_failed(prism, scratch, tmp_path):
    """SIGTERM while traffic is being made."""
    words = [sys.executable, str(TOP / "demo" / "live.py"), "--folder", str(tmp_path / "live"), "--no_broker"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as demo:
        assert demo.stderr is not None
        assert demo.stderr.readline() == "live: making 100,000 packets of traffic\n"
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(LIMIT_S) == 0
    assert list(scratch.glob("flowbeam-*")) == []

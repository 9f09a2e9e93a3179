"""A server serves those who use it, and ends with the last of them, however they end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers.fixtures import shared
from servers.processes import Server, ServerFailed, answers, wait_until

TESTS = Path(__file__).parents[1]

WAITS = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '-b', '127.0.0.1', sys.argv[1]])"


class Web(Server):
    """A server that is the child of its process, as workers of Flink are."""

    def start(self):
        self.run_process("web", sys.executable, "-c", WAITS, self.port("web"))
        self.wait_for("web", self.is_up)
        return self

    def is_up(self):
        return answers(self.port("web"))


class Broken(Web):
    def start(self):
        self.run_process("web", sys.executable, "-c", "raise SystemExit('no such disk')")
        self.wait_for("web", self.is_up)
        return self


def test_a_server_ends_with_all_it_started(tmp_path):
    """Its port is free again, and the same when it is started again."""
    server = Web(tmp_path)
    with server:
        port = server.port("web")
    wait_until(lambda: not answers(port), 10, "the port is free")
    with Web(tmp_path) as again:
        assert again.port("web") == port
    assert again.pid("web") is None


def test_a_server_ends_with_the_process_that_is_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path; from servers.test_processes import Web\n"
        f"server = Web(Path({str(tmp_path)!r})).start()\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout.readline() == b"up\n"
        server = Web(tmp_path)
        assert server.is_up()
        user.kill()
    wait_until(lambda: not server.is_up(), 10, "the server ends")
    wait_until(lambda: not server.runs("web"), 10, "its process ends")


def test_a_shared_server_is_started_once_and_serves_its_last_user(tmp_path):
    first, second = shared(tmp_path, "web", Web), shared(tmp_path, "web", Web)
    server = next(first)
    other = next(second)
    assert server.folder == other.folder
    assert list(first) == []
    assert other.is_up()
    assert list(second) == []
    wait_until(lambda: not server.is_up(), 10, "the server ends")


def test_who_comes_after_the_last_user_gets_a_new_server(tmp_path):
    first, second = shared(tmp_path, "web", Web), shared(tmp_path, "web", Web)
    server = next(first)
    assert list(first) == []
    wait_until(lambda: not server.is_up(), 10, "the server ends")
    other = next(second)
    assert other.is_up()
    assert other.folder != server.folder
    assert list(second) == []


def test_a_server_that_does_not_start_shows_what_it_said(tmp_path):
    with pytest.raises(ServerFailed, match=r"(?s)web ended.*no such disk"):
        Broken(tmp_path).start()

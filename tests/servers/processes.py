"""Server processes of tests: each server has a folder and ports of its own, and never outlives those who use it."""

import contextlib
import fcntl
import os
import random
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

_GUARD = Path(__file__).with_name("guard.py")
_PORTS = range(15_000, 30_000)
"""Below the ports that clients' own ends get, so that a server finds its port free again after `kill`."""

_Server = TypeVar("_Server", bound="Server")


class ServerFailed(Exception):
    """A server did not start, or did not do what was waited for; the end of its log is in the message."""


def wait_until(condition: Callable[[], object], limit_s: float, what: str, pause_s: float = 0.02) -> None:
    """Waits until `condition()` is true.

    Raises:
        ServerFailed: It was not within `limit_s`; the message names `what`.
    """
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise ServerFailed(f"{what}: not within {limit_s:g} s")
        time.sleep(pause_s)


def answers(port: int) -> bool:
    """Whether something accepts connections to a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A loopback port that nobody listens on."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port
    raise ServerFailed("no free port on the loopback interface")


class Server(ABC):
    """One or more processes, started in a folder and reached on loopback ports.

    The folder is the server's identity: ports, data and logs stay there over `kill`, `stop` and `start`, and an object
    made of the same folder, in another process too, is the same server. Leaving the context ends it at once.

    Subclasses have `start`, which calls `run_process`, and `is_up`, which asks the server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._use: int | None = None

    @abstractmethod
    def start(self: _Server) -> _Server:
        """Starts what does not run, and returns when the server itself answers."""

    @abstractmethod
    def is_up(self) -> bool:
        """Whether the server answers."""

    def port(self, name: str) -> int:
        """The server's port of this name: free when first asked for, then the same for ever."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.port"
        if not path.exists():
            path.write_text(str(free_port()))
        return int(path.read_text())

    def join(self) -> bool:
        """Uses a server that another process started; False if it has ended."""
        if not self._lock_file.exists():
            return False
        self._hold()
        if self.is_up():
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Uses the server no more; what runs ends when nobody uses it."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def run_process(self, name: str, *command: object, environment: Mapping[str, str] | None = None) -> None:
        """Starts a process in the server's folder, unless it runs; what it says goes to `<name>.log`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.runs(name):
            return
        self._hold()
        words = [sys.executable, "-I", "-S", str(_GUARD), str(self._lock_file), *map(str, command)]
        pid = os.posix_spawn(
            sys.executable,
            words,
            {**os.environ, **(environment or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._pid_file(name).write_text(str(pid))

    def runs(self, name: str) -> bool:
        """Whether the process of this name runs."""
        pid = self.pid(name)
        if pid is None:
            return False
        with contextlib.suppress(ChildProcessError):  # another process's child
            return os.waitpid(pid, os.WNOHANG)[0] == 0
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    def pid(self, name: str) -> int | None:
        """The id of a process that was started and not stopped."""
        with contextlib.suppress(FileNotFoundError):
            return int(self._pid_file(name).read_text())
        return None

    def log(self, name: str) -> Path:
        """The file of what a process says."""
        return self.folder / f"{name}.log"

    def wait_for(self, name: str, ready: Callable[[], object], limit_s: float = 120) -> None:
        """Waits until a process is ready.

        Raises:
            ServerFailed: It ended, or took too long.
        """
        try:
            wait_until(lambda: ready() or not self.runs(name), limit_s, f"{name} is ready")
            if self.runs(name):
                return
            message = f"{name} ended"
        except ServerFailed as late:
            message = str(late)
        said = self.log(name).read_text(errors="replace").splitlines()[-15:]
        raise ServerFailed("\n".join([message, f"{self.log(name)} ends with:", *said]))

    def kill_process(self, name: str) -> None:
        """Ends a process as `kill -9` does, alone: what it started goes on."""
        pid = self.pid(name)
        if pid is not None and self.runs(name):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not self.runs(name), 10, f"{name} is killed")

    def stop_process(self, name: str, limit_s: float = 20) -> None:
        """Asks a process to end, and waits; then kills what is left of it and of what it started."""
        pid = self.pid(name)
        if pid is not None and self.runs(name):
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(ServerFailed):
                wait_until(lambda: not self.runs(name), limit_s, f"{name} stops")
        self._end_process(name)

    def stop(self) -> None:
        """Asks all processes to end, the last started first, and waits for them."""
        for name in reversed(self._process_names()):
            self.stop_process(name)
        self.leave()

    def end(self) -> None:
        """Kills all processes; data and logs stay."""
        for name in self._process_names():
            self._end_process(name)
        self.leave()

    def __enter__(self: _Server) -> _Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _end_process(self, name: str) -> None:
        """Kills a process and what it started: its group, which lasts as long as its watcher."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            wait_until(lambda: not self.runs(name), 10, f"{name} is killed")
            self._pid_file(name).unlink()

    def _process_names(self) -> list[str]:
        files = sorted(self.folder.glob("*.pid"), key=lambda file: file.stat().st_mtime_ns)
        return [file.stem for file in files]

    def _pid_file(self, name: str) -> Path:
        return self.folder / f"{name}.pid"

    @property
    def _lock_file(self) -> Path:
        return self.folder / "in_use"

    def _hold(self) -> None:
        if self._use is None:
            self._use = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._use, fcntl.LOCK_SH)

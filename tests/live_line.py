"""A network line of its own for tests of live capture: two ends of a veth pair in a new network namespace."""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from servers.processes import wait_until

from sources.interface import InterfaceInput
from sources.live import Chunk

_CLONE_NEWNET = 0x40000000
LIMIT_S = 20


def missing() -> str:
    """Why there can be no line here; empty if there can."""
    if os.geteuid() != 0:
        return "a network namespace takes root"
    absent = [command for command in ("ip", "nsenter", "unshare") if shutil.which(command) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Line:
    """The interfaces `near` and `far` in a namespace; what one sends the other receives."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.path = f"/proc/{self._process.pid}/ns/net"
        wait_until(lambda: os.readlink(self.path) != os.readlink("/proc/self/ns/net"), LIMIT_S, "the namespace")
        try:
            self.ip("link add near type veth peer name far")
            self.ip("link set near up")
            self.ip("link set far up")
            self.ip("link set lo up")
        except subprocess.CalledProcessError as error:
            self.close()
            pytest.skip(f"no veth pairs here: {error.stderr.decode().strip()}")

    def command(self, *command: str) -> list[str]:
        """What runs a command in the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def ip(self, arguments: str) -> None:
        subprocess.run(self.command("ip", *arguments.split()), check=True, capture_output=True, timeout=LIMIT_S)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are opened here belong to the namespace, whoever uses them later."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(home)
            os.close(home)
            os.close(there)

    def sender(self, name: str = "far") -> socket.socket:
        """A socket that sends whole frames."""
        with self.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            sock.bind((name, 0))
        return sock

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def a_line() -> Iterator[Line]:
    """A line for a test; without the rights for one the test is skipped, or fails where a build server is root."""
    reason = missing()
    if reason:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    line = Line()
    try:
        yield line
    finally:
        line.close()


def read_until(captured: InterfaceInput, wanted: Callable[[list[Chunk]], bool], what: str) -> list[Chunk]:
    """All chunks up to the one with which they are what is wanted."""
    chunks: list[Chunk] = []
    end = time.monotonic() + LIMIT_S
    while not wanted(chunks):
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}; there are {packets_of(chunks)['ip_octets']}"
        chunks.append(captured.read(0.05))
    return chunks


def read_packets(captured: InterfaceInput, count: int) -> np.ndarray:
    """At least so many packets, with those that came at the same time."""
    return packets_of(
        read_until(captured, lambda chunks: sum(len(chunk.packets) for chunk in chunks) >= count, f"{count} packets")
    )


def packets_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.packets for chunk in chunks]) if chunks else np.empty(0, [("ip_octets", "u4")])

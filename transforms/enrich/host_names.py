"""Host names of addresses by reverse DNS: bounded in threads, time and memory, and kept."""

import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

import pyarrow as pa

from transforms.fields import Field

FIELDS = tuple(
    Field(f"{side}_hostname", pa.string(), "", f"Name of the {who}'s address by reverse DNS.", "", f"{ecs}.domain")
    for side, who, ecs in (("src", "initiator", "source"), ("dst", "responder", "destination"))
)
"""The columns that reverse DNS gives."""

KEPT_NAMES = 1 << 16
"""Addresses whose answers are kept."""

KEPT_S = 3600.0
"""An answer is asked for again after so long."""

_WAITING = 1 << 12


def system_name(address: str) -> str:
    """What the system's resolver calls an address.

    Raises:
        OSError: It has no name, or the resolver does not answer.
    """
    name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    return name


class HostNames:
    """Names by the system's resolver, asked by a few threads.

    Args:
        threads: Questions at a time.
        wait_s: The longest that a batch waits; what is answered later is there for the next.
        resolve: The name of an address, None without.
    """

    def __init__(
        self, threads: int, wait_s: float, resolve: Callable[[str], str | None] = system_name, kept: int = KEPT_NAMES
    ) -> None:
        self._wait_s = wait_s
        self._kept = kept
        self._resolve = resolve
        self._asked: queue.Queue[tuple[str, Future[str | None]]] = queue.Queue(_WAITING)
        self._answers: dict[str, tuple[Future[str | None], float]] = {}
        self._lock = threading.Lock()
        for number in range(threads):  # daemons: a resolver that hangs does not keep the process
            threading.Thread(target=self._work, name=f"reverse-dns-{number}", daemon=True).start()

    def find(self, addresses: list[str]) -> tuple[list[str | None], list[bool]]:
        """The names of addresses, and which of them have no answer yet. It waits for those asked for now, alone."""
        new: list[Future[str | None]] = []
        with self._lock:
            asked = [self._ask(address, new) for address in addresses]
            while len(self._answers) > self._kept:
                del self._answers[next(iter(self._answers))]
        if new:
            wait(new, self._wait_s)
        done = [future is not None and future.done() for future in asked]
        names = [
            future.result() if future is not None and over else None for future, over in zip(asked, done, strict=True)
        ]
        return names, [not over for over in done]

    def _ask(self, address: str, new: list[Future[str | None]]) -> Future[str | None] | None:
        """The answer to come; None if too many are being waited for."""
        now = time.monotonic()
        known = self._answers.pop(address, None)
        if known is not None and now - known[1] < KEPT_S:
            self._answers[address] = known  # the youngest again
            return known[0]
        future: Future[str | None] = Future()
        try:
            self._asked.put_nowait((address, future))
        except queue.Full:
            return None
        self._answers[address] = future, now
        new.append(future)
        return future

    def _work(self) -> None:
        while True:
            address, future = self._asked.get()
            try:
                name = self._resolve(address)
            except (OSError, UnicodeError):
                name = None
            future.set_result(name)

"""Host names of addresses by reverse DNS: bounded in threads, time and memory, and kept."""

import queue
import socket
import threading
import time
from collections.abc import Callable
from itertools import repeat

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
"""All answers are asked for again after so long."""

ASKED_AGAIN_S = 60.0
"""What the resolver could not answer is asked again after so long."""

WAITING = 1 << 10
"""Addresses that wait for a thread; what comes beyond has no name yet."""


def system_name(address: str) -> str:
    """What the system's resolver calls an address.

    Raises:
        OSError: It has no name; with EAI_AGAIN, nobody could tell.
    """
    name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    return name


Answers = dict[str | None, str | None]

_UNKNOWN = "?"  # no name: the resolver gives none with this letter


class _Countdown:
    """How many answers a batch still waits for."""

    def __init__(self) -> None:
        self.left = 0
        self.over = threading.Event()


class HostNames:
    """Names by the system's resolver, asked by a few threads.

    Args:
        threads: Questions at a time.
        wait_s: The longest that a batch waits; what is answered later is there for the next. Once a batch has waited
            in vain, none waits until there is an answer again.
        resolve: The name of an address; OSError without.
        kept: Answers to keep, and as many older ones; what is in neither is asked again.
    """

    def __init__(
        self, threads: int, wait_s: float, resolve: Callable[[str], str] = system_name, kept: int = KEPT_NAMES
    ) -> None:
        self._wait_s = wait_s
        self._resolve = resolve
        self._kept = kept
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[tuple[str, _Countdown]] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._young: Answers = {None: None}
        self._old: Answers = {}
        self._since_s = self._failed_since_s = time.monotonic()
        self._failed: set[str] = set()
        self._answers = 0
        self._is_silent = False
        for number in range(threads):  # daemons: a resolver that hangs does not keep the process
            threading.Thread(target=self._work, name=f"reverse-dns-{number}", daemon=True).start()

    def find(self, addresses: list[str | None]) -> tuple[list[str | None], list[bool]]:
        """The names of addresses, and which of them have no answer yet. It waits for what it asks for itself, alone."""
        countdown = _Countdown()
        with self._lock:
            if time.monotonic() - self._since_s > KEPT_S:
                self._young, self._old, self._since_s = {None: None}, {}, time.monotonic()
            elif len(self._young) > self._kept:
                self._young, self._old = {None: None}, self._young
            if time.monotonic() - self._failed_since_s > ASKED_AGAIN_S or len(self._failed) > self._kept:
                self._failed, self._failed_since_s = set(), time.monotonic()
            names = self._known(addresses)
            if _UNKNOWN in names:
                self._ask(addresses, names, countdown)
            answers, waits = self._answers, countdown.left > 0 and not self._is_silent
        is_in_vain = waits and not countdown.over.wait(self._wait_s)
        if _UNKNOWN not in names:
            return names, [False] * len(names)
        with self._lock:
            self._is_silent |= is_in_vain and answers == self._answers
            names = self._known(addresses)
        return [None if name is _UNKNOWN else name for name in names], [name is _UNKNOWN for name in names]

    def _known(self, addresses: list[str | None]) -> list[str | None]:
        return list(map(self._young.get, addresses, repeat(_UNKNOWN)))

    def _ask(self, addresses: list[str | None], names: list[str | None], countdown: _Countdown) -> None:
        """Takes over what is in the older answers, and has threads ask for what is not."""
        room = WAITING - self._questions.qsize()
        for address, name in zip(addresses, names, strict=True):
            if name is not _UNKNOWN or address is None:
                continue
            if address in self._old:
                self._young[address] = self._old[address]
            elif countdown.left < room and address not in self._asked and address not in self._failed:
                self._asked.add(address)
                countdown.left += 1
                self._questions.put((address, countdown))

    def _work(self) -> None:
        while True:
            address, countdown = self._questions.get()
            name: str | None = None
            is_answered = True
            try:
                name = self._resolve(address)
            except (OSError, UnicodeError) as error:  # it has no name, or one that is none
                is_answered = getattr(error, "errno", None) != socket.EAI_AGAIN
            with self._lock:
                if is_answered:
                    self._young[address] = name
                    self._answers += 1
                    self._is_silent = False
                else:
                    self._failed.add(address)
                self._asked.discard(address)
                countdown.left -= 1
                if not countdown.left:
                    countdown.over.set()

"""How packets get from the step that splits them to the shards.

By value they are octets, which a runner may send to another machine, and keep for one that takes over. Where all steps
run in one process, and nobody takes over when it ends, they stay in its memory and the runner moves claims on them: by
value each octet is copied at every border between coder, message, socket and runner, both ways.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from typing import ClassVar, Protocol

from transforms.arrivals import Arrival, pack, unpack


class Handover(Protocol):
    """A way to shards.

    Attributes:
        lasting: What was handed over can be taken again, by any process: a shard can be made again from it.
    """

    lasting: bool

    def give(self, arrivals: list[Arrival]) -> bytes:
        """What goes through the runner for them."""

    def take(self, octets: bytes) -> Iterator[Arrival]:
        """The inverse of `give`."""

    def wait(self) -> float:
        """Waits until there is room for more; returns how long, in seconds."""


class ByValue:
    """Through the runner, which sees to it that not too much is underway."""

    lasting = True

    def give(self, arrivals: list[Arrival]) -> bytes:
        """The arrivals as octets."""
        return pack(arrivals)

    def take(self, octets: bytes) -> Iterator[Arrival]:
        """The arrivals."""
        return unpack(octets)

    def wait(self) -> float:
        """Does not."""
        return 0.0


BY_VALUE = ByValue()


class InProcess:
    """Through the memory of one process; each claim can be taken once.

    Args:
        most_octets: `wait` waits while more is underway, but not for ever: the runner may hold back what is taken next.
        most_s: How long at most.
    """

    lasting = False

    _places: ClassVar[dict[str, "_Place"]] = {}
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, most_octets: int, most_s: float = 10.0) -> None:
        self._most_octets, self._most_s = most_octets, most_s
        self._name = secrets.token_hex(8)  # finds the same place again after this object went through pickle

    def give(self, arrivals: list[Arrival]) -> bytes:
        """A claim on the arrivals."""
        return self._place().put(arrivals)

    def take(self, octets: bytes) -> Iterator[Arrival]:
        """What the claim is on.

        Raises:
            RuntimeError: It was taken, or given by another process.
        """
        return iter(self._place().take(octets))

    def wait(self) -> float:
        """Waits until at most `most_octets` are underway."""
        return self._place().wait(self._most_octets, self._most_s)

    def _place(self) -> "_Place":
        with self._making:
            return self._places.setdefault(self._name, _Place())


class _Place:
    def __init__(self) -> None:
        self._arrivals: dict[bytes, tuple[list[Arrival], int]] = {}
        self._given = self._octets = 0
        self._changed = threading.Condition()

    def put(self, arrivals: list[Arrival]) -> bytes:
        octets = sum(one.batch.packets.nbytes + len(one.batch.payloads) for one in arrivals if one.batch is not None)
        with self._changed:
            self._given += 1
            claim = self._given.to_bytes(8, "little")
            self._arrivals[claim] = arrivals, octets
            self._octets += octets
        return claim

    def take(self, claim: bytes) -> list[Arrival]:
        with self._changed:
            if claim not in self._arrivals:
                raise RuntimeError("the claim is of another process, or was taken: this runner needs packets by value")
            arrivals, octets = self._arrivals.pop(claim)
            self._octets -= octets
            self._changed.notify_all()
        return arrivals

    def wait(self, most_octets: int, most_s: float) -> float:
        begun_s = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._octets <= most_octets, most_s)
        return time.monotonic() - begun_s

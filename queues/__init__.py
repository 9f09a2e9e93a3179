"""Queues of packet blocks: clients and settings, shared by sources and sinks. The module's name is the URL scheme.

`queues/<scheme>.py` has `open_live(rest)` and `open_reader(rest)`, where `rest` is the URL without `<scheme>:`; that
is all it takes to add a queue. A scheme has no underscore (RFC 3986, section 3.1): modules with one are no queues.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple, Protocol

from transforms.records import InputError, Stream


class Message(NamedTuple):
    """A block as it lies on a queue.

    Attributes:
        octets: The block, with the single-object header.
        source: File, topic or partition.
        position: Octet offset or record number there.
    """

    octets: bytes
    source: str
    position: int


class Damaged(Exception):
    """A part of a queue cannot be read, or not to its end; the message is the one line to show.

    Attributes:
        source: File, topic or partition.
        position: Where it stops to make sense.
        piece: The first octets of what is there.
    """

    def __init__(self, line: str, source: str, position: int, piece: bytes = b"") -> None:
        super().__init__(line)
        self.source = source
        self.position = position
        self.piece = piece

    def __reduce__(self) -> tuple[type, tuple[str, str, int, bytes]]:
        return type(self), (str(self), self.source, self.position, self.piece)


class LiveWriter(Protocol):
    """A queue as a sensor uses it, which must neither stall nor lose what it has captured.

    Blocks of one partition reach the queue in the order in which they were put, each once as far as the queue can tell.

    Attributes:
        partitions: Number of parts that the queue has; a sensor writes to each of them.
        problem: One line that says why nothing is accepted just now; None while all is well.
        message_octets_most: The largest block that it takes.
    """

    partitions: int
    problem: str | None
    message_octets_most: int

    def put(self, message: bytes, partition: int, sensor: str) -> bool:
        """Hands over a block; False if the client holds as much as it may just now: try again later.

        Raises:
            InputError: The queue will never accept it, whatever the number of tries: no such topic, no permission.
        """

    def settled(self, wait_s: float) -> int:
        """How many blocks, counted in the order of `put` since the opening, the queue has for good.

        Serves the client's callbacks, and returns early when the number grows.

        Raises:
            InputError: As for `put`.
        """

    def close(self) -> None:
        """Gives the client up; what is not settled by then may or may not be on the queue."""


class QueueReader(Protocol):
    """Where blocks are read from, in parts that can be read by different workers.

    Attributes:
        damage: One line for each part that `parts` found unusable.
    """

    damage: list[str]

    def parts(self) -> dict[Stream, tuple[str, ...]]:
        """The parts of each stream, in the order of its blocks; there is at least one.

        Raises:
            InputError: There is nothing that could be read.
        """

    def read(self, part: str) -> Iterator[Message]:
        """The blocks of a part, in order. Raises `Damaged` where it breaks off."""


def schemes() -> list[str]:
    """The schemes there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if "_" not in module.name)


def open_live(url: str) -> LiveWriter:
    """The writer of a URL such as `kafka://broker/topic`, for a sensor.

    Raises:
        InputError: There is no such queue, or it cannot be written to.
    """
    module, rest = _module_of(url)
    writer: LiveWriter = module.open_live(rest)
    return writer


def open_reader(url: str) -> QueueReader:
    """The reader of a URL such as `spool:DIR`.

    Raises:
        InputError: There is no such queue, or nothing in it can be read.
    """
    module, rest = _module_of(url)
    reader: QueueReader = module.open_reader(rest)
    return reader


def _module_of(url: str) -> tuple[ModuleType, str]:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in schemes():
        raise InputError(f"{url}: no queue; name one by its scheme: {', '.join(f'{name}:' for name in schemes())}")
    return importlib.import_module(f"queues.{scheme}"), rest

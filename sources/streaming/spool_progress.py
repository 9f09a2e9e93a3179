"""How far a watched spool was read, and which of its files are new."""

import bisect
import heapq
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from apache_beam.coders import Coder

from queues import Message
from queues.spool_files import SpoolName, beginning_of, names_in, parsed, sensor_text
from sources.queue_order import QueueOrder
from sources.streaming.reading_tracker import Reading
from sources.streaming.streams_seen import StreamsSeen
from transforms.records import FORGOTTEN_NS, NO_TIME, Gap, PacketBatch, Stream

POLL_S = 0.2
"""A folder is looked at so often while nothing new is in it."""

_SHARE = 5
_SURE_NS = 2 * 10**9

_log = logging.getLogger(__name__)


class SpoolProgress:
    """What was read of a spool. A file is known by its first number, so files of a stream must not overlap.

    Args:
        order: What the order of the blocks read so far tells.

    Attributes:
        seen: The numbers read, of streams whose sensor is named as in names of files.
        others: Files that were read and whose names tell nothing.
        place: The file that is being read, the position of the last block read, and how many were read there.
        token: Changes with each interruption.
    """

    def __init__(self, order: QueueOrder) -> None:
        self.order = order
        self.seen = StreamsSeen()
        self.others: set[str] = set()
        self.place: tuple[str, int, int] | None = None
        self.token = 0

    def has(self, name: str, told: SpoolName | None) -> bool:
        """Whether a file was read, or begun."""
        if self.place is not None and self.place[0] == name:
            return True
        return name in self.others if told is None else self.seen.holds(_stream_of(told), told.sequence)

    def skip(self, name: str) -> None:
        """Takes a file as read, and those of its stream before it."""
        told = parsed(name)
        if told is None:
            self.others.add(name)
        else:
            self.seen.skip(_stream_of(told), told.sequence + 1)

    def arrived(self, name: str, message: Message, header: PacketBatch | None) -> tuple[int, tuple[Gap, ...]]:
        """Takes note of the next block of a file; the epoch that its stream follows, and what is missing."""
        taken = self.place[2] if self.place and self.place[:2] == (name, message.position) else 0
        self.place = name, message.position, taken + 1
        if header is None:
            return -1, ()
        sensor, epoch, partition = header.stream
        self.seen.arrived(Stream(sensor_text(sensor), epoch, partition), header)
        return self.order.arrived(header)

    def finished(self, name: str) -> None:
        """Takes note that a file was read to its end, or to where it is damaged."""
        told = parsed(name)
        if told is None:
            self.others.add(name)
        else:
            self.seen.add(_stream_of(told), told.sequence)
        self.place = None

    def forget(self, watch: "FolderWatch", now_ns: int) -> None:
        """Leaves out what has no file any more; streams only when time is `FORGOTTEN_NS` further than they came."""
        self.others = {name for name in self.others if not watch.gone(name)}
        if now_ns != NO_TIME:
            self.seen.forget(now_ns - FORGOTTEN_NS, lambda stream: watch.gone(beginning_of(stream)))

    def interrupt(self) -> int:
        """Draws a new token, and returns it."""
        self.token = secrets.randbits(63)
        return self.token

    def ended(self, sensors: tuple[str, ...]) -> bool:
        """Whether all that was seen has come to its end, in all partitions of each sensor."""
        return self.order.ended(sensors) and self.seen.ended(tuple(map(sensor_text, sensors)), whole=False)

    def to_bytes(self) -> bytes:
        """All of it."""
        parts = [self.order.to_bytes().decode(), self.seen.to_bytes().decode(), sorted(self.others)]
        return json.dumps([*parts, self.place, self.token], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "SpoolProgress":
        """The inverse of `to_bytes`."""
        order, seen, others, place, token = json.loads(octets)
        progress = cls(QueueOrder.from_bytes(order.encode()))
        progress.seen = StreamsSeen.from_bytes(seen.encode())
        progress.others = set(others)
        progress.place = None if place is None else tuple(place)
        progress.token = token
        return progress


class SpoolReadingCoder(Coder):
    """A reading of a spool, as the runner keeps it."""

    def encode(self, value: Reading) -> bytes:
        """The progress, and whether that is all."""
        return bytes([value.over]) + value.progress.to_bytes()

    def decode(self, encoded: bytes) -> Reading:
        """The inverse."""
        return Reading(SpoolProgress.from_bytes(encoded[1:]), bool(encoded[0]))

    def is_deterministic(self) -> bool:
        """It is no key."""
        return False


class FolderWatch:
    """The files of a folder that are to be read: those of a sensor's partition in order, sensors in turn.

    The folder is listed five times a second at most, and not while its modification time stands still. A listing that
    takes long is made less often.

    Args:
        folder: The spool.
        has: Whether a file was read before.
        clock: Seconds that only grow.

    Attributes:
        told: The pause since then was told.
        changed: The folder was listed anew; to be taken back by who takes note of that.
    """

    def __init__(
        self, folder: Path, has: Callable[[str, SpoolName | None], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.told = self.changed = False
        self._folder, self._has, self._clock = folder, has, clock
        self._names: list[str] = []
        self._listed_ns = 0
        self._changed_ns = -1
        self._due_s = 0.0
        self._quiet_since_s = clock()
        self._lines: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
        self._turns: deque[tuple[str, int]] = deque()
        self._missing = False

    def next(self) -> str | None:
        """The next file; None if there is none just now."""
        if not self._turns:
            self._look()
        if not self._turns:
            return None
        line = self._turns.popleft()
        files = self._lines[line]
        name = heapq.heappop(files)[-1]
        if files:
            self._turns.append(line)
        else:
            del self._lines[line]
        self._quiet_since_s, self.told = self._clock(), False
        return name

    def of(self, has: Callable[[str, SpoolName | None], bool]) -> "FolderWatch":
        """Goes on with another progress, which is equal to the one so far."""
        self._has = has
        return self

    def gone(self, beginning: str) -> bool:
        """Whether no file's name begins so; never while nothing is there, as where a disk is not mounted."""
        place = bisect.bisect_left(self._names, beginning)
        return bool(self._names) and not any(name.startswith(beginning) for name in self._names[place : place + 1])

    @property
    def quiet_s(self) -> float:
        """How long there has been nothing to read."""
        return self._clock() - self._quiet_since_s

    @property
    def wait_s(self) -> float:
        """How long it takes until the folder is looked at again."""
        return max(0.0, self._due_s - self._clock())

    def _look(self) -> None:
        now_s = self._clock()
        if now_s < self._due_s:
            return
        self._due_s = now_s + POLL_S
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
            if changed_ns == self._changed_ns and self._listed_ns > changed_ns + _SURE_NS:
                return
            listed_ns = time.time_ns()
            names = names_in(self._folder)
        except OSError as error:
            if not self._missing:
                _log.warning("%s: cannot be listed: %s; trying again", self._folder, error.strerror or error)
            self._missing = True
            return
        if self._missing:
            _log.warning("%s: can be listed again", self._folder)
        self._missing = False
        self._changed_ns, self._listed_ns = changed_ns, listed_ns
        for name in set(names).difference(self._names):
            told = parsed(name)
            if not self._has(name, told):
                self._add(name, told)
        self._names, self.changed = names, True
        self._due_s = max(self._due_s, self._clock() + _SHARE * (self._clock() - now_s))

    def _add(self, name: str, told: SpoolName | None) -> None:
        line = ("", -1) if told is None else (told.sensor, told.partition)
        if line not in self._lines:
            self._lines[line] = []
            self._turns.append(line)
        place = (0, 0, name) if told is None else (told.epoch, told.sequence, name)
        heapq.heappush(self._lines[line], place)


def _stream_of(told: SpoolName) -> Stream:
    return Stream(told.sensor, told.epoch, told.partition)

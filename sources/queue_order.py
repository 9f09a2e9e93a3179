"""What the order of a queue tells of the streams in it: which numbers were lost, which streams are over."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from transforms.records import END_OF_STREAM, GAP_LOST, GAP_REPLACED, GAP_SILENT, NO_TIME, Gap, PacketBatch, Stream

EARLY_MOST = 10_000
"""Blocks of a stream that may wait for one before them; with more, what is missing is lost."""


@dataclass
class _Followed:
    """One stream, as far as the queue was read.

    Attributes:
        partitions: Number of partitions that its sensor writes to.
        follows: Epoch of the sensor's stream before it; -1 without.
        next: Every number before this one has come, or was told to be missing.
        early: Numbers behind `next` that have come, with their observed times.
        observed_ns: The largest observed time so far.
        received_ns: When the queue received its last block.
        last: Number of its end block; None before that has come.
        over: Nothing more will come, and whoever follows the stream knows it.
    """

    partitions: int
    follows: int = -1
    next: int = 0
    early: dict[int, int] = field(default_factory=dict)
    observed_ns: int = NO_TIME
    received_ns: int = NO_TIME
    last: int | None = None
    over: bool = False


class QueueOrder:
    """Follows the streams in one part of a queue, in the order of that part.

    A number is lost once its stream has come further, by more than the bound, than the first block behind the missing
    one: until then it may be out of order. A stream is over with its end block; when a later epoch of its sensor has
    come further by the bound; or when the queue has received nothing of it for the timeout while it received others'.
    So what is told depends on the queue's content alone, not on when it is read.

    Args:
        out_of_orderness_ns: The bound, of observed time.
        sensor_timeout_ns: The timeout, of the queue's receive time.
    """

    def __init__(self, out_of_orderness_ns: int, sensor_timeout_ns: int) -> None:
        self._bound_ns, self._timeout_ns = out_of_orderness_ns, sensor_timeout_ns
        self._streams: dict[Stream, _Followed] = {}
        self._latest: dict[tuple[str, int], int] = {}

    def arrived(self, header: PacketBatch, received_ns: int = NO_TIME) -> tuple[int, tuple[Gap, ...]]:
        """Takes note of the next block of the queue.

        Returns:
            The epoch that the block's stream follows, -1 if none; and what is known to be missing now.
        """
        stream = header.stream
        followed = self._streams.get(stream)
        if followed is None:
            followed = self._begin(stream, header.partitions)
        gaps = self._silent(received_ns)
        if not followed.over:
            followed.received_ns = max(followed.received_ns, received_ns)
            followed.observed_ns = max(followed.observed_ns, header.observed_ns)
            if header.sequence >= followed.next:
                followed.early[header.sequence] = header.observed_ns
            if header.end:
                followed.last = header.sequence
            gaps += self._settle(stream, followed)
            gaps += self._replaced(stream, followed)
        return followed.follows, tuple(gaps)

    def finished(self) -> tuple[Gap, ...]:
        """What is missing when nothing more comes at all; streams without end block are left open."""
        gaps = []
        for stream, followed in self._streams.items():
            if not followed.over:
                gaps += self._settle(stream, followed, whole=True)
        return tuple(gaps)

    def ended(self, sensors: Collection[str] = ()) -> bool:
        """Whether every stream seen is over, with at least one of each of `sensors`, or of any."""
        seen = {stream.sensor for stream in self._streams}
        return bool(seen) and seen.issuperset(sensors) and all(one.over for one in self._streams.values())

    @property
    def most_partitions(self) -> int:
        """The most partitions that a sensor seen here writes to."""
        return max((one.partitions for one in self._streams.values()), default=0)

    def _begin(self, stream: Stream, partitions: int) -> _Followed:
        line = (stream.sensor, stream.partition)
        before = self._latest.get(line, -1)
        followed = _Followed(partitions, before if before < stream.epoch else -1)
        if before > stream.epoch:
            followed.over = True  # its sensor has begun anew long ago
        else:
            self._latest[line] = stream.epoch
            for other in [one for one in self._streams if (one.sensor, one.partition) == line]:
                if self._streams[other].over and other.epoch != before:
                    del self._streams[other]
        self._streams[stream] = followed
        return followed

    def _settle(self, stream: Stream, followed: _Followed, whole: bool = False) -> list[Gap]:
        """Moves `next` on, over what has come and over what is lost."""
        gaps = []
        while followed.early:
            while followed.next in followed.early:
                del followed.early[followed.next]
                followed.next += 1
            if not followed.early:
                break
            behind_ns = min(followed.early.values())
            waits = followed.observed_ns - behind_ns <= self._bound_ns and len(followed.early) <= EARLY_MOST
            if waits and not whole:
                break
            first = min(followed.early)
            gaps.append(Gap(stream, followed.partitions, followed.next, first, GAP_LOST))
            followed.next = first
        if followed.last is not None and followed.next > followed.last:
            followed.over = True
        return gaps

    def _replaced(self, stream: Stream, followed: _Followed) -> list[Gap]:
        """Ends the stream's predecessor, if that never said so itself."""
        if followed.follows < 0:
            return []
        previous = stream._replace(epoch=followed.follows)
        older = self._streams.get(previous)
        if older is None or older.over or followed.observed_ns - older.observed_ns <= self._bound_ns:
            return []
        return self._close(previous, older, GAP_REPLACED)

    def _silent(self, received_ns: int) -> list[Gap]:
        gaps: list[Gap] = []
        if received_ns != NO_TIME:
            for stream, followed in self._streams.items():
                waited = followed.received_ns != NO_TIME and received_ns - followed.received_ns > self._timeout_ns
                if waited and not followed.over:
                    gaps += self._close(stream, followed, GAP_SILENT)
        return gaps

    def _close(self, stream: Stream, followed: _Followed, reason: str) -> list[Gap]:
        gaps = self._settle(stream, followed, whole=True)
        if not followed.over:
            gaps.append(Gap(stream, followed.partitions, followed.next, END_OF_STREAM, reason))
            followed.over = True
        followed.early.clear()
        return gaps

    def to_bytes(self) -> bytes:
        """What is known, in a compact form that `from_bytes` takes."""
        rows = [
            [*stream, one.partitions, one.follows, one.next, list(one.early.items()), one.observed_ns, one.received_ns,
             one.last, one.over]
            for stream, one in self._streams.items()
        ]  # fmt: skip
        latest = [[*line, epoch] for line, epoch in self._latest.items()]
        return json.dumps([self._bound_ns, self._timeout_ns, rows, latest], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "QueueOrder":
        """The inverse of `to_bytes`."""
        bound_ns, timeout_ns, rows, latest = json.loads(octets)
        order = cls(bound_ns, timeout_ns)
        for sensor, epoch, partition, partitions, follows, following, early, *rest in rows:
            order._streams[Stream(sensor, epoch, partition)] = _Followed(
                partitions, follows, following, dict(map(tuple, early)), *rest
            )
        order._latest = {(sensor, partition): epoch for sensor, partition, epoch in latest}
        return order

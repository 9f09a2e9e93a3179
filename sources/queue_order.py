"""What the order of a queue tells of the streams in it: which numbers were lost, which streams are over."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from transforms.records import (
    END_OF_STREAM,
    FORGOTTEN_NS,
    GAP_JOINED,
    GAP_LOST,
    GAP_REPLACED,
    GAP_SILENT,
    NO_TIME,
    Gap,
    PacketBatch,
    Stream,
)

EARLY_MOST = 10_000
"""Blocks of a stream that may wait for one before them; with more, what is missing is lost."""

_LAST_TIME = (1 << 63) - 1


@dataclass
class _Followed:
    """One stream, as far as the queue was read.

    Attributes:
        partitions: Number of partitions that its sensor writes to.
        follows: Epoch of the sensor's stream before it; -1 without.
        begun_ns: The smallest observed time so far.
        next: Every number before this one has come, or was told to be missing.
        early: Numbers behind `next` that have come, with their observed times.
        observed_ns: The largest observed time so far.
        received_ns: When the queue received its last block.
        last: Number of its end block; None before that has come.
        over: Nothing more will come, and whoever follows the stream knows it.
        joined: It may have begun before the place where reading did.
    """

    partitions: int
    follows: int = -1
    begun_ns: int = _LAST_TIME
    next: int = 0
    early: dict[int, int] = field(default_factory=dict)
    observed_ns: int = NO_TIME
    received_ns: int = NO_TIME
    last: int | None = None
    over: bool = False
    joined: bool = False

    @property
    def complete(self) -> bool:
        """Nothing is missing any more, up to the end block."""
        return self.last is not None and self.next > self.last


class QueueOrder:
    """Follows the streams in one part of a queue, in the order of that part.

    A number is lost once its stream has come further, by more than the bound, than the first block behind the missing
    one: until then it may be out of order. No block comes further than the end: what is missing before that is lost
    once the queue has received nothing of the stream for the bound. A stream is over with its end block; when a later
    epoch of its sensor has come further by the bound than where this one was, or than where itself began (a clock may
    have been set back); or when the queue has received nothing of it for the timeout. So what is told depends on the
    queue's content alone, not on when it is read.

    Where reading begins in the middle, the first stream of a sensor is joined: numbers before the first that comes were
    not read, which is no loss.

    A stream comes no further than the time at which the queue received its blocks: one block from the future must not
    make those before it lost.

    A sensor whose streams are over is forgotten after `FORGOTTEN_NS` of the queue's receive time, or without that of
    the time to which all have come; so that names that never come back take no room.

    Args:
        out_of_orderness_ns: The bound, of observed time.
        sensor_timeout_ns: The timeout, of the queue's receive time.
        joins: Something lies before the place where reading begins.
        forgets: Sensors are forgotten; not where `ended` is asked for them.
    """

    def __init__(
        self, out_of_orderness_ns: int, sensor_timeout_ns: int, joins: bool = False, forgets: bool = True
    ) -> None:
        self._bound_ns, self._timeout_ns = out_of_orderness_ns, sensor_timeout_ns
        self._joins, self._forgets = joins, forgets
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
            if self._forgets:
                self._forget(header.observed_ns, received_ns)
            followed = self._begin(stream, header.partitions)
        gaps = self._passed(received_ns)
        if not followed.over:
            time_ns = header.observed_ns if received_ns == NO_TIME else min(header.observed_ns, received_ns)
            followed.received_ns = max(followed.received_ns, received_ns)
            followed.observed_ns = max(followed.observed_ns, time_ns)
            followed.begun_ns = min(followed.begun_ns, time_ns)
            if header.end:  # its own time is that of the last packet, and heartbeats were later
                followed.last = min(header.sequence, END_OF_STREAM if followed.last is None else followed.last)
                time_ns = _LAST_TIME
            if header.sequence >= followed.next:
                followed.early[header.sequence] = time_ns
            gaps += self._settle(stream, followed)
            gaps += self._replaced(stream, followed)
        return followed.follows, tuple(gaps)

    def idle(self, waited_ns: int) -> tuple[Gap, ...]:
        """Takes note that the queue has received nothing more for so long, after what has arrived so far.

        What is told is what the next block would have told, if one came now: the same, only sooner. On a queue without
        receive time it concerns streams that have come to their end, no others.
        """
        received_ns = max((one.received_ns for one in self._streams.values()), default=NO_TIME)
        if received_ns != NO_TIME:
            return tuple(self._passed(received_ns + waited_ns))
        gaps = []
        if waited_ns > self._bound_ns:
            for stream, followed in self._streams.items():
                if not followed.over and followed.last is not None:
                    gaps += self._settle(stream, followed, whole=True)
        return tuple(gaps)

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

    def ended_like(self, first: "QueueOrder", partition: int) -> bool:
        """Whether this part of the queue, number `partition`, has ended, if `first`, which is part 0, has.

        Every sensor writes to part 0, and to as many others as it says there.
        """
        if not all(one.over for one in self._streams.values()):
            return False
        for (sensor, part), epoch in first._latest.items():
            theirs = first._streams[Stream(sensor, epoch, part)]
            if theirs.partitions > partition and theirs.last is not None:  # else it was killed, perhaps before it came
                if self._latest.get((sensor, partition), -1) < epoch:
                    return False
        return True

    @property
    def most_partitions(self) -> int:
        """The most partitions that a sensor seen here writes to."""
        return max((one.partitions for one in self._streams.values()), default=0)

    @property
    def frontier_ns(self) -> int:
        """How far every stream that is not over has come; NO_TIME if none is open."""
        return min((one.observed_ns for one in self._streams.values() if not one.over), default=NO_TIME)

    def _begin(self, stream: Stream, partitions: int) -> _Followed:
        line = (stream.sensor, stream.partition)
        before = self._latest.get(line, -1)
        followed = _Followed(partitions, before if before < stream.epoch else -1, joined=self._joins and before == -1)
        if before > stream.epoch:
            followed.over = True  # its sensor has begun anew long ago
        else:
            self._latest[line] = stream.epoch
            for other in [one for one in self._streams if (one.sensor, one.partition) == line]:
                if self._streams[other].over and other.epoch != before:
                    del self._streams[other]
        self._streams[stream] = followed
        return followed

    def _forget(self, observed_ns: int, received_ns: int) -> None:
        """Leaves out sensors that ended long before the block that is at hand."""
        open_ns = [one.observed_ns for one in self._streams.values() if not one.over]
        now_ns = min([observed_ns, *open_ns]) if received_ns == NO_TIME else received_ns
        for stream, one in list(self._streams.items()):
            last_ns = one.observed_ns if one.received_ns == NO_TIME else one.received_ns
            if one.over and now_ns - last_ns > FORGOTTEN_NS:
                del self._streams[stream]
                line = (stream.sensor, stream.partition)
                if self._latest.get(line) == stream.epoch:
                    del self._latest[line]

    def _settle(self, stream: Stream, followed: _Followed, whole: bool = False) -> list[Gap]:
        """Moves `next` on, over what has come and over what is lost."""
        gaps = []
        while followed.early:
            while followed.next in followed.early:
                del followed.early[followed.next]
                followed.next += 1
            if not followed.early or followed.complete:
                break
            behind_ns = min(followed.early.values())
            waits = followed.observed_ns - behind_ns <= self._bound_ns and len(followed.early) <= EARLY_MOST
            if waits and not whole:
                break
            first = min(followed.early)
            reason = GAP_JOINED if followed.joined and not followed.next else GAP_LOST
            gaps.append(Gap(stream, followed.partitions, followed.next, first, reason))
            followed.next = first
        if followed.complete:
            followed.over = True
            followed.early.clear()
        return gaps

    def _replaced(self, stream: Stream, followed: _Followed) -> list[Gap]:
        """Ends the stream's predecessors that never said so themselves, the oldest first."""
        gaps: list[Gap] = []
        for earlier in sorted(self._before(stream)):
            one = self._streams[earlier]
            if followed.observed_ns - min(one.observed_ns, followed.begun_ns) > self._bound_ns:
                gaps += self._close(earlier, one, GAP_REPLACED)
        return gaps

    def _before(self, stream: Stream) -> list[Stream]:
        """The stream's predecessors that are not over."""
        sensor, epoch, partition = stream
        return [
            other
            for other, one in self._streams.items()
            if not one.over and other.epoch < epoch and other.sensor == sensor and other.partition == partition
        ]

    def _passed(self, received_ns: int) -> list[Gap]:
        """What is known once the queue's receive time has come so far."""
        gaps: list[Gap] = []
        if received_ns == NO_TIME:
            return gaps
        for stream, followed in self._streams.items():
            if followed.over or followed.received_ns == NO_TIME:
                continue
            waited_ns = received_ns - followed.received_ns
            if followed.last is not None and waited_ns > self._bound_ns:
                gaps += self._settle(stream, followed, whole=True)
            elif waited_ns > self._timeout_ns:
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
            [*stream, one.partitions, one.follows, one.begun_ns, one.next, list(one.early.items()), one.observed_ns,
             one.received_ns, one.last, one.over, one.joined]
            for stream, one in self._streams.items()
        ]  # fmt: skip
        latest = [[*line, epoch] for line, epoch in self._latest.items()]
        about = [self._bound_ns, self._timeout_ns, self._joins, *([] if self._forgets else [False])]
        return json.dumps([about, rows, latest], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "QueueOrder":
        """The inverse of `to_bytes`."""
        about, rows, latest = json.loads(octets)
        order = cls(*about)
        for sensor, epoch, partition, partitions, follows, begun_ns, following, early, *rest in rows:
            order._streams[Stream(sensor, epoch, partition)] = _Followed(
                partitions, follows, begun_ns, following, dict(map(tuple, early)), *rest
            )
        order._latest = {(sensor, partition): epoch for sensor, partition, epoch in latest}
        return order

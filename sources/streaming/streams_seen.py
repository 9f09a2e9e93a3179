"""What a reader has seen of each stream: which numbers, how far in time, and whether all of it has come."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sources import number_runs
from transforms.records import FORGOTTEN_NS, NO_TIME, PacketBatch, Stream

RANGES_MOST = 100
"""Runs of numbers that are kept apart for each stream; of more, what is missing between the oldest counts as seen."""

FUTURE_NS = 60 * 10**9
"""A stream that is so far ahead of the clock says nothing of the time."""


@dataclass
class _Seen:
    """One stream.

    Attributes:
        partitions: Number of partitions that its sensor writes to.
        observed_ns: The largest observed time so far.
        last: Number of its end block; None before that was seen.
        ranges: Runs of numbers that were seen.
        received_ns: When the queue received its last block.
    """

    partitions: int = 1
    observed_ns: int = NO_TIME
    last: int | None = None
    ranges: number_runs.Runs = field(default_factory=list)
    received_ns: int = NO_TIME

    @property
    def complete(self) -> bool:
        """Every number has come, up to the end block."""
        return self.last is not None and self.ranges == [[0, self.last + 1]]

    def add(self, number: int) -> None:
        number_runs.add(self.ranges, number)
        if len(self.ranges) > RANGES_MOST:
            self.ranges[:2] = [[self.ranges[0][0], self.ranges[1][1]]]


class StreamsSeen:
    """Keeps in mind which blocks have come, in whatever order; small, however many there were.

    A stream of which the queue has received nothing for `FORGOTTEN_NS` is forgotten, where that time is told: it is
    then as if it had never been there.

    Args:
        epochs_most: Epochs of a sensor's partition that are kept, the latest; None for all.
    """

    def __init__(self, epochs_most: int | None = None) -> None:
        self._epochs_most = epochs_most
        self._streams: dict[Stream, _Seen] = {}
        self._epochs: dict[tuple[str, int], list[int]] = {}

    def arrived(self, stream: Stream, header: PacketBatch, received_ns: int = NO_TIME) -> None:
        """Takes note of a block; `stream` is its stream, under the name that the caller uses."""
        if received_ns != NO_TIME and stream not in self._streams:
            self.forget(received_ns - FORGOTTEN_NS)
        seen = self._of(stream)
        seen.received_ns = max(seen.received_ns, received_ns)
        seen.partitions = header.partitions
        seen.observed_ns = max(seen.observed_ns, header.observed_ns)
        seen.add(header.sequence)
        if header.end:
            seen.last = header.sequence

    def skip(self, stream: Stream, after: int) -> None:
        """Takes every number before `after` as seen."""
        self._of(stream).ranges = [[0, after]]

    def add(self, stream: Stream, number: int) -> None:
        """Takes a number as seen."""
        self._of(stream).add(number)

    def forget(self, before_ns: int, gone: Callable[[Stream], bool] = lambda _: True) -> None:
        """Leaves out streams that are gone and of which nothing has come since then."""
        for stream, seen in list(self._streams.items()):
            last_ns = seen.observed_ns if seen.received_ns == NO_TIME else seen.received_ns
            if last_ns < before_ns and gone(stream):
                del self._streams[stream]
                line = (stream.sensor, stream.partition)
                self._epochs[line].remove(stream.epoch)
                if not self._epochs[line]:
                    del self._epochs[line]

    def holds(self, stream: Stream, number: int) -> bool:
        """Whether a number was seen."""
        seen = self._streams.get(stream)
        return seen is not None and number_runs.holds(seen.ranges, number)

    def follows(self, stream: Stream) -> int:
        """The epoch before this one of the sensor's partition, as far as one was seen; -1 without."""
        epochs = self._epochs.get((stream.sensor, stream.partition), ())
        return max((epoch for epoch in epochs if epoch < stream.epoch), default=-1)

    def ended(self, sensors: Collection[str] = (), whole: bool = True) -> bool:
        """Whether the latest epoch of each sensor has come to its end in all partitions; there is at least one sensor.

        Args:
            sensors: Sensors that must be among them.
            whole: No number may be missing; else the end blocks are enough.
        """
        latest: dict[str, int] = {}
        for sensor, epoch, _ in self._streams:
            latest[sensor] = max(epoch, latest.get(sensor, epoch))
        if not latest or not latest.keys() >= set(sensors):
            return False
        for sensor, epoch in latest.items():
            streams = [seen for (name, when, _), seen in self._streams.items() if (name, when) == (sensor, epoch)]
            if len(streams) < max(seen.partitions for seen in streams):
                return False
            if not all(seen.complete if whole else seen.last is not None for seen in streams):
                return False
        return True

    def watermark_ns(self, bound_ns: int, timeout_ns: int, now_ns: int) -> int:
        """The time that is over for all streams, `bound_ns` behind the last of them; NO_TIME if none tells.

        Streams that have ended tell nothing while others are open, and neither do those that are behind another by more
        than the timeout, or ahead of the clock by more than a minute.
        """
        told = [one for one in self._streams.values() if NO_TIME < one.observed_ns <= now_ns + FUTURE_NS]
        if not told:
            return NO_TIME
        newest_ns = max(one.observed_ns for one in told)
        open_ones = [one.observed_ns for one in told if one.last is None and one.observed_ns >= newest_ns - timeout_ns]
        return min(open_ones, default=newest_ns) - bound_ns

    def _of(self, stream: Stream) -> _Seen:
        seen = self._streams.get(stream)
        if seen is None:
            seen = self._streams[stream] = _Seen()
            epochs = self._epochs.setdefault((stream.sensor, stream.partition), [])
            epochs.append(stream.epoch)
            epochs.sort()
            if self._epochs_most is not None and len(epochs) > self._epochs_most:
                self._streams.pop(stream._replace(epoch=epochs.pop(0)))
        return seen

    def to_bytes(self) -> bytes:
        """What is known, in a form that `from_bytes` takes."""
        rows = [
            [*stream, seen.partitions, seen.observed_ns, seen.last, seen.ranges, seen.received_ns]
            for stream, seen in self._streams.items()
        ]
        return json.dumps([self._epochs_most, rows], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "StreamsSeen":
        """The inverse of `to_bytes`."""
        epochs_most, rows = json.loads(octets)
        streams = cls(epochs_most)
        for sensor, epoch, partition, *values in rows:
            stream = Stream(sensor, epoch, partition)
            streams._of(stream)
            streams._streams[stream] = _Seen(*values)
        return streams

"""A sensor's buffer: every closed block is kept, on disk where possible, until the queue has it for good.

Blocks lie in segments, in the order in which they were closed; a segment is deleted when all of it is settled. The
folder of a sensor also tells the next run where the streams of the last one stopped. Blocks are written to files
without forcing them to the disk: they outlive a killed process, but not a power cut. While the disk takes nothing,
blocks wait in memory.
"""

import fcntl
import os
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from sources.segments import FileSegment, MemorySegment, Record, Segment
from sources.sensor_folder import sensor_folder
from transforms import avro
from transforms.records import InputError, PacketBatch, Stream

MEMORY_OCTETS = 64 << 20
"""As much waits in memory where there is no disk, or while that takes nothing."""

SMALLEST = 1 << 20
"""No disk buffer is smaller."""

_SEGMENT_OCTETS_MOST = 16 << 20
_RECORD_OCTETS_LEAST = 256  # an empty block counts as much: so the number of blocks is bounded too
_DISK_AGAIN_S = 5.0
_QUEUE = "queue"
_MARK = struct.Struct("<qqq")
"""Number of the first segment, records of it that are settled, 1 if numbers were given that no file knows."""


class OpenStream(NamedTuple):
    """A stream that was not ended.

    Attributes:
        stream: Which one.
        partitions: Number of partitions that its sensor writes to.
        next: The number of its next block.
        observed_ns: Everything of it up to this time is in blocks that were kept.
        latest_ns: The largest packet time of its sensor's input.
    """

    stream: Stream
    partitions: int
    next: int
    observed_ns: int
    latest_ns: int


@dataclass(eq=False)
class BufferSettings:
    """Where and how much a sensor buffers.

    Attributes:
        folder: Of all sensors' buffers; None keeps blocks in memory only.
        octets: Room on the disk for one sensor.
    """

    folder: Path | None = None
    octets: int = 1 << 30

    def __post_init__(self) -> None:
        if self.octets < SMALLEST:
            raise InputError(f"--buffer_octets: {self.octets} is less than {SMALLEST}")


class Journal:
    """The buffer of one sensor. One thread appends, another one hands over and settles.

    Args:
        settings: Where and how much.
        sensor: Name of the sensor.

    Attributes:
        problem: One line that says why blocks wait in memory; None while they are written to the disk.
        damage: One line for each file of the last run that is not whole.
        unended: Streams that the last run began and did not end; what it left of them is handed over first.
        trusted: Their numbers are known for certain: the machine did not go down, the disk took all blocks.

    Raises:
        InputError: A sensor of this name is running with this folder.
    """

    def __init__(self, settings: BufferSettings, sensor: str) -> None:
        self.problem: str | None = None
        self.damage: list[str] = []
        self.unended: list[OpenStream] = []
        self.trusted = True
        self._changed = threading.Condition()
        self._segments: deque[Segment] = deque()
        self._handing = 0  # place of the segment from which is handed over
        self._open: dict[Stream, OpenStream] = {}
        self._octets_most = settings.octets
        self._segment_octets = min(_SEGMENT_OCTETS_MOST, settings.octets // 4)
        self._number = 0
        self._mark: int | None = None
        self._lock: IO[str] | None = None
        self._disk_again_s = 0.0
        self._loose = False
        self._folder = None if settings.folder is None else sensor_folder(settings.folder, sensor)
        if self._folder is not None:
            try:
                self._take(self._folder, sensor)
            except OSError as error:
                self._disk_failed(error)

    @property
    def waiting(self) -> int:
        """Blocks that are not settled."""
        with self._changed:
            return sum(segment.records - segment.settled for segment in self._segments)

    @property
    def octets(self) -> int:
        """Room that blocks take, in files and in memory."""
        with self._changed:
            return sum(segment.octets for segment in self._segments)

    @property
    def octets_in_memory(self) -> int:
        """Room that blocks take in memory; what is there is lost with the process."""
        with self._changed:
            return sum(segment.octets for segment in self._segments if isinstance(segment, MemorySegment))

    @property
    def oldest_ns(self) -> int | None:
        """When the first block was kept that is not settled; None if all are."""
        with self._changed:
            for segment in self._segments:
                if segment.records > segment.settled:
                    return segment.oldest_ns()
        return None

    def append(self, block: PacketBatch, message: bytes, latest_ns: int) -> bool:
        """Keeps a block, if there is room for it; the block that ends a stream is kept in any case.

        Args:
            block: The block.
            message: The block as it goes to the queue.
            latest_ns: The largest packet time of the sensor's input until then.
        """
        record = Record(message, time.time_ns(), latest_ns)
        with self._changed:
            if not self._keep(record, block.end):
                return False
            self._follow(block, latest_ns)
            self._changed.notify_all()
        return True

    def next(self) -> bytes | None:
        """The next block that was not handed over; None if there is none."""
        with self._changed:
            while self._handing < len(self._segments):
                segment = self._segments[self._handing]
                if segment.handed < segment.records:
                    return segment.next().message
                if self._handing == len(self._segments) - 1:
                    break
                self._handing += 1
        return None

    def settle(self, count: int) -> None:
        """The first so many of those handed over are settled."""
        with self._changed:
            while count:
                segment = self._segments[0]
                settled = min(count, segment.handed - segment.settled)
                segment.settle(settled)
                count -= settled
                self._forget_settled()
            self._write_mark()
            self._changed.notify_all()

    def rewind(self) -> None:
        """All that is not settled will be handed over again."""
        with self._changed:
            for segment in self._segments:
                segment.rewind()
            self._handing = 0

    def known_of(self, url: str) -> tuple[int, int] | None:
        """What `remember` was told of a queue; None if that is not known."""
        try:
            known, partitions, octets = ((self._folder or Path()) / _QUEUE).read_text().rsplit(" ", 2)
            return (int(partitions), int(octets)) if known == url else None
        except (OSError, ValueError):
            return None

    def remember(self, url: str, partitions: int, octets_most: int) -> None:
        """Notes the number of a queue's parts and its largest message: so the next run can begin while it is down."""
        if self._mark is not None and self._folder is not None and self.known_of(url) != (partitions, octets_most):
            try:
                (self._folder / _QUEUE).write_text(f"{url} {partitions} {octets_most}")
            except OSError as error:
                self._disk_failed(error)

    def wait(self, wait_s: float) -> None:
        """Returns when something changes, or after so long."""
        with self._changed:
            self._changed.wait(wait_s)

    def wake(self) -> None:
        """Lets those that wait go on."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Leaves what is not settled to the next run; if nothing is, and all streams are ended, no file stays."""
        with self._changed:
            done = not self._open and all(segment.settled == segment.records for segment in self._segments)
            for segment in self._segments:
                if done:
                    segment.remove()
                elif isinstance(segment, FileSegment):
                    segment.close()
            self._segments.clear()
            if self._mark is not None:
                os.close(self._mark)
                self._mark = None
            if self._lock is not None:
                self._lock.close()

    def _keep(self, record: Record, always: bool) -> bool:
        """Puts a record into the last segment, or into a new one; False if there is no room."""
        if self._mark is not None and time.monotonic() >= self._disk_again_s:
            counted = (max(one.octets, _RECORD_OCTETS_LEAST * (one.records - one.settled)) for one in self._segments)
            if not always and sum(counted) + len(record.message) > self._octets_most:
                return False
            try:
                self._file_with_room().append(record)
                self.problem = None
                return True
            except OSError as error:
                self._disk_failed(error)
        in_memory = [segment for segment in self._segments if isinstance(segment, MemorySegment)]
        if not always and sum(one.octets for one in in_memory) + len(record.message) > MEMORY_OCTETS:
            return False
        if not in_memory or in_memory[-1] is not self._segments[-1]:
            in_memory.append(MemorySegment())
            self._segments.append(in_memory[-1])
        in_memory[-1].append(record)
        return True

    def _file_with_room(self) -> FileSegment:
        last = self._segments[-1] if self._segments else None
        if isinstance(last, FileSegment) and last.octets < self._segment_octets:
            return last
        self._number += 1
        preface = {"boot": _boot_id(), "open": [[*one.stream, *one[1:]] for one in self._open.values()]}
        assert self._folder is not None
        segment = FileSegment(self._folder / f"{self._number:012d}.blocks", preface)
        self._segments.append(segment)
        self._forget_settled()
        self._loose = False
        self._write_mark()
        return segment

    def _disk_failed(self, error: OSError) -> None:
        self.problem = f"{self._folder}: {error.strerror or error}; blocks wait in memory"
        self._disk_again_s = time.monotonic() + _DISK_AGAIN_S
        self._loose = True
        self._write_mark()

    def _forget_settled(self) -> None:
        """Removes settled segments, but for the last: it tells where the streams stopped."""
        while len(self._segments) > 1 and self._segments[0].settled == self._segments[0].records:
            self._segments.popleft().remove()
            self._handing = max(self._handing - 1, 0)

    def _follow(self, block: PacketBatch, latest_ns: int) -> None:
        if block.end:
            self._open.pop(block.stream, None)
        else:
            following = block.sequence + 1
            known = OpenStream(block.stream, block.partitions, following, block.observed_ns, latest_ns)
            self._open[block.stream] = known

    def _write_mark(self) -> None:
        """Notes what is settled, in octets that the file has already: that works on a full disk too."""
        if self._mark is not None:
            first = next((one for one in self._segments if isinstance(one, FileSegment)), None)
            number, settled = (int(first.path.stem), first.settled) if first else (0, 0)
            try:
                os.pwrite(self._mark, _MARK.pack(number, settled, self._loose), 0)
            except OSError as error:
                self.problem = f"{self._folder}: {error.strerror}; a restart may repeat blocks"

    def _take(self, folder: Path, sensor: str) -> None:
        """Locks the folder and finds what the last run left there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise InputError(
                f"sensor {sensor} runs already with the buffer {folder}; choose another --sensor or --buffer_dir"
            ) from error
        mark = os.open(folder / "mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        marked = os.pread(mark, _MARK.size, 0).ljust(_MARK.size, b"\0")
        os.pwrite(mark, marked, 0)
        self._mark = mark
        first, settled, loose = _MARK.unpack(marked)
        boot = _boot_id()
        for path in sorted(folder.glob("*.blocks")):
            segment = self._reopened(path)
            if segment is not None:
                self.trusted = self.trusted and not loose and segment.preface.get("boot") == boot
                if self._number == first:
                    segment.skip(min(settled, segment.records))
                self._segments.append(segment)
        self.unended = list(self._open.values())
        if not self.trusted:
            self._open.clear()

    def _reopened(self, path: Path) -> FileSegment | None:
        self._number = int(path.stem)
        try:
            segment = FileSegment.reopened(path)
            streams = (OpenStream(Stream(*one[:3]), *one[3:]) for one in segment.preface["open"])
            self._open = {one.stream: one for one in streams}
            for record in segment.recover():
                self._follow(avro.decode_header(record.message), record.latest_ns)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.damage.append(f"{path}: {error}; it is left where it is")
            return None
        if segment.damage:
            self.damage.append(f"{path}: {segment.damage} cut off")
        return segment


def _boot_id() -> str:
    """What tells one start of the machine from the next; after a power cut files may be older than the queue."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

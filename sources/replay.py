"""Captures as a sensor's input: as fast as possible, or at the pace at which they were captured."""

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from sources.live import Chunk
from sources.octets import STANDARD_INPUT
from sources.rows import Rows, move_payloads
from transforms.records import NO_TIME, PACKET, InputError

CHUNK_PACKETS_MOST = 16384
"""More are not given at a time, however many are due."""

_TOGETHER_S = 0.001
"""Packets that are due within so long are given together."""


@dataclass(eq=False)
class ReplaySettings:
    """At which pace captures are replayed.

    Attributes:
        read: How they are read.
        speed: So many times as fast as they were captured; 0 is as fast as possible.
        rate: Packets a second, whatever their times; 0: their times set the pace.
        shift_times: Times are moved so that the first packet is captured at the start, and divided by the speed; with
            a rate they are those at which packets are due.
        loop: How often they are replayed, times going on; 0 is for ever.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    speed: float = 0.0
    rate: float = 0.0
    shift_times: bool = False
    loop: int = 1

    def __post_init__(self) -> None:
        for name, value in (("speed", self.speed), ("rate", self.rate), ("loop", self.loop)):
            if not 0 <= value < float("inf"):
                raise InputError(f"--{name}: {value:g} is not a number from 0 on")


class ReplayInput:
    """The captures of a sensor, in order of time.

    Args:
        files: The sensor and its files.
        settings: The pace.
        report: Counts what was read; complete when the input has ended.
        on_progress: Called with `report.octets_read` as it grows.
        clock_ns: The time of the day.
        clock_s: A clock that only moves on.
        sleep: Waits so many seconds.

    Raises:
        InputError: No file can be used, or standard input is to be replayed more than once.
    """

    def __init__(
        self,
        files: SensorInput,
        settings: ReplaySettings,
        report: ReadReport,
        on_progress: Callable[[int], None] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if settings.loop != 1 and STANDARD_INPUT in files.files:
            raise InputError("--loop: standard input can be read only once")
        self._files, self._settings, self._report, self._on_progress = files, settings, report, on_progress
        self._clock_ns, self._clock_s, self._sleep = clock_ns, clock_s, sleep
        self._told_rejects: Counter[str] = Counter()
        self._told_drops = 0
        self._passes = self._read_passes()
        self._rows = Rows(np.zeros(0, PACKET), np.zeros(0, np.uint8))  # those that were read and not given
        self._due_s = np.zeros(0)  # when they are due, since the start
        self._begin_s = self._given_s = float("-inf")
        self._begin_ns = self._first_ns = 0
        self._count = 0  # packets that were read
        self._observed_ns = NO_TIME
        self._first = next(self._passes, None)

    def read(self, wait_s: float) -> Chunk | None:
        """The packets that are due, or those that are due first within the wait; None at the end."""
        until_s = self._clock_s() + wait_s
        while True:
            if not len(self._rows.packets) and not self._load():
                return self._chunk(0) if self._untold() else None
            now_s = self._clock_s()
            due = int(np.searchsorted(self._due_s, now_s - self._begin_s, "right"))
            if due == len(self._due_s) or (due and now_s - self._given_s >= _TOGETHER_S):
                self._given_s = now_s
                return self._chunk(min(due, CHUNK_PACKETS_MOST))
            ready_s = self._given_s + _TOGETHER_S if due else self._begin_s + float(self._due_s[0])
            if now_s >= until_s:
                return self._chunk(0)
            self._sleep(max(min(ready_s, until_s) - now_s, 0.0))

    def close(self) -> None:
        """Closes the files."""
        self._passes.close()

    def _load(self) -> bool:
        """Reads the next packets, and says when they are due; False at the end."""
        rows, self._first = self._first or next(self._passes, None), None
        if rows is None:
            return False
        times, settings = rows.packets["time_ns"], self._settings
        if self._begin_s == float("-inf"):
            self._begin_s, self._begin_ns, self._first_ns = self._clock_s(), self._clock_ns(), int(times[0])
        since_ns = times - self._first_ns
        if settings.rate:
            self._due_s = (self._count + np.arange(len(times))) / settings.rate
            since_ns = (self._due_s * 1e9).astype(np.int64)
        elif settings.speed:
            self._due_s = since_ns / 1e9 / settings.speed
            since_ns = since_ns if settings.speed == 1 else (since_ns / settings.speed).astype(np.int64)
        else:
            self._due_s = np.full(len(times), float("-inf"))
        if settings.shift_times:
            times[:] = self._begin_ns + since_ns
        self._count += len(times)
        self._rows = rows
        return True

    def _chunk(self, count: int) -> Chunk:
        """The next so many packets, and what the report has to say since the last time."""
        rows, self._rows = self._rows.part(0, count), self._rows.part(count, len(self._rows.packets))
        if len(rows.payloads):
            move_payloads(rows.packets, 0)
        self._due_s = self._due_s[count:]
        if count:
            self._observed_ns = int(rows.packets["time_ns"][-1])
        if len(self._rows.packets):
            self._observed_ns = max(self._observed_ns, min(self._time_now(), int(self._rows.packets["time_ns"][0])))
        report = self._report
        rejects = report.rejects - self._told_rejects
        dropped = report.interface_drops - self._told_drops
        self._told_rejects, self._told_drops = Counter(report.rejects), report.interface_drops
        return Chunk(rows.packets, rows.payloads, self._observed_ns, dict(rejects), dropped, resolved=True)

    def _time_now(self) -> int:
        """The time on the line that is replayed, where it moves on as the clock does."""
        speed, shifted = self._settings.speed, self._settings.shift_times
        if self._settings.rate or not speed:
            return NO_TIME
        passed_s = self._clock_s() - self._begin_s
        return self._begin_ns + int(passed_s * 1e9) if shifted else self._first_ns + int(passed_s * speed * 1e9)

    def _untold(self) -> bool:
        report = self._report
        return report.rejects != self._told_rejects or report.interface_drops != self._told_drops

    def _read_passes(self) -> Generator[Rows, None, None]:
        """The packets of one pass after another, by time."""
        done = offset_ns = 0
        while done < self._settings.loop or not self._settings.loop:
            first_ns = last_ns = count = 0
            for batch in read_packets(self._files, self._settings.read, self._report, self._on_progress):
                batch.packets.flags.writeable = True  # nobody else has them
                times = batch.packets["time_ns"]
                first_ns, last_ns = int(times[0]) if not count else first_ns, int(times[-1])
                count += len(times)
                if offset_ns:
                    times += offset_ns
                yield Rows(batch.packets, np.frombuffer(batch.payloads, np.uint8))
            if not count:
                return
            span_ns = last_ns - first_ns
            offset_ns += span_ns + max(span_ns // max(count - 1, 1), 1)
            done += 1

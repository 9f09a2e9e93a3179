"""The sensor: from a line, or a file that stands for one, to blocks in its buffer, without a pause and for months."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np

from sources.anonymize import Anonymizer
from sources.blocks import BlockMaker, BlockSettings
from sources.journal import Journal
from sources.live import Chunk, LiveInput
from sources.rows import Rows, move_payloads
from sources.sending import Sender
from sources.sensor_meters import Meters
from transforms import avro
from transforms.records import NO_TIME, PACKET, InputError, PacketBatch, SensorHealth

_READ_WAIT_S = 0.1
_LAST_WAIT_S = 0.05


@dataclass(eq=False)
class SensorSettings:
    """How a sensor works.

    Attributes:
        blocks: When blocks are closed.
        heartbeat_s: How often it says that it is there; None: never, as for files.
        max_out_of_orderness_s: A clock that goes back by more begins a new epoch.
        waits: The input can wait: nothing is dropped, it is read when there is room.
        one_of: One of so many flows is kept.
        anonymizer: What replaces addresses; None keeps them.
    """

    blocks: BlockSettings = field(default_factory=BlockSettings)
    heartbeat_s: float | None = 1.0
    max_out_of_orderness_s: float = 2.0
    waits: bool = False
    one_of: int = 1
    anonymizer: Anonymizer | None = None

    def __post_init__(self) -> None:
        if self.max_out_of_orderness_s < 0:
            raise InputError(f"--max_out_of_orderness_s: {self.max_out_of_orderness_s:g} is negative")


class Sensor:
    """One sensor: its epochs, one after another.

    Args:
        name: Its name.
        settings: How it works.
        journal: Where its blocks are kept.
        sender: What takes them from there.
        meters: What is counted.
        new_epoch: Gives the start of an epoch, larger than any before.
        health: What it says of itself in heartbeats.
        tell: Says a line to a person.
        stopping: Makes it come to its end, once set.
    """

    def __init__(
        self,
        name: str,
        settings: SensorSettings,
        journal: Journal,
        sender: Sender,
        meters: Meters,
        new_epoch: Callable[[], int],
        health: Callable[[], SensorHealth] | None,
        tell: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        self._name, self._settings, self._journal, self._sender = name, settings, journal, sender
        self._meters, self._new_epoch, self._health, self._tell = meters, new_epoch, health, tell
        self._stopping = stopping
        self._dropping: int | None = None  # packets since the buffer was full
        self._journal_problem: str | None = None
        self._bound_ns = round(settings.max_out_of_orderness_s * 1e9)

    def run(self, source: LiveInput) -> None:
        """Captures until the input ends or it is to stop; then the streams are ended, and all blocks in the buffer.

        Raises:
            InputError: The input fails; all blocks are in the buffer nevertheless.
        """
        maker = self._begin()
        self._end_the_last_run()
        beat_s = time.monotonic()
        failure = None
        last = False
        while not last:
            last = self._stopping.is_set()  # what was captured until then is still to be read
            now_s = time.monotonic()
            wait_s = _LAST_WAIT_S if last else min(maker.due_in(now_s), beat_s - now_s, _READ_WAIT_S)
            try:
                chunk = source.read(max(wait_s, 0.0))
            except InputError as error:
                failure = error
                break
            if chunk is None:
                break
            self._sender.check()
            self._meters.captured(chunk)
            maker = self._add(maker, chunk)
            if self._settings.heartbeat_s is not None and time.monotonic() >= beat_s:
                self._keep(maker, maker.heartbeat(self._health() if self._health else None))
                beat_s = max(beat_s + self._settings.heartbeat_s, time.monotonic())
            self._meters.observed_ns = maker.observed_ns
        self._keep(maker, maker.end())
        if failure is not None:
            raise failure

    def _end_the_last_run(self) -> None:
        """Ends the streams that an earlier run of the sensor did not end; what it left of them lies before that."""
        journal = self._journal
        for line in journal.damage:
            self._tell(line)
        if journal.problem is not None:
            self._journal_problem = journal.problem
            self._tell(journal.problem)
        if not journal.unended:
            return
        since = min(one.observed_ns for one in journal.unended)
        self._tell(
            f"sensor {self._name} did not stop cleanly: packets from {_iso(since)} until now may be lost;"
            f" {journal.waiting:,} blocks that it kept are sent first"
        )
        for one in journal.unended if journal.trusted else ():  # else readers see by the new epoch that it is over
            last_ns = max(other.latest_ns for other in journal.unended if other.stream.epoch == one.stream.epoch)
            last_ns = one.observed_ns if last_ns == NO_TIME else last_ns
            none = np.zeros(0, PACKET)
            end = PacketBatch(
                one.stream, one.next, last_ns, none, partitions=one.partitions, end=True, ended_by=self._meters.epoch_ns
            )
            journal.append(end, avro.encode_block(end), last_ns)

    def _begin(self) -> BlockMaker:
        self._meters.epoch_ns = epoch = self._new_epoch()
        settings = self._settings
        partitions = self._sender.partitions
        return BlockMaker(self._name, epoch, partitions, settings.blocks, settings.one_of, settings.anonymizer)

    def _add(self, maker: BlockMaker, chunk: Chunk) -> BlockMaker:
        """Adds what was captured; returns the maker of the epoch that it ends in."""
        if maker.partitions != self._sender.partitions:
            maker = self._renewed(maker)
        while (at := self._jump(maker, chunk)) is not None:
            before, chunk = _cut(chunk, at, maker.observed_ns)
            self._keep(maker, maker.add(before, time.monotonic()))
            self._tell(f"sensor {self._name}: the clock went back; a new epoch begins")
            maker = self._renewed(maker)
        self._keep(maker, maker.add(chunk, time.monotonic()))
        return maker

    def _renewed(self, maker: BlockMaker) -> BlockMaker:
        self._keep(maker, maker.end())
        return self._begin()

    def _jump(self, maker: BlockMaker, chunk: Chunk) -> int | None:
        """Before which packet the clock went back by more than the bound; None if it did not."""
        last_ns = max(maker.latest_ns, maker.observed_ns)
        times = chunk.packets["time_ns"]
        if len(times):
            largest = np.maximum.accumulate(np.maximum(times, last_ns))
            back = largest - times > self._bound_ns
            return int(back.argmax()) if back.any() else None
        return 0 if chunk.observed_ns < last_ns - self._bound_ns and chunk.observed_ns != NO_TIME else None

    def _keep(self, maker: BlockMaker, blocks: Iterable[PacketBatch]) -> None:
        """Puts blocks into the buffer; where it is full, waits if the input can, else counts what is dropped."""
        meters = self._meters
        for block in blocks:
            message = avro.encode_block(block)
            while not (kept := self._journal.append(block, message, maker.latest_ns)):
                if not self._settings.waits or self._stopping.is_set():
                    break
                self._sender.check()
                self._journal.wait(_READ_WAIT_S)
            if kept:
                meters.kept(block, len(message))
            else:
                maker.was_lost(block)
                meters.queue_drops += len(block.packets)
            self._tell_of_drops(kept, len(block.packets))
        if self._journal.problem != self._journal_problem:
            self._journal_problem = self._journal.problem
            self._tell(self._journal_problem or "blocks are written to the disk again")

    def _tell_of_drops(self, kept: bool, packets: int) -> None:
        if not kept:
            if self._dropping is None:
                self._tell(f"sensor {self._name}: the buffer is full; packets are dropped until there is room")
            self._dropping = (self._dropping or 0) + packets
        elif self._dropping is not None and packets:
            self._tell(f"sensor {self._name}: the buffer has room again; {self._dropping:,} packets were dropped")
            self._dropping = None


def _cut(chunk: Chunk, at: int, observed_ns: int) -> tuple[Chunk, Chunk]:
    """A chunk in two; all counts are with the first part."""
    rows = Rows(chunk.packets, chunk.payloads)
    first, rest = rows.part(0, at), rows.part(at, len(chunk.packets))
    if len(rest.payloads):
        move_payloads(rest.packets, 0)
    observed_ns = int(first.packets["time_ns"].max(initial=observed_ns))
    return chunk._replace(packets=first.packets, payloads=first.payloads, observed_ns=observed_ns), Chunk(
        rest.packets, rest.payloads, chunk.observed_ns, {}, 0, chunk.resolved
    )


def _iso(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, timezone.utc):%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 10**6:03}Z"

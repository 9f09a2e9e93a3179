"""From packet records to `PACKET` rows: parsing, with what is counted on the way, and the batches that leave."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sources.bpf import WHOLE_PACKETS, PacketFilter
from sources.capture_file import SPAN_PACKETS, CaptureFile
from sources.fragments import FragmentTable
from sources.frames import FRAME
from sources.headers import REASONS, HeaderSettings, parse
from transforms.kernel import kernel
from transforms.records import PACKET, REJECT_MALFORMED, TRANSPORT_TRUNCATED, PacketBatch, Reject, Stream

PLAIN = np.dtype((np.void, PACKET.itemsize))
"""A row without its fields: numpy copies rows of many fields one field at a time, thirty times slower."""


@dataclass(eq=False)
class ReadReport:
    """What became of the packets of one sensor's input.

    Attributes:
        packets_read: Packet records that are wholly in the files: packets in batches plus rejects.
        rejects: How many of them were refused, by reason.
        samples: The malformed ones, as many as the settings keep.
        damage: One line for each file that breaks off, or cannot be used at all.
        octets_read: Octets of the files read for packets so far, compressed ones where a file is compressed.
        transport_truncated: Packets whose transport header is cut off or invalid.
        fragments_unresolved: Later fragments whose first one was not seen in time.
        interface_drops: Packets that were dropped before the capture, as it says itself.
        blocks_repeated: Blocks of a queue that were delivered again, and are not counted again.
    """

    packets_read: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    samples: list[Reject] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    octets_read: int = 0
    transport_truncated: int = 0
    fragments_unresolved: int = 0
    interface_drops: int = 0
    blocks_repeated: int = 0


class Rows(NamedTuple):
    """Packets, with the payload prefixes that they point into: one behind the other, in the order of the packets.

    Where there are no payload octets at all, `packets["payload_at"]` means nothing.
    """

    packets: np.ndarray
    payloads: np.ndarray

    def part(self, begin: int, end: int) -> "Rows":
        """Some rows that follow one another, with their own payload prefixes."""
        packets = self.packets[begin:end]
        if not len(self.payloads) or not len(packets):
            return Rows(packets, self.payloads[:0])
        origin, last = int(self.packets[0]["payload_at"]), packets[-1]
        start = int(packets[0]["payload_at"]) - origin
        stop = int(last["payload_at"]) + int(last["payload_captured"]) - origin
        return Rows(packets, self.payloads[start:stop])


def move_payloads(packets: np.ndarray, to: int) -> None:
    """Points rows to payload prefixes that begin at `to`, wherever those of the first row began."""
    packets["payload_at"] += np.uint32((to - int(packets["payload_at"][0])) % 2**32)


def joined(parts: list[Rows]) -> Rows:
    """Rows of several origins one behind the other."""
    if not parts:
        return Rows(np.empty(0, PACKET), np.empty(0, np.uint8))
    packets = np.concatenate([part.packets.view(PLAIN) for part in parts]).view(PACKET)
    payloads = np.concatenate([part.payloads for part in parts])
    row = octets = 0
    for part in parts if len(payloads) else ():
        mine = packets[row : row + len(part.packets)]
        if len(part.payloads):
            move_payloads(mine, octets)
        else:
            mine["payload_at"] = octets
        row += len(part.packets)
        octets += len(part.payloads)
    return Rows(packets, payloads)


def in_order_of_time(rows: Rows) -> Rows:
    """The same rows by time; those of one time keep their order."""
    order = np.argsort(rows.packets["time_ns"], kind="stable")
    return gathered(rows.packets.view(PLAIN)[order].view(PACKET), rows.payloads)


def gathered(packets: np.ndarray, payloads: np.ndarray) -> Rows:
    """Packets that do not follow one another any more, with their own payload prefixes end to end."""
    if not len(payloads):
        return Rows(packets, payloads)
    own = np.empty(int(packets["payload_captured"].sum(dtype=np.int64)), np.uint8)
    _gather(packets, payloads, own)
    return Rows(packets, own)


@kernel
def _gather(packets, payloads, own):
    at = 0
    for i in range(len(packets)):
        packet = packets[i]
        begin = np.int64(packet.payload_at)
        captured = np.int64(packet.payload_captured)
        for k in range(captured):
            own[at + k] = payloads[begin + k]
        packet.payload_at = at
        at += captured


class RowBuffer:
    """Room for rows, filled from the front.

    Attributes:
        packets: `PACKET[room]`.
        payloads: `u1[room * payload_octets]`.
        count: Rows used so far.
        octets: Octets of `payloads` used so far.
    """

    def __init__(self, room: int, payload_octets: int) -> None:
        self.packets = np.empty(room, PACKET)
        self.payloads = np.empty(room * payload_octets, np.uint8)
        self.count = 0
        self.octets = 0

    @property
    def room(self) -> int:
        """Rows that are free."""
        return len(self.packets) - self.count

    def renew(self) -> None:
        """Empties it; whoever holds the rows keeps them, payloads are overwritten."""
        self.packets = np.empty(len(self.packets), PACKET)
        self.count = self.octets = 0

    def add(self, rows: Rows) -> None:
        """Appends rows whose payload prefixes are those of `rows.payloads`, one behind the other."""
        mine = self.packets[self.count : self.count + len(rows.packets)]
        mine.view(PLAIN)[:] = rows.packets.view(PLAIN)
        if len(rows.payloads):
            move_payloads(mine, self.octets)
            self.payloads[self.octets : self.octets + len(rows.payloads)] = rows.payloads
        elif len(self.payloads):
            mine["payload_at"] = self.octets
        self.count += len(rows.packets)
        self.octets += len(rows.payloads)

    def take(self) -> Rows:
        """The used rows; the buffer is empty again."""
        rows = Rows(self.packets[: self.count], self.payloads[: self.octets].copy())
        self.renew()
        return rows


class PacketParser:
    """Parses the packets of capture files, and counts in the report what it refuses."""

    def __init__(
        self,
        settings: HeaderSettings,
        max_rejects: int,
        report: ReadReport,
        on_progress: Callable[[int], None] | None = None,
        packet_filter: PacketFilter | None = None,
        snaplen: int = WHOLE_PACKETS,
    ) -> None:
        self.payload_octets = settings.payload_octets
        self.report = report
        self._settings = settings
        self._max_rejects = max_rejects
        self._on_progress = on_progress
        self._filter = packet_filter
        self._snaplen = snaplen
        self._frames = np.zeros(SPAN_PACKETS, FRAME)
        self._records = np.zeros(SPAN_PACKETS, np.int64)
        self._reasons = np.zeros(SPAN_PACKETS, np.uint8)

    def fill(self, file: CaptureFile, path: str, rows: RowBuffer, most: int = SPAN_PACKETS) -> int:
        """Parses up to `most` further packets into free room of `rows`; returns how many were read, 0 at the end."""
        first = file.record
        count = file.index(self._frames[: min(most, rows.room)], self._records)
        report = self.report
        report.octets_read += file.newly_consumed()
        if self._on_progress is not None:
            self._on_progress(report.octets_read)
        if not count:
            return 0
        kept = self._select(file, count)
        frames, reasons = self._frames[:kept], self._reasons[:kept]
        target = rows.packets[rows.count : rows.count + kept]
        added, octets = parse(file.octets, frames, self._settings, target, rows.payloads[rows.octets :], reasons)
        if rows.octets:
            target["payload_at"][:added] += np.uint32(rows.octets)
        rows.count += added
        rows.octets += octets
        report.packets_read += kept
        if added < kept:
            self._count_refused(file, path, first, reasons)
        return count

    def _select(self, file: CaptureFile, count: int) -> int:
        """Cuts frames to the snap length and moves those that the filter accepts to the front; returns their number."""
        frames = self._frames[:count]
        if self._snaplen < WHOLE_PACKETS:
            np.minimum(frames["captured"], self._snaplen, out=frames["captured"])
        if self._filter is None:
            return count
        accepted = frames[self._filter.accepts(file.octets, frames)]
        self._frames[: len(accepted)] = accepted
        return len(accepted)

    def _count_refused(self, file: CaptureFile, path: str, first: int, reasons: np.ndarray) -> None:
        report = self.report
        for number, refused in enumerate(np.bincount(reasons, minlength=len(REASONS)).tolist()):
            if number and refused:
                report.rejects[REASONS[number]] += refused
        keep = self._max_rejects - len(report.samples)
        for i in np.flatnonzero(reasons == REASONS.index(REJECT_MALFORMED))[: max(keep, 0)].tolist():
            begin, captured = int(self._frames["offset"][i]), int(self._frames["captured"][i])
            position = file.position(int(self._records[i]), first + i)
            payload = file.octets[begin : begin + captured].tobytes()
            report.samples.append(Reject("parse", REJECT_MALFORMED, path, position, payload))


class Batches:
    """Turns rows that come in order into batches of one stream; fragments are resolved on the way."""

    def __init__(self, sensor: str, block_packets: int, payload_octets: int, report: ReadReport) -> None:
        self.payload_octets = payload_octets
        self.rows = RowBuffer(block_packets, payload_octets)
        self._stream = Stream(sensor, 0, 0)
        self._sequence = 0
        self._fragments = FragmentTable()
        self._report = report

    def add(self, rows: Rows) -> Iterator[PacketBatch]:
        """Appends rows; yields the batches that they fill."""
        at = 0
        while at < len(rows.packets):
            until = min(len(rows.packets), at + self.rows.room)
            self.rows.add(rows.part(at, until))
            yield from self.full()
            at = until

    def full(self) -> Iterator[PacketBatch]:
        """The batch, if there is no room in it left."""
        if not self.rows.room:
            yield self._batch()

    def rest(self) -> Iterator[PacketBatch]:
        """The last batch, if there is anything in it."""
        if self.rows.count:
            yield self._batch()

    def _batch(self) -> PacketBatch:
        rows, report = self.rows, self._report
        packets = rows.packets[: rows.count]
        self._fragments.resolve(packets)
        report.fragments_unresolved = self._fragments.unresolved
        report.transport_truncated += int(np.count_nonzero(packets["transport"] == TRANSPORT_TRUNCATED))
        packets.flags.writeable = False
        batch = PacketBatch(
            self._stream, self._sequence, int(packets["time_ns"][-1]), packets, rows.payloads[: rows.octets].tobytes()
        )
        self._sequence += 1
        rows.renew()
        return batch

"""From what was captured to closed blocks: split by flow over partitions, numbered, with what was lost told once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sources.anonymize import Anonymizer
from sources.fragments import FragmentTable
from sources.live import Chunk
from sources.rows import PLAIN, Rows, gathered, move_payloads
from sources.sampling import REJECT_SAMPLED_OUT, sampled
from transforms import avro
from transforms.identity import packet_shard
from transforms.kernel import kernel
from transforms.records import NO_TIME, PACKET, InputError, PacketBatch, SensorHealth, Stream

HEAD_OCTETS_MOST = 4096
"""Room in a block for what is not packets."""

OCTETS_LEAST = 2 * HEAD_OCTETS_MOST
"""No limit of blocks is smaller."""


@dataclass(eq=False)
class BlockSettings:
    """When a block is closed.

    Attributes:
        packets: It has as many.
        octets: One more packet might make it larger than that, as it lies on a queue.
        max_age_s: Its first packet has waited for so long; None: it waits until there are enough.
    """

    packets: int = 4096
    octets: int = 900_000
    max_age_s: float | None = 0.2

    def __post_init__(self) -> None:
        if self.packets < 1:
            raise InputError(f"--block_packets: {self.packets} is not a positive number")
        if self.octets < OCTETS_LEAST:
            raise InputError(f"--block_octets: {self.octets} is less than {OCTETS_LEAST}")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise InputError(f"--block_max_age_ms: {self.max_age_s * 1000:g} is not a positive number")

    def within(self, octets: int) -> "BlockSettings":
        """The settings for a queue that takes blocks of so many octets."""
        octets = min(self.octets, octets)
        return BlockSettings(
            min(self.packets, (octets - HEAD_OCTETS_MOST) // avro.PACKET_OCTETS_MOST), octets, self.max_age_s
        )


def warm_up() -> None:
    """Compiles what packets go through on their way into blocks, so that none waits for that."""
    rows = Rows(np.zeros(0, PACKET), np.zeros(0, np.uint8))
    FragmentTable().resolve(rows.packets)
    sampled(rows, 2)
    _deal(rows.packets, rows.packets, np.zeros(1, np.int64))
    gathered(rows.packets, np.zeros(1, np.uint8))
    avro.encode_block(PacketBatch(Stream(""), 0, 0, rows.packets))


class BlockMaker:
    """Makes the blocks of one epoch of a sensor.

    Blocks of a partition hold its packets in the order of their capture, and are numbered from 0 without gaps. A
    packet's partition is its shard hash modulo the number of partitions. Everything of a partition before a block's
    `observed_ns` is in blocks up to that one. Counts of rejects and drops stand in the blocks of partition 0, each
    once.

    Args:
        sensor: Name of the sensor.
        epoch: Its start.
        partitions: Number of parts of the queue.
        settings: When blocks are closed.
        one_of: One of so many flows is kept; the others' packets are rejects.
        anonymizer: What replaces addresses; None keeps them.

    Attributes:
        latest_ns: The largest packet time; NO_TIME before the first packet.
        observed_ns: Everything before this time was captured; NO_TIME before the first chunk.
        partitions: As above.
        fragments: What is known of fragmented packets.
    """

    def __init__(
        self,
        sensor: str,
        epoch: int,
        partitions: int,
        settings: BlockSettings,
        one_of: int = 1,
        anonymizer: Anonymizer | None = None,
    ) -> None:
        self.latest_ns = self.observed_ns = NO_TIME
        self.partitions = partitions
        self.fragments = FragmentTable()
        self._settings = settings.within(settings.octets)
        self._one_of, self._anonymizer = one_of, anonymizer
        self._dropped = 0
        self._rejects: Counter[str] = Counter()
        self._lines = [_Line(Stream(sensor, epoch, partition)) for partition in range(partitions)]

    def add(self, chunk: Chunk, now_s: float) -> Iterator[PacketBatch]:
        """The blocks that are closed by what was captured, and by the time that has passed.

        Args:
            chunk: Follows that of the last call; its arrays belong to the blocks from now on.
            now_s: A clock that only moves on.
        """
        self._rejects.update(chunk.rejects)
        self._dropped += chunk.dropped
        self.observed_ns = max(self.observed_ns, chunk.observed_ns)
        if len(chunk.packets):
            self.latest_ns = max(self.latest_ns, int(chunk.packets["time_ns"].max()))
            for line, rows in self._split(chunk):
                yield from self._fill(line, rows, now_s)
        yield from self.close_old(now_s)

    def close_old(self, now_s: float) -> Iterator[PacketBatch]:
        """The blocks whose first packet has waited long enough."""
        age_s = self._settings.max_age_s
        if age_s is not None:
            for line in self._lines:
                if line.count and now_s - line.opened_s >= age_s:
                    yield self._close(line, self.observed_ns)

    def due_in(self, now_s: float) -> float:
        """For how long no block is closed by its age, in seconds."""
        opened = [line.opened_s for line in self._lines if line.count]
        if self._settings.max_age_s is None or not opened:
            return float("inf")
        return max(min(opened) + self._settings.max_age_s - now_s, 0.0)

    def heartbeat(self, health: SensorHealth | None) -> Iterator[PacketBatch]:
        """What is open, and an empty block for each partition: all know how far time has come."""
        if self.observed_ns != NO_TIME:
            for line in self._lines:
                if line.count:
                    yield self._close(line, self.observed_ns)
                yield self._close(line, self.observed_ns)._replace(health=health)

    def end(self) -> Iterator[PacketBatch]:
        """What is open, and the blocks that end the streams."""
        last_ns = next((time_ns for time_ns in (self.latest_ns, self.observed_ns) if time_ns != NO_TIME), 0)
        for line in self._lines:
            if line.count:
                yield self._close(line, self.observed_ns)
        for line in self._lines:
            yield self._close(line, last_ns)._replace(end=True, observed_ns=last_ns)

    def was_lost(self, block: PacketBatch) -> None:
        """Takes back what a block told that nobody will receive: its packets are dropped ones."""
        self._dropped += len(block.packets) + block.dropped
        self._rejects.update(dict(block.rejects))

    def _split(self, chunk: Chunk) -> Iterator[tuple["_Line", Rows]]:
        """The packets that are kept, by partition."""
        if not chunk.resolved:
            self.fragments.resolve(chunk.packets)
        rows = sampled(Rows(chunk.packets, chunk.payloads), self._one_of)
        packets, payloads = rows
        if len(packets) < len(chunk.packets):
            self._rejects[REJECT_SAMPLED_OUT] += len(chunk.packets) - len(packets)
        if self._anonymizer is not None:
            packets = self._anonymizer.anonymized(packets)
        if len(self._lines) == 1:
            yield self._lines[0], Rows(packets, payloads)
            return
        dealt, counts = np.empty_like(packets), np.zeros(len(self._lines), np.int64)
        _deal(packets, dealt, counts)
        begin = 0
        for line, count in zip(self._lines, counts.tolist(), strict=True):
            if count:
                yield line, gathered(dealt[begin : begin + count], payloads)
            begin += count

    def _fill(self, line: "_Line", rows: Rows, now_s: float) -> Iterator[PacketBatch]:
        """Adds packets to a partition, whose open block is closed as often as it is full."""
        count, at = len(rows.packets), 0
        ends = np.cumsum(rows.packets["payload_captured"], dtype=np.int64) if len(rows.payloads) else None
        while at < count:
            room = self._settings.packets - line.count
            if ends is not None:
                room = min(room, self._fitting(line, ends, at) - at)
            until = min(count, at + room)
            full = until < count or until - at == room == self._settings.packets - line.count
            if until > at:
                payloads = rows.payloads if ends is None else rows.payloads[ends[at - 1] if at else 0 : ends[until - 1]]
                line.add(Rows(rows.packets[at:until], payloads), now_s)
            at = until
            if full:  # what is still to come of this chunk is behind the block
                waiting = rows.packets["time_ns"][at:]
                yield self._close(line, min(self.observed_ns, int(waiting.min(initial=self.observed_ns))))

    def _fitting(self, line: "_Line", ends: np.ndarray, at: int) -> int:
        """Up to which of the packets from `at` on the block that is open has room; an empty one has for any packet."""
        room = self._settings.octets - HEAD_OCTETS_MOST - line.octets - line.count * avro.PACKET_OCTETS_MOST
        room += int(ends[at - 1]) if at else 0
        taken = ends[at:] + avro.PACKET_OCTETS_MOST * np.arange(1, len(ends) - at + 1)
        return at + max(int(np.searchsorted(taken, room, "right")), 0 if line.count else 1)

    def _close(self, line: "_Line", observed_ns: int) -> PacketBatch:
        """The next block of a partition, with what is open in it, perhaps nothing."""
        block = line.close(observed_ns)._replace(partitions=len(self._lines))
        if line is self._lines[0]:
            rejects = tuple(sorted((+self._rejects).items()))
            block = block._replace(dropped=self._dropped, rejects=rejects)
            self._dropped = 0
            self._rejects.clear()
        return block


class _Line:
    """One partition: its open block.

    Attributes:
        count: Packets in the open block.
        octets: Octets of their payload prefixes.
        opened_s: When its first packet came.
    """

    def __init__(self, stream: Stream) -> None:
        self.count = self.octets = 0
        self.opened_s = 0.0
        self._stream = stream
        self._sequence = 0
        self._observed_ns = NO_TIME
        self._pieces: list[Rows] = []

    def add(self, rows: Rows, now_s: float) -> None:
        if not self.count:
            self.opened_s = now_s
        self.count += len(rows.packets)
        self.octets += len(rows.payloads)
        self._pieces.append(rows)

    def close(self, observed_ns: int) -> PacketBatch:
        self._observed_ns = max(self._observed_ns, observed_ns)
        packets, payloads = self._joined()  # left writable: encoding would copy them else
        block = PacketBatch(self._stream, self._sequence, self._observed_ns, packets, payloads)
        self._sequence += 1
        self._pieces = []
        self.count = self.octets = 0
        return block

    def _joined(self) -> tuple[np.ndarray, bytes]:
        if not self._pieces:
            return np.zeros(0, PACKET), b""
        at = 0
        for rows in self._pieces:
            if self.octets:
                move_payloads(rows.packets, at)
            at += len(rows.payloads)
        if len(self._pieces) == 1:
            return self._pieces[0].packets[:], self._pieces[0].payloads.tobytes()
        packets = np.concatenate([rows.packets.view(PLAIN) for rows in self._pieces]).view(PACKET)
        return packets, b"".join(rows.payloads.tobytes() for rows in self._pieces)


@kernel
def _deal(packets, dealt, counts):
    """Lays packets of one partition one behind the other, in their order, and counts those of each partition."""
    partitions = np.uint64(len(counts))
    homes = np.empty(len(packets), np.uint16)
    for i in range(len(packets)):
        homes[i] = packet_shard(packets[i]) % partitions
        counts[homes[i]] += 1
    places = np.cumsum(counts) - counts
    for i in range(len(packets)):
        dealt[places[homes[i]]] = packets[i]
        places[homes[i]] += 1

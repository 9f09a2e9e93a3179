"""What runs a shard's table on Beam: over whole streams at once, or for ever, with everything kept in state."""

import secrets
import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard
from apache_beam.coders import BytesCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms import avro
from transforms.arrivals import unpack
from transforms.counted import Counted
from transforms.flow_records import ROWS, FinishedFlows, LateColumns
from transforms.flow_table import FlowTable
from transforms.handover import Handover
from transforms.records import FORGOTTEN_NS, MERGED_SENSORS, REJECT_DUPLICATE, PacketBatch, Reject, SensorEvent, Stream
from transforms.settings import FlowSettings
from transforms.shard_state import Output, Shard
from transforms.stream_line import StreamRules

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]
Event: TypeAlias = TaggedOutput[Literal["events"], SensorEvent]

Key: TypeAlias = tuple[str, int]
"""Sensor and number of a shard."""

TABLE_CACHE_OCTETS = 2 << 30

LOG_OCTETS_LEAST = 8 << 20
"""A table is not written anew before so much has come since it was: small tables would be written at every bundle.

Larger ones are when the log has half their size. Packed they take a sixth of it, as most features of most flows are 0.
"""


def packet_rejects(reason: str, packets: np.ndarray, batch: PacketBatch, most: int) -> list[Reject]:
    """Each of at most `most` packets as an Avro block of its own, which keeps all that is known of it."""
    return [
        Reject(
            "assemble",
            reason,
            batch.stream.sensor,
            batch.sequence,
            avro.encode_block(batch._replace(packets=packets[i : i + 1])),
        )
        for i in range(min(len(packets), max(most, 0)))
    ]


def duplicate_rejects(table: FlowTable, most: int) -> list[Reject]:
    """At most `most` of the packets that the table refused since the last call, which it then forgets."""
    rejects: list[Reject] = []
    for packets in table.take_duplicates():
        batch = PacketBatch(Stream(table.sensor), 0, 0, packets)
        rejects += packet_rejects(REJECT_DUPLICATE, packets, batch, most - len(rejects))
    return rejects


class BoundedShardFn(beam.DoFn):
    """Assembles all that there is of a shard, sorted whole; each epoch of a sensor has a table of its own."""

    def __init__(self, settings: FlowSettings, max_rejects: int) -> None:
        self._settings, self._max_rejects = settings, max_rejects

    def setup(self) -> None:
        """Derives what every shard needs."""
        self._columns = self._settings.columns()
        self._counted = Counted()

    def process(self, shard: tuple[Key, Iterable[bytes]]) -> Iterator[pa.RecordBatch | Rejected]:
        """The flows of one shard."""
        (sensor, number), arrived = shard
        parts: dict[tuple[Stream, int], PacketBatch] = {}
        for arrival in (arrival for octets in arrived for arrival in unpack(octets)):
            part = arrival.batch
            if part is None:
                continue
            if (part.stream, part.sequence) in parts:
                if number == part.stream.partition % part.partitions:  # every shard has a part: one counts it
                    self._counted.repeated()
                continue
            parts[part.stream, part.sequence] = part

        def epoch(part: PacketBatch) -> int:
            return 0 if sensor == MERGED_SENSORS else part.stream.epoch

        for _, of_epoch in groupby(sorted(parts.values(), key=epoch), epoch):
            yield from self._assembled(sensor, list(of_epoch))

    def _assembled(self, sensor: str, parts: list[PacketBatch]) -> Iterator[pa.RecordBatch | Rejected]:
        table = self._settings.table(self._columns, sensor)
        rejects: list[Reject] = []
        for part, rest_ns in _by_time([part for part in parts if len(part.packets)]):
            table.add(part)
            for flows in table.advance(rest_ns, ROWS):
                yield self._counted.flows(flows)
            rejects += duplicate_rejects(table, self._max_rejects - len(rejects))
        for flows in table.finish(_end_of_input(parts)):
            yield self._counted.flows(flows)
        rejects += duplicate_rejects(table, self._max_rejects - len(rejects))
        self._counted.table(table)
        for reject in rejects:
            yield TaggedOutput("rejects", reject)


def _by_time(parts: list[PacketBatch]) -> Iterator[tuple[PacketBatch, int]]:
    """The parts by their first time, each with the first time of all that come after it."""
    firsts = {id(part): int(part.packets["time_ns"].min()) for part in parts}
    ordered = sorted(parts, key=lambda part: firsts[id(part)])
    for part, following in zip_longest(ordered, ordered[1:]):
        yield part, firsts[id(following)] if following is not None else firsts[id(part)]


def _end_of_input(parts: Iterable[PacketBatch]) -> int:
    """The largest packet time of the sensor: what the end block says, else the last observed time."""
    ends = [part.observed_ns for part in parts if part.end] or [part.observed_ns for part in parts]
    return max(ends)


class Kept(NamedTuple):
    """What state says of a shard beside its snapshot and log.

    Attributes:
        token: Drawn anew with every change; a cached shard is that of the state only if it carries the same.
        log_octets: Size of what came since the snapshot.
        snapshot_octets: Size of the snapshot before it was packed: what it costs to make one.
    """

    token: bytes = b""
    log_octets: int = 0
    snapshot_octets: int = 0

    def to_bytes(self) -> bytes:
        """16 octets of token, then the sizes."""
        return self.token + struct.pack("<qq", self.log_octets, self.snapshot_octets)

    @classmethod
    def from_bytes(cls, octets: bytes | None) -> "Kept":
        """The inverse; nothing is an unknown shard."""
        return cls(octets[:16], *struct.unpack("<qq", octets[16:])) if octets else cls()


class ShardCache:
    """The shards that this process has worked on last, so that state is only read after a restart or a move.

    A shard is taken out while it is worked on: whatever interrupts that leaves nothing behind.
    """

    def __init__(self) -> None:
        self._shards: OrderedDict[Any, tuple[bytes, Shard, int]] = OrderedDict()
        self._octets = 0
        self._lock = threading.Lock()

    def take(self, place: Any, token: bytes) -> Shard | None:
        """The shard, if it is here as it was when it got this token."""
        with self._lock:
            found = self._shards.pop(place, None)
            if found is None:
                return None
            self._octets -= found[2]
            return found[1] if found[0] == token else None

    def put(self, place: Any, token: bytes, shard: Shard, most_octets: int) -> None:
        """Keeps a shard; those that were not used for longest make room."""
        octets = shard.octets
        with self._lock:
            replaced = self._shards.pop(place, None)
            self._octets += octets - (replaced[2] if replaced is not None else 0)
            self._shards[place] = token, shard, octets
            while self._octets > most_octets and len(self._shards) > 1:
                self._octets -= self._shards.popitem(last=False)[1][2]


_cache = ShardCache()


class EndlessShardFn(beam.DoFn):
    """Assembles a shard as its blocks come. State is the truth: a snapshot of the shard, and what came since.

    Where blocks are not handed over by value, the process is: state only tells whether it is still the same.
    Time comes with the blocks. The one timer is at the end of all time, for a job that is drained or whose input ended;
    of a sensor that has ended it is when nothing will come any more, so that names take no room for ever.
    """

    LOG = BagStateSpec("log", BytesCoder())
    SNAPSHOT = ReadModifyWriteStateSpec("snapshot", BytesCoder())
    ABOUT = ReadModifyWriteStateSpec("about", BytesCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(self, settings: FlowSettings, rules: StreamRules, cache_octets: int, handover: Handover) -> None:
        self._settings, self._rules, self._handover = settings, rules, handover
        self._lasting = handover.lasting
        self._cache_octets = cache_octets if self._lasting else sys.maxsize
        self._name = secrets.token_hex(8)

    def setup(self) -> None:
        """Derives what every shard needs."""
        self._columns = self._settings.columns(LateColumns)
        self._counted = Counted()

    def process(
        self,
        element: tuple[Key, bytes],
        log: Any = beam.DoFn.StateParam(LOG),
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        about: Any = beam.DoFn.StateParam(ABOUT),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[FinishedFlows | Rejected | Event]:
        """Takes what has come for a shard."""
        key, octets = element
        kept = Kept.from_bytes(about.read())
        if not kept.token:
            end.set(GlobalWindow().max_timestamp())
        shard = self._shard(key, kept, snapshot, log)
        rested = shard.rests_since_ns is not None
        yield from self._told(shard, shard.take(self._handover.take(octets)))
        since_ns = shard.rests_since_ns
        if since_ns is not None:
            end.set(Timestamp(micros=(since_ns + FORGOTTEN_NS) // 1000))
        elif rested:
            end.set(GlobalWindow().max_timestamp())
        log_octets, snapshot_octets = self._keep(shard, octets, kept, snapshot, log) if self._lasting else (0, 0)
        token = secrets.token_bytes(16)
        about.write(Kept(token, log_octets, snapshot_octets).to_bytes())
        _cache.put((self._name, key), token, shard, self._cache_octets)

    @on_timer(END)
    def finish(
        self,
        key: Any = beam.DoFn.KeyParam,
        log: Any = beam.DoFn.StateParam(LOG),
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        about: Any = beam.DoFn.StateParam(ABOUT),
    ) -> Iterator[FinishedFlows | Rejected | Event]:
        """Ends what is open, and forgets the shard: nothing will come any more."""
        kept = Kept.from_bytes(about.read())
        if not kept.token:
            return
        shard = self._shard(tuple(key), kept, snapshot, log)
        yield from self._told(shard, shard.finish())
        for state in (log, snapshot, about):
            state.clear()

    def _keep(self, shard: Shard, octets: bytes, kept: Kept, snapshot: Any, log: Any) -> tuple[int, int]:
        """Has the state know what came; returns what it has of log and snapshot."""
        log_octets = kept.log_octets + len(octets)
        if log_octets <= max(LOG_OCTETS_LEAST, kept.snapshot_octets // 2) and not shard.rests:
            log.add(octets)
            return log_octets, kept.snapshot_octets
        written = shard.to_bytes()
        snapshot.write(zstandard.ZstdCompressor(level=1).compress(written))
        log.clear()
        return 0, len(written)

    def _shard(self, key: Key, kept: Kept, snapshot: Any, log: Any) -> Shard:
        """The shard as the state has it."""
        shard = _cache.take((self._name, key), kept.token)
        if shard is None and kept.token and not self._lasting:
            raise RuntimeError(f"shard {key} is not in this process, and nowhere else: the job must be started again")
        if shard is None:
            shard = Shard(self._settings, self._columns, self._rules, *key)
            if kept.snapshot_octets:
                shard.restore(zstandard.ZstdDecompressor().decompress(snapshot.read()))
            for octets in log.read() if kept.log_octets else ():
                for _ in shard.take(self._handover.take(octets)):  # what it puts out was put out when it came
                    pass
            shard.take_counts()
        return shard

    def _told(self, shard: Shard, outputs: Iterator[Output]) -> Iterator[FinishedFlows | Rejected | Event]:
        for output in outputs:
            if isinstance(output, FinishedFlows):
                yield output
            else:
                yield TaggedOutput("rejects" if isinstance(output, Reject) else "events", output)
        self._counted.shard(shard, time.time_ns())


class MakeColumnsFn(beam.DoFn):
    """Makes columns of the flows that ended in all shards of a bundle together."""

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        """Derives the columns."""
        self._columns = self._settings.columns()
        self._counted = Counted()

    def start_bundle(self) -> None:
        """Nothing waits."""
        self._waiting: dict[tuple[str, bool], list[FinishedFlows]] = {}

    def process(self, part: FinishedFlows) -> Iterator[pa.RecordBatch]:
        """Keeps flows until they fill a batch."""
        key = (part.sensor, part.finished.interim)
        waiting = self._waiting.setdefault(key, [])
        waiting.append(part)
        if sum(len(one.finished.records) for one in waiting) >= ROWS // 2:
            yield self._batch(self._waiting.pop(key))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Puts out what is left."""
        for parts in self._waiting.values():
            flows = self._batch(parts)
            yield WindowedValue(flows, _time_of(flows), [GlobalWindow()])

    def _batch(self, parts: list[FinishedFlows]) -> pa.RecordBatch:
        return self._counted.flows(self._columns.joined(parts))


def _time_of(flows: pa.RecordBatch) -> Timestamp:
    """Event time of flows that ended together: the last packet of the last of them."""
    return Timestamp(micros=pc.max(flows.column("flow_end_ns")).as_py() // 1000)

"""Reading captures: all files of a sensor, in order of time, as batches of packets.

A quick pass over the record headers finds the spans of every file and their times (`capture_file.scan`); from these
follows what can be streamed and what has to be merged (`spans`, `merging`). Input that cannot be read so goes through
temporary files (`spool`). Memory does not depend on the length of the input.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sources import scan_ahead
from sources.bpf import WHOLE_PACKETS, PacketFilter
from sources.capture_file import SPAN, SPAN_PACKETS, CaptureFile, scan
from sources.headers import HeaderSettings
from sources.input_files import SensorInput, sensor_inputs
from sources.merging import OPEN_FILES, FileSource, SpanSource, read_in_order
from sources.octets import STANDARD_INPUT, Unreadable
from sources.rows import Batches, PacketParser, ReadReport, RowBuffer
from sources.spans import SpanOrder, one_way
from sources.spool import Spool
from sources.window import Window
from transforms.records import PACKET, InputError, PacketBatch

__all__ = ["ReadReport", "ReadSettings", "SensorInput", "read_packets", "sensor_inputs"]

WAITING_OCTETS = 160 << 20
"""As much waits in memory while files are merged, about a million packets without payload prefixes."""


@dataclass(eq=False)
class ReadSettings:
    """How captures are read.

    Attributes:
        headers: What of a packet is kept.
        block_packets: The most packets of a batch.
        temp_dir: Where packets go that have to be sorted and are too many for memory; None is the system's.
        max_rejects: As many malformed packets are kept as samples; all are counted.
        packet_filter: Packets that it does not accept are left out as if they were not in the file; samples are then
            without their places.
        snaplen: As many octets of each packet are looked at, as if the rest had not been captured.
    """

    headers: HeaderSettings = field(default_factory=HeaderSettings)
    block_packets: int = 16384
    temp_dir: str | None = None
    max_rejects: int = 10_000
    packet_filter: PacketFilter | None = None
    snaplen: int = WHOLE_PACKETS

    def __post_init__(self) -> None:
        if self.block_packets < 1:
            raise InputError(f"--block_packets: {self.block_packets} is not a positive number")
        if self.max_rejects < 0:
            raise InputError(f"--max_rejects: {self.max_rejects} is negative")
        if not 14 <= self.snaplen <= WHOLE_PACKETS:
            raise InputError(f"--snaplen: {self.snaplen} is not between 14 and {WHOLE_PACKETS}")


def read_packets(
    sensor_input: SensorInput,
    settings: ReadSettings,
    report: ReadReport,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[PacketBatch]:
    """Batches of a sensor's packets, by (time, place of the file among the sensor's, place in the file).

    They are numbered from 0 in the stream (sensor, 0, 0), `observed_ns` is the time of their last packet, fragments are
    resolved. Their arrays are not used again.

    Args:
        sensor_input: The sensor and its files.
        settings: How to read.
        report: Counts what was read, refused and damaged; complete when the iterator ends.
        on_progress: Called with `report.octets_read` as it grows.

    Raises:
        InputError: If no file can be used at all, or temporary files cannot be written.
    """
    parser = PacketParser(
        settings.headers, settings.max_rejects, report, on_progress, settings.packet_filter, settings.snaplen
    )
    batches = Batches(sensor_input.sensor, settings.block_packets, settings.headers.payload_octets, report)
    plan = _Plan(settings, parser, report)
    try:
        for number, path in enumerate(sensor_input.files):
            plan.add(number, path)
        if not plan.sources:
            raise InputError("; ".join(report.damage))
        order = plan.order()
        yield from read_in_order(order, plan.sources, plan.one_way, batches)
    finally:
        for source in plan.sources.values():
            source.close()


class _Plan:
    """What each file is read from, by its number in the input, and the spans of them all."""

    def __init__(self, settings: ReadSettings, parser: PacketParser, report: ReadReport) -> None:
        self.sources: dict[int, SpanSource] = {}
        self.one_way: set[int] = set()
        self._settings = settings
        self._parser = parser
        self._report = report
        self._window = Window()
        self._spans: dict[int, np.ndarray] = {}
        self._spools: dict[int, Spool] = {}
        self._waiting_packets = WAITING_OCTETS // (PACKET.itemsize + settings.headers.payload_octets)

    def add(self, number: int, path: str) -> None:
        """Opens a file and finds its spans; what cannot be used at all is one line in the report."""
        name = "standard input" if path == STANDARD_INPUT else path
        try:
            file = CaptureFile(path, self._window)
        except Unreadable as reason:
            self._report.damage.append(f"{name}: {reason}")
            return
        try:
            if not file.repeatable:
                self._spool_stream(number, name, file)
                damage, drops = file.damage, file.drops
            else:
                found = (scan_ahead.taken(path) if number == 0 else None) or scan(file, number)
                damage, drops = found.damage, found.drops
                self.sources[number] = FileSource(path, found, file.seekable, self._window, self._parser)
                self._spans[number] = found.spans if file.seekable else one_way(found.spans)
                if not file.seekable:
                    self.one_way.add(number)
        finally:
            file.close()
        if damage:
            self._report.damage.append(f"{name}: {damage}")
        self._report.interface_drops += drops
        if number in self.one_way or len(self._spans.get(number, ())) * SPAN_PACKETS > self._waiting_packets:
            self._spool_if_too_many([number])

    def order(self) -> SpanOrder:
        """The order of all spans; where too much would have to be open or in memory at a time, files are spooled."""
        overlapping = [number for number in self.sources if number not in self._spools]
        self._spool_if_too_many(overlapping)
        many = sum(spool.runs for spool in self._spools.values()) > OPEN_FILES
        spans = [spool.spans(number, many) for number, spool in self._spools.items()]
        return SpanOrder(np.concatenate([np.zeros(0, SPAN), *self._spans.values(), *spans]))

    def _spool_if_too_many(self, numbers: list[int]) -> None:
        order = SpanOrder(np.concatenate([np.zeros(0, SPAN), *(self._spans[number] for number in numbers)]))
        if order.peak() <= self._waiting_packets and order.most_open(self.one_way & set(numbers)) <= OPEN_FILES:
            return
        for number in numbers:
            self._spool_file(number)

    def _spool_stream(self, number: int, name: str, file: CaptureFile) -> None:
        self._spool(number, lambda rows: self._parser.fill(file, name, rows) > 0)

    def _spool_file(self, number: int) -> None:
        source = self.sources[number]
        source.go_to(self._spans.pop(number))
        self._spool(number, source.fill)
        source.close()
        self.one_way.discard(number)

    def _spool(self, number: int, fill: Callable[[RowBuffer], bool]) -> None:
        spool = Spool(self._settings.temp_dir)
        buffer = RowBuffer(SPAN_PACKETS, self._parser.payload_octets)
        while fill(buffer):
            if not buffer.room:
                spool.add(buffer.take())
        spool.add(buffer.take())
        in_memory = sum(other.packets_in_memory for other in self._spools.values())
        spool.finish(in_memory=in_memory < self._waiting_packets // 2)
        self._spools[number] = spool
        self.sources[number] = spool

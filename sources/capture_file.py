"""One capture file, whatever its format: where its packets lie, from its beginning or from any place noted before."""

from typing import NamedTuple, Protocol

import numpy as np

from sources.frames import FRAME
from sources.octets import Unreadable, open_octets
from sources.pcap import open_pcap, open_snoop
from sources.pcapng import SECTION_MAGIC, open_pcapng
from sources.window import Window
from transforms.kernel import kernel

SPAN_PACKETS = 4096
"""Packets of one span: what is held in memory of each file that is merged with others."""

SPAN = np.dtype(
    [
        ("first_ns", "i8"),  # least and
        ("last_ns", "i8"),  # greatest time
        ("start", "i8"),  # where it begins: offset, or row of a spooled run
        ("stop", "i8"),
        ("record", "i8"),  # number of its first record in the file
        ("packets", "i8"),
        ("source", "i4"),  # rank of the file in the sensor's sorted input
        ("part", "i4"),  # number of the run in a spooled file
        ("state", "i4"),  # index into the file's states
        ("in_order", "u1"),  # no packet in it is before its predecessor
    ],
    align=True,
)
"""A stretch of a capture with at most `SPAN_PACKETS` packets."""

_NAMES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"Obj\x01", "an Avro file"),
    (b"PAR1", "a Parquet file"),
    (b"GMBU", "a Microsoft Network Monitor capture"),
    (b"RTSS", "a Microsoft Network Monitor 1 capture"),
    (b"TRSNIFF", "a Sniffer capture"),
    (b"btsnoop\0", "a Bluetooth btsnoop capture"),
    (b"XCP\0", "a NetXray capture"),
)


class _Format(Protocol):
    @property
    def drops(self) -> int: ...

    def state(self) -> object: ...

    def restore(self, state: object) -> None: ...

    def index(self, window: Window, frames: np.ndarray, records: np.ndarray) -> tuple[int, str]: ...


class CaptureFile:
    """An open capture. Reading goes on until `close`; `index` gives the next packets.

    Attributes:
        seekable: True if `go_to` works: a regular file that is not compressed.
        repeatable: True if it can be opened again: not a pipe.
        damage: What broke the file off and where, once `index` met it.
        record: Number of the next packet record.
    """

    def __init__(self, path: str, window: Window) -> None:
        """Opens `path`, reading through `window`; raises `Unreadable` if it is no capture."""
        self._octets = open_octets(path)
        self._window = window
        self.seekable = self._octets.seekable
        self.repeatable = self._octets.repeatable
        self._counted = 0
        self.damage = ""
        self.record = 0
        try:
            window.open(self._octets)
            self._format = _recognise(window)
        except Unreadable:
            self._octets.close()
            raise

    def newly_consumed(self) -> int:
        """Octets of the file read since this was last asked, or since `go_to`; compressed ones if it is compressed."""
        before, self._counted = self._counted, self._octets.consumed
        return self._counted - before

    @property
    def drops(self) -> int:
        """Packets that the interfaces say they dropped."""
        return self._format.drops

    @property
    def octets(self) -> np.ndarray:
        """The buffer into which the frames of the last `index` point."""
        return self._window.octets

    @property
    def offset(self) -> int:
        """Where the next record begins in the (unpacked) file."""
        return self._window.offset

    def position(self, record: int, number: int) -> int:
        """What tells a person where a record of the last `index` is: its offset, or its number if unpacked."""
        return number if self._octets.compressed else self._window.offset - self._window.begin + record

    def state(self) -> object:
        """What `go_to` needs to know besides the offset."""
        return self._format.state()

    def go_to(self, span: np.void, state: object, stop: int) -> None:
        """Reads on from the beginning of `span`, up to offset `stop`."""
        self._window.open(self._octets, int(span["start"]), stop)
        self._format.restore(state)
        self.record = int(span["record"])
        self._counted = self._octets.consumed
        self.damage = ""

    def index(self, frames: np.ndarray, records: np.ndarray) -> int:
        """Fills `FRAME` rows with the next packets, and where each record begins in `octets`; 0 at the end."""
        if self.damage:
            return 0
        count, damage = self._format.index(self._window, frames, records)
        self.record += count
        if not count and (damage or self._window.damage):
            where = f"offset {self._window.offset}" + (" of its content" if self._octets.compressed else "")
            self.damage = f"damaged at {where}: {self._window.damage or damage}; read up to there"
        return count

    def close(self) -> None:
        """Closes the file; its window can be used for another."""
        self._octets.close()


def _recognise(window: Window) -> _Format:
    window.fill(32)
    start = window.octets[: window.end][:8].tobytes()
    if not start:
        raise Unreadable(window.damage or "is empty")
    for magic, name in _NAMES:
        if start.startswith(magic):
            raise Unreadable(f"is {name}, not a pcap, pcapng or snoop capture")
    if len(start) < 8:
        raise Unreadable(window.damage or "ends inside its file header")
    if start.startswith(SECTION_MAGIC):
        return open_pcapng(window)
    if start == b"snoop\0\0\0":
        return open_snoop(window)
    return open_pcap(window)


class Scan(NamedTuple):
    """What one quick pass over the record headers of a file finds.

    Attributes:
        spans: `SPAN[n]`, in the order of the file.
        states: What the file needs to read on at a span, by `span["state"]`.
        damage: What broke it off, empty if nothing did.
        drops: Packets that interfaces say they dropped.
    """

    spans: np.ndarray
    states: list[object]
    damage: str
    drops: int


def scan(file: CaptureFile, source: int) -> Scan:
    """Passes over the rest of `file`, which is number `source` of the input."""
    frames, records = np.zeros(SPAN_PACKETS, FRAME), np.zeros(SPAN_PACKETS, np.int64)
    spans: list[np.ndarray] = []
    states: list[object] = [file.state()]
    span = _begin_span(file, source, 0)
    while count := file.index(frames[: SPAN_PACKETS - int(span["packets"][0])], records):
        _extend(span, frames, count)
        if span["packets"][0] == SPAN_PACKETS:
            span["stop"] = file.offset
            spans.append(span)
            state = file.state()
            if state is not None:
                states.append(state)
            span = _begin_span(file, source, len(states) - 1)
    if span["packets"][0]:
        span["stop"] = file.offset
        spans.append(span)
    found = np.concatenate(spans) if spans else np.zeros(0, SPAN)
    _place_timeless(found)
    return Scan(found, states, file.damage, file.drops)


def _place_timeless(spans: np.ndarray) -> None:
    """Spans of which no packet has a usable time go behind what is before them in the file."""
    for i in np.flatnonzero(spans["first_ns"] > spans["last_ns"]).tolist():
        later = spans["first_ns"][i:][spans["first_ns"][i:] <= spans["last_ns"][i:]]
        time_ns = spans["last_ns"][i - 1] if i else later[0] if len(later) else 0
        spans["first_ns"][i] = spans["last_ns"][i] = time_ns


def _begin_span(file: CaptureFile, source: int, state: int) -> np.ndarray:
    span = np.zeros(1, SPAN)
    span["start"], span["record"] = file.offset, file.record
    span["source"], span["state"], span["in_order"] = source, state, 1
    span["first_ns"], span["last_ns"] = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    return span


@kernel
def _extend(spans, frames, count):
    """Adds the first `count` frames to a span; one without a usable time has no place in an order."""
    span = spans[0]
    first, last, in_order = span.first_ns, span.last_ns, span.in_order
    for i in range(count):
        if not frames[i].damaged:
            time_ns = frames[i].time_ns
            if time_ns < last:
                in_order = 0
            first = min(first, time_ns)
            last = max(last, time_ns)
    span.first_ns, span.last_ns, span.in_order = first, last, in_order
    span.packets += count

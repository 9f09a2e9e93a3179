"""Reading the spans of one sensor's input in order of time: streamed where possible, merged where they overlap."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np

from sources.capture_file import SPAN_PACKETS, CaptureFile, Scan
from sources.octets import Unreadable
from sources.rows import Batches, PacketParser, RowBuffer, Rows, in_order_of_time, joined
from sources.spans import SpanOrder
from sources.window import Window
from transforms.records import PacketBatch

OPEN_FILES = 64
_LOADED_TOGETHER = 8


class SpanSource(Protocol):
    """Something that rows are read from: `go_to` spans that follow one another, then `fill` until that is done."""

    def go_to(self, spans: np.ndarray) -> None:
        """Reads on at the first of `spans`, up to the end of the last."""

    def fill(self, rows: RowBuffer) -> bool:
        """Adds some of their packets to free room of `rows`; False once there are no more."""

    def close(self) -> None:
        """Gives back file and memory; `go_to` opens it again."""


class FileSource:
    """A capture file as a source of rows. One that cannot seek is read once, from front to back."""

    def __init__(self, path: str, found: Scan, seekable: bool, window: Window, parser: PacketParser) -> None:
        self._path = path
        self._states = found.states
        self._packets = int(found.spans["packets"].sum())
        self._seekable = seekable
        self._shared = window
        self._parser = parser
        self._file: CaptureFile | None = None
        self._left = 0
        self._changed = False

    def go_to(self, spans: np.ndarray) -> None:
        """See `SpanSource`."""
        self._left = int(spans["packets"].sum())
        if self._file is None:
            try:
                self._file = CaptureFile(self._path, self._shared if self._seekable else Window())
            except Unreadable as reason:
                self._report_change(str(reason))
                return
        if self._seekable:
            self._file.go_to(spans[0], self._states[int(spans[0]["state"])], int(spans[-1]["stop"]))

    def fill(self, rows: RowBuffer) -> bool:
        """See `SpanSource`."""
        if not self._left or self._file is None:
            return False
        count = self._parser.fill(self._file, self._path, rows, min(self._left, SPAN_PACKETS))
        self._left -= count
        if not count:
            self._report_change(f"ends before packet {self._file.record}")
        elif not self._seekable and self._file.record >= self._packets:
            self.close()
        return count > 0

    def _report_change(self, what: str) -> None:
        self._left = 0
        if not self._changed:
            self._parser.report.damage.append(f"{self._path}: {what}; it changed while it was read")
        self._changed = True

    def close(self) -> None:
        """See `SpanSource`."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_in_order(
    order: SpanOrder, sources: Mapping[int, SpanSource], one_way: Collection[int], batches: Batches
) -> Iterator[PacketBatch]:
    """Batches of the packets of all spans, by (time, file, place in the file).

    Args:
        order: The spans of all files.
        sources: What to read them from, by `span["source"]`.
        one_way: Those of the sources that cannot be opened a second time.
        batches: What makes batches of the rows.
    """
    opened = _OpenSources(sources, one_way)
    for cluster in order.clusters():
        spans = order.spans[cluster]
        if order.is_stream(cluster):
            source = opened.go_to(spans)
            while source.fill(batches.rows):
                yield from batches.full()
        else:
            yield from _merge(spans, opened, batches)
    yield from batches.rest()


class _OpenSources:
    """The sources in use; of those that can be opened again at any place, the last `OPEN_FILES` stay open."""

    def __init__(self, sources: Mapping[int, SpanSource], one_way: Collection[int]) -> None:
        self._sources = sources
        self._one_way = one_way
        self._open: OrderedDict[int, SpanSource] = OrderedDict()

    def go_to(self, spans: np.ndarray) -> SpanSource:
        number = int(spans[0]["source"])
        source = self._sources[number]
        source.go_to(spans)
        if number not in self._one_way:
            self._open[number] = source
            self._open.move_to_end(number)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        return source


class _Loaded(NamedTuple):
    """A span in memory: its place among packets of one time, and its rows in order."""

    place: tuple[int, int, int]
    rows: Rows


def _merge(spans: np.ndarray, opened: _OpenSources, batches: Batches) -> Iterator[PacketBatch]:
    held: list[_Loaded] = []
    for at in range(0, len(spans), _LOADED_TOGETHER):
        for i in range(at, min(at + _LOADED_TOGETHER, len(spans))):
            span = spans[i]
            source = opened.go_to(spans[i : i + 1])
            rows = load(source, int(span["packets"]), bool(span["in_order"]), batches.payload_octets)
            held.append(_Loaded(_place(span), rows))
        held.sort(key=lambda loaded: loaded.place)
        following = spans[at + _LOADED_TOGETHER] if at + _LOADED_TOGETHER < len(spans) else None
        ready, held = _release(held, following)
        yield from batches.add(ready)


def _place(span: np.void) -> tuple[int, int, int]:
    return int(span["source"]), int(span["part"]), int(span["start"])


def _release(held: list[_Loaded], following: np.void | None) -> tuple[Rows, list[_Loaded]]:
    """Rows that precede all of the span that is loaded next, merged; and what still waits."""
    ready, waiting = [], []
    for loaded in held:
        times = loaded.rows.packets["time_ns"]
        until = len(times)
        if following is not None:
            side: Literal["left", "right"] = "right" if loaded.place < _place(following) else "left"
            until = int(np.searchsorted(times, following["first_ns"], side))
        if until:
            ready.append(loaded.rows.part(0, until))
        if until < len(times):
            waiting.append(_Loaded(loaded.place, loaded.rows.part(until, len(times))))
    return in_order_of_time(joined(ready)), waiting


def load(source: SpanSource, count: int, in_order: bool, payload_octets: int) -> Rows:
    """The rows of the spans that `source` is at, in order of time."""
    buffer = RowBuffer(count, payload_octets)
    while source.fill(buffer):
        pass
    rows = buffer.take()
    return rows if in_order else in_order_of_time(rows)

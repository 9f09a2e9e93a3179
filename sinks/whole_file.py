"""Outputs that are one file: each bundle writes a hidden part, a last step makes the file of the parts.

So the file appears at once and whole, however many bundles there are and whichever of them are repeated.
"""

import abc
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sinks import places
from sinks.background import Background
from transforms.records import InputError, Reject


def check_ends(named: str, endless: bool) -> None:
    """Refuses a file that would never be whole.

    Raises:
        InputError: The job's input is endless.
    """
    if endless:
        raise InputError(f"{named}: is written when the input ends; for endless input choose parquet:DIR")


class WholeFile(abc.ABC):
    """How a kind of file is made of flows.

    Attributes:
        named: The output, for messages; its scheme is the namespace of the counters.
        place: The file.
        counter: Name of the counter of its records.
    """

    def __init__(self, named: str, place: Path, counter: str = "flows_written") -> None:
        self.named = named
        self.place = place
        self.counter = counter

    @abc.abstractmethod
    def write_part(self, part: Path, batches: Iterator[pa.RecordBatch]) -> None:
        """Writes the batches to a new file `part`. Runs in a thread of its own."""

    @abc.abstractmethod
    def join(self, parts: list[Path], fresh: Path) -> None:
        """Makes the file of `parts`, perhaps none, in their order; the place changes at once or not at all.

        Args:
            parts: What bundles wrote. They need not outlive the call.
            fresh: A hidden name that is free, beside the place.
        """

    def chosen(self, flows: pa.RecordBatch) -> pa.RecordBatch:
        """Those of `flows` that belong in the file."""
        return flows


class WriteWholeFile(beam.PTransform):
    """Writes flows to one file, which appears when the input has ended.

    Input: record batches of one schema, bounded. Output: no rejects. Records stand in the order of arrival within a
    bundle; of several bundles, in that of their earliest flows.
    """

    def __init__(self, file: WholeFile, job: str) -> None:
        super().__init__()
        self.file = file
        self.job = job

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that writes parts and the one that joins them.

        Raises:
            InputError: The input never ends.
        """
        check_ends(self.file.named, not flows.is_bounded)
        parts = flows | "WriteParts" >> beam.ParDo(_WritePart(self.file, self.job))
        once = flows.pipeline | "Once" >> beam.Impulse()
        return once | "JoinParts" >> beam.ParDo(_JoinParts(self.file, self.job), parts=beam.pvalue.AsList(parts))


class Part(NamedTuple):
    """What one bundle wrote.

    Attributes:
        start_ns: First start of its flows.
        flow_id: The smallest id, where two parts start together.
        path: The hidden file.
    """

    start_ns: int
    flow_id: bytes
    path: str


class _WritePart(beam.DoFn):
    def __init__(self, file: WholeFile, job: str) -> None:
        self._file = file
        self._job = job
        self._path: Path | None = None
        self._background: Background[None] | None = None
        self._first = (0, b"")
        scheme = file.named.partition(":")[0]
        self._records_written = Metrics.counter(scheme, file.counter)
        self._block_ms = Metrics.distribution(scheme, "block_ms")

    def start_bundle(self) -> None:
        self._abandon()

    def process(self, flows: pa.RecordBatch) -> None:
        flows = self._file.chosen(flows)
        if not len(flows):
            return
        with places.one_line(self._file.named, self._file.place):
            if self._background is None:
                self._background = self._started(_first(flows))
            self._background.put(flows)
        self._rows += len(flows)
        self._first = min(self._first, _first(flows))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._background is None:
            return
        with places.one_line(self._file.named, self._file.place):
            self._background.finish()
        part = Part(self._first[0], self._first[1], str(self._path))
        self._records_written.inc(self._rows)
        for milliseconds in self._milliseconds:
            self._block_ms.update(milliseconds)
        self._background = self._path = None  # the part is the last step's now
        yield WindowedValue(part, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def teardown(self) -> None:
        self._abandon()

    def _started(self, first: tuple[int, bytes]) -> Background[None]:
        self._path = path = places.partial(self._file.place, self._job)
        self._milliseconds: list[int] = []
        self._rows = 0
        self._first = first
        return Background(lambda batches: self._file.write_part(path, _timed(batches, self._milliseconds)))

    def _abandon(self) -> None:
        if self._background is not None:
            self._background.abandon()
            self._background = None
        if self._path is not None:
            places.remove(self._path)
            self._path = None


def _timed(batches: Iterable[pa.RecordBatch], milliseconds: list[int]) -> Iterator[pa.RecordBatch]:
    """The batches; notes how long the receiver was busy with each."""
    for batch in batches:
        start = time.perf_counter()
        yield batch
        milliseconds.append(round((time.perf_counter() - start) * 1000))


def _first(flows: pa.RecordBatch) -> tuple[int, bytes]:
    starts = flows["flow_start_ns"].to_numpy()
    row = int(starts.argmin())
    return int(starts[row]), flows["flow_id"][row].as_py()


class _JoinParts(beam.DoFn):
    def __init__(self, file: WholeFile, job: str) -> None:
        self._file = file
        self._job = job
        self._octets_written = Metrics.counter(file.named.partition(":")[0], "octets_written")

    def process(self, _: bytes, parts: list[Part]) -> Iterator[Reject]:
        with places.one_line(self._file.named, self._file.place):
            self._file.join([Path(part.path) for part in sorted(parts)], places.partial(self._file.place, self._job))
            places.remove_partial(self._file.place, self._job)  # of bundles that were repeated
            if self._file.place.exists():
                self._octets_written.inc(self._file.place.stat().st_size)
        return iter(())

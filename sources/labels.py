"""Labels that come back, as Beam reads them: the files there are, or those of a folder for ever."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import PickleCoder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.core import RestrictionProvider

from sources.label_files import find_label_files, label_files_in, read_labels
from sources.streaming.reading_tracker import Reading, ReadingTracker, Step
from transforms.records import InputError, Reject

Rejected: TypeAlias = TaggedOutput[Literal["rejects"], Reject]

POLL_S, IDLE_S = 0.2, 1.0
"""A folder is looked at so often, and a reader looks so long before others may work in its place."""

SETTLED_S = 2.0
"""A file is read when nobody has written to it for so long: it is whole then."""

REJECT_FILE = "unreadable_label_file"

_log = logging.getLogger(__name__)


class Labels(NamedTuple):
    """What reading them gives.

    Attributes:
        labels: Record batches of `label_files.LABELS`.
        rejects: Rows and files that are none.
    """

    labels: beam.PCollection[pa.RecordBatch]
    rejects: beam.PCollection[Reject]


class ReadLabels(beam.PTransform):
    """Reads labels of flows.

    Output: `Labels`. Files that are there are read in the order of their names. Of a folder that is watched each file
    is read once, under its name, when nobody has written to it for 2 s: put whole ones there. A file that cannot be
    read ends a bounded job; one that is found while watching is rejected.

    Args:
        place: File, folder or pattern.
        column: Name of the column that has the label.
        watch: Files that come to the folder are read, too.

    Raises:
        InputError: There is nothing to read, or what is to be watched is no folder.
    """

    def __init__(self, place: str, column: str = "label", watch: bool = False) -> None:
        super().__init__()
        self._place = Path(place).expanduser().absolute()
        self._column, self._watch = column, watch
        if watch and not self._place.is_dir():
            raise InputError(
                f"--returned_labels {place}: is no folder; on endless input, name the folder that labels come to"
            )
        self._files = [] if watch else find_label_files(place)

    def expand(self, pipeline):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        if self._watch:
            read = beam.ParDo(_WatchFn(self._column))
            begin = pipeline | "Folder" >> beam.Create([str(self._place)], reshuffle=False)
        else:
            read = beam.ParDo(_ReadFn(self._column))
            begin = pipeline | "Files" >> beam.Create([list(map(str, self._files))], reshuffle=False)
        outputs = begin | "Read" >> read.with_outputs("rejects", main="labels")
        return Labels(outputs["labels"], outputs["rejects"])


class _Reading(beam.DoFn):
    def __init__(self, column: str) -> None:
        self._column = column
        self._read = Metrics.counter("drift", "labels_read")

    def _labels(self, path: str) -> Iterator[pa.RecordBatch | Rejected]:
        for labels, rejects in read_labels(Path(path), self._column):
            self._read.inc(len(labels))
            if len(labels):
                yield labels
            for reject in rejects:
                yield TaggedOutput("rejects", reject)


class _ReadFn(_Reading):
    def process(self, paths: list[str]) -> Iterator[pa.RecordBatch | Rejected]:
        for path in paths:
            yield from self._labels(path)


class _FolderReadings(RestrictionProvider):
    """A folder is one restriction: the names that were read, of files that are still there."""

    def initial_restriction(self, folder: str) -> Reading:
        return Reading(set())

    def create_tracker(self, restriction: Reading) -> ReadingTracker:
        return ReadingTracker(restriction)

    def restriction_size(self, folder: str, restriction: Reading) -> int:
        return 1

    def restriction_coder(self) -> PickleCoder:
        return PickleCoder()

    def truncate(self, folder: str, restriction: Reading) -> None:
        """A job that is drained reads nothing more."""


class _WatchFn(_Reading):
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        folder: str,
        tracker: Any = beam.DoFn.RestrictionParam(_FolderReadings()),  # noqa: B008 - Beam's way
    ) -> Iterator[pa.RecordBatch | Rejected]:
        known: set[str] = tracker.current_restriction().progress
        until_s = time.monotonic() + IDLE_S
        while not (new := _settled(folder, known)) and time.monotonic() < until_s:
            time.sleep(POLL_S)
        for name in new:
            if not tracker.try_claim(Step(partial(_read, name))):
                return
            path = str(Path(folder, name))
            try:
                yield from self._labels(path)
            except InputError as error:
                _log.warning("%s", error)
                yield TaggedOutput("rejects", Reject("labels", REJECT_FILE, path, None, str(error).encode()))
        if tracker.try_claim(Step(partial(_forget, _gone(folder, known)))):
            tracker.defer_remainder()


def _read(name: str, names: set[str]) -> None:
    names.add(name)


def _forget(gone: set[str], names: set[str]) -> None:
    names -= gone


def _gone(folder: str, known: set[str]) -> set[str]:
    """Names whose files were taken away; none while nothing is there, as where a disk is not mounted."""
    try:
        there = set(os.listdir(folder))
    except OSError:
        return set()
    return known - there if there else set()


def _settled(folder: str, known: set[str]) -> list[str]:
    """The names of new files that are whole."""
    new = []
    with contextlib.suppress(OSError):  # a file or the folder is gone; it may come back
        for path in label_files_in(Path(folder)):
            if path.name not in known and time.time() - path.stat().st_mtime >= SETTLED_S:
                new.append(path.name)
    return new

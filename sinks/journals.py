"""Files of a job that does not end: records are safe in journals at once, and in files of some size within a while.

Each process that writes keeps one journal (`sinks/journal.py`) for each folder, and a thread that makes files of it
when it is old or large: so the last records of a line that went quiet appear, too. The thread also completes journals
that other processes, now dead, left in the folder. A runner may repeat a bundle after a failure; its records are then
there twice, as the same records.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from sinks import places
from sinks.journal import Journal
from sinks.record_files import RecordFiles, adopt, complete
from transforms.records import InputError

_log = logging.getLogger(__name__)

JOURNAL_OCTETS = 128 << 20
"""A journal of this size is completed, however young it is."""

FULL_WAITING = 2
"""Journals that may wait for the thread before the pipeline does."""

LOOK_S = 5.0
"""How often the thread looks for journals that dead processes left."""

COMBINED_ROWS = 1024
"""Batches of fewer records are joined up to about so many: one of 200 columns takes 60 KB before its first row."""

_ENDING_S = 10.0
"""How long a bundle that came too late waits before it fails: by then its process has ended, and nobody is told."""

_RETRY_S = (1.0, 30.0)
_PART_OF_AGE = 0.9


class Stopped(Exception):
    """The job is ending, and this bundle came after its files were completed."""


class Journals:
    """What this process keeps of one folder: a journal that grows, full ones, and the thread that completes them.

    Args:
        files: How files are made.
        job: The job's name.
        max_age_s: Records are in a file this long after they came.
    """

    def __init__(self, files: RecordFiles, job: str, max_age_s: float) -> None:
        self.files = files
        self.job = job
        self._max_age_s = max_age_s
        self._changed = threading.Condition()
        self._open: Journal | None = None
        self._due = 0.0
        self._full: deque[Journal] = deque()
        self._failure: Exception | None = None
        self._backoff_s = _RETRY_S[0]
        self._retry_at = 0.0
        self._closed = False
        self._completed = Counter[str]()
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name=f"files of {files.named}", daemon=True)
        self._thread.start()

    def append(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Makes the records outlive the process; waits while the thread is behind.

        Args:
            batches: Of one schema.

        Raises:
            InputError: The folder cannot be written; none of the records were taken.
            Stopped: The job's files are complete already.
        """
        combined = list(_combined(batches))
        if not combined:
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._full) < FULL_WAITING or self._failure or self._closed)
            if self._closed:
                self._changed.wait(_ENDING_S)
                raise Stopped(f"{self.files.named}: the job is ending")
            if self._failure and len(self._full) >= FULL_WAITING:
                raise self._failure
            with places.one_line(self.files.named, self.files.folder):
                if self._open is None or not self._open.fits(combined[0].schema):
                    self._fill()
                    self._open = Journal.create(self.files.folder, self.job, combined[0].schema)
                    self._due = time.monotonic() + _PART_OF_AGE * self._max_age_s
                    self._changed.notify_all()
                self._open.append(combined)
            if self._open.octets >= JOURNAL_OCTETS:
                self._fill()

    def completed(self) -> Counter[str]:
        """What was completed since the last call: `files_written`, `octets_written`."""
        with self._changed:
            completed, self._completed = self._completed, Counter()
        return completed

    def close(self) -> None:
        """Completes what there is, and refuses what comes later.

        Raises:
            InputError: A file cannot be written. The records stay in their journals, for whoever adopts them.
        """
        with self._changed:
            self._closed = True
            self._fill()
            self._retry_at = 0.0
            self._changed.notify_all()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _fill(self) -> None:
        """The open journal counts as full from now on."""
        if self._open is not None:
            self._full.append(self._open)
            self._open = None
            self._changed.notify_all()

    def _run(self) -> None:
        look_at = 0.0
        while True:
            with self._changed:
                while not self._is_due(look_at):
                    self._changed.wait(self._until_due(look_at))
                if self._open is not None and time.monotonic() >= self._due:
                    self._fill()
                full = self._full[0] if self._full and time.monotonic() >= self._retry_at else None
                closed = self._closed
            if full is not None:
                self._complete(full)
            if closed and (not self._full or self._failure):
                break
            if time.monotonic() >= look_at:
                self._adopt()
                look_at = time.monotonic() + LOOK_S
        for journal in self._full:
            journal.release()

    def _is_due(self, look_at: float) -> bool:
        return self._closed or self._until_due(look_at) <= 0

    def _until_due(self, look_at: float) -> float:
        times = [look_at]
        if self._open is not None:
            times.append(self._due)
        if self._full:
            times.append(self._retry_at)
        return min(times) - time.monotonic()

    def _complete(self, journal: Journal) -> None:
        try:
            completed = complete(journal, self.files)
        except Exception as error:  # raised to whoever appends when nothing more may wait, and tried again until then
            self._complain(error)
            with self._changed:
                self._failure = error
                self._retry_at = time.monotonic() + self._backoff_s
                self._backoff_s = min(2 * self._backoff_s, _RETRY_S[1])
                self._changed.notify_all()
            return
        with self._changed:
            self._full.popleft()
            self._failure = None
            self._backoff_s = _RETRY_S[0]
            self._completed += completed
            self._changed.notify_all()

    def _adopt(self) -> None:
        try:
            completed = adopt(self.files)
        except Exception as error:  # they stay where they are, and are tried again
            self._complain(error)
            return
        with self._changed:
            self._completed += completed

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            _log.warning("%s; trying again", error)


_kept: dict[tuple[Path, str], tuple[Journals, int]] = {}
"""What this process keeps, and how many steps use it."""

_closing: list[Journals] = []
"""Those that no step needs any more, while they are being completed."""

_ended: set[str] = set()
_keeping = threading.Lock()


def keep(files: RecordFiles, job: str, max_age_s: float) -> Journals:
    """The journals of a folder, for one more step of this process.

    Raises:
        Stopped: The job's files are complete already.
    """
    with _keeping:
        if job in _ended:
            raise Stopped(f"{files.named}: the job is ending")
        journals, users = _kept.get((files.folder, job), (None, 0))
        journals = journals or Journals(files, job, max_age_s)
        _kept[files.folder, job] = journals, users + 1
    return journals


def give_back(journals: Journals) -> None:
    """A step needs the journals no more; after the last one they are completed."""
    key = (journals.files.folder, journals.job)
    with _keeping:
        kept, users = _kept.get(key, (None, 0))
        if kept is not journals:
            return
        if users > 1:
            _kept[key] = journals, users - 1
            return
        del _kept[key]
        _closing.append(journals)
    try:
        journals.close()
    except InputError as error:
        _log.warning("%s; the records wait in a hidden file there, for the next job", error)
    finally:
        with _keeping:
            _closing.remove(journals)


def end(job: str) -> None:
    """Completes everything that this process keeps of the job. What comes later is refused: such a bundle fails.

    Raises:
        InputError: A folder cannot be written; all others are complete. Its records wait there, for the next job.
    """
    with _keeping:
        _ended.add(job)
        ending = [key for key in _kept if key[1] == job]
        several = [_kept.pop(key)[0] for key in ending]
        several += [journals for journals in _closing if journals.job == job]  # by a thread that nothing waits for
    failures = []
    for journals in several:
        try:
            journals.close()
        except InputError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _combined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    small: list[pa.RecordBatch] = []
    for batch in batches:
        if len(batch) >= COMBINED_ROWS:
            yield batch
        elif len(batch):
            small.append(batch)
            if sum(map(len, small)) >= COMBINED_ROWS:
                yield _joined(small)
                small = []
    if small:
        yield _joined(small)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (joined,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined

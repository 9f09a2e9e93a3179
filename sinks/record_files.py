"""How journals of records become files of a folder, whoever left them there."""

import abc
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sinks import places
from sinks.journal import Journal, left_in, parts_of


class Written(NamedTuple):
    """A file under its hidden name.

    Attributes:
        hidden: Where it is.
        name: Its path in the folder once it is whole.
        rows: Records in it.
        octets: Its size.
    """

    hidden: Path
    name: Path
    rows: int
    octets: int


class RecordFiles(abc.ABC):
    """How records become the files of a folder.

    Attributes:
        named: The output, for messages.
        folder: Where the files go.
    """

    def __init__(self, named: str, folder: Path) -> None:
        self.named = named
        self.folder = Path(os.path.abspath(folder))

    @abc.abstractmethod
    def write(self, batches: Iterator[pa.RecordBatch], stem: str, hidden: Path) -> Iterator[Written]:
        """Writes files of one journal's records.

        Args:
            batches: Record batches of one schema, many small ones perhaps; it may turn out that there are none.
            stem: What the names of the files, once they are whole, begin with. The same records give the same names.
            hidden: What the hidden names begin with.
        """


def complete(journal: Journal, files: RecordFiles) -> Counter[str]:
    """Makes files of a journal and removes it; returns `files_written` and `octets_written`.

    Raises:
        InputError: The folder cannot be written. The journal is still there, and locked.
    """
    done = Counter[str]()
    hidden = journal.path.with_name(f"{journal.path.name}.part-")
    with places.one_line(files.named, files.folder):
        files.folder.mkdir(parents=True, exist_ok=True)
        places.remove(hidden)  # of a process that was killed at it
        try:
            for file in list(files.write(journal.batches(), journal.stem, hidden)):
                with open(file.hidden, "rb") as written:
                    os.fsync(written.fileno())  # what has its name is whole, even if the machine stops
                whole = files.folder / file.name
                whole.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file.hidden, whole)
                done.update(files_written=1, octets_written=file.octets)
        except BaseException:
            places.remove(hidden)
            raise
        journal.remove()
    return done


def adopt(files: RecordFiles) -> Counter[str]:
    """Completes every journal in the folder whose process is dead.

    Raises:
        InputError: The folder cannot be read or written. All journals were tried.
    """
    done = Counter[str]()
    failures = []
    with places.one_line(files.named, files.folder):
        left = left_in(files.folder)
    for path in left:
        try:
            with places.one_line(files.named, files.folder):
                journal = Journal.adopt(path)
            if journal is not None:
                done += _completed_or_released(journal, files)
        except Exception as error:  # the others need not wait for this one
            failures.append(error)
    if failures:
        raise failures[0]
    return done


def _completed_or_released(journal: Journal, files: RecordFiles) -> Counter[str]:
    try:
        return complete(journal, files)
    except BaseException:
        journal.release()
        raise


def wait_for_others(several: Iterable[RecordFiles], job: str, wait_s: float) -> int:
    """Completes the journals of the job's other processes as these end.

    Args:
        several: Where to look.
        job: The job's name.
        wait_s: How long to wait for processes to end.

    Returns:
        How many journals are left, of processes that still live: they complete them when they are old.

    Raises:
        InputError: A folder cannot be read or written.
    """
    until = time.monotonic() + wait_s
    while True:
        left = 0
        for files in several:
            adopt(files)
            left += sum(parts_of(path)[0] == places.as_name(job) for path in left_in(files.folder))
        if not left or time.monotonic() >= until:
            return left
        time.sleep(min(0.1, wait_s))

"""A hidden file in which records wait until there are enough of them for one that people read.

    .flows.journal-5f0c91a2b3c4d5e6-20261121T130501-9e107d9d372bb682    name of the folder, job, UTC time, token

A runner of an endless job takes a bundle for written as soon as it is finished, many times a second. So its records are
appended here first, as an Arrow IPC stream, by one write each: from then on they outlive the process, `kill -9`
included, though not the machine. A journal is locked (flock) as long as its process lives. One whose lock is free was
left behind, and whoever locks it completes it; what an unfinished write left at its end was in no finished bundle.
"""

import fcntl
import logging
import mmap
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa

from sinks import places

_log = logging.getLogger(__name__)

_NAME = re.compile(r"\..+\.journal-(?P<job>[A-Za-z0-9_-]+)-(?P<stem>\d{8}T\d{6}-[0-9a-f]{16})", re.DOTALL)

_held: set[Path] = set()
"""Journals of this process. On some network file systems a lock does not keep its own process out."""

_choosing = threading.Lock()
_CLOSED = -1


class Journal:
    """A journal whose lock this process holds; `create` and `adopt` make it.

    Attributes:
        path: The hidden file.
        stem: Time and token: what the files made of it are named after, so that a repetition replaces them.
        octets: How long it is.
    """

    def __init__(self, path: Path, file: int, schema: pa.Schema | None) -> None:
        self.path = path
        self.stem = parts_of(path)[1]
        self.octets = os.fstat(file).st_size
        self._file = file
        self._schema = schema
        self._adopted = schema is None

    @classmethod
    def create(cls, folder: Path, job: str, schema: pa.Schema) -> "Journal":
        """A new journal in `folder`, which is made if it is missing.

        Raises:
            OSError: It cannot be written or locked.
        """
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            stem = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"
            path = folder / f".{folder.name}.journal-{places.as_name(job)}-{stem}"
            journal = cls._locked(path, os.O_CREAT | os.O_EXCL | os.O_APPEND, schema)
            if journal is None:  # whoever looks for journals left behind was quicker, and removes it
                continue
            try:
                journal._write(schema.serialize())
            except BaseException:
                journal.remove()
                raise
            return journal

    @classmethod
    def adopt(cls, path: Path) -> "Journal | None":
        """The journal at `path`; None while its process lives, or if it is there no more."""
        try:
            return cls._locked(path, 0, None)
        except FileNotFoundError:
            return None

    @classmethod
    def _locked(cls, path: Path, flags: int, schema: pa.Schema | None) -> "Journal | None":
        with _choosing:
            if path in _held:
                return None
            _held.add(path)
        file = _CLOSED
        try:
            file = os.open(path, os.O_RDWR | flags, 0o666)
            if _lock(file):
                return cls(path, file, schema)
        except BaseException:
            _let_go(path, file)
            raise
        _let_go(path, file)
        return None

    def fits(self, schema: pa.Schema) -> bool:
        """Whether records of `schema` can be appended."""
        return self._schema is not None and self._schema.equals(schema)

    def append(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Appends all of the batches or, where that fails, nothing.

        Raises:
            OSError: They cannot be written; the journal stays as it was.
        """
        before = self.octets
        try:
            for batch in batches:
                self._write(batch.serialize())
        except BaseException:
            os.ftruncate(self._file, before)
            self.octets = before
            raise

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What was appended. An unfinished write at the end is left out."""
        if not self.octets:
            return
        octets = pa.py_buffer(mmap.mmap(self._file, self.octets, access=mmap.ACCESS_READ))
        reader = pa.BufferReader(octets)
        whole = 0
        try:
            stream = pa.ipc.open_stream(reader)
            whole = reader.tell()
            for batch in stream:
                if self._adopted:
                    batch.validate(full=True)  # the machine, too, may have stopped
                whole = reader.tell()
                yield batch
        except (pa.ArrowInvalid, OSError) as error:
            if not self._adopted:
                raise
            _log.debug("%s: %s", self.path.name, error)
        if self._adopted and whole < self.octets:
            cut = self.octets - whole
            _log.warning("%s: the last %d octets are of an unfinished write and left out", self.path, cut)

    def release(self) -> None:
        """Gives the lock up: whoever adopts the journal completes it."""
        if self._file != _CLOSED:
            _let_go(self.path, self._file)
            self._file = _CLOSED

    def remove(self) -> None:
        """Removes the file, and gives the lock up."""
        self.path.unlink(missing_ok=True)
        self.release()

    def _write(self, message: pa.Buffer) -> None:
        rest = memoryview(message)
        while rest:
            written = os.write(self._file, rest)
            self.octets += written
            rest = rest[written:]


def left_in(folder: Path) -> list[Path]:
    """Journals in `folder` that are not this process's own, whether their process lives or not."""
    if not folder.is_dir():
        return []
    paths = (folder / name for name in os.listdir(folder) if _NAME.fullmatch(name))
    return sorted(path for path in paths if path not in _held)


def parts_of(path: Path) -> tuple[str, str]:
    """Job and stem in a journal's name."""
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return found["job"], found["stem"]


def _let_go(path: Path, file: int) -> None:
    if file != _CLOSED:
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a mapping of the file, too, holds the lock
        os.close(file)
    _held.discard(path)


def _lock(file: int) -> bool:
    """Locks the file, unless another does, or removed it just now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file).st_nlink > 0

"""Files that are read again when they have changed, while what was read before serves."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from transforms.records import InputError

_log = logging.getLogger(__name__)

T = TypeVar("T")

Signature = tuple[tuple[str, int, int, int], ...]


class Watched(Generic[T]):
    """What was last read from files, or from the files of folders.

    A changed file is read when two looks in a row find it the same: a list that is half written looks like a whole
    one. Where it cannot be used, what was read before stays, with one warning for each change.

    Attributes:
        value: What the last usable state of the files gave.
        outdated: Whether the files are there in a newer state that cannot be used, or are gone.

    Args:
        paths: The files and folders.
        load: Makes the value; raises InputError if it cannot.

    Raises:
        InputError: The first state cannot be used.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._paths = paths
        self._load = load
        self._read = self._seen = self._state()
        self._refused: Signature | None = None
        self.value: T = load()
        self.outdated = False

    def look(self) -> bool | None:
        """Looks at the files, and reads them if they have changed and rest.

        Returns:
            True if there is a new value, False if the new state cannot be used, None if there is nothing new.
        """
        state = self._state()
        rests, self._seen = state == self._seen, state
        if state == self._read:
            self.outdated, self._refused = False, None
            return None
        if not rests or state == self._refused:
            return None
        try:
            value = self._load()
        except InputError as error:
            _log.warning("%s; what was read before stays in use", error)
            self._refused, self.outdated = state, True
            return False
        if self._state() != state:
            return None
        self.value, self._read, self._refused, self.outdated = value, state, None, False
        _log.info("%s: read again", ", ".join(map(str, self._paths)))
        return True

    def _state(self) -> Signature:
        return tuple(_signature(file) for path in self._paths for file in _files_of(path))


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of the folder in order of their names, hidden ones aside.

    Raises:
        OSError: It is a folder that cannot be read.
    """
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def _files_of(path: Path) -> list[Path]:
    try:
        return files_of(path)
    except OSError:  # a folder that cannot be read is one file that cannot
        return [path]


def _signature(file: Path) -> tuple[str, int, int, int]:
    try:
        status = file.stat()
    except OSError:
        return str(file), -1, -1, -1
    return str(file), status.st_mtime_ns, status.st_size, status.st_ino

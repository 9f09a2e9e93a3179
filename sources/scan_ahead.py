"""The pass over the record headers of a capture, begun before the job that reads it is there.

To build a job takes half a second in which one core waits; the pass over a gigabyte takes most of that.
"""

import os
import threading

from sources.capture_file import CaptureFile, Scan, scan
from sources.octets import Unreadable
from sources.window import Window


def begin(path: str) -> None:
    """Begins to scan a file in a thread; `taken` has what it finds."""
    _begun[path] = _Scanning(path)


def taken(path: str) -> Scan | None:
    """What the scan of a file that was begun in this process has found, as number 0 of its input; waits until it ends.

    None if there is none, or the file is no capture or not the same as when it began. Each is given once.
    """
    scanning = _begun.pop(path, None)
    return None if scanning is None else scanning.found()


class _Scanning:
    def __init__(self, path: str) -> None:
        self._path = path
        self._state = _state_of(path)
        self._found: Scan | None = None
        self._thread = threading.Thread(target=self._scan, name="scan", daemon=True)
        self._thread.start()

    def found(self) -> Scan | None:
        self._thread.join()
        return self._found if _state_of(self._path) == self._state else None

    def _scan(self) -> None:
        try:
            file = CaptureFile(self._path, Window())
        except Unreadable:  # who reads it tells why
            return
        try:
            self._found = scan(file, 0)
        finally:
            file.close()


_begun: dict[str, _Scanning] = {}


def _state_of(path: str) -> tuple[int, ...]:
    try:
        about = os.stat(path)
    except OSError:  # gone, and nothing was found
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns

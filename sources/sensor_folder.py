"""The folder in which sensors of a machine keep what outlives them."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

_NAME_MOST = 120


def default_folder() -> Path:
    """Where it is unless a person says so: what systemd gave the service, root's place, or the user's state."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    state = os.environ.get("XDG_STATE_HOME")
    if state is None and os.geteuid() == 0:
        return Path("/var/lib/flowbeam")
    return Path(state or os.path.expanduser("~/.local/state")) / "flowbeam"


def sensor_folder(folder: Path, sensor: str) -> Path:
    """The part of one sensor: it has the sensor's name, as far as file names allow."""
    name = quote(sensor, safe=" ").replace(".", "%2E") or "%"
    if len(name) > _NAME_MOST:
        name = f"{name[:100]}~{hashlib.blake2b(sensor.encode(), digest_size=8).hexdigest()}"
    return folder / name


class Epochs:
    """Gives epochs: the time, or more where the clock was ahead when an earlier one on this machine began.

    Args:
        folder: Where the last one is noted; where it cannot be, the clock is all there is.
        clock_ns: The time.
    """

    def __init__(self, folder: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder, self._clock_ns = folder, clock_ns
        self._last = 0

    def next(self) -> int:
        """An epoch larger than all before."""
        self._last = max(self._clock_ns(), self._last + 1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / "epoch", "a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                noted = file.read(32).strip()
                self._last = max(self._last, int(noted) + 1 if noted.isdecimal() else 0)
                file.truncate(0)
                file.write(str(self._last))
        except OSError:
            return self._last
        return self._last

"""Local places that sinks write to: checked when the pipeline is built, filled under hidden names."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transforms.records import InputError

_ADVICE = {
    errno.ENOSPC: "free room or choose another --output",
    errno.EDQUOT: "free room or choose another --output",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another --output",
    errno.EIO: "check the disk or choose another --output",
    errno.EACCES: "make it writable or choose another --output",
    errno.EPERM: "make it writable or choose another --output",
    errno.EROFS: "make it writable or choose another --output",
}

_OPTIONS = {"rejects": "--rejects", "sensors": "--sensor_events", "drift": "--drift", "unsent": "--unsent"}
"""What names a place that is no output."""


def local_path(named: str, path: str) -> Path:
    """The absolute path that an output names.

    Args:
        named: The output, for the message.
        path: As in its URL.

    Raises:
        InputError: It looks like a host, `scheme://place`, or is on object storage.
    """
    if is_remote(path):
        raise InputError(f"{named}: flows go to files of this machine, or where it is mounted; or write bigquery:TABLE")
    if path.startswith("//") and not path.startswith("///"):
        scheme = named.partition(":")[0]
        raise InputError(f"{named}: // is for hosts; write {scheme}:{path[2:]} or {scheme}:/{path[2:]}")
    return Path(os.path.abspath(os.path.expanduser(path)))


def is_remote(folder: str | os.PathLike[str]) -> bool:
    """Whether it is a URL such as `gs://BUCKET/FOLDER`, and no folder of this machine."""
    return "://" in os.fspath(folder)


def check_folder(named: str, folder: Path) -> None:
    """Refuses a folder that cannot be written, or not be made where it is missing.

    Raises:
        InputError: One line with the reason.
    """
    standing = folder
    while not os.path.lexists(standing):
        standing = standing.parent
    if not standing.is_dir():
        raise InputError(f"{named}: {standing} is not a folder; choose another {_option(named)}")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise InputError(f"{named}: cannot write in {standing}; make it writable or choose another {_option(named)}")


def check_file(named: str, file: Path) -> None:
    """Refuses a file whose folder is missing or cannot be written, and a folder in its stead.

    Raises:
        InputError: One line with the reason.
    """
    if file.is_dir():
        raise InputError(f"{named}: {file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise InputError(f"{named}: there is no folder {file.parent}; make it or choose another --output")
    check_folder(named, file.parent)


def partial(path: Path, job: str) -> Path:
    """A hidden name beside `path` for what becomes it when it is whole; no two calls give the same."""
    return path.with_name(f"{_partial_prefix(path, job)}{uuid.uuid4().hex[:12]}")


def partial_in(folder: Path, job: str) -> Path:
    """The same, in `folder`."""
    return partial(folder / folder.name, job)


def remove_partial(path: Path, job: str) -> None:
    """Removes what `job` left under hidden names beside `path` and, where it is a folder, in it."""
    for folder in (path.parent, path):
        remove(folder / _partial_prefix(path, job))


def remove(hidden: Path) -> None:
    """Removes what bears a hidden name, file or folder, and what a library put beside it under a longer one."""
    names = os.listdir(hidden.parent) if hidden.parent.is_dir() else []
    for path in (hidden.parent / name for name in names if name.startswith(hidden.name)):
        if path.is_dir():
            for _ in range(100):  # where a job is stopped, its threads may still be adding files
                shutil.rmtree(path, ignore_errors=True)
                if not path.exists():
                    break
        else:
            path.unlink(missing_ok=True)


def as_name(job: str) -> str:
    """The job's name as it can stand in the name of a file."""
    return re.sub("[^A-Za-z0-9_-]", "_", job)


@contextmanager
def one_line(named: str, place: Path) -> Iterator[None]:
    """Turns a failed write into the one line that a person can act on.

    Raises:
        InputError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(named, place, os.strerror(error.errno) if error.errno else str(error)) from error


def unwritable(named: str, place: Path, reason: str) -> InputError:
    """The error for a place that could not be written, in one line, with what to do about it."""
    known = known_reason(reason)
    if known is not None:
        advice = _ADVICE[known].replace("--output", _option(named))
        return InputError(f"{named}: cannot write {place}: {os.strerror(known)}; {advice}")
    reason = reason.strip().partition("\n")[0].rstrip(".")
    return InputError(f"{named}: cannot write {place}: {reason}; choose another {_option(named)}")


def known_reason(text: str) -> int | None:
    """The number of the system's error that a library's message quotes, if it is one that a person can act on."""
    return next((number for number in _ADVICE if os.strerror(number) in text), None)


def _option(named: str) -> str:
    return _OPTIONS.get(named, "--output")


def _partial_prefix(path: Path, job: str) -> str:
    return f".{path.name}.partial-{as_name(job)}-"

"""How kernels are compiled, and where the compiled code is kept.

numba keys its cache by the file that holds a function, not by the files of the functions that it calls. So the folder of a
module's compiled code is named by a hash of its source and of all our modules that it imports, directly or not: an
edited kernel is never met by stale machine code.
"""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba

_TOP = Path(__file__).parent.parent
_IMPORT = re.compile(rb"^(?:from|import) ((?:transforms|sources)[\w.]*)(?: import (\([^)]*\)|[^\n]*))?", re.MULTILINE)


@cache
def _source(path: Path) -> tuple[bytes, tuple[Path, ...]]:
    """A module's text, and the files of ours that it imports."""
    text = path.read_bytes()
    return text, tuple(file for found in _IMPORT.finditer(text) for file in _files(found[1].decode(), found[2] or b""))


def _files(module: str, names: bytes) -> Iterator[Path]:
    folder = _TOP.joinpath(*module.split("."))
    if folder.with_suffix(".py").exists():
        yield folder.with_suffix(".py")
    else:
        for name in re.findall(rb"\w+", names):
            file = folder / f"{name.decode()}.py"
            if file.exists():
                yield file


@cache
def digest(path: Path) -> str:
    """A hash of a module's source, of all our modules that it imports, and of numba's version."""
    seen: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen[file], imported = _source(file)
            waiting += imported
    hashed = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    for file in sorted(seen):
        hashed.update(seen[file])
    return hashed.hexdigest()


@cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: in the user's cache, or in a new private folder if that cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "flowbeam" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="flowbeam-kernels-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="flowbeam-kernels-"))


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function over blocks: cached on disk, the interpreter's lock released while it runs."""
    path = Path(function.__code__.co_filename)
    before = numba.config.CACHE_DIR
    if "NUMBA_CACHE_DIR" not in os.environ:
        numba.config.CACHE_DIR = str(cache_folder() / f"{path.stem}-{digest(path)}")
    try:
        dispatcher = numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before
    _save_in_turn(dispatcher)
    return dispatcher


def _save_in_turn(dispatcher: Any) -> None:
    """Lets one process at a time add to a kernel's cache: two that add at once would give their code one name."""
    save = dispatcher._cache.save_overload

    def save_alone(*arguments: Any) -> None:
        with open(cache_folder() / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(*arguments)

    dispatcher._cache.save_overload = save_alone

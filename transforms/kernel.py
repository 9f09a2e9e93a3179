"""How kernels are compiled, and where the compiled code is kept.

numba keys its cache by the file that holds a function, not by the files of the functions that it calls. So the folder
of the cache is named by a hash of all of our sources: an edited kernel is never met by stale machine code.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    top = Path(__file__).parent.parent
    for package in ("sources", "transforms"):
        for path in sorted((top / package).rglob("*.py")):
            digest.update(path.read_bytes())
    folder = Path(root) / "flowbeam" / f"kernels-{digest.hexdigest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # A home that cannot be written to: any private folder will do, at the price of compiling again.
    return Path(tempfile.mkdtemp(prefix="flowbeam-kernels-"))


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_folder())


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function over blocks: cached on disk, the interpreter's lock released while it runs."""
    return numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")(function)

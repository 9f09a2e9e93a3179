"""How kernels are compiled, and where the compiled code is kept.

numba keys its cache by the file that holds a function, not by the files of the functions that it calls. So the folder
of a module's compiled code is named by a hash of its source and of all our modules that it imports, directly or not:
an edited kernel is never met by stale machine code.
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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.runtime import rtsys
from numba.core.typed_passes import NativeLowering

_TOP = Path(__file__).parent.parent
_HOW = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
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
        dispatcher = numba.njit(cache=True, **_HOW)(function)
    finally:
        numba.config.CACHE_DIR = before
    _guard_cache(dispatcher)
    return dispatcher


def _guard_cache(dispatcher: Any) -> None:
    """Lets one process at a time add to a kernel's cache: two that add at once would give their code one name.

    A process that gave up its rights may no longer reach the cache: what it compiles then stays in its memory. And code
    is loaded without what numba needs to compile, which takes longer to prepare than all our kernels to load.
    """
    load, save = dispatcher._cache._load_overload, dispatcher._cache.save_overload

    def load_if_allowed(signature: Any, context: Any) -> Any:
        rtsys.initialize(context)  # what compiled code needs; where there is none, `compile` prepares the rest
        try:
            return load(signature, context)
        except PermissionError:
            return None

    def save_alone(*arguments: Any) -> None:
        try:
            with open(cache_folder() / "lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                save(*arguments)
        except PermissionError:
            return

    dispatcher._cache.load_overload, dispatcher._cache.save_overload = load_if_allowed, save_alone


def kernel_part(function: Callable[..., Any]) -> Any:
    """Compiles a function that only kernels call; Python cannot.

    It is optimized and made machine code within the kernels that it is part of, and nowhere else: to compile them all
    takes two thirds of the time that it takes with each part as a kernel of its own.
    """
    return numba.njit(**as_part())(function)


def as_part() -> dict[str, Any]:
    """The options of numba for a part, for what is compiled without a decorator of ours."""
    return {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler, **_HOW}


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code to be linked into other code, and not to be run from here."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):  # type: ignore[misc]
    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        changed = super().run_pass(state)
        entry = list[Any]().index  # numba asks for a built-in function of each; whatever it is given, this one raises
        state.cr = state.cr._replace(cfunc=entry)
        state.targetctx.insert_user_function(entry, state.cr.fndesc, [state.library])
        return changed


class _PartCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's own steps, but for the one from its intermediate code to LLVM's."""

    def define_pipelines(self) -> list[Any]:
        steps = DefaultPassBuilder.define_nopython_pipeline(self.state)
        steps.passes = [(_PartLowering if step is NativeLowering else step, what) for step, what in steps.passes]
        steps.finalize()
        return [steps]

"""Entry points: options and wiring, nothing else. Importing this sets up the process for them."""

import gc
import os
import sys

import sinks  # noqa: F401 - what it sets up is there before Beam is imported


def _keep_freed_memory() -> None:
    """Has glibc keep the memory of freed arrays for the next ones: the kernel clears each page that it hands out anew.

    That was a seventh of a run's time. The settings are of mallopt(3): from which size on an array is mapped by itself,
    how much free memory stays at the end of the heap, and how many heaps threads have: what one frees, another takes.
    """
    import ctypes  # not before Ctrl-C is one line

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_mmap_threshold, 32 << 20)
        mallopt(m_trim_threshold, 512 << 20)
        mallopt(m_arena_max, os.cpu_count() or 1)


_keep_freed_memory()
gc.set_threshold(100_000)  # modules of a hundred thousand objects are loaded, none of which is garbage
if sys.argv[:1] == ["-m"]:  # a command is being loaded, and `sinks.command.status_of` turns it on again
    gc.disable()
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no linear algebra here; its idle threads spin

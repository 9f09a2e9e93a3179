"""Arrays that grow where they lie: the pages of a large one are moved, not copied, and touched only when used."""

import mmap

import numpy as np


class GrowingArray:
    """A one-dimensional array that can be made longer. Its first octets are zero; no view of it may outlive a `grow`.

    Args:
        size: Rows.
        dtype: Type of a row.

    Attributes:
        rows: The array.
    """

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._memory = _private(size * dtype.itemsize)
        self._view()

    def _view(self) -> None:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.rows = np.frombuffer(self._memory, self._dtype)

    def grow(self, size: int) -> np.ndarray:
        """Makes it `size` rows long and returns the array."""
        del self.rows
        octets = size * self._dtype.itemsize
        try:
            self._memory.resize(octets)
        except (SystemError, BufferError):  # no mremap on this system, or a view is about
            larger = _private(octets)
            larger[: len(self._memory)] = self._memory[:]
            self._memory = larger
        self._view()
        return self.rows

    def forget(self, rows: int) -> None:
        """Gives back the memory of the first `rows`, whose contents are lost."""
        octets = rows * self._dtype.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
        if octets and hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED, 0, octets)


def _private(octets: int) -> mmap.mmap:
    if hasattr(mmap, "MAP_PRIVATE"):  # a shared mapping could not be resized
        return mmap.mmap(-1, octets, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, octets)

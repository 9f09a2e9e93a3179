"""A stretch of a file in memory: what the kernels that index records look at."""

import numpy as np

from sources.octets import READ_OCTETS, Damaged, Octets


class Window:
    """Moves over the octets of one input at a time; the memory is used again for the next.

    Attributes:
        octets: `u1[capacity]`; those in [begin, end) are read and not yet used.
        begin: Index of the first unused octet.
        end: Index behind the last octet that was read.
        damage: Why the container broke off, once `fill` met that.
    """

    def __init__(self) -> None:
        self.octets = np.zeros(READ_OCTETS, np.uint8)
        self._view = self.octets.data
        self._turn_to(None, 0, None)

    def _turn_to(self, source: Octets | None, offset: int, stop: int | None) -> None:
        self._source, self._offset, self._stop = source, offset, stop
        self.begin = self.end = 0
        self.damage = ""

    def open(self, source: Octets, offset: int = 0, stop: int | None = None) -> None:
        """Goes to `offset` of `source`, which ends at `stop` or by itself. One that cannot seek is there already."""
        self._turn_to(source, offset, stop)
        if source.seekable:
            source.seek(offset)

    @property
    def offset(self) -> int:
        """Where in the (unpacked) input `octets[begin]` lies."""
        return self._offset + self.begin

    def fill(self, wanted: int = 1) -> bool:
        """Reads until `wanted` octets are unused here; False if the input ends before."""
        if self.end - self.begin >= wanted:
            return True
        self._move_to_front(wanted)
        while self.end < wanted:
            count = self._read(self._view[self.end :])
            if not count:
                return False
            self.end += count
        return True

    def skip(self, count: int) -> bool:
        """Passes over `count` octets; False if the input ends before."""
        while count > self.end - self.begin:
            unread = count - (self.end - self.begin)
            self._offset += self.end
            self.begin = self.end = 0
            source = self._source
            if source is not None and source.seekable and unread > READ_OCTETS:
                self._offset += unread - 1  # the last one is read, so that the end of the file is noticed
                source.seek(self._offset)
                unread = 1
            if not self.fill():
                return False
            count = unread
        self.begin += count
        return True

    def _move_to_front(self, wanted: int) -> None:
        rest = self.octets[self.begin : self.end]
        if wanted > len(self.octets):
            grown = np.zeros(wanted + READ_OCTETS, np.uint8)
            grown[: len(rest)] = rest
            self.octets, self._view = grown, grown.data
        else:
            self.octets[: len(rest)] = rest
        self._offset += self.begin
        self.begin, self.end = 0, len(rest)

    def _read(self, target: memoryview) -> int:
        if self._source is None or self.damage:
            return 0
        if self._stop is not None:
            target = target[: max(0, self._stop - self._offset - self.end)]
            if not target:
                return 0
        try:
            return self._source.read_into(target)
        except Damaged as damage:
            self.damage = str(damage)
            return 0

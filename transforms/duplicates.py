"""Packets that were captured twice: equal network and transport headers within a short time."""

import numpy as np

from transforms.kernel import kernel, kernel_part

_ENTRY = np.dtype([("headers_hash", "u8"), ("time_ns", "i8"), ("used", "u1")], align=True)


@kernel_part
def _find(entries, headers_hash):
    mask = np.uint64(len(entries) - 1)
    at = headers_hash & mask
    while entries[np.int64(at)].used and entries[np.int64(at)].headers_hash != headers_hash:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def _mark(packets, start, entries, room, within_ns, repeated):
    """Marks repeated packets -> (next packet, entries used); stops when `room` new entries are used."""
    used = 0
    for i in range(start, len(packets)):
        packet = packets[i]
        if packet.headers_hash == 0:
            continue
        entry = entries[_find(entries, packet.headers_hash)]
        if entry.used and np.uint64(packet.time_ns) - np.uint64(entry.time_ns) <= np.uint64(within_ns):
            repeated[i] = True
            continue
        if not entry.used:
            if used == room:
                return i, used
            used += 1
            entry.used = 1
            entry.headers_hash = packet.headers_hash
        entry.time_ns = packet.time_ns
    return len(packets), used


@kernel
def _rehash(entries, since_ns, fresh):
    """Copies the entries that still matter -> how many."""
    n = 0
    for i in range(len(entries)):
        if entries[i].used and entries[i].time_ns >= since_ns:
            fresh[_find(fresh, entries[i].headers_hash)] = entries[i]
            n += 1
    return n


class DuplicateFilter:
    """Finds packets whose headers were seen at most `within_ns` before, in a packet that was kept.

    Packets come in time order. One whose headers were not hashed is no repetition of any. Memory is that of the
    distinct packets within `within_ns`.
    """

    ENTRY = _ENTRY

    def __init__(self, within_ns: int) -> None:
        self.within_ns = within_ns
        self.entries = np.zeros(1 << 12, _ENTRY)
        self.used = 0

    def repeated(self, packets: np.ndarray) -> np.ndarray:
        """`bool[n]`: which of `packets` are repetitions."""
        found = np.zeros(len(packets), np.bool_)
        at = 0
        while at < len(packets):
            at, used = _mark(packets, at, self.entries, len(self.entries) // 2 - self.used, self.within_ns, found)
            self.used += used
            if at < len(packets):
                self._make_room(max(int(packets["time_ns"][at]) - self.within_ns, -(1 << 63)))
        return found

    def _make_room(self, since_ns: int) -> None:
        alive = int(np.count_nonzero(self.entries["used"] & (self.entries["time_ns"] >= since_ns)))
        size = len(self.entries)
        while size < 4 * (alive + 1):
            size *= 2
        fresh = np.zeros(size, _ENTRY)
        self.used = _rehash(self.entries, since_ns, fresh)
        self.entries = fresh

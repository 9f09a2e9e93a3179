"""Which of many networks an address lies in: the narrowest one. For millions of networks, and blocks of addresses."""

import numpy as np

from transforms.kernel import kernel, kernel_part

_ALL_OF_IPV4 = np.uint64(0), np.uint64(0xFFFF << 32), np.uint8(96)
"""::ffff:0:0/96, which numbers of IPv4 addresses are of."""

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_DEEPEST = 130


class Prefixes:
    """Networks that may lie in one another, as ranges that do not, 20 octets each.

    IPv4 addresses are in no network of IPv6 addresses, such as ::/0.

    Args:
        hi: `uint64[n]`, high halves of first addresses.
        lo: `uint64[n]`, low halves.
        length: `uint8[n]`, their leading bits. Of equal networks, the first counts.
    """

    def __init__(self, hi: np.ndarray, lo: np.ndarray, length: np.ndarray) -> None:
        none = len(hi)
        hi, lo, length = map(np.append, (hi, lo, length), _ALL_OF_IPV4)
        order = np.lexsort((length, lo, hi))
        most = 2 * len(order)
        start_hi, start_lo, rows = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.int32)
        ranges = _flatten(hi, lo, length, order, start_hi, start_lo, rows)
        self._start_hi, self._start_lo = start_hi[:ranges].copy(), start_lo[:ranges].copy()
        self._rows = np.where(rows[:ranges] == none, np.int32(-1), rows[:ranges])

    @property
    def nbytes(self) -> int:
        """Octets in memory."""
        return self._start_hi.nbytes + self._start_lo.nbytes + self._rows.nbytes

    def find(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """The row of the narrowest network around each address, −1 if there is none, as `int32[n]`."""
        found = np.empty(len(hi), np.int32)
        _find(self._start_hi, self._start_lo, self._rows, hi, lo, found)
        return found


@kernel_part
def _last(hi, lo, length):
    """The last address of a network."""
    if length >= 64:
        return hi, lo if length == 128 else lo | _ONES >> np.uint64(length - 64)
    return hi | _ONES >> np.uint64(length), _ONES


@kernel_part
def _put(start_hi, start_lo, rows, ranges, hi, lo, row):
    """Notes that `row` holds from an address on; what is said of one address last counts."""
    if ranges and start_hi[ranges - 1] == hi and start_lo[ranges - 1] == lo:
        rows[ranges - 1] = row
        return ranges
    start_hi[ranges], start_lo[ranges], rows[ranges] = hi, lo, row
    return ranges + 1


@kernel
def _flatten(hi, lo, length, order, start_hi, start_lo, rows):
    end_hi, end_lo = np.empty(_DEEPEST, np.uint64), np.empty(_DEEPEST, np.uint64)
    open_rows = np.empty(_DEEPEST, np.int64)
    depth, ranges = 0, 0
    for i in range(len(order) + 1):
        last = i == len(order)
        at = np.int64(0) if last else order[i]
        while depth and (
            last or end_hi[depth - 1] < hi[at] or (end_hi[depth - 1] == hi[at] and end_lo[depth - 1] < lo[at])
        ):
            depth -= 1
            if end_lo[depth] != _ONES or end_hi[depth] != _ONES:
                low = end_lo[depth] + np.uint64(1)
                high = end_hi[depth] + np.uint64(low == 0)
                outer = open_rows[depth - 1] if depth else np.int64(-1)
                ranges = _put(start_hi, start_lo, rows, ranges, high, low, outer)
        if last:
            break
        last_hi, last_lo = _last(hi[at], lo[at], length[at])
        if depth:
            top = open_rows[depth - 1]
            if hi[top] == hi[at] and lo[top] == lo[at] and length[top] == length[at]:
                continue
        ranges = _put(start_hi, start_lo, rows, ranges, hi[at], lo[at], at)
        end_hi[depth], end_lo[depth], open_rows[depth] = last_hi, last_lo, at
        depth += 1
    return ranges


@kernel
def _find(start_hi, start_lo, rows, hi, lo, found):
    for i in range(len(found)):
        low, high = 0, len(rows)  # ranges that begin at or before the address end in front of `high`
        while low < high:
            middle = (low + high) // 2
            if start_hi[middle] < hi[i] or (start_hi[middle] == hi[i] and start_lo[middle] <= lo[i]):
                low = middle + 1
            else:
                high = middle
        found[i] = rows[low - 1] if low else -1

"""Addresses and networks from text, a column at a time; IPv4 a.b.c.d is the number of ::ffff:a.b.c.d."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from transforms.kernel import kernel, kernel_part

ADDRESS_BITS = 128
"""The length of a network that is one address; that of an IPv4 network a.b.c.d/n is 96 + n."""

NO_NETWORK, HOST_BITS = 255, 254
"""In place of a length: the text is neither address nor network; it is a network with bits behind its length."""

_IPV4_PREFIX = np.uint64(0xFFFF)
_ZERO, _NINE, _DOT, _COLON, _SLASH = (ord(letter) for letter in "09.:/")


class Networks(NamedTuple):
    """Networks as numbers.

    Attributes:
        hi: `uint64[n]`, the high halves of their first addresses.
        lo: `uint64[n]`, the low halves.
        length: `uint8[n]`, how many leading bits count; NO_NETWORK or HOST_BITS where the text is none.
    """

    hi: np.ndarray
    lo: np.ndarray
    length: np.ndarray


def network_numbers(texts: pa.StringArray) -> Networks:
    """Reads addresses and `address/length`, as Python's `ipaddress` understands them; a null is none."""
    n = len(texts)
    hi, lo, length = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.empty(n, np.uint8)
    _, offsets, characters = texts.buffers()
    if n:
        starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + n + 1]
        letters = np.frombuffer(characters or b"\0", np.uint8)
        _read_networks(starts, letters, hi, lo, length)
        if texts.null_count:
            length[~texts.is_valid().to_numpy(zero_copy_only=False)] = NO_NETWORK
    return Networks(hi, lo, length)


def is_ipv4(hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
    """Which numbers are those of IPv4 addresses."""
    return (hi == 0) & (lo >> np.uint64(32) == _IPV4_PREFIX)


@kernel_part
def _read_ipv4(letters, at, end):
    """The 32 bits of a.b.c.d, −1 for anything else; leading zeros are not accepted."""
    address, parts = np.int64(0), 0
    while True:
        value, first = np.int64(0), at
        while at < end and letters[at] >= _ZERO and letters[at] <= _NINE and at - first < 3:
            value = value * 10 + letters[at] - _ZERO
            at += 1
        if at == first or value > 255 or (at - first > 1 and letters[first] == _ZERO):
            return np.int64(-1)
        address = address << 8 | value
        parts += 1
        if parts == 4:
            return address if at == end else np.int64(-1)
        if at == end or letters[at] != _DOT:
            return np.int64(-1)
        at += 1


@kernel_part
def _hex_digit(letter):
    if letter >= _ZERO and letter <= _NINE:
        return np.int64(letter - _ZERO)
    lower = letter | 32
    if lower >= 97 and lower <= 102:  # a to f
        return np.int64(lower - 87)
    return np.int64(-1)


@kernel_part
def _read_ipv6(letters, at, end, groups):
    """Puts the eight groups of an IPv6 address into `groups`; False if it is none."""
    count, gap = 0, -1
    if end - at < 2:
        return False
    if letters[at] == _COLON:
        if letters[at + 1] != _COLON:
            return False
        gap = 0
        at += 2
    while at < end:
        if count == 8:
            return False
        stop, dotted = at, False
        while stop < end and letters[stop] != _COLON:
            dotted = dotted or letters[stop] == _DOT
            stop += 1
        if dotted:
            address = _read_ipv4(letters, at, end)
            if address < 0 or count > 6:
                return False
            groups[count], groups[count + 1] = address >> 16, address & 0xFFFF
            count += 2
            break
        if stop == at or stop - at > 4:
            return False
        group = np.int64(0)
        for i in range(at, stop):
            digit = _hex_digit(letters[i])
            if digit < 0:
                return False
            group = group << 4 | digit
        groups[count] = group
        count += 1
        at = stop
        if at < end:
            at += 1
            if at == end:
                return False
            if letters[at] == _COLON:
                if gap >= 0:
                    return False
                gap = count
                at += 1
    if gap < 0:
        return count == 8
    if count == 8:
        return False
    moved = count - gap
    for i in range(moved):
        groups[7 - i] = groups[count - 1 - i]
    for i in range(gap, 8 - moved):
        groups[i] = 0
    return True


@kernel_part
def _read_length(letters, at, end, most):
    """The decimal number behind a slash, −1 if it is none or more than `most`."""
    if at == end or end - at > 3:
        return np.int64(-1)
    length = np.int64(0)
    for i in range(at, end):
        if letters[i] < _ZERO or letters[i] > _NINE:
            return np.int64(-1)
        length = length * 10 + letters[i] - _ZERO
    return length if length <= most else np.int64(-1)


@kernel_part
def _has_host_bits(hi, lo, length):
    if length >= 64:
        return length < 128 and lo << np.uint64(length - 64) != 0
    return lo != 0 or hi << np.uint64(length) != 0


@kernel
def _read_networks(starts, letters, hi, lo, lengths):
    groups = np.empty(8, np.int64)
    for row in range(len(lengths)):
        at, end = starts[row], starts[row + 1]
        stop, colons = at, 0
        while stop < end and letters[stop] != _SLASH:
            colons += letters[stop] == _COLON
            stop += 1
        lengths[row] = NO_NETWORK
        if colons:
            if not _read_ipv6(letters, at, stop, groups):
                continue
            high, low = np.uint64(0), np.uint64(0)
            for i in range(4):
                high = high << np.uint64(16) | np.uint64(groups[i])
                low = low << np.uint64(16) | np.uint64(groups[4 + i])
            first = np.int64(0)
        else:
            address = _read_ipv4(letters, at, stop)
            if address < 0:
                continue
            high, low = np.uint64(0), _IPV4_PREFIX << np.uint64(32) | np.uint64(address)
            first = np.int64(96)
        length = np.int64(ADDRESS_BITS)
        if stop < end:
            length = _read_length(letters, stop + 1, end, ADDRESS_BITS - first)
            if length < 0:
                continue
            length += first
        hi[row], lo[row] = high, low
        lengths[row] = HOST_BITS if _has_host_bits(high, low, length) else length

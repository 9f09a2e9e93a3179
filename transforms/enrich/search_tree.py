"""The search tree of a MaxMind DB, walked for blocks of addresses (MaxMind DB file format 2.0).

The tree leads from the bits of an address to the place of its record in the file; equal records share a place. So a
batch of addresses becomes a few places, and the library decodes each once.
"""

from typing import NamedTuple

import numpy as np

from transforms.enrich.address_numbers import is_ipv4
from transforms.kernel import kernel, kernel_part

NO_RECORD, CORRUPT = 0, -1
"""In place of a record's place: the database does not know the address; its tree does not end."""

_SEPARATOR_OCTETS = 16
_HALF = 64
_V4_BITS = 32
_BITS = 128


class Leaf(NamedTuple):
    """Addresses and what the tree has for them; the i-th of each column belong together."""

    hi: np.ndarray
    lo: np.ndarray
    place: np.ndarray


class SearchTree:
    """The tree of one database.

    Args:
        octets: `uint8[n]`, the file.
        nodes: How many nodes it states.
        record_bits: Bits of a record, 24, 28 or 32.
        ip_version: 4 if it knows IPv4 alone.
        data_octets: Octets of its data section.

    Raises:
        ValueError: The tree is larger than the file, or a record has no known size or points outside of the data.
    """

    def __init__(self, octets: np.ndarray, nodes: int, record_bits: int, ip_version: int, data_octets: int) -> None:
        self._octets = octets
        self._nodes = nodes
        self._node_octets = record_bits // 4
        self._ipv4_alone = ip_version == 4
        if record_bits not in (24, 28, 32):
            raise ValueError(f"its search tree has records of {record_bits} bits")
        if data_octets < 0:
            raise ValueError("its search tree is larger than the file")
        if not _is_sound(octets, nodes, self._node_octets, nodes + _SEPARATOR_OCTETS, data_octets):
            raise ValueError("its search tree is corrupt")

    def find(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """The place of each address's record, NO_RECORD or CORRUPT, as `int64[n]`."""
        found = np.empty(len(hi), np.int64)
        _find(self._octets, self._nodes, self._node_octets, self._ipv4_alone, is_ipv4(hi, lo), hi, lo, found)
        return found

    def leaves(self, most: int) -> Leaf:
        """At most so many of the networks that have records, spread evenly over the file: their first addresses.

        Raises:
            ValueError: The tree has no end.
        """
        step = max(1, 2 * self._nodes // most)
        size = min(2 * self._nodes, most) + 1
        hi, lo, place = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64)
        start = 96 if self._ipv4_alone else 0
        count = _leaves(self._octets, self._nodes, self._node_octets, start, step, hi, lo, place)
        if count < 0:
            raise ValueError("its search tree is corrupt: it has no end")
        return Leaf(hi[:count], lo[:count], place[:count])


@kernel_part
def _record(octets, node, side, node_octets):
    """One of the two records of a node: 24, 28 or 32 bits, most significant first."""
    at = node * node_octets
    if node_octets == 6:
        at += 3 * side
        return np.int64(octets[at]) << 16 | np.int64(octets[at + 1]) << 8 | np.int64(octets[at + 2])
    if node_octets == 7:
        middle = np.int64(octets[at + 3])
        high = (middle & 15) << 24 if side else (middle >> 4) << 24
        at += 4 * side
        return high | np.int64(octets[at]) << 16 | np.int64(octets[at + 1]) << 8 | np.int64(octets[at + 2])
    at += 4 * side
    high = np.int64(octets[at]) << 24 | np.int64(octets[at + 1]) << 16
    return high | np.int64(octets[at + 2]) << 8 | np.int64(octets[at + 3])


@kernel
def _is_sound(octets, nodes, node_octets, data_from, data_octets):
    """Whether each record is a node below the root, nothing, or a place in the data section."""
    for node in range(nodes):
        for side in range(2):
            record = _record(octets, np.int64(node), side, node_octets)
            if record == 0 or (record > nodes and (record < data_from or record >= data_from + data_octets)):
                return False
    return True


@kernel_part
def _bit(hi, lo, depth):
    if depth < _HALF:
        return np.int64(hi >> np.uint64(_HALF - 1 - depth) & np.uint64(1))
    return np.int64(lo >> np.uint64(2 * _HALF - 1 - depth) & np.uint64(1))


@kernel
def _find(octets, nodes, node_octets, ipv4_alone, ipv4, hi, lo, found):
    ipv4_root, ipv4_depth = np.int64(0), 0
    if not ipv4_alone:
        while ipv4_depth < _BITS - _V4_BITS and ipv4_root < nodes:
            ipv4_root = _record(octets, ipv4_root, 0, node_octets)
            ipv4_depth += 1
    for i in range(len(found)):
        record, depth = np.int64(0), 0
        if ipv4[i]:
            record, depth = ipv4_root, _BITS - _V4_BITS
        elif ipv4_alone:
            found[i] = NO_RECORD
            continue
        while record < nodes and depth < _BITS:
            record = _record(octets, record, _bit(hi[i], lo[i], depth), node_octets)
            depth += 1
        if record == nodes:
            found[i] = NO_RECORD
        else:
            found[i] = record if record > nodes else CORRUPT


@kernel
def _leaves(octets, nodes, node_octets, start, step, hi, lo, place):
    """Walks the tree, each node once; −1 if it comes back to a node above or goes deeper than an address has bits."""
    above, done = 1, 2
    states = np.zeros(nodes, np.uint8)
    path, turns = np.empty(_BITS + 1, np.int64), np.zeros(_BITS + 1, np.int64)
    his, los = np.zeros(_BITS + 1, np.uint64), np.zeros(_BITS + 1, np.uint64)
    path[0], states[0] = 0, above
    los[0] = np.uint64(0xFFFF) << np.uint64(32) if start else np.uint64(0)
    level, met, count = 0, 0, 0
    while level >= 0:
        node, side, depth = path[level], turns[level], start + level
        if side == 2:
            states[node] = done
            level -= 1
            continue
        turns[level] += 1
        record = _record(octets, node, side, node_octets)
        high, low = his[level], los[level]
        if side and depth < _HALF:
            high |= np.uint64(1) << np.uint64(_HALF - 1 - depth)
        elif side:
            low |= np.uint64(1) << np.uint64(2 * _HALF - 1 - depth)
        if record > nodes:
            if met % step == 0 and count < len(place):
                hi[count], lo[count], place[count] = high, low, record
                count += 1
            met += 1
        elif record < nodes:
            if states[record] == above or (states[record] != done and depth + 1 == _BITS):
                return -1
            if states[record] != done:
                level += 1
                path[level], turns[level], his[level], los[level] = record, 0, high, low
                states[record] = above
    return count

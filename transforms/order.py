"""Packets that wait for their turn: whatever order blocks come in, they leave in one."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from transforms.kernel import kernel
from transforms.records import PACKET, PacketBatch, Stream

PLAIN = np.dtype((np.void, PACKET.itemsize))
"""A packet as so many octets: numpy copies a row field by field, twenty times slower."""


def read_only(packets: np.ndarray) -> np.ndarray:
    """The same rows, not to be written: numba compiles a kernel once more for rows that may be."""
    rows = packets.view()
    rows.flags.writeable = False
    return rows


class Piece(NamedTuple):
    """Rows of one block; `identity` decides between packets of one time."""

    identity: tuple[Stream, int]
    packets: np.ndarray


@kernel
def in_order(packets):
    """Whether no packet is before its predecessor."""
    for i in range(1, len(packets)):  # noqa: SIM110 - a kernel has no all()
        if packets[i].time_ns < packets[i - 1].time_ns:
            return False
    return True


@kernel
def _count_before(packets, time_ns):
    n = 0
    for i in range(len(packets)):
        n += packets[i].time_ns < time_ns
    return n


@kernel
def _part(packets, time_ns, before, after):
    """Splits packets by time, order kept."""
    n = m = 0
    for i in range(len(packets)):
        if packets[i].time_ns < time_ns:
            before[n] = packets[i]
            n += 1
        else:
            after[m] = packets[i]
            m += 1


class PacketBuffer:
    """Blocks in any order; `take` gives all packets before a time, ordered by (time, stream, sequence, position)."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def add(self, batch: PacketBatch, packets: np.ndarray) -> None:
        """Keeps `packets`, which are rows of `batch`, in their order there."""
        if len(packets):
            self.pieces.append(Piece((batch.stream, batch.sequence), read_only(packets)))

    def take(self, before_ns: int | None) -> Iterator[np.ndarray]:
        """Removes and yields the packets before `before_ns`, or all; each array continues where the last one ended."""
        taken: list[np.ndarray] = []
        kept: list[Piece] = []
        for piece in sorted(self.pieces, key=lambda piece: piece.identity):
            packets = piece.packets
            n = len(packets) if before_ns is None else _count_before(packets, before_ns)
            if n == 0:
                kept.append(piece)
            elif n == len(packets):
                taken.append(packets)
            elif in_order(packets):
                taken.append(packets[:n])
                kept.append(Piece(piece.identity, packets[n:]))
            else:
                first, rest = np.empty(n, PACKET), np.empty(len(packets) - n, PACKET)
                _part(packets, before_ns, first, rest)
                taken.append(read_only(first))
                kept.append(Piece(piece.identity, read_only(rest)))
        self.pieces = kept
        if _continuous(taken):
            yield from taken
        elif taken:
            together = np.concatenate([packets.view(PLAIN) for packets in taken]).view(PACKET)
            yield together.take(np.argsort(together["time_ns"], kind="stable"))


def _continuous(pieces: list[np.ndarray]) -> bool:
    ends = [piece["time_ns"][[0, -1]] for piece in pieces]
    return all(one[1] <= other[0] for one, other in pairwise(ends)) and all(map(in_order, pieces))

"""Which octets of a TCP side have been seen, in bounded memory: repeated and reordered segments, duplicate ACKs.

A side's sequence numbers are continued beyond 2³², each taken as the nearest to the highest one. Known are the end
of the highest segment and up to four gaps below it, whose octets have not been seen. A segment is what carries
payload, SYN or FIN; one with RST is none. A segment that begins below the highest end is

- *out of order* if all of it lies in one gap, which it fills or splits;
- a *retransmission* otherwise: some octet of it was seen before. Its other octets fill what gaps they lie in.

A fifth gap takes the place of the one furthest behind, whose octets then count as seen. Where a side begins without
SYN, the octets before are one such gap. A SYN with another sequence number than the last one begins anew.
"""

import numpy as np

from transforms.kernel import kernel, kernel_part
from transforms.records import ACK, FIN, RST, SYN

GAPS = 4

BEFORE = (1 << 32) - 1
"""Octets that may lie before the first segment of a side without SYN."""

SIDE = np.dtype(
    [
        ("highest", "i8"),  # one past the highest octet seen
        ("gap_start", "i8", GAPS),
        ("gap_octets", "u4", GAPS),  # 0: no gap
        ("syn_seq", "u4"),  # of the last SYN
        ("highest_ack", "u4"),
        ("retransmissions", "u4"),
        ("duplicate_acks", "u4"),
        ("out_of_order", "u4"),
        ("window", "u2"),  # of the last ACK
        ("sent", "u1"),  # a segment was seen
        ("synchronized", "u1"),  # a SYN was seen
        ("acknowledged", "u1"),  # an ACK was seen
    ],
    align=True,
)
"""What one side sent."""


@kernel
def ahead(one, other):
    """How far sequence number `one` lies after `other`, modulo 2³²; negative if before (RFC 9293, section 3.4)."""
    return np.int64(np.int32(np.int64(one) - np.int64(other)))


@kernel
def add(side, packet):
    """Follows a segment; returns whether it has payload and ends at or below the highest end."""
    flags = packet.tcp_flags
    length = np.int64(packet.payload_octets) + ((flags & SYN) >> 1) + (flags & FIN)
    if length == 0 or flags & RST:
        return False
    another_syn = flags & SYN and side.synchronized and packet.tcp_seq != side.syn_seq
    if side.sent and not another_syn:
        start = side.highest + ahead(packet.tcp_seq, side.highest)
        if start < side.highest:
            _repeat(side, start, start + length)
        elif start > side.highest:
            _open_gap(side, side.highest, start)
    else:
        start = np.int64(packet.tcp_seq)
        side.sent = 1
        side.highest = start
        side.gap_octets[:] = 0
        if flags & SYN == 0:
            _open_gap(side, start - BEFORE, start)
    if flags & SYN:
        side.synchronized = 1
        side.syn_seq = packet.tcp_seq
    if start + length <= side.highest:
        return packet.payload_octets > 0
    side.highest = start + length
    return False


@kernel_part
def _repeat(side, start, end):
    """Counts a segment that begins below the highest end, and closes what it fills."""
    for slot in range(GAPS):
        gap_start = side.gap_start[slot]
        gap_end = gap_start + side.gap_octets[slot]
        if max(start, gap_start) >= min(end, gap_end):
            continue
        side.gap_octets[slot] = max(start - gap_start, 0)
        if end < gap_end:
            _open_gap(side, end, gap_end)
        if gap_start <= start and end <= gap_end:
            side.out_of_order += 1
            return
    side.retransmissions += 1


@kernel_part
def _open_gap(side, start, end):
    """Remembers a gap, in place of the furthest if there are four."""
    chosen = 0
    for slot in range(GAPS):
        if side.gap_octets[slot] == 0:
            chosen = slot
            break
        if side.gap_start[slot] < side.gap_start[chosen]:
            chosen = slot
    side.gap_start[chosen] = start
    side.gap_octets[chosen] = end - start


@kernel
def acknowledge(side, peer, packet):
    """Counts a duplicate ACK.

    RFC 5681, section 2: data outstanding, no payload, neither SYN nor FIN, the greatest acknowledgement number and the
    window of the last ACK again. Where the peer was not seen to send, nothing is outstanding. (Wireshark does not ask
    for outstanding data and also counts the answers to needless retransmissions.)
    """
    flags = packet.tcp_flags
    if flags & (ACK | RST) != ACK:
        return
    advance = ahead(packet.tcp_ack, side.highest_ack)
    if side.acknowledged == 0 or advance > 0:
        side.highest_ack = packet.tcp_ack
        side.acknowledged = 1
    elif (
        advance == 0
        and packet.payload_octets == 0
        and flags & (SYN | FIN) == 0
        and packet.tcp_window == side.window
        and peer.sent
        and ahead(peer.highest, packet.tcp_ack) > 0
    ):
        side.duplicate_acks += 1
    side.window = packet.tcp_window

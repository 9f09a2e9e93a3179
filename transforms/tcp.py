"""What the table follows of a TCP connection: its handshake, its close, and whether a SYN reuses its ports."""

import numpy as np

from transforms.kernel import kernel_part
from transforms.records import ACK, FIN, RST, SYN, TCP, TRANSPORT_WHOLE

SIDE = np.dtype(
    [
        ("syn_seq", "u4"),  # sequence of the side's first SYN
        ("fin_end", "u4"),  # sequence that an ACK of its FIN carries
        ("ack", "u4"),  # highest acknowledgement sent
        ("has_syn", "u1"),
        ("has_fin", "u1"),
        ("has_ack", "u1"),
    ],
    align=True,
)

CONNECTION = np.dtype(
    [
        ("closed_ns", "i8"),  # time of the close, if closing
        ("fwd", SIDE),
        ("rev", SIDE),
        ("progress", "u1"),
        ("closing", "u1"),
    ],
    align=True,
)
"""State that outlives an active split. Sequence numbers are compared modulo 2**32 (RFC 9293, section 3.4)."""

BEGUN, SYN_SENT, SYN_ANSWERED, ESTABLISHED = range(4)
"""`progress`; a flow begun without SYN counts as established."""


@kernel_part
def not_before(one, other):
    """Whether sequence number `one` is at or after `other`."""
    return ((np.int64(one) - np.int64(other)) & 0xFFFFFFFF) < 0x80000000


@kernel_part
def begin(connection, packet):
    """Resets `connection` for the flow's first packet, which `observe` gets next."""
    connection.closed_ns = 0
    connection.closing = 0
    for side in (connection.fwd, connection.rev):
        side.syn_seq = 0
        side.fin_end = 0
        side.ack = 0
        side.has_syn = 0
        side.has_fin = 0
        side.has_ack = 0
    with_syn = packet.transport == TRANSPORT_WHOLE and packet.tcp_flags & SYN
    connection.progress = BEGUN if with_syn else ESTABLISHED


@kernel_part
def observe(connection, packet, forward):
    """Adds a packet. Sets `closing` and `closed_ns` at the first RST, or once both FINs are acknowledged."""
    if packet.protocol != TCP or packet.transport != TRANSPORT_WHOLE:
        return
    flags = packet.tcp_flags
    side = connection.fwd if forward else connection.rev
    other = connection.rev if forward else connection.fwd
    if flags & SYN and not side.has_syn:
        side.has_syn = 1
        side.syn_seq = packet.tcp_seq
    if connection.progress < ESTABLISHED:
        if flags & SYN and flags & ACK:
            connection.progress = SYN_ANSWERED
        elif flags & SYN:
            connection.progress = max(connection.progress, np.uint8(SYN_SENT))
        elif flags & ACK and forward and connection.progress == SYN_ANSWERED:
            connection.progress = ESTABLISHED
    if flags & ACK and (not side.has_ack or not_before(packet.tcp_ack, side.ack)):
        side.has_ack = 1
        side.ack = packet.tcp_ack
    if flags & FIN:
        side.has_fin = 1
        end = np.int64(packet.tcp_seq) + ((flags & SYN) >> 1) + np.int64(packet.payload_octets) + 1
        side.fin_end = np.uint32(end & 0xFFFFFFFF)
    if connection.closing:
        return
    if flags & RST or (
        side.has_fin
        and other.has_fin
        and side.has_ack
        and other.has_ack
        and not_before(side.ack, other.fin_end)
        and not_before(other.ack, side.fin_end)
    ):
        connection.closing = 1
        connection.closed_ns = packet.time_ns


@kernel_part
def is_open_request(packet):
    """A SYN without ACK: what may reuse the ports of an earlier connection."""
    return packet.protocol == TCP and packet.transport == TRANSPORT_WHOLE and (packet.tcp_flags & (SYN | ACK)) == SYN


@kernel_part
def is_reuse(connection, packet, forward):
    """Whether an open request begins another connection, not a repeated SYN of this one."""
    side = connection.fwd if forward else connection.rev
    known = side.has_syn and side.syn_seq == packet.tcp_seq
    return not known and (connection.closing or connection.progress == ESTABLISHED)

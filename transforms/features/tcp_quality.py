"""How a TCP connection went: handshake times, repeated and reordered segments, duplicate ACKs, how it closed.

A packet without a whole TCP header, such as a later fragment, counts in none of it. `tcp_segments` says what is a
retransmission, `zeek_state` what `conn_state` and `history` are. A part of a flow begins anew: nothing of the part
before is remembered.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features import tcp_segments, zeek_state
from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel, kernel_part
from transforms.records import ACK, FIN, RST, SYN, TCP, TRANSPORT_WHOLE

END_IDLE, END_ACTIVE = 1, 2
"""IPFIX flowEndReason 136."""

SYN_SEEN, SYN_ACK_SEEN, ACK_SEEN = 1, 2, 4

FIN_FWD, FIN_REV, RST_FWD, RST_REV = 1, 2, 4, 8

CLOSE_STYLES = ("none", "fin_fwd", "fin_rev", "fin_both", "rst_fwd", "rst_rev", "timeout")
_BY_CLOSE = np.array([0, 1, 2, 3, *[4] * 4, *[5] * 4], np.int8)
_TIMEOUT = CLOSE_STYLES.index("timeout")


def _fields() -> Iterator[Field]:
    syn = "From the initiator's last SYN to the first SYN+ACK; null if either was not seen."
    yield Field("syn_ack_rtt_us", pa.float64(), "us", syn)
    ack = "From the last SYN+ACK to the initiator's first ACK of it; null if either was not seen."
    yield Field("ack_rtt_us", pa.float64(), "us", ack)
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        for name, doc in (
            ("retransmissions", "Segments of the {} with octets, SYN or FIN that it had sent before."),
            ("duplicate_acks", "ACKs of the {} that repeat the last one, data outstanding (RFC 5681, section 2)."),
            ("out_of_order", "Segments of the {} that wholly fill a gap left by earlier ones."),
        ):
            yield Field(f"{side}_{name}", pa.int64(), "packets", doc.format(who))
    close = (
        "fin_fwd, fin_rev, fin_both, rst_fwd, rst_rev: FINs seen, or who sent the first RST before both FINs; "
        "timeout: neither, and idle or active timeout; none: neither, or no TCP."
    )
    yield Field("close_style", pa.string(), "", close)
    yield Field("conn_state", pa.string(), "", "Zeek's word for the state of the connection: S0, S1, SF, REJ, …")
    history = f"Zeek's letters of what was seen, the first {zeek_state.LETTERS}; null if none."
    yield Field("history", pa.string(), "", history)


FIELDS = tuple(_fields())

STATE = np.dtype(
    [
        ("mark_ns", "i8"),  # the last SYN, then the last SYN+ACK
        ("syn_ack_ns", "i8"),
        ("ack_ns", "i8"),
        ("fwd", tcp_segments.SIDE),
        ("rev", tcp_segments.SIDE),
        ("zeek", zeek_state.CONNECTION),
        ("handshake", "u1"),  # SYN_SEEN | SYN_ACK_SEEN | ACK_SEEN
        ("close", "u1"),  # FIN_FWD | FIN_REV | one of RST_FWD, RST_REV
    ],
    align=True,
)
"""One connection; zeros where it is not TCP."""


@kernel
def update(state, flow, packet, forward):
    """Follows one TCP packet through the connection."""
    if packet.protocol != TCP or packet.transport != TRANSPORT_WHOLE:
        return
    sender = state.fwd if forward else state.rev
    peer = state.rev if forward else state.fwd
    if packet.tcp_flags & (SYN | FIN | RST) or state.handshake & ACK_SEEN == 0:
        _handshake(state, packet, forward)
        _close(state, packet.tcp_flags, forward)
    already_sent = tcp_segments.add(sender, packet)
    tcp_segments.acknowledge(sender, peer, packet)
    zeek_state.add(state.zeek, packet, forward, already_sent)


@kernel_part
def _handshake(state, packet, forward):
    """Times SYN, SYN+ACK and ACK; a repeated one from its last copy, so that no retransmission timer is measured."""
    kind = packet.tcp_flags & (SYN | ACK)
    if packet.tcp_flags & RST or state.handshake & ACK_SEEN:
        return
    if forward and kind == SYN and state.handshake & SYN_ACK_SEEN == 0:
        state.handshake |= SYN_SEEN
        state.mark_ns = packet.time_ns
    elif not forward and kind == SYN | ACK:
        if state.handshake == SYN_SEEN:
            if tcp_segments.ahead(packet.tcp_ack, state.fwd.syn_seq) <= 0:
                return
            state.syn_ack_ns = packet.time_ns - state.mark_ns
        state.handshake |= SYN_ACK_SEEN
        state.mark_ns = packet.time_ns
    elif (
        forward
        and kind == ACK
        and state.handshake & SYN_ACK_SEEN
        and tcp_segments.ahead(packet.tcp_ack, state.rev.syn_seq) > 0
    ):
        state.handshake |= ACK_SEEN
        state.ack_ns = packet.time_ns - state.mark_ns


@kernel_part
def _close(state, flags, forward):
    """Notes the first RST, unless both sides had sent FIN, and the FINs."""
    if flags & RST and state.close < FIN_FWD | FIN_REV:
        state.close |= RST_FWD if forward else RST_REV
    if flags & FIN:
        state.close |= FIN_FWD if forward else FIN_REV


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray | pa.Array]]:
    """Times, counts, then the three words."""
    answered = states["handshake"] & (SYN_SEEN | SYN_ACK_SEEN) == SYN_SEEN | SYN_ACK_SEEN
    yield "syn_ack_rtt_us", np.ma.MaskedArray(states["syn_ack_ns"] / 1e3, ~answered)
    yield "ack_rtt_us", np.ma.MaskedArray(states["ack_ns"] / 1e3, states["handshake"] & ACK_SEEN == 0)
    for side, _ in sides(flows):
        for name in ("retransmissions", "duplicate_acks", "out_of_order"):
            yield f"{side}_{name}", states[side][name].astype(np.int64)
    yield "close_style", _close_style(states, flows)
    yield "conn_state", zeek_state.conn_state(states["zeek"], flows)
    yield "history", zeek_state.history(states["zeek"], flows)


def _close_style(states: np.ndarray, flows: np.ndarray) -> pa.Array:
    style = _BY_CLOSE[states["close"]]
    timed_out = (flows["end_reason"] == END_IDLE) | (flows["end_reason"] == END_ACTIVE)
    style[(flows["protocol"] == TCP) & (states["close"] == 0) & timed_out] = _TIMEOUT
    return pa.DictionaryArray.from_arrays(style, list(CLOSE_STYLES)).cast(pa.string())

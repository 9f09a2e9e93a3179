"""`conn_state` and `history` as Zeek 8 has them, from the flags and sequence numbers of a connection.

The states of the end points follow TCPSessionAdapter.cc, the words `conn_state` in base/protocols/conn/main.zeek, the
letters `update_history` and TCP_Endpoint.cc. Capital letters are the initiator's:

- `S` SYN, `H` SYN+ACK, `F` FIN, `R` RST: again if the sequence number differs from that of the last one;
- `A` ACK alone, `D` payload, `I` FIN and RST in one packet, `Q` SYN with FIN or RST: once for each side;
- `T` payload that ends at or below the highest octet sent, `W` a zero window: the 1st, 10th, 100th, … time.

What differs: the initiator is ours, so there is no `^`; checksums and content gaps are not looked at (`C`, `G`); and
where Zeek asks whether bytes were sent (REJ rather than RSTR), it is payload seen, not the distance of sequence
numbers.
"""

from itertools import product

import numpy as np
import pyarrow as pa

from transforms.features import sequences
from transforms.kernel import kernel_part
from transforms.records import ACK, FIN, RST, SYN, TCP, UDP

LETTERS = 24
"""Letters of `history` that are kept."""

INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET, RESET_AFTER_FIN = range(8)
"""Zeek's states of an end point; the last one is its RESET with CLOSED as the previous state."""

END_POINT = np.dtype(
    [
        ("last_seq", "u4", 3),  # of the last SYN, the last FIN, where its octet lies, and the last RST
        ("repeats", "u4"),
        ("zero_windows", "u4"),
        ("kinds_seen", "u1"),  # bits of KIND_BITS
        ("state", "u1"),
    ],
    align=True,
)
"""One side as Zeek sees it."""

CONNECTION = np.dtype(
    [("orig", END_POINT), ("resp", END_POINT), ("history", "u1", LETTERS), ("letters", "u1")], align=True
)
"""Both sides, and the letters so far."""

TO_LOWER = 32
LETTER_S, LETTER_R, LETTER_D, LETTER_T, LETTER_W = b"SRDTW"

_SYN_KIND, _FIN_KIND, _RST_KIND, _DATA_KIND, _ACK_KIND, _FIN_RST_KIND, _MANY_KIND, _NO_KIND = range(8)


def _kind_and_letter(flags: int, payload: bool) -> tuple[int, int]:
    """What a packet is in the history, Zeek's `update_history`."""
    control = flags & (SYN | FIN | RST)
    if control == SYN:
        return _SYN_KIND, ord("H" if flags & ACK else "S")
    if control in (FIN, RST):
        return (_FIN_KIND, ord("F")) if control == FIN else (_RST_KIND, ord("R"))
    if control:
        return (_FIN_RST_KIND, ord("I")) if control & (FIN | RST) == FIN | RST else (_MANY_KIND, ord("Q"))
    if payload:
        return _DATA_KIND, ord("D")
    return (_ACK_KIND, ord("A")) if flags & ACK else (_NO_KIND, 0)


def _next_states(sender: int, peer: int, flags: int, forward: bool, payload: bool) -> tuple[int, int]:
    """The states of the sender and its peer after a packet, Zeek's `UpdateStateMachine`."""
    syn, fin, rst, ack = (bool(flags & bit) for bit in (SYN, FIN, RST, ACK))
    before = sender
    if before == INACTIVE and syn:
        if forward:
            sender = SYN_ACK_SENT if ack else SYN_SENT
        else:
            sender, peer = ESTABLISHED, ESTABLISHED if peer == SYN_SENT else peer
    if before == PARTIAL and syn and not ack and peer == INACTIVE:
        sender = SYN_SENT
    if before in (INACTIVE, SYN_SENT, SYN_ACK_SENT) and fin:
        sender = CLOSED
    if before in (ESTABLISHED, PARTIAL) and fin and not rst:
        sender, peer = CLOSED, CLOSED if peer == RESET_AFTER_FIN else peer
    if rst and before not in (CLOSED, RESET, RESET_AFTER_FIN):
        sender = RESET_AFTER_FIN if sender == CLOSED else RESET
    if rst and before == CLOSED and peer != CLOSED:
        sender = RESET_AFTER_FIN
    early_ack = not forward and not payload and peer == SYN_SENT  # of a SYN, before the SYN+ACK
    if sender == INACTIVE and not early_ack:
        sender = ESTABLISHED if ack and peer == ESTABLISHED else PARTIAL
    return sender, peer


_COMBINATIONS = tuple(product(range(16), (False, True)))
"""FIN, SYN, RST and ACK as the bits of a number, and whether there is payload."""


def _flags(bits: int) -> int:
    return bits & (FIN | SYN | RST) | (ACK if bits & 8 else 0)


def _packed(states: tuple[int, int]) -> int:
    sender, peer = states
    return sender | peer << 4


KINDS = np.array([_kind_and_letter(_flags(bits), payload)[0] for bits, payload in _COMBINATIONS], np.uint8)
KIND_LETTERS = np.array([_kind_and_letter(_flags(bits), payload)[1] for bits, payload in _COMBINATIONS], np.uint8)
"""By flags and payload."""

NEXT_STATES = np.array(
    [
        _packed(_next_states(sender, peer, _flags(bits), forward, payload))
        for (bits, payload), forward, sender, peer in product(_COMBINATIONS, (False, True), range(8), range(8))
    ],
    np.uint8,
)
"""By flags and payload, direction, state of the sender and of its peer: the next ones, the peer's in the upper bits."""


@kernel_part
def add(connection, packet, forward, already_sent):
    """Follows one packet; `already_sent`: it has payload that ends at or below the highest octet of its side."""
    sender = connection.orig if forward else connection.resp
    peer = connection.resp if forward else connection.orig
    flags = np.int64(packet.tcp_flags)
    combination = (flags & 7) << 1 | flags & ACK | (1 if packet.payload_octets else 0)
    kind = KINDS[combination]
    if kind != _NO_KIND:
        is_new = sender.kinds_seen >> kind & 1 == 0
        if kind <= _RST_KIND:
            before_fin = np.int64(packet.payload_octets) if kind == _FIN_KIND else 0
            sequence = np.uint32(np.int64(packet.tcp_seq) + before_fin)
            is_new |= sequence != sender.last_seq[kind]
            sender.last_seq[kind] = sequence
        if is_new:
            sender.kinds_seen |= 1 << kind
            _letter(connection, KIND_LETTERS[combination], forward)
    if packet.tcp_window == 0 and flags & RST == 0 and peer.state != CLOSED and sender.state < RESET:
        sender.zero_windows += 1
        if _is_power_of_ten(sender.zero_windows):
            _letter(connection, np.uint8(LETTER_W), forward)
    if already_sent and sender.state < RESET:
        sender.repeats += 1
        if _is_power_of_ten(sender.repeats):
            _letter(connection, np.uint8(LETTER_T), forward)
    states = NEXT_STATES[((combination << 1 | (1 if forward else 0)) << 3 | sender.state) << 3 | peer.state]
    sender.state = states & 15
    peer.state = states >> 4


@kernel_part
def _letter(connection, letter, forward):
    if connection.letters < LETTERS:
        connection.history[connection.letters] = letter if forward else letter + TO_LOWER
        connection.letters += 1


@kernel_part
def _is_power_of_ten(count):
    power = 1
    while power < count:
        power *= 10
    return power == count


def conn_state(connections: np.ndarray, flows: np.ndarray) -> pa.Array:
    """Zeek's word for each flow: TCP by the end points' states, UDP by who sent anything, all else OTH."""
    orig, resp = (np.minimum(connections[side]["state"], RESET) for side in ("orig", "resp"))
    sent, answered = (flows[side]["packets"] > 0 for side in ("fwd", "rev"))
    no_payload = flows["fwd"]["payload_octets"] + flows["rev"]["payload_octets"] == 0
    protocol = flows["protocol"]
    no_resp = (resp == INACTIVE) | (resp == PARTIAL)
    reset_after_syn = _reset_after_syn(connections["history"], (orig == RESET) & no_resp)
    code = orig.astype(np.uint16) << 9 | resp.astype(np.uint16) << 6
    for bit, holds in enumerate((protocol == TCP, protocol == UDP, sent, answered, no_payload, reset_after_syn)):
        code |= holds.astype(np.uint16) << bit
    return pa.DictionaryArray.from_arrays(_WORD_OF[code], _WORDS).cast(pa.string())


def _word_of(code: np.ndarray) -> np.ndarray:
    """Which of `_WORDS` a connection has, Zeek's `conn_state`; by states and conditions packed as in `conn_state`."""
    orig, resp = code >> 9, code >> 6 & 7
    tcp, udp, sent, answered, no_payload, reset_after_syn = (code >> bit & 1 == 1 for bit in range(6))
    no_orig, no_resp = ((state == INACTIVE) | (state == PARTIAL) for state in (orig, resp))
    rejected = (orig == SYN_SENT) | (orig == SYN_ACK_SENT) | (orig == RESET) & no_payload
    cases = (
        (udp & sent & answered, "SF"),
        (udp & sent, "S0"),
        (udp & answered, "SHR"),
        (~tcp, "OTH"),
        ((resp == RESET) & rejected, "REJ"),
        ((resp == RESET) & no_orig, "RSTRH"),
        (resp == RESET, "RSTR"),
        (reset_after_syn, "RSTOS0"),
        ((orig == RESET) & no_resp, "OTH"),
        (orig == RESET, "RSTO"),
        ((orig == CLOSED) & (resp == CLOSED), "SF"),
        ((orig == CLOSED) & no_resp, "SH"),
        (orig == CLOSED, "S2"),
        ((resp == CLOSED) & no_orig, "SHR"),
        (resp == CLOSED, "S3"),
        ((orig == SYN_SENT) & (resp == INACTIVE), "S0"),
        ((orig == ESTABLISHED) & (resp == ESTABLISHED), "S1"),
    )
    return np.select([holds for holds, _ in cases], [_WORDS.index(word) for _, word in cases], _WORDS.index("OTH"))


_WORDS = ("OTH", "S0", "S1", "S2", "S3", "SF", "SH", "SHR", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH")
_WORD_OF = _word_of(np.arange(1 << 12)).astype(np.int8)


def _reset_after_syn(letters: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Which of the candidates have a history that matches Zeek's `S[^HAFGIQ]*R.*`."""
    matches = np.zeros(len(candidates), bool)
    rows = np.flatnonzero(candidates)
    before_reset = ~np.logical_or.accumulate(letters[rows] == LETTER_R, axis=1)
    other = np.isin(letters[rows], np.frombuffer(b"HAFGIQ", np.uint8)) & before_reset
    matches[rows] = (letters[rows, 0] == LETTER_S) & ~before_reset[:, -1] & ~other.any(axis=1)
    return matches


def history(connections: np.ndarray, flows: np.ndarray) -> pa.Array:
    """The letters of each TCP flow; D and d of UDP in the order of their first packets; null where there are none."""
    letters, counts = connections["history"], connections["letters"].astype(np.int64)
    udp = np.flatnonzero(flows["protocol"] == UDP)
    if len(udp):
        letters = letters.copy()
        fwd, rev = flows["fwd"][udp], flows["rev"][udp]
        sent, answered = fwd["packets"] > 0, rev["packets"] > 0
        counts[udp] = sent.astype(np.int64) + answered
        reverse_first = answered & (~sent | (rev["first_ns"] < fwd["first_ns"]))
        letters[udp, 0] = np.where(reverse_first, LETTER_D + TO_LOWER, LETTER_D)
        letters[udp, 1] = np.where(reverse_first, LETTER_D, LETTER_D + TO_LOWER)
    return _words(letters, counts)


def _words(letters: np.ndarray, counts: np.ndarray) -> pa.Array:
    """The first `counts[row]` of each row of ASCII `letters` as a string column; null for none."""
    begin = sequences.offsets(counts)
    validity = np.packbits(counts > 0, bitorder="little")
    used = sequences.beginnings(letters, counts, begin)
    return pa.Array.from_buffers(pa.string(), len(counts), [pa.py_buffer(part) for part in (validity, begin, used)])

"""Plays sessions: each becomes its segments, with sequence numbers, round trips, losses and an end."""

import numpy as np

from sources.generate.sessions import (
    ABORTED,
    CLOSED,
    LEFT_OPEN,
    MILLISECOND,
    PROBED,
    REFUSED,
    RESET,
    SECOND,
    UNANSWERED,
)
from transforms.kernel import kernel, kernel_part
from transforms.records import ACK, FIN, PSH, RST, SYN, TCP

SEGMENT = np.dtype(
    [
        ("time_ns", "i8"),
        ("session", "u4"),
        ("seq", "u4"),
        ("ack", "u4"),
        ("payload_at", "u4"),  # octets of payload that this side sent before
        ("payload_octets", "u2"),
        ("window", "u2"),
        ("ip_id", "u2"),
        ("flags", "u1"),
        ("reverse", "u1"),  # 1 if the responder sends it
        ("first", "u1"),  # 1 for the first of its session
    ],
    align=True,
)
"""One packet of a session, without what the session knows."""

_LONGEST_NS = 1_600 * SECOND  # sessions end before an active timeout of 1,800 s
_LONGEST_PAUSE_NS = 80 * SECOND  # and pause for less than an idle timeout of 120 s
_LONGEST_RETRY_NS = 3 * SECOND
_GAMMA = np.uint64(0x9E3779B97F4A7C15)

# What a session remembers while it is played: places in an array of int64.
_TIME, _SEQ, _SENT, _IP_ID, _RANDOM, _STATE = 0, 1, 3, 5, 7, 8


_NOTHING = (0, 0)
_OPENINGS = np.zeros((7, 3, 2), np.int64)
"""By manner: who sends which flags, up to three segments; no flags end it."""
_OPENINGS[:] = ((0, SYN), (1, SYN | ACK), (0, ACK))
_OPENINGS[REFUSED] = ((0, SYN), (1, RST | ACK), _NOTHING)
_OPENINGS[UNANSWERED] = ((0, SYN), _NOTHING, _NOTHING)
_OPENINGS[PROBED] = ((0, SYN), (1, SYN | ACK), (0, RST))

_CLOSINGS = np.zeros((3, 3, 2), np.int64)
"""Likewise; the responder may close in the initiator's place."""
_CLOSINGS[CLOSED] = ((0, FIN | ACK), (1, FIN | ACK), (0, ACK))
_CLOSINGS[RESET] = ((0, RST | ACK), _NOTHING, _NOTHING)
_CLOSINGS[ABORTED] = ((1, RST | ACK), _NOTHING, _NOTHING)


def play(sessions: np.ndarray, tick_ns: int) -> np.ndarray:
    """All segments of `SESSION[n]`: `SEGMENT[m]`, session by session; times are multiples of `tick_ns`."""
    segments = np.zeros(max(1024, 32 * len(sessions)), SEGMENT)
    at = index = 0
    while index < len(sessions):
        index, at = _play(sessions, index, segments, at, tick_ns)
        if index < len(sessions):
            segments = np.concatenate([segments, np.zeros(len(segments), SEGMENT)])
    return segments[:at]


def mean_packets(sessions: np.ndarray) -> float:
    """How many packets a session has on average."""
    return len(play(sessions, 1)) / len(sessions)


@kernel_part
def _drawn(state):
    """The next random number, from 0 to 1 (splitmix64)."""
    mixed = np.uint64(state[_RANDOM]) + _GAMMA
    state[_RANDOM] = np.int64(mixed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / 9007199254740992.0


@kernel_part
def _varied(state, mean, spread):
    """A number around `mean`: evenly from mean × (1 − spread/255) to mean × (1 + spread/255)."""
    return np.int64(mean * (1.0 + (2.0 * _drawn(state) - 1.0) * spread / 255.0))


@kernel_part
def _put(segments, at, session, state, reverse, flags, octets):
    """Writes one segment at the state's time and moves its side's sequence number; returns the next place."""
    if at < len(segments):
        segment = segments[at]
        segment.time_ns = state[_TIME]
        segment.session = session
        segment.seq = np.uint32(state[_SEQ + reverse])
        segment.ack = np.uint32(state[_SEQ + 1 - reverse]) if flags & ACK else np.uint32(0)
        segment.payload_at = np.uint32(state[_SENT + reverse])
        segment.payload_octets = octets
        segment.window = 64240 if flags & SYN else (501 + (state[_IP_ID + reverse] & 7))
        segment.ip_id = np.uint16(state[_IP_ID + reverse])
        segment.flags = flags
        segment.reverse = reverse
        segment.first = 0
    state[_SEQ + reverse] += octets + (1 if flags & (SYN | FIN) else 0)
    state[_SENT + reverse] += octets
    state[_IP_ID + reverse] += 1
    return at + 1


@kernel_part
def _put_again(segments, at, delay_ns):
    """Sends the last segment once more, `delay_ns` later: the first was lost behind the point of capture."""
    if 0 < at < len(segments):
        segments[at] = segments[at - 1]
        segments[at].time_ns += delay_ns
        segments[at].first = 0
        segments[at].ip_id += 1
    return at + 1


@kernel_part
def _delay(session, reverse):
    """Until the other side's answer to a segment passes the point of capture."""
    return session.src_delay_ns if reverse else session.dst_delay_ns


@kernel_part
def _transfer(segments, at, index, session, state, reverse, octets):
    """Sends `octets` one way: bursts that double from ten segments, one ACK for two segments."""
    is_tcp = session.protocol == TCP
    burst, in_burst, unacknowledged = 10, 0, 0
    while octets > 0:
        length = min(octets, np.int64(session.segment_octets))
        octets -= length
        at = _put(segments, at, index, state, reverse, (ACK | (0 if octets else PSH)) if is_tcp else 0, length)
        if is_tcp and session.loss > 0 and _drawn(state) * 65536.0 < session.loss:
            at = _put_again(segments, at, min(200 * MILLISECOND + _delay(session, reverse), _LONGEST_RETRY_NS))
        in_burst, unacknowledged = in_burst + 1, unacknowledged + 1
        state[_TIME] += 1_000 + _varied(state, session.pace_ns, 200)
        if is_tcp and (unacknowledged == 2 or octets == 0):
            sent_ns = state[_TIME]
            state[_TIME] += _delay(session, reverse)
            at = _put(segments, at, index, state, 1 - reverse, ACK, 0)
            state[_TIME] = sent_ns
            unacknowledged = 0
        if in_burst == burst:
            state[_TIME] += _delay(session, reverse)
            burst, in_burst = min(2 * burst, 80), 0
    return at


@kernel_part
def _talk(segments, at, index, session, state):
    """All turns of a session: perhaps a greeting, then request and response of each exchange."""
    begun_ns = state[_TIME]
    for turn in range(-1 if session.greeting_octets else 0, 2 * np.int64(session.exchanges)):
        reverse = turn & 1
        if turn < 0:
            octets = np.int64(session.greeting_octets)
        elif reverse:
            octets = _varied(state, session.response_octets, session.spread)
            if octets == 0:
                continue
            state[_TIME] += session.dst_delay_ns + _varied(state, 2 * MILLISECOND, 250)
        else:
            octets = max(_varied(state, session.request_octets, session.spread), 1)
            state[_TIME] += (
                min(_varied(state, session.think_ns, session.spread), _LONGEST_PAUSE_NS)
                if turn
                else session.src_delay_ns
            )
            if state[_TIME] - begun_ns > _LONGEST_NS:
                break
        at = _transfer(segments, at, index, session, state, reverse, octets)
    return at


@kernel_part
def _step(segments, at, index, session, state, steps, mirrored):
    """Sends segments without payload, each when the one before has been received."""
    for i in range(len(steps)):
        if steps[i, 1] == 0:
            break
        reverse = steps[i, 0] ^ mirrored
        if i:
            state[_TIME] += _delay(session, 1 - reverse)
        at = _put(segments, at, index, state, reverse, steps[i, 1], 0)
    return at


@kernel
def _play(sessions, index, segments, at, tick_ns):
    """Plays from session `index` until done or `segments` is full; returns the next session and place."""
    state = np.empty(_STATE, np.int64)
    while index < len(sessions):
        session = sessions[index]
        is_tcp = session.protocol == TCP
        manner = np.int64(session.manner) if is_tcp else LEFT_OPEN
        state[_TIME] = session.start_ns
        state[_RANDOM] = np.int64(session.seed)
        for side in range(2):
            state[_SENT + side] = 0
            state[_SEQ + side] = np.int64(_drawn(state) * 4294967296.0)
            state[_IP_ID + side] = np.int64(_drawn(state) * 65536.0)
        if manner == REFUSED:
            state[_SEQ + 1] = 0
        end = at
        if is_tcp:
            end = _step(segments, at, index, session, state, _OPENINGS[manner], 0)
            if manner == UNANSWERED:
                for retry in range(1, session.exchanges):
                    end = _put_again(segments, end, SECOND << (retry - 1))
            state[_TIME] += 50_000
        if manner <= LEFT_OPEN:
            end = _talk(segments, end, index, session, state)
        if manner < LEFT_OPEN:
            responder_closes = 1 if manner == CLOSED and _drawn(state) < 0.25 else 0
            state[_TIME] += _delay(session, 1 - responder_closes)
            end = _step(segments, end, index, session, state, _CLOSINGS[manner], responder_closes)
        if end > len(segments):
            return index, at
        segments[at].first = 1
        for i in range(at, end):
            segments[i].time_ns -= segments[i].time_ns % tick_ns
        index, at = index + 1, end
    return index, at

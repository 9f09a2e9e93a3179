"""Puts sessions in time: slices of the capture, each sorted, exactly as many packets as asked for."""

from collections.abc import Iterator

import numpy as np

from sources.generate.play import SEGMENT, mean_packets, play
from sources.generate.profiles import Profile
from sources.generate.sessions import SECOND, SESSION, Scale
from transforms.identity import packet_shard
from transforms.kernel import kernel

_SLICE_PACKETS = 20_000  # small enough for the caches
_SHORTEST_S = 30
_SAMPLE_PACKETS = 200_000  # about so many are played to learn how many packets a session has
_PACKETS_PER_FLOW = 20
_MOST_KEY_BITS = 30


def timeline(
    profile: Profile, packets: int, seed: int, flows: int | None, tick_ns: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Slices of a capture of exactly `packets` packets: `SEGMENT[n]` in time order, and the `SESSION[m]` they point to.

    Memory depends on a slice, the sessions open at its end and the attacks planned, not on the length of the capture.
    No two sessions share a flow key, and none is split by default timeouts: each is one flow.
    """
    scale = _scale(profile, packets, seed, flows)
    length_ns = int(max(packets / profile.packets_per_s, _SHORTEST_S) * SECOND)
    slice_ns = max(int(length_ns * min(_SLICE_PACKETS / packets, 1.0)), 1)
    per_slice = _sessions_per_ns(profile, packets, seed, scale, length_ns) * slice_ns
    used = np.zeros(1 << int(np.clip(np.ceil(np.log2(16 * packets)), 16, _MOST_KEY_BITS) - 3), np.uint8)
    planned = np.zeros(0, SESSION)
    planned_until_ns = 0
    waiting, sessions = np.zeros(0, SEGMENT), np.zeros(0, SESSION)
    number = 0
    while packets > 0:
        begin_ns, end_ns = number * slice_ns, (number + 1) * slice_ns
        rng = np.random.default_rng([seed, 1, number])
        if profile.attack_share and planned_until_ns < end_ns and (profile.attack_share == 1 or number == 0):
            planned = np.concatenate([planned, _planned(profile, packets, rng, planned_until_ns, length_ns)])
            planned = planned[np.argsort(planned["start_ns"], kind="stable")]
            planned_until_ns += length_ns
        due = int(np.searchsorted(planned["start_ns"], end_ns))
        background = profile.background(rng, rng.poisson(per_slice), scale)
        background["start_ns"] = begin_ns + np.sort(rng.integers(0, slice_ns, len(background)))
        begun = np.concatenate([planned[:due], background])
        planned = planned[due:]
        begun = begun[_first_uses(begun, used)]

        played = play(begun, tick_ns)
        played["session"] += len(sessions)
        waiting = np.concatenate([waiting, played])
        sessions = np.concatenate([sessions, begun])
        waiting = waiting[np.argsort(waiting["time_ns"], kind="stable")]
        ready = int(np.searchsorted(waiting["time_ns"], end_ns - tick_ns))
        yield waiting[: min(ready, packets)], sessions
        packets -= min(ready, packets)
        waiting = waiting[ready:].copy()
        needed, waiting["session"] = np.unique(waiting["session"], return_inverse=True)
        sessions = sessions[needed]
        number += 1


def _scale(profile: Profile, packets: int, seed: int, flows: int | None) -> Scale:
    """What sessions must be like for `packets` packets in about `flows` flows."""
    wanted = packets / flows if flows else float(_PACKETS_PER_FLOW)
    scale = Scale(profile.v6_share, max(packets * 20.0, 3_000.0), wanted)
    for _ in range(6 if flows else 0):
        scale = scale._replace(mean_packets=scale.mean_packets * wanted / _mean_packets(profile, seed, scale, wanted))
    return scale


def _sessions_per_ns(profile: Profile, packets: int, seed: int, scale: Scale, length_ns: int) -> float:
    if not profile.mix:
        return 0.0
    mean = _mean_packets(profile, seed, scale, scale.mean_packets)
    return packets * (1 - profile.attack_share) / mean / length_ns


def _mean_packets(profile: Profile, seed: int, scale: Scale, expected: float) -> float:
    """Packets of an average session of the mix, from a sample."""
    count = int(np.clip(_SAMPLE_PACKETS / expected, 100, 10_000))
    return mean_packets(profile.background(np.random.default_rng([seed, 2]), count, scale))


def _planned(profile: Profile, packets: int, rng: np.random.Generator, start_ns: int, length_ns: int) -> np.ndarray:
    """One round of attacks, from `start_ns` on."""
    sessions = profile.attacks(rng, packets * profile.attack_share, length_ns)
    sessions["start_ns"] += start_ns
    return sessions


@kernel
def _first_uses(sessions, used):
    """Whether each session's endpoints are new, by a Bloom filter of two bits: true only if they are."""
    fresh = np.empty(len(sessions), np.bool_)
    places = np.uint64(8 * len(used) - 1)
    for i in range(len(sessions)):
        hashed = packet_shard(sessions[i])
        first, second = np.int64(hashed & places), np.int64((hashed >> np.uint64(32)) & places)
        first_bit, second_bit = np.uint8(1 << (first & 7)), np.uint8(1 << (second & 7))
        fresh[i] = used[first >> 3] & first_bit == 0 or used[second >> 3] & second_bit == 0
        used[first >> 3] |= first_bit
        used[second >> 3] |= second_bit
    return fresh

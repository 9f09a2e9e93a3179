"""What attackers do. Each function plans one attack of about `packets` packets, which begins at `start_ns`."""

import numpy as np

from sources.generate.hosts import Group, assign, sessions_between
from sources.generate.sessions import (
    CLOSED,
    LEFT_OPEN,
    MILLISECOND,
    OPTIONS_MSS,
    OPTIONS_NONE,
    PROBED,
    REFUSED,
    RESET,
    SECOND,
    UNANSWERED,
    Scale,
)
from transforms.records import UDP

_UPLOAD_PACKETS = 150
"""Of an upload that is no mail, on average."""


def syn_flood(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """SYNs from forged addresses to one service; each is a flow of one packet."""
    sessions = forged_syns(rng, packets, attackers, _one(rng, victims))
    sessions["start_ns"] = start_ns + _times(rng, packets, min(length_ns, 30 * SECOND))
    return sessions


def forged_syns(
    rng: np.random.Generator, count: int, attackers: Group, victims: Group, scale: Scale | None = None
) -> np.ndarray:
    """The SYNs of a flood, without times, for a profile that is nothing else."""
    sessions = sessions_between(rng, count, "syn_flood", attackers, victims)
    sessions["src_lo"] = np.uint64(0xFFFF << 32) + rng.integers(1 << 24, 224 << 24, count, dtype=np.uint64)
    sessions["src_port"] = rng.integers(1024, 65536, count)
    sessions["dst_port"] = 443
    sessions["src_ttl"] = rng.integers(40, 250, count)
    sessions["options"] = OPTIONS_NONE
    sessions["manner"] = UNANSWERED
    return sessions


def slow_http(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """Many connections to one server, each kept busy with a few octets of header every few seconds."""
    each = int(np.clip(packets / 20, 4, 40))
    count = max(packets // (2 * each + 4), 2)
    sessions = sessions_between(rng, count, "slow_http", _one(rng, attackers), _one(rng, victims))
    sessions["dst_port"] = 80
    sessions["exchanges"] = rng.integers(2, 2 * each, count)
    sessions["request_octets"] = rng.integers(8, 30, count)
    sessions["think_ns"] = rng.integers(3_000, 12_000, count) * MILLISECOND
    sessions["spread"] = 30
    sessions["manner"] = rng.choice([LEFT_OPEN, RESET], count)
    sessions["start_ns"] = start_ns + _times(rng, count, min(length_ns // 4, 60 * SECOND))
    return sessions


def dns_amplification(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """Large answers of many resolvers to questions that the victim never asked."""
    count = max(packets // 6, 1)
    sessions = sessions_between(rng, count, "dns_amplification", attackers, _one(rng, victims))
    sessions["protocol"] = UDP
    sessions["src_port"] = 53
    sessions["dst_port"] = rng.integers(1024, 65536, count)
    sessions["exchanges"] = 2
    sessions["request_octets"] = rng.integers(2_800, 4_000, count)
    sessions["segment_octets"] = 1_400
    sessions["think_ns"] = 400 * MILLISECOND
    sessions["start_ns"] = start_ns + _times(rng, count, min(length_ns, 60 * SECOND))
    return sessions


def horizontal_scan(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """One port on every address of the site's network; few are there and fewer listen."""
    count = max(round(packets / 1.6), 4)
    sessions = sessions_between(rng, count, "horizontal_scan", _one(rng, attackers), victims)
    base = int(victims.v4[0]) & ~0xFFFF
    sessions["dst_lo"] = np.uint64(base) + np.arange(count, dtype=np.uint64) % np.uint64(65536)
    ports = rng.permutation([22, 445, 3389, 23, 80, 1433, 5900, 8443])
    sessions["dst_port"] = ports[np.arange(count) // 65536 % len(ports)]
    _scan(rng, sessions, start_ns, length_ns, [UNANSWERED, REFUSED, PROBED], [0.6, 0.3, 0.1])
    return sessions


def vertical_scan(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """Every port of a host, then of the next."""
    count = max(round(packets / 2.0), 4)
    sessions = sessions_between(rng, count, "vertical_scan", _one(rng, attackers), victims)
    hosts = (rng.integers(0, len(victims.v4)) + np.arange(count) // 65535) % len(victims.v4)
    assign(sessions, "dst", victims, hosts, np.zeros(count, bool))
    sessions["dst_port"] = 1 + rng.permutation(65535)[np.arange(count) % 65535]
    _scan(rng, sessions, start_ns, length_ns, [REFUSED, UNANSWERED, PROBED], [0.9, 0.07, 0.03])
    return sessions


def _scan(
    rng: np.random.Generator,
    sessions: np.ndarray,
    start_ns: int,
    length_ns: int,
    manners: list[int],
    shares: list[float],
) -> None:
    """What a scanner's probes have in common: order, one source port, a bare SYN."""
    count = len(sessions)
    sessions["src_port"] = rng.integers(33000, 60000)
    sessions["options"] = OPTIONS_MSS
    sessions["manner"] = rng.choice(manners, count, p=shares)
    gap_ns = min(length_ns / count, 20 * MILLISECOND)
    sessions["start_ns"] = start_ns + np.cumsum(rng.exponential(gap_ns, count)).astype(np.int64)


def ssh_brute_force(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """Connection after connection, a few passwords each, until the server hangs up."""
    count = max(packets // 30, 2)
    sessions = sessions_between(rng, count, "ssh_brute_force", _one(rng, attackers), _one(rng, victims))
    sessions["dst_port"] = 22
    sessions["greeting_octets"] = 41
    sessions["exchanges"] = rng.integers(5, 8, count)
    sessions["request_octets"] = rng.integers(90, 160, count)
    sessions["response_octets"] = rng.integers(60, 300, count)
    sessions["think_ns"] = rng.integers(200, 1_500, count) * MILLISECOND
    sessions["spread"] = 40
    sessions["manner"] = rng.choice([CLOSED, RESET], count, p=[0.8, 0.2])
    sessions["start_ns"] = start_ns + np.sort(_times(rng, count, length_ns))
    return sessions


def beaconing(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """An infected client calls its controller at fixed intervals; each call is a flow."""
    count = max(packets // 12, 3)
    sessions = sessions_between(rng, count, "beaconing", _one(rng, victims), _one(rng, attackers))
    sessions["dst_port"] = 443
    sessions["request_octets"] = 312
    sessions["response_octets"] = 164
    sessions["spread"] = 6
    sessions["src_port"] = 49_152 + (int(rng.integers(0, 16_384)) + np.arange(count)) % 16_384
    interval_ns = min(length_ns // count, 60 * SECOND)
    late = rng.normal(0, 0.02 * interval_ns, count)
    sessions["start_ns"] = start_ns + np.maximum(np.arange(count) * interval_ns + late, 0).astype(np.int64)
    return sessions


def exfiltration(
    rng: np.random.Generator, packets: int, attackers: Group, victims: Group, start_ns: int, length_ns: int
) -> np.ndarray:
    """A client sends far more than it receives, upload after upload, to one address outside."""
    count = max(packets // _UPLOAD_PACKETS, 1)
    sessions = sessions_between(rng, count, "exfiltration", _one(rng, victims), _one(rng, attackers))
    parts = rng.lognormal(0, 0.4, count)
    each = packets * parts / parts.sum()
    sessions["dst_port"] = rng.choice([443, 22, 8443], count)
    sessions["exchanges"] = np.maximum(each // 100, 1)
    # An upload of 1,448 octets costs a packet and half an ACK.
    sessions["request_octets"] = each / sessions["exchanges"] / 1.5 * 1_448
    sessions["response_octets"] = 80
    sessions["think_ns"] = rng.integers(500, 3_000, count) * MILLISECOND
    sessions["start_ns"] = start_ns + _times(rng, count, length_ns // 2)
    return sessions


def _one(rng: np.random.Generator, group: Group) -> Group:
    """One host of a group."""
    chosen = slice(at := int(rng.integers(0, len(group.v4))), at + 1)
    return group._replace(
        v4=group.v4[chosen], v6_hi=group.v6_hi[chosen], v6_lo=group.v6_lo[chosen], macs=group.macs[chosen]
    )


def _times(rng: np.random.Generator, count: int, length_ns: int) -> np.ndarray:
    return rng.integers(0, max(length_ns, 1), count)

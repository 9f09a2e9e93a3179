"""Profiles: who is on the network, what they do how often, and which attacks there are."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sources.generate.hosts import Group, local, remote
from sources.generate.sessions import SESSION, Scale, attacks, benign
from transforms.records import InputError

Maker = Callable[[np.random.Generator, int, Group, Group, Scale], np.ndarray]
Attack = Callable[[np.random.Generator, int, Group, Group, int, int], np.ndarray]


@dataclass(frozen=True)
class Site:
    """The groups of hosts that a profile's sessions join."""

    clients: Group
    servers: Group
    resolvers: Group
    internet: Group
    attackers: Group
    reflectors: Group


@dataclass(frozen=True)
class Part:
    """One kind of session within a mix, between two of a site's groups."""

    make: Maker
    initiators: str
    responders: str
    weight: float


@dataclass(frozen=True)
class Profile:
    """A kind of traffic.

    Attributes:
        doc: What it is for, one sentence.
        site: Its hosts.
        packets_per_s: Its pace; so the number of packets decides how long a capture lasts.
        mix: What happens all the time.
        attack_share: Part of the packets that belong to planned attacks; if it is 1, they are planned again and again.
        v6_share: Part of the sessions of the mix that run over IPv6.
    """

    doc: str
    site: Site
    packets_per_s: float
    mix: tuple[Part, ...]
    attack_share: float = 0.0
    v6_share: float = 0.3

    def background(self, rng: np.random.Generator, count: int, scale: Scale) -> np.ndarray:
        """`SESSION[count]` of the mix in random order, without times."""
        weights = np.array([part.weight for part in self.mix])
        counts = rng.multinomial(count, weights / weights.sum()).tolist() if self.mix else []
        sessions = [
            part.make(rng, n, getattr(self.site, part.initiators), getattr(self.site, part.responders), scale)
            for part, n in zip(self.mix, counts, strict=True)
            if n
        ]
        together = np.concatenate([np.zeros(0, SESSION), *sessions])
        return together[rng.permutation(len(together))] if len(sessions) > 1 else together

    def attacks(self, rng: np.random.Generator, packets: float, length_ns: int) -> np.ndarray:
        """The sessions of every kind of attack, each a few times, within `length_ns` and of about `packets` packets."""
        site = self.site
        kinds: list[tuple[Attack, Group, Group, int]] = [  # those whose flows are of many packets get more of them
            (attacks.syn_flood, site.attackers, site.servers, 1),
            (attacks.slow_http, site.attackers, site.servers, 2),
            (attacks.dns_amplification, site.reflectors, site.servers, 1),
            (attacks.horizontal_scan, site.attackers, site.servers, 1),
            (attacks.vertical_scan, site.attackers, site.servers, 1),
            (attacks.ssh_brute_force, site.attackers, site.servers, 2),
            (attacks.beaconing, site.attackers, site.clients, 1),
            (attacks.exfiltration, site.attackers, site.clients, 3),
        ]
        times = 3 if packets >= 3_000 else 1
        each = packets / times / sum(weight for *_, weight in kinds)
        sessions = [np.zeros(0, SESSION)]
        for time in range(times):
            for attack, attackers, victims, weight in kinds:
                start_ns = int(length_ns * (0.02 + 0.7 * (time + rng.random()) / times))
                some = max(int(weight * each), 4)
                sessions.append(attack(rng, some, attackers, victims, start_ns, length_ns // 6))
        return np.concatenate(sessions)


_ANYWHERE = 0.8
"""The spread of the ways to attackers: how far away they are says little."""

_ATTACKERS = remote(["198.18.0.0/16", "198.19.0.0/16"], "2001:db8:bad::/48", 20, 60, _ANYWHERE)
_REFLECTORS = remote(["203.0.0.0/16", "198.51.0.0/16"], "2001:db8:5ef::/48", 400, 45)

_OFFICE = Site(
    clients=local("10.20.0.0/22", "2001:db8:20::/64", 100, 120),
    servers=local("10.20.0.0/22", "2001:db8:20::/64", 10, 12),
    resolvers=local("10.20.0.0/22", "2001:db8:20::/64", 2, 2),
    internet=remote(
        [f"{net}.0.0/16" for net in ("23.52", "52.84", "104.18", "142.250", "151.101")], "2600:1400::/32", 60, 18
    ),
    attackers=_ATTACKERS,
    reflectors=_REFLECTORS,
)

_CAMPUS = Site(
    clients=local("172.20.0.0/16", "2001:db8:ca::/64", 1000, 4000),
    servers=local("172.20.0.0/16", "2001:db8:ca::/64", 20, 60),
    resolvers=local("172.20.0.0/16", "2001:db8:ca::/64", 5, 4),
    internet=remote(
        [f"{net}.0.0/16" for net in ("13.107", "18.66", "34.117", "74.125", "93.184", "185.199", "199.232")],
        "2a00:1450::/32", 200, 31,
    ),
    attackers=remote(["198.19.0.0/16"], "2001:db8:bad::/48", 35, 110, _ANYWHERE),
    reflectors=_REFLECTORS,
)  # fmt: skip

_OFFICE_MIX = (
    Part(benign.web, "clients", "internet", 40),
    Part(benign.dns, "clients", "resolvers", 90),
    Part(benign.mail, "clients", "servers", 6),
    Part(benign.ssh, "clients", "servers", 0.8),
    Part(benign.video, "clients", "internet", 0.3),
    Part(benign.ntp, "clients", "servers", 4),
    Part(benign.icmp, "clients", "internet", 2),
    Part(benign.web, "internet", "servers", 4),
    Part(benign.dns, "resolvers", "internet", 8),
    Part(benign.mail, "internet", "servers", 2),
    Part(benign.ssh, "internet", "servers", 0.4),
)

_CAMPUS_MIX = (
    Part(benign.web, "clients", "internet", 55),
    Part(benign.web, "internet", "servers", 6),
    Part(benign.dns, "clients", "resolvers", 70),
    Part(benign.dns, "resolvers", "internet", 8),
    Part(benign.mail, "internet", "servers", 3),
    Part(benign.ssh, "clients", "servers", 0.4),
    Part(benign.ssh, "internet", "servers", 0.2),
    Part(benign.video, "clients", "internet", 2),
    Part(benign.ntp, "clients", "internet", 6),
    Part(benign.icmp, "servers", "clients", 1),
)

PROFILES = {
    "office": Profile(
        doc="120 clients of a company, each attack a few times among their work.",
        site=_OFFICE,
        packets_per_s=400,
        mix=_OFFICE_MIX,
        attack_share=0.15,
    ),
    "campus": Profile(
        doc="4,000 clients of a university, more video and IPv6, fewer attacks, other addresses.",
        site=_CAMPUS,
        packets_per_s=2_500,
        mix=_CAMPUS_MIX,
        attack_share=0.1,
        v6_share=0.5,
    ),
    "benign": Profile(doc="The office without attacks.", site=_OFFICE, packets_per_s=400, mix=_OFFICE_MIX),
    "attacks": Profile(
        doc="The office's attacks and nothing else.", site=_OFFICE, packets_per_s=400, mix=(), attack_share=1.0
    ),
    "syn-flood": Profile(
        doc="One SYN a flow, from forged addresses.",
        site=_OFFICE,
        packets_per_s=50_000,
        mix=(Part(attacks.forged_syns, "attackers", "servers", 1),),
        v6_share=0.0,
    ),
    "bulk": Profile(
        doc="Plain TCP and UDP for benchmarks, about 500 octets a frame, 20 packets a flow or as --flows says.",
        site=_CAMPUS,
        packets_per_s=10_000,
        mix=(Part(benign.bulk, "clients", "internet", 1),),
        v6_share=0.2,
    ),
}
"""By name, as `--profile` takes them."""


def profile_named(name: str) -> Profile:
    """The profile called `name`.

    Raises:
        InputError: There is none.
    """
    if name not in PROFILES:
        raise InputError(f"--profile={name}: no such profile; there are {', '.join(PROFILES)}")
    return PROFILES[name]

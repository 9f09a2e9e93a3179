"""Who is there: groups of hosts, each with an IPv4 and an IPv6 address, and how sessions choose among them."""

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sources.generate.sessions import INDEX, MILLISECOND, OPTIONS_FULL, SESSION
from transforms.records import TCP

_ROUTER_MAC = 0x02005E000001
_EPHEMERAL_PORTS = (32768, 61000)  # Linux
_DELAY_SPREAD = 0.4


class Group(NamedTuple):
    """Hosts of one kind.

    Attributes:
        v4: `uint64[n]`, IPv4 addresses as in PACKET's low half.
        v6_hi: `uint64[n]`.
        v6_lo: `uint64[n]`.
        macs: `uint64[n]`; the router's for hosts beyond it.
        delay_ns: Median round trip from the point of capture.
        delay_spread: The standard deviation of its logarithm, over sessions.
        hops: Routers between them and the point of capture.
    """

    v4: np.ndarray
    v6_hi: np.ndarray
    v6_lo: np.ndarray
    macs: np.ndarray
    delay_ns: int
    delay_spread: float
    hops: int


def local(network: str, network_v6: str, first: int, count: int) -> Group:
    """`count` hosts of a site's network, numbered from `first`."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    macs = numbers + np.uint64(0x02005E100000)
    return Group(*_addresses(network, network_v6, numbers), macs, 300_000, _DELAY_SPREAD, 0)


def remote(
    networks: Iterable[str], network_v6: str, per_network: int, delay_ms: float, delay_spread: float = _DELAY_SPREAD
) -> Group:
    """Hosts on the other side of the site's router, `per_network` in each network, scattered over it."""
    scattered = np.arange(1, per_network + 1, dtype=np.uint64) * np.uint64(40503)
    parts = [_addresses(network, network_v6, scattered) for network in networks]
    v4, v6_hi, v6_lo = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    v6_lo = v6_lo + np.arange(len(v6_lo), dtype=np.uint64) * np.uint64(65537)
    macs = np.full(len(v4), _ROUTER_MAC, np.uint64)
    return Group(v4, v6_hi, v6_lo, macs, round(delay_ms * MILLISECOND), delay_spread, 9)


def _addresses(network: str, network_v6: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    v4, v6 = ipaddress.IPv4Network(network), ipaddress.IPv6Network(network_v6)
    within = numbers % np.uint64(v4.num_addresses)
    lo = np.uint64(0xFFFF << 32 | int(v4.network_address)) + within
    hi = np.full(len(numbers), int(v6.network_address) >> 64, np.uint64)
    return lo, hi, numbers


def sessions_between(
    rng: np.random.Generator,
    count: int,
    name: str,
    initiators: Group,
    responders: Group,
    v6_share: float = 0.0,
    popularity: float = 1.0,
) -> np.ndarray:
    """`SESSION[count]` of TCP between hosts drawn from two groups, with ordinary ports, delays and options.

    Args:
        rng: Where chance comes from.
        count: How many sessions.
        name: One of NAMES.
        initiators: Who begins.
        responders: Who is called.
        v6_share: Part of the sessions that run over IPv6.
        popularity: 1 if all responders are called alike; greater, the more the first of them are preferred.
    """
    sessions = np.zeros(count, SESSION)
    six = rng.random(count) < v6_share
    for side, group, exponent in (("src", initiators, 1.0), ("dst", responders, popularity)):
        chosen = (len(group.v4) * rng.random(count) ** exponent).astype(np.int64)
        assign(sessions, side, group, chosen, six)
        sessions[f"{side}_delay_ns"] = group.delay_ns * rng.lognormal(0, group.delay_spread, count)
        sessions[f"{side}_ttl"] = np.where(chosen % 3 == 0, 128, 64) - (group.hops + chosen % 7 if group.hops else 0)
    sessions["src_port"] = rng.integers(*_EPHEMERAL_PORTS, count)
    sessions["name"] = INDEX[name]
    sessions["protocol"] = TCP
    sessions["segment_octets"] = np.where(six, 1428, 1448)
    sessions["options"] = OPTIONS_FULL
    sessions["exchanges"] = 1
    sessions["spread"] = 128
    sessions["pace_ns"] = rng.integers(5_000, 120_000, count)
    sessions["think_ns"] = 20 * MILLISECOND
    sessions["loss"] = 150
    sessions["seed"] = rng.integers(0, 1 << 63, count)
    return sessions


def assign(sessions: np.ndarray, side: str, group: Group, chosen: np.ndarray, six: np.ndarray) -> None:
    """Gives one side of `sessions` the hosts `chosen` of `group`; IPv6 addresses where `six`."""
    sessions["ip_version"] = np.where(six, 6, 4)
    sessions[f"{side}_hi"] = np.where(six, group.v6_hi[chosen], np.uint64(0))
    sessions[f"{side}_lo"] = np.where(six, group.v6_lo[chosen], group.v4[chosen])
    sessions[f"{side}_mac"] = group.macs[chosen]

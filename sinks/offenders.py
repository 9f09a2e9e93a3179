"""Who is on a block list: sources of alerts, until some time after their last one. No Beam, no files."""

import ipaddress
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEVER = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "::1/128", "fe80::/10", "ff00::/8"),
    )
)
"""Addresses that no list ever has: this host, this link, groups, all."""

PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""Addresses that a list has only where others are named to be spared."""

FORMAT = 1


class Offender(NamedTuple):
    """A source of alerts.

    Attributes:
        flows: Its alerts.
        first_ns: When the first of their flows began.
        last_ns: When the last of them ended.
        named: The class of the alert with the highest score.
        score: That score.
    """

    flows: int
    first_ns: int
    last_ns: int
    named: str
    score: float


class Rules(NamedTuple):
    """Who is listed, and for how long.

    Attributes:
        ttl_ns: An offender is listed for so long after its last alert, of event time.
        flows_least: So many alerts make an offender.
        most: Entries of the list; those with the oldest alerts go first.
        spared: Networks that are never listed.
    """

    ttl_ns: int
    flows_least: int
    most: int
    spared: tuple[Network, ...]


class Offenders:
    """Sources of alerts, known up to `now_ns` of event time.

    Args:
        rules: Who is listed.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now_ns = 0
        self.generation = 0
        self._known: dict[str, Offender] = {}
        self._spared: dict[str, bool] = {}

    def add(self, alerts: pa.RecordBatch) -> int:
        """Takes alerts; the order does not matter. Returns how many were of spared addresses."""
        spared = 0
        columns = ("src_ip", "flow_start_ns", "flow_end_ns", "predicted_class", "score")
        for address, start, end, named, score in zip(*(alerts[name].to_pylist() for name in columns), strict=True):
            if address is None or self._is_spared(address):
                spared += 1
                continue
            one = Offender(1, start, end, named or "", -1.0 if score is None else score)
            known = self._known.get(address)
            self._known[address] = one if known is None else joined(known, one)
        self.advance(self.now_ns)
        room = 2 * self.rules.most  # for those that are not listed yet, too
        if len(self._known) > room:
            latest = sorted(self._known.items(), key=lambda item: (-item[1].last_ns, item[0]))
            self._known = dict(latest[:room])
        return spared

    def advance(self, now_ns: int) -> bool:
        """Event time has come so far: who is over is forgotten. Returns whether anybody was."""
        self.now_ns = max(self.now_ns, now_ns)
        over = self.now_ns - self.rules.ttl_ns
        kept = {address: one for address, one in self._known.items() if one.last_ns > over}
        forgotten = len(kept) < len(self._known)
        self._known = kept
        return forgotten

    def listed(self) -> list[tuple[str, Offender]]:
        """The entries of the list, in order of addresses."""
        found = [(address, one) for address, one in self._known.items() if one.flows >= self.rules.flows_least]
        if len(found) > self.rules.most:
            found = sorted(found, key=lambda item: (-item[1].last_ns, item[0]))[: self.rules.most]
        return sorted(found, key=lambda item: _order(item[0]))

    def to_bytes(self) -> bytes:
        """All that is known, as JSON."""
        known = {address: list(one) for address, one in sorted(self._known.items())}
        return json.dumps(
            {"format": FORMAT, "now_ns": self.now_ns, "generation": self.generation, "known": known}
        ).encode()

    @classmethod
    def from_bytes(cls, octets: bytes, rules: Rules) -> "Offenders":
        """What `to_bytes` wrote, by these rules.

        Raises:
            ValueError: It is none of ours.
        """
        try:
            saved: dict[str, Any] = json.loads(octets)
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}, not {FORMAT}")
            made = cls(rules)
            made.now_ns, made.generation = int(saved["now_ns"]), int(saved["generation"])
            for address, values in saved["known"].items():
                flows, first_ns, last_ns, named, score = values
                if not made._is_spared(str(ipaddress.ip_address(address))):
                    made._known[address] = Offender(int(flows), int(first_ns), int(last_ns), str(named), float(score))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a list of offenders") from error
        return made

    def _is_spared(self, address: str) -> bool:
        found = self._spared.get(address)
        if found is None:
            if len(self._spared) > 100_000:
                self._spared.clear()
            found = self._spared[address] = is_in(address, (*NEVER, *self.rules.spared))
        return found


def joined(one: Offender, other: Offender) -> Offender:
    """Both sets of alerts of one source."""
    worst = max((one.score, one.named), (other.score, other.named))
    return Offender(
        one.flows + other.flows,
        min(one.first_ns, other.first_ns),
        max(one.last_ns, other.last_ns),
        worst[1],
        worst[0],
    )


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; an IPv4 address in IPv6 counts as itself, no address as one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return any(one in network for one in (found, mapped) if one is not None for network in networks)


def networks_in(text: str) -> tuple[Network, ...]:
    """Networks, one on a line or separated by commas, with comments behind `#`.

    Raises:
        ValueError: One is none; the message names its line.
    """
    found: list[Network] = []
    for place, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                found.append(ipaddress.ip_network(word))
            except ValueError as error:
                raise ValueError(f"line {place}: {error}") from None
    return tuple(found)


def plain(listed: Sequence[tuple[str, Offender]], now_ns: int, ttl_ns: int, name: str) -> Iterator[str]:
    """One address a line."""
    yield from (address for address, _ in listed)


def nftables(listed: Sequence[tuple[str, Offender]], now_ns: int, ttl_ns: int, name: str) -> Iterator[str]:
    """What `nft -f FILE` takes: sets NAME_v4 and NAME_v6 of table `inet NAME`, made anew at once, with timeouts."""
    yield f"add table inet {name}"
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        of_set = f"inet {name} {name}_v{version}"
        yield f"add set {of_set} {{ type {kind}; flags timeout; }}"
        yield f"flush set {of_set}"
        elements = [
            f"{address} timeout {_left_s(one, now_ns, ttl_ns)}s"
            for address, one in listed
            if _version(address) == version
        ]
        for first in range(0, len(elements), 500):
            yield f"add element {of_set} {{ {', '.join(elements[first : first + 500])} }}"


def ipset(listed: Sequence[tuple[str, Offender]], now_ns: int, ttl_ns: int, name: str) -> Iterator[str]:
    """What `ipset restore -exist -file FILE` takes: sets NAME_v4 and NAME_v6, filled beside and swapped in."""
    for version, family in ((4, "inet"), (6, "inet6")):
        made = f"hash:ip family {family} timeout 3600"
        yield f"create {name}_v{version} {made}"
        yield f"create {name}_v{version}_new {made}"
        yield f"flush {name}_v{version}_new"
        for address, one in listed:
            if _version(address) == version:
                yield f"add {name}_v{version}_new {address} timeout {_left_s(one, now_ns, ttl_ns)}"
        yield f"swap {name}_v{version}_new {name}_v{version}"
        yield f"destroy {name}_v{version}_new"


FORMATS = {"plain": plain, "nftables": nftables, "ipset": ipset}


def _left_s(one: Offender, now_ns: int, ttl_ns: int) -> int:
    return min(max(1, -((now_ns - one.last_ns - ttl_ns) // 1_000_000_000)), 2_147_483)  # ipset's own limit


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _order(address: str) -> tuple[int, int]:
    found = ipaddress.ip_address(address)
    return found.version, int(found)

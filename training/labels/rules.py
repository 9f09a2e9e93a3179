"""Attacks as people tell them: when, from where, to where, on what ports; tables of 100,000, and blocks of flows."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from training.labels.attacks import EITHER, FORWARD, REVERSE, Attack, Claims, FlowColumns
from transforms.enrich.address_numbers import Networks, network_numbers
from transforms.enrich.prefixes import Prefixes
from transforms.kernel import kernel, kernel_part

FROM, TO, ANY = "from", "to", "any"
DIRECTIONS = (FROM, TO, ANY)
"""The attackers' side began the flow; the other side did; either."""

ALWAYS = (-(1 << 63), (1 << 63) - 1)

Ranges = tuple[tuple[int, int], ...]

ROOM = 1 << 16
"""Matches that are found at a time, beside those that one flow may have."""

_IPV4_PREFIX, _IPV4_BITS = np.uint64(0xFFFF), 96
_AS_FORWARD, _AS_REVERSE = 1, 2
_SIDES = np.array([EITHER, FORWARD, REVERSE, EITHER], np.int8)
"""By the ways in which a rule holds for a flow, or 0."""


class Rule(NamedTuple):
    """What the flows of an attack have in common; an empty criterion holds for every flow.

    Attributes:
        attack: What they are.
        start_ns: The attack's first instant.
        end_ns: Its last.
        attackers: Networks of the side that attacks, as texts in their canonical form.
        victims: Networks of the other side.
        ports: Ports of the responder, from and to; with ANY of either side.
        source_ports: Ports of the initiator.
        protocols: IANA numbers.
        direction: One of `DIRECTIONS`.
    """

    attack: Attack
    start_ns: int = ALWAYS[0]
    end_ns: int = ALWAYS[1]
    attackers: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()
    ports: Ranges = ()
    source_ports: Ranges = ()
    protocols: tuple[int, ...] = ()
    direction: str = ANY


class Rules:
    """A table of attacks, by precedence: the first row that holds for a flow says what it is.

    A rule is looked for by its attackers, or else its victims: each flow is compared with the rules of the networks
    around its two addresses, and of these with those whose time it touches.

    Args:
        rules: The table.
        overlap: A flow that began before the attack and went on into it belongs to it.
        slack_ns: So much earlier and later than the table says.
    """

    columns: tuple[str, ...] = ()
    names_every_flow = False

    def __init__(self, rules: Sequence[Rule], overlap: bool = False, slack_ns: int = 0) -> None:
        self.attacks = list(dict.fromkeys(rule.attack for rule in rules))
        places = {attack: place for place, attack in enumerate(self.attacks)}
        self._attack = np.array([places[rule.attack] for rule in rules], np.int64)
        self._is_event = np.array([rule.attack.events > 0 for rule in rules], bool)
        self._is_to = np.array([rule.direction == TO for rule in rules], bool)
        self._used = np.zeros(len(rules), bool)
        self._overlap = overlap
        start = np.array([max(rule.start_ns - slack_ns, ALWAYS[0]) for rule in rules], np.int64)
        end = np.array([min(rule.end_ns + slack_ns, ALWAYS[1]) for rule in rules], np.int64)
        self._networks = _Tree(chain.from_iterable(rule.attackers + rule.victims for rule in rules))
        self._index = _index(rules, self._networks, start, end)
        self._criteria = _Criteria(
            _lists([self._networks.ids(rule.victims) if rule.attackers else () for rule in rules]),
            _lists([rule.ports for rule in rules], 2),
            np.array([rule.direction == ANY for rule in rules], bool),
            _lists([rule.source_ports for rule in rules], 2),
            _lists([[(number, number) for number in rule.protocols] for rule in rules], 2),
        )

    def claims(self, flows: FlowColumns) -> Iterator[Claims]:
        """Compares the flows with the rules; each of the claims is about other flows."""
        lasts = flows.end_ns if self._overlap else flows.start_ns
        around = np.stack([self._networks.find(ends) for ends in (flows.src, flows.dst)])
        compared = (flows.src_port, flows.dst_port, flows.protocol, flows.start_ns, lasts)
        room = len(self._index.rules) + ROOM
        rows, rules, ways = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int8)
        begin = 0
        while begin < len(lasts):
            begin, found = _hold(begin, compared, around, self._networks.parents, self._index, self._criteria,
                                 rows, rules, ways)  # fmt: skip
            if found:
                yield self._claims(rows[:found], rules[:found], ways[:found])

    def unmatched_events(self) -> np.ndarray:
        """Rules that were made of notices and held for no flow; other rules are no events."""
        return np.bincount(self._attack[self._is_event & ~self._used], minlength=len(self.attacks))

    def _claims(self, rows: np.ndarray, rules: np.ndarray, ways: np.ndarray) -> Claims:
        """One claim for each flow and attack; of several rules of an attack the first counts."""
        order = np.lexsort((rules, rows))
        rows, rules = rows[order], rules[order]
        first = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]) | (rules[1:] != rules[:-1])))
        sides = _SIDES[np.bitwise_or.reduceat(ways[order], first)]
        rows, rules = rows[first], rules[first]
        self._used[rules] = True
        sides[self._is_to[rules]] = FORWARD  # the initiator acts for the attacker that it calls
        attacks = self._attack[rules]
        _, first = np.unique(rows * len(self.attacks) + attacks, return_index=True)
        return Claims(rows[first], attacks[first], sides[first])


class _Lists(NamedTuple):
    """A list for each rule: values `first[rule]` to `first[rule + 1]`."""

    first: np.ndarray
    values: np.ndarray


class _Criteria(NamedTuple):
    """What is compared once a rule has been found.

    Attributes:
        others: Networks of the other side, sorted.
        ports: Ranges of the responder's port.
        either_port: Whether the initiator's will do.
        source_ports: Ranges of the initiator's port.
        protocols: Ranges of the protocol.
    """

    others: _Lists
    ports: _Lists
    either_port: np.ndarray
    source_ports: _Lists
    protocols: _Lists


class _Index(NamedTuple):
    """Rules by the ends of flows in which they are looked for, and then by their start.

    Attributes:
        first: Where the rules begin of the network n around the initiator, at 2n, and around the responder, at 2n + 1.
        rules: Which.
        ways: Which side attacks then.
        starts: The first instant of each.
        ends: The last.
        latest: The last instant of it and all before it at this end.
    """

    first: np.ndarray
    rules: np.ndarray
    ways: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    latest: np.ndarray


class _Tree:
    """All networks of a table, and which of them lie in which.

    Attributes:
        everywhere: A network around all others.
        parents: The narrowest network around each; −1 of the one around all.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        names = list(dict.fromkeys(texts))
        numbers = np.array(network_numbers(pa.array(names, pa.string())), np.uint64)
        (hi, lo, length), ids = np.unique(numbers, axis=1, return_inverse=True)
        self._ids = dict(zip(names, ids.reshape(-1).tolist(), strict=True))
        distinct = Networks(hi.copy(), lo.copy(), length.astype(np.uint8))
        self._prefixes = Prefixes(*distinct)
        self.everywhere = len(hi)
        self.parents = np.full(self.everywhere + 1, -1)
        _find_parents(*distinct, self.parents)

    def ids(self, texts: Iterable[str]) -> list[int]:
        """The numbers of networks, sorted."""
        return sorted({self._ids[text] for text in texts})

    def find(self, ends: Networks) -> np.ndarray:
        """The narrowest network around each address."""
        found = self._prefixes.find(ends.hi, ends.lo)
        return np.where(found < 0, self.everywhere, found)


def _lists(values: Sequence[Sequence[Any]], width: int = 1) -> _Lists:
    first = np.cumsum([0, *map(len, values)])
    return _Lists(first, np.array(list(chain.from_iterable(values)), np.int64).reshape(-1, width))


def _index(rules: Sequence[Rule], networks: _Tree, start: np.ndarray, end: np.ndarray) -> _Index:
    places, numbers, ways = [], [], []
    for number, rule in enumerate(rules):
        looked_for = networks.ids(rule.attackers or rule.victims) or [networks.everywhere]
        for way, none, is_source in ((_AS_FORWARD, TO, True), (_AS_REVERSE, FROM, False)):
            if rule.direction != none:
                at_responder = is_source != bool(rule.attackers or not rule.victims)
                places += [2 * network + at_responder for network in looked_for]
                numbers += [number] * len(looked_for)
                ways += [way] * len(looked_for)
    place, number_of, way_of = np.array(places, np.int64), np.array(numbers, np.int64), np.array(ways, np.int8)
    order = np.lexsort((start[number_of], place))
    place, number_of = place[order], number_of[order]
    first = np.searchsorted(place, np.arange(2 * len(networks.parents) + 1))
    latest = end[number_of]
    _accumulate(first, latest)
    return _Index(first, number_of, way_of[order], start[number_of], end[number_of], latest)


@kernel
def _find_parents(hi, lo, length, parents):
    """Networks are sorted: what is around one is the one before it, or around that. IPv6 has no IPv4 in it."""
    everywhere = len(hi)
    for i in range(everywhere):
        is_ipv4 = hi[i] == 0 and lo[i] >> np.uint64(32) == _IPV4_PREFIX and length[i] >= _IPV4_BITS
        around = i - 1 if i else everywhere
        while around != everywhere and not _is_in(hi[i], lo[i], hi[around], lo[around], length[around]):
            around = parents[around]
        while around != everywhere and is_ipv4 and length[around] < _IPV4_BITS:
            around = parents[around]
        parents[i] = around


@kernel_part
def _is_in(hi, lo, network_hi, network_lo, length):
    if length <= 64:
        return length == 0 or (hi ^ network_hi) >> np.uint64(64 - length) == 0
    return hi == network_hi and (lo ^ network_lo) >> np.uint64(128 - length) == 0


@kernel
def _accumulate(first, latest):
    """The latest end so far, for each list anew."""
    for i in range(len(first) - 1):
        for at in range(first[i] + 1, first[i + 1]):
            latest[at] = max(latest[at], latest[at - 1])


@kernel
def _hold(begin, compared, around, parents, index, criteria, rows, rules, ways):
    """Finds matches of flows from `begin` on until there may be no room; where it ended, and how many they are."""
    src_port, dst_port, protocol, starts, lasts = compared
    found = 0
    for row in range(begin, len(lasts)):
        if len(rows) - found < len(index.rules):
            return row, found
        for end in range(2):
            network = np.int64(around[end, row])
            while network >= 0:
                place = 2 * network + end
                begins, ends = index.first[place], index.first[place + 1]
                at = begins + np.searchsorted(index.starts[begins:ends], lasts[row], side="right") - 1
                while at >= begins and index.latest[at] >= starts[row]:
                    rule = index.rules[at]
                    if (
                        index.ends[at] >= starts[row]
                        and _in_ranges(criteria.protocols, rule, protocol[row])
                        and _in_ranges(criteria.source_ports, rule, src_port[row])
                        and (
                            _in_ranges(criteria.ports, rule, dst_port[row])
                            or (criteria.either_port[rule] and _in_ranges(criteria.ports, rule, src_port[row]))
                        )
                        and _is_around(criteria.others, rule, np.int64(around[1 - end, row]), parents)
                    ):
                        rows[found], rules[found], ways[found] = row, rule, index.ways[at]
                        found += 1
                    at -= 1
                network = parents[network]
    return len(lasts), found


@kernel_part
def _in_ranges(ranges, rule, value):
    """Whether it is in one of the rule's ranges, or there are none."""
    begin, end = ranges.first[rule], ranges.first[rule + 1]
    for at in range(begin, end):
        if ranges.values[at, 0] <= value and value <= ranges.values[at, 1]:
            return True
    return begin == end


@kernel_part
def _is_around(networks, rule, network, parents):
    """Whether this network or one around it is one of the rule's, or there are none."""
    begin, end = networks.first[rule], networks.first[rule + 1]
    if begin == end:
        return True
    while network >= 0:
        at = begin + np.searchsorted(networks.values[begin:end, 0], network)
        if at < end and networks.values[at, 0] == network:
            return True
        network = parents[network]
    return False

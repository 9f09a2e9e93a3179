"""Attacks as people tell them: when, from where, to where, on what ports."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from training.labels.attacks import EITHER, FORWARD, REVERSE, Attack, Claims, FlowColumns
from transforms.enrich.address_numbers import Networks, network_numbers
from transforms.enrich.prefixes import Prefixes

FROM, TO, ANY = "from", "to", "any"
DIRECTIONS = (FROM, TO, ANY)
"""The attackers' side began the flow; the other side did; either."""

ALWAYS = (-(1 << 63), (1 << 63) - 1)

Ranges = tuple[tuple[int, int], ...]


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

    Args:
        rules: The table.
        overlap: A flow that began before the attack and went on into it belongs to it.
        slack_ns: So much earlier and later than the table says.
    """

    columns: tuple[str, ...] = ()
    names_every_flow = False

    def __init__(self, rules: Sequence[Rule], overlap: bool = False, slack_ns: int = 0) -> None:
        self.attacks = list(dict.fromkeys(rule.attack for rule in rules))
        self._rules = rules
        places = {attack: place for place, attack in enumerate(self.attacks)}
        self._attack = np.array([places[rule.attack] for rule in rules], np.int64)
        self._used = np.zeros(len(rules), bool)
        self._overlap = overlap
        self._start = np.array([max(rule.start_ns - slack_ns, ALWAYS[0]) for rule in rules], np.int64)
        self._end = np.array([min(rule.end_ns + slack_ns, ALWAYS[1]) for rule in rules], np.int64)
        sides = dict.fromkeys(networks for rule in rules for networks in (rule.attackers, rule.victims) if networks)
        self._prefixes = {networks: _prefixes(networks) for networks in sides}

    def claims(self, flows: FlowColumns) -> list[Claims]:
        """Compares the flows with each rule whose time they touch."""
        order = np.argsort(flows.start_ns, kind="stable")
        starts = flows.start_ns[order]
        lasts = flows.end_ns if self._overlap else flows.start_ns
        if not len(starts):
            return []
        last = np.searchsorted(starts, self._end, "right")
        first = np.zeros(len(self._rules), np.int64) if self._overlap else np.searchsorted(starts, self._start, "left")
        touched = np.flatnonzero((first < last) & (self._start <= lasts.max()))
        within: dict[tuple[tuple[str, ...], bool], np.ndarray] = {}

        def inside(networks: tuple[str, ...], is_source: bool) -> np.ndarray:
            if (networks, is_source) not in within:
                ends: Networks = flows.src if is_source else flows.dst
                within[networks, is_source] = self._prefixes[networks].find(ends.hi, ends.lo) >= 0
            return within[networks, is_source]

        found: dict[int, list[Claims]] = {}
        for index in map(int, touched):
            rule = self._rules[index]
            rows = order[first[index] : last[index]]
            if self._overlap:
                rows = rows[flows.end_ns[rows] >= self._start[index]]
            if rule.protocols:
                rows = rows[np.isin(flows.protocol[rows], rule.protocols)]
            if rule.source_ports:
                rows = rows[_in_ranges(flows.src_port[rows], rule.source_ports)]
            claims = self._sided(index, rule, rows, flows, inside)
            if len(claims.rows):
                self._used[index] = True
                found.setdefault(int(self._attack[index]), []).append(claims)
        return [_together(found[attack]) for attack in sorted(found)]

    def unmatched_events(self) -> np.ndarray:
        """Rules that were made of notices and held for no flow; other rules are no events."""
        is_event = np.array([rule.attack.events > 0 for rule in self._rules], bool)
        return np.bincount(self._attack[is_event & ~self._used], minlength=len(self.attacks))

    def _sided(
        self,
        index: int,
        rule: Rule,
        rows: np.ndarray,
        flows: FlowColumns,
        inside: Callable[[tuple[str, ...], bool], np.ndarray],
    ) -> Claims:
        """The rows whose ends are the rule's, either way round as far as its direction allows."""
        port = _in_ranges(flows.dst_port[rows], rule.ports) if rule.ports else np.ones(len(rows), bool)
        if rule.direction == ANY and rule.ports:
            port |= _in_ranges(flows.src_port[rows], rule.ports)

        def holds(attackers_are_source: bool) -> np.ndarray:
            held = port
            if rule.attackers:
                held = held & inside(rule.attackers, attackers_are_source)[rows]
            if rule.victims:
                held = held & inside(rule.victims, not attackers_are_source)[rows]
            return held

        nothing = np.zeros(len(rows), bool)
        forward = holds(True) if rule.direction != TO else nothing
        reverse = holds(False) if rule.direction != FROM else nothing
        if rule.direction == TO:  # the initiator acts for the attacker that it calls
            sides = np.full(len(rows), FORWARD)
        else:
            sides = np.where(forward & reverse, EITHER, np.where(forward, FORWARD, REVERSE))
        kept = forward | reverse
        return Claims(rows[kept], np.full(int(kept.sum()), self._attack[index]), sides[kept])


def _together(several: list[Claims]) -> Claims:
    """Claims of one attack by several rules; the first counts."""
    if len(several) == 1:
        return several[0]
    rows, first = np.unique(np.concatenate([claims.rows for claims in several]), return_index=True)
    attacks = np.concatenate([claims.attacks for claims in several])
    return Claims(rows, attacks[first], np.concatenate([claims.sides for claims in several])[first])


def _in_ranges(ports: np.ndarray, ranges: Ranges) -> np.ndarray:
    inside = np.zeros(len(ports), bool)
    for first, last in ranges:
        inside |= (ports >= first) & (ports <= last)
    return inside


def _prefixes(networks: tuple[str, ...]) -> Prefixes:
    return Prefixes(*network_numbers(pa.array(networks, pa.string())))

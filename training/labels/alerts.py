"""Reads what intrusion detection systems said: Suricata's EVE alerts and Zeek's notices."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.labels.attack_table import PROTOCOLS
from training.labels.attacks import Attack
from training.labels.events import BY_COMMUNITY_ID, EventColumns, Events, address_numbers, ends_keys
from training.labels.rules import FROM, Rule, Rules
from transforms.enrich.address_numbers import NO_NETWORK
from transforms.records import InputError
from transforms.times import time_ns

MOST_EVENTS = 8_000_000
"""Alerts that are held at a time, about 100 octets each."""

MOST_PARTIAL = 100_000
"""Notices without ports, each of which is a rule of its own."""

LEAST_SLACK_NS = 1_000
"""Alerts have times of whole microseconds, flows of nanoseconds."""

_UNSET = ("", "-", "(empty)")

_NO_FLOW = {"src_ip": "::", "dest_ip": "::"}
"""In place of an alert's ends; with no protocol, no flow has them."""

_NO_PROTOCOL = 255
"""For words that name none that we know: reserved by IANA, no flow has it."""


class _Gathered:
    """Events while a log is read."""

    def __init__(self) -> None:
        self.ends: tuple[list[str], list[str]] = ([], [])
        self.ports = (array("q"), array("q"))
        self.protocol = array("q")
        self.time_ns = array("q")
        self.attack = array("q")
        self.texts: list[str] = []
        self.names: dict[tuple[str, str, int], int] = {}
        self.counts: list[int] = []

    def name(self, name: str, category: str, severity: int) -> int:
        """The number of what an event says."""
        number = self.names.setdefault((name, category, severity), len(self.names))
        if number == len(self.counts):
            self.counts.append(0)
        self.counts[number] += 1
        return number

    def order(self, source: str) -> tuple[list[Attack], np.ndarray]:
        """The attacks by precedence, severe ones first, then by name; and the place of each number there."""
        ordered = sorted(self.names, key=lambda one: (one[2], one[0], one[1]))
        attacks = [
            Attack(name, category, source, events=self.counts[self.names[name, category, severity]])
            for name, category, severity in ordered
        ]
        places = np.empty(len(ordered), np.int64)
        places[[self.names[one] for one in ordered]] = np.arange(len(ordered))
        return attacks, places


def read_suricata(path: Path, lines: Iterable[tuple[int, bytes]], slack_ns: int) -> list[Events]:
    """Alerts of an EVE log; other events are passed over. Alerts about what is no flow match none.

    Args:
        path: Where it is from.
        lines: Its lines, by number.
        slack_ns: How far beside its flow an alert may be.

    Raises:
        InputError: File, line, and what is wrong there; or there are no alerts.
    """
    by_ends, by_id = _Gathered(), _Gathered()
    total = 0
    for number, line in lines:
        if b'"alert"' not in line:
            continue
        event = _json(path, number, line)
        alert = event.get("alert")
        if event.get("event_type") != "alert" or not isinstance(alert, dict):
            continue
        at = f"{path}:{number}"
        total += 1
        _check_count(path, total)
        name = str(alert.get("signature") or f"signature {alert.get('gid', 1)}:{alert.get('signature_id', '?')}")
        severity = alert.get("severity")
        says = (name, str(alert.get("category") or ""), severity if isinstance(severity, int) else 255)
        has_ends = bool(event.get("src_ip") and event.get("dest_ip"))
        gathered = by_id if event.get("community_id") and not has_ends else by_ends
        if gathered is by_id:
            gathered.texts.append(str(event["community_id"]))
        else:
            told = event if has_ends else _NO_FLOW  # of ARP, say: an event that is in no flow
            ends = (told["src_ip"], told["dest_ip"])
            _put_ends(gathered, at, ends, (told.get("src_port"), told.get("dest_port")), told.get("proto"))
        gathered.time_ns.append(_time(at, event.get("timestamp")))
        gathered.attack.append(gathered.name(*says))
    if not total:
        raise InputError(f"{path}: has no alerts")
    slack_ns = max(slack_ns, LEAST_SLACK_NS)
    made = [_by_ends(path, by_ends, slack_ns)] if by_ends.attack else []
    if by_id.attack:
        attacks, places = by_id.order(path.name)
        keys = np.array([text.encode() + b"\1" for text in by_id.texts])
        events = EventColumns(keys, np.array(by_id.time_ns), places[by_id.attack])
        made.append(Events(attacks, events, BY_COMMUNITY_ID, slack_ns=slack_ns))
    return made


def read_zeek(path: Path, lines: Iterable[tuple[int, bytes]], slack_ns: int, window_ns: int) -> list[Events | Rules]:
    """Notices of a notice.log, as tab-separated values or as JSON.

    A notice about a connection is an event of it. One about hosts, such as a scan, is a rule: flows from its source,
    to its destination and port as far as it has them, that began within a window around it.

    Raises:
        InputError: File, line, and what is wrong there; or there are no notices.
    """
    connections, partial = _Gathered(), list[Rule]()
    total = 0
    for number, notice in _notices(path, lines):
        at = f"{path}:{number}"
        total += 1
        _check_count(path, total)
        name = notice.get("note") or ""
        if not name:
            raise InputError(f"{at}: the notice has no note")
        category, time = name.rpartition("::")[0], _time(at, notice.get("ts"))
        ends = (notice.get("id.orig_h"), notice.get("id.resp_h"))
        if all(ends):
            _put_ends(connections, at, ends, (notice.get("id.orig_p"), notice.get("id.resp_p")), notice.get("proto"))
            connections.time_ns.append(time)
            connections.attack.append(connections.name(name, category, 0))
        elif notice.get("src"):
            partial.append(_host_rule(at, Attack(name, category, path.name), notice, time, window_ns))
            if len(partial) > MOST_PARTIAL:
                raise InputError(f"{path}: more than {MOST_PARTIAL:,} notices are about hosts and not connections")
    if not total:
        raise InputError(f"{path}: has no notices")
    made: list[Events | Rules] = []
    if connections.attack:
        made.append(_by_ends(path, connections, max(slack_ns, LEAST_SLACK_NS)))
    if partial:
        events = Counter(rule.attack for rule in partial)
        told = {attack: attack._replace(events=count) for attack, count in events.items()}
        made.append(Rules([rule._replace(attack=told[rule.attack]) for rule in partial], slack_ns=slack_ns))
    return made


def _by_ends(path: Path, gathered: _Gathered, slack_ns: int) -> Events:
    src, dst = map(address_numbers, gathered.ends)
    wrong = np.flatnonzero((src.length == NO_NETWORK) | (dst.length == NO_NETWORK))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{path}: {gathered.ends[0][row]} to {gathered.ends[1][row]}: one of them is no address")
    attacks, places = gathered.order(path.name)
    src_port, dst_port = (np.array(port, np.int64) for port in gathered.ports)
    keys = ends_keys(src, dst, src_port, dst_port, np.array(gathered.protocol, np.int64))
    return Events(attacks, EventColumns(keys, np.array(gathered.time_ns), places[gathered.attack]), slack_ns=slack_ns)


def _put_ends(gathered: _Gathered, at: str, ends: tuple[Any, Any], ports: tuple[Any, Any], protocol: Any) -> None:
    for addresses, address in zip(gathered.ends, ends, strict=True):
        addresses.append(str(address))
    for numbers, port in zip(gathered.ports, ports, strict=True):
        text = str(port or 0)
        if not text.isdecimal() or int(text) > 65535:
            raise InputError(f"{at}: {text} is no port")
        numbers.append(int(text))
    word = str(protocol or "").lower()
    number = PROTOCOLS.get(word, int(word) if word.isdecimal() else _NO_PROTOCOL)
    if number > _NO_PROTOCOL:
        raise InputError(f"{at}: {word} is no protocol such as TCP")
    if number == PROTOCOLS["icmp"] and ":" in str(ends[0]):
        number = PROTOCOLS["icmp6"]  # Zeek says icmp of both
    gathered.protocol.append(number)


def _host_rule(at: str, attack: Attack, notice: dict[str, str], time: int, window_ns: int) -> Rule:
    for address in filter(None, (notice.get("src"), notice.get("dst"))):
        if address_numbers([address]).length[0] == NO_NETWORK:
            raise InputError(f"{at}: {address} is no address")
    victims = (notice["dst"],) if notice.get("dst") else ()
    port = notice.get("p", "")
    ports = ((int(port), int(port)),) if port.isdecimal() and int(port) else ()
    return Rule(attack, time - window_ns, time + window_ns, (notice["src"],), victims, ports, direction=FROM)


def _notices(path: Path, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each notice by names, what is unset left out."""
    separator, names, unset = "\t", list[str](), set(_UNSET)
    for number, line in lines:
        if line.startswith(b"{"):
            read = _json(path, number, line)
            yield number, {name: str(value) for name, value in read.items() if value is not None and value != ""}
            continue
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("#"):
            key, _, value = text.partition(separator)
            if text.startswith("#separator "):
                separator = _separator(f"{path}:{number}", text.removeprefix("#separator "))
            elif key == "#fields":
                names = value.split(separator)
                if "note" not in names:
                    raise InputError(f"{path}:{number}: is no notice.log: its fields have no note")
            elif key in ("#unset_field", "#empty_field"):
                unset.add(value)
        elif text:
            values = text.split(separator)
            if len(values) != len(names):
                raise InputError(f"{path}:{number}: {len(values)} values for {len(names)} #fields")
            yield number, {name: value for name, value in zip(names, values, strict=True) if value not in unset}


def _separator(at: str, text: str) -> str:
    try:
        found = text.encode().decode("unicode_escape")
    except UnicodeDecodeError:
        found = ""
    if not found:
        raise InputError(f"{at}: {text!r} is no separator; Zeek writes \\x09")
    return found


def _json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise InputError(f"{path}:{number}: is no JSON object")
    return read


def _time(at: str, value: Any) -> int:
    try:
        return time_ns(str(value))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{at}: {value} {error}") from error


def _check_count(path: Path, total: int) -> None:
    if total > MOST_EVENTS:
        raise InputError(f"{path}: more than {MOST_EVENTS:,} events; split the flows and the log by time")

"""What a flow is, in plain Python: one packet at a time, dictionaries, unbounded numbers. The table agrees."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transforms.records import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, TRANSPORT_WHOLE
from transforms.rules import Rules

PAIRS = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17},
    ICMPV6: {t + d: t + 1 - d for t in (128, 130, 133, 135, 139, 144) for d in (0, 1)},
}
"""Community ID's pairs of ICMP types."""

ANSWERS = {ICMP: {0, 14, 16, 18}, ICMPV6: {129}}

IDLE, ACTIVE, ENDED, FORCED = 1, 2, 3, 4


@dataclass
class Side:
    """What one side of a connection has sent."""

    first_syn: int | None = None
    fin_end: int | None = None
    acked: int | None = None
    packets: int = 0
    ip_octets: int = 0


@dataclass
class Flow:
    """A flow that has not ended; between two parts `packets` is 0."""

    first: dict[str, Any]
    ends: tuple[Any, Any]  # source and destination of the first packet
    ordinal: int
    flipped: bool
    begun_without_syn: bool
    part: int = 0
    start_ns: int = 0
    last_ns: int = 0
    closed_ns: int | None = None
    answered: bool = False
    established: bool = False
    sides: dict[bool, Side] = field(default_factory=lambda: {True: Side(), False: Side()})

    @property
    def packets(self) -> int:
        return self.sides[True].packets + self.sides[False].packets


def reference_flows(packets: np.ndarray, rules: Rules, end_ns: int | None = None) -> list[dict[str, Any]]:
    """The final records of `packets`, which are in their order, by time and identity, unsorted."""
    reference = _Reference(rules)
    for row in packets:
        reference.add(dict(zip(packets.dtype.names, row.tolist(), strict=True)))
    return reference.finish(int(packets["time_ns"].max()) if end_ns is None else end_ns)


class _Reference:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.idle = round(rules.idle_timeout_s * 1e9) if "idle" in rules.end_rules else math.inf
        self.active = round(rules.active_timeout_s * 1e9) if "active" in rules.end_rules else math.inf
        self.linger = round(rules.tcp_linger_s * 1e9)
        self.open: dict[Any, Flow] = {}
        self.begun: Counter[Any] = Counter()
        self.ended: list[dict[str, Any]] = []

    def add(self, packet: dict[str, Any]) -> None:
        key, ends = self.key(packet)
        self.end_if_due(key, packet["time_ns"])
        if key in self.open and self.is_reuse(self.open[key], packet, ends):
            self.end(self.open.pop(key), ENDED)
        if key not in self.open:
            flags = packet["tcp_flags"] if is_tcp(packet) else 0
            answer = packet["src_port"] in ANSWERS.get(packet["protocol"], ()) and not no_type(packet)
            self.open[key] = Flow(
                first=packet,
                ends=ends,
                ordinal=self.begun[key, packet["time_ns"]],
                flipped=answer or (flags & SYN and flags & ACK) != 0,
                begun_without_syn=not flags & SYN,
            )
            self.begun[key, packet["time_ns"]] += 1
        flow = self.open[key]
        if not flow.packets:
            flow.start_ns = packet["time_ns"]
        forward = self.is_forward(flow, ends)
        flow.sides[forward].packets += 1
        flow.sides[forward].ip_octets += packet["ip_octets"]
        flow.last_ns = packet["time_ns"]
        if is_tcp(packet):
            follow(flow, packet, forward)

    def key(self, packet: dict[str, Any]) -> tuple[Any, tuple[Any, Any]]:
        protocol = packet["protocol"]
        icmp = protocol in PAIRS
        ports = not icmp or self.rules.icmp_key == "type"
        ends = tuple(
            (packet[f"{side}_hi"], packet[f"{side}_lo"], packet[f"{side}_port"] if ports else 0)
            for side in ("src", "dst")
        )
        one_way = icmp and ports and not no_type(packet) and packet["src_port"] not in PAIRS[protocol]
        vni = None if self.rules.ignore_vni else packet["vni"]
        pair = ends if one_way else tuple(sorted(ends))
        return (pair, protocol, packet["ip_version"], packet["vlan_id"], vni), ends

    def is_forward(self, flow: Flow, ends: tuple[Any, Any]) -> bool:
        return (ends == flow.ends) != flow.flipped

    def end_if_due(self, key: Any, now_ns: int) -> None:
        """Ends the flow, or its part, if that is known at `now_ns`."""
        flow = self.open.get(key)
        if flow is None:
            return
        if flow.closed_ns is not None and "tcp" in self.rules.end_rules:
            if now_ns >= flow.closed_ns + self.linger:
                self.end(self.open.pop(key), ENDED)
            return
        idle_ns = flow.last_ns + self.idle
        active_ns = flow.start_ns + self.active if flow.packets else math.inf
        if active_ns < idle_ns and now_ns >= active_ns:
            self.end(flow, ACTIVE)
            flow.part += 1
            for side in flow.sides.values():
                side.packets = side.ip_octets = 0
        if now_ns >= idle_ns:
            self.end(self.open.pop(key), IDLE)

    def is_reuse(self, flow: Flow, packet: dict[str, Any], ends: tuple[Any, Any]) -> bool:
        if "reuse" not in self.rules.end_rules or not is_tcp(packet) or packet["tcp_flags"] & (SYN | ACK) != SYN:
            return False
        side = flow.sides[self.is_forward(flow, ends)]
        complete = flow.established or flow.begun_without_syn or flow.closed_ns is not None
        return complete and side.first_syn != packet["tcp_seq"]

    def end(self, flow: Flow, reason: int) -> None:
        if not flow.packets:
            return
        first, ports = flow.first, flow.ends
        source, destination = reversed(ports) if flow.flipped else ports
        self.ended.append(
            {
                "src_ip": address(source, first["ip_version"]),
                "dst_ip": address(destination, first["ip_version"]),
                "src_port": source[2],
                "dst_port": destination[2],
                "protocol": first["protocol"],
                "ip_version": first["ip_version"],
                "vlan_id": first["vlan_id"],
                "vni": None if self.rules.ignore_vni or first["vni"] < 0 else first["vni"],
                "flow_first_ns": first["time_ns"],
                "flow_part": flow.part,
                "ordinal": flow.ordinal,
                "flow_start_ns": flow.start_ns,
                "flow_end_ns": flow.last_ns,
                "end_reason": reason,
                "fwd_packets": flow.sides[True].packets,
                "rev_packets": flow.sides[False].packets,
                "fwd_ip_octets": flow.sides[True].ip_octets,
                "rev_ip_octets": flow.sides[False].ip_octets,
            }
        )

    def finish(self, end_ns: int) -> list[dict[str, Any]]:
        for key in list(self.open):
            self.end_if_due(key, end_ns)
        for flow in self.open.values():
            closing = flow.closed_ns is not None and "tcp" in self.rules.end_rules
            self.end(flow, ENDED if closing else FORCED)
        return self.ended


def is_tcp(packet: dict[str, Any]) -> bool:
    """Whether there is a TCP header that can be trusted."""
    return packet["protocol"] == TCP and packet["transport"] == TRANSPORT_WHOLE


def no_type(packet: dict[str, Any]) -> bool:
    """ICMP whose type is unknown: a later fragment, a cut header."""
    return packet["src_port"] == packet["dst_port"] == 0


def follow(flow: Flow, packet: dict[str, Any], forward: bool) -> None:
    """The handshake and the close of a connection."""
    flags, side, other = packet["tcp_flags"], flow.sides[forward], flow.sides[not forward]
    if flags & SYN and side.first_syn is None:
        side.first_syn = packet["tcp_seq"]
    if flags & ACK and not flags & SYN and forward and flow.answered:
        flow.established = True
    if flags & SYN and flags & ACK:
        flow.answered = True
    if flags & ACK and (side.acked is None or covers(packet["tcp_ack"], side.acked)):
        side.acked = packet["tcp_ack"]
    if flags & FIN:
        side.fin_end = (packet["tcp_seq"] + bool(flags & SYN) + packet["payload_octets"] + 1) % 2**32
    if flow.closed_ns is None and (flags & RST or (is_acked(side, other) and is_acked(other, side))):
        flow.closed_ns = packet["time_ns"]


def is_acked(side: Side, other: Side) -> bool:
    """Whether the FIN of `side` is covered by what `other` acknowledged."""
    return side.fin_end is not None and other.acked is not None and covers(other.acked, side.fin_end)


def covers(one: int, other: int) -> bool:
    """Whether a sequence number is at or after another, modulo 2³²."""
    return (one - other) % 2**32 < 2**31


def address(end: tuple[int, int, int], version: int) -> str:
    """The text of an address, RFC 5952."""
    number = end[0] << 64 | end[1]
    if version == 4:
        return str(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    mapped = ipaddress.IPv6Address(number).ipv4_mapped
    return f"::ffff:{mapped}" if mapped else str(ipaddress.IPv6Address(number))


def sorted_rows(rows: Iterable[dict[str, Any]], names: Iterable[str]) -> list[tuple[Any, ...]]:
    """Rows as tuples of some columns, in an order of their own."""
    columns = tuple(names)
    return sorted((tuple(row[name] for name in columns) for row in rows), key=repr)

"""What each end of each 5-tuple sent in all: the measure by which tools with other end rules can be compared."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from corpus_captures import address

from transforms.records import ICMP, ICMPV6

End = tuple[str, int]
Totals = dict[tuple[int, End, End], tuple[tuple[int, int], tuple[int, int]]]
"""By protocol and ends, in a fixed order: packets and octets that each end sent."""


def totals(flows: Iterable[tuple[int, End, End, tuple[int, int], tuple[int, int]]]) -> Totals:
    """Sums flows of (protocol, source, destination, sent by source, sent by destination) by protocol and ends."""
    sums: dict[Any, dict[End, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for protocol, *both, forward, reverse in flows:
        # The types of ICMP are written down in as many ways as there are tools.
        ends = [(address(ip), 0 if protocol in (ICMP, ICMPV6) else port) for ip, port in both]
        sent = sums[protocol, min(ends), max(ends)]
        for end, (packets, octets) in zip(ends, (forward, reverse), strict=True):
            sent[end][0] += packets
            sent[end][1] += octets
    return {key: (_pair(sent[key[1]]), _pair(sent[key[2]])) for key, sent in sums.items()}


def our_totals(flows: Iterable[dict[str, Any]], octets: str) -> Totals:
    """`totals` of our rows; `octets` is `frame` or `ip`."""
    return totals(
        (
            flow["protocol"],
            (flow["src_ip"], flow["src_port"]),
            (flow["dst_ip"], flow["dst_port"]),
            (flow["fwd_packets"], flow[f"fwd_{octets}_octets"]),
            (flow["rev_packets"], flow[f"rev_{octets}_octets"]),
        )
        for flow in flows
    )


def _pair(sent: list[int]) -> tuple[int, int]:
    return sent[0], sent[1]


def alone(ours: Totals, theirs: Totals) -> tuple[int, int]:
    """How many entries only we have so, and how many only they."""
    return len(ours.items() - theirs.items()), len(theirs.items() - ours.items())

"""What a session is: one conversation, one flow key, not yet packets."""

from typing import NamedTuple

import numpy as np

SESSION = np.dtype(
    [
        ("start_ns", "i8"),  # of its first packet, since the start of the capture
        ("src_hi", "u8"),  # initiator
        ("src_lo", "u8"),
        ("dst_hi", "u8"),
        ("dst_lo", "u8"),
        ("src_mac", "u8"),
        ("dst_mac", "u8"),
        ("seed", "u8"),  # of all that is drawn while it is played
        ("src_delay_ns", "i8"),  # from the point of capture to the initiator and back
        ("dst_delay_ns", "i8"),
        ("think_ns", "i8"),  # mean pause between exchanges
        ("pace_ns", "i8"),  # between segments of one burst
        ("exchanges", "u4"),  # requests, each with its response; unanswered SYN: how often it is sent
        ("request_octets", "u4"),  # mean, of one exchange
        ("response_octets", "u4"),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("greeting_octets", "u2"),  # what the responder says first
        ("segment_octets", "u2"),  # largest payload of a packet
        ("loss", "u2"),  # segments sent twice, of 65,536
        ("protocol", "u1"),
        ("ip_version", "u1"),
        ("name", "u1"),  # index into NAMES
        ("manner", "u1"),  # one of the MANNERs
        ("spread", "u1"),  # how far sizes and pauses vary: 0 not at all, 255 from 0 to twice the mean
        ("options", "u1"),  # OPTIONS_*
        ("src_ttl", "u1"),
        ("dst_ttl", "u1"),
    ],
    align=True,
)
"""One session."""

CLOSED, RESET, ABORTED, LEFT_OPEN, REFUSED, UNANSWERED, PROBED = range(7)
"""Manners of TCP: FINs; RST by the initiator; by the responder; no end; SYN and RST; SYN alone; SYN, SYN+ACK, RST."""

OPTIONS_NONE, OPTIONS_MSS, OPTIONS_FULL = range(3)
"""TCP options: none; MSS in SYNs; MSS, SACK, scale in SYNs and timestamps in all segments."""

SECOND, MILLISECOND = 1_000_000_000, 1_000_000


class Scale(NamedTuple):
    """What the size of a capture asks of its sessions.

    Attributes:
        v6_share: Part of the sessions that run over IPv6.
        most_octets: What one session may carry, so that none fills a small capture.
        mean_packets: Packets of an average session, for profiles with a set number of flows.
    """

    v6_share: float
    most_octets: float
    mean_packets: float


class Name(NamedTuple):
    """What a session is called, and the class that a classifier should find for it."""

    name: str
    label: str


NAMES = (
    Name("web", "benign"),
    Name("dns", "benign"),
    Name("mail", "benign"),
    Name("ssh", "benign"),
    Name("video", "benign"),
    Name("ntp", "benign"),
    Name("icmp", "benign"),
    Name("bulk", "benign"),
    Name("syn_flood", "dos"),
    Name("slow_http", "dos"),
    Name("dns_amplification", "dos"),
    Name("horizontal_scan", "scan"),
    Name("vertical_scan", "scan"),
    Name("ssh_brute_force", "brute_force"),
    Name("beaconing", "botnet"),
    Name("exfiltration", "exfiltration"),
)
"""Every kind of session."""

INDEX = {name.name: index for index, name in enumerate(NAMES)}

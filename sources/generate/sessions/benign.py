"""What hosts do all day."""

import numpy as np

from sources.generate.hosts import Group, sessions_between
from sources.generate.sessions import (
    ABORTED,
    CLOSED,
    LEFT_OPEN,
    MILLISECOND,
    REFUSED,
    RESET,
    SECOND,
    UNANSWERED,
    Scale,
)
from transforms.records import ICMP, ICMPV6, UDP


def _sizes(rng: np.random.Generator, count: int, median: float, sigma: float, most: float) -> np.ndarray:
    """Log-normal sizes, as transfers have them, at most `most`."""
    return np.minimum(rng.lognormal(np.log(median), sigma, count), most)


def web(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """HTTPS and some HTTP: a few requests on one connection, responses from a kilobyte to many."""
    sessions = sessions_between(rng, count, "web", clients, servers, scale.v6_share, popularity=2.5)
    sessions["dst_port"] = rng.choice([443, 443, 443, 443, 80, 8080], count)
    sessions["exchanges"] = np.minimum(1 + rng.geometric(0.35, count), 40)
    sessions["request_octets"] = _sizes(rng, count, 500, 0.6, 8_000)
    sessions["response_octets"] = _sizes(rng, count, 5_000, 1.4, scale.most_octets)
    sessions["think_ns"] = _sizes(rng, count, 0.4, 1.6, 45) * SECOND
    ends = [CLOSED, RESET, ABORTED, LEFT_OPEN, REFUSED, UNANSWERED]
    sessions["manner"] = rng.choice(ends, count, p=[0.80, 0.09, 0.03, 0.04, 0.02, 0.02])
    unanswered = sessions["manner"] == UNANSWERED
    sessions["exchanges"][unanswered] = rng.integers(1, 5, count)[unanswered]
    return sessions


def dns(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """One question and its answer; now and then none, and the question again."""
    sessions = sessions_between(rng, count, "dns", clients, servers, scale.v6_share)
    sessions["protocol"] = UDP
    sessions["dst_port"] = 53
    sessions["request_octets"] = rng.choice([33, 44, 44, 56], count)
    sessions["response_octets"] = rng.integers(49, 480, count)
    unanswered = rng.random(count) < 0.02
    sessions["response_octets"][unanswered] = 0
    sessions["exchanges"][unanswered] = 2
    sessions["think_ns"] = 2 * SECOND
    sessions["spread"] = 0
    return sessions


def mail(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """SMTP submissions, which carry mail to the server, and IMAP, which fetches it."""
    sessions = sessions_between(rng, count, "mail", clients, servers, scale.v6_share)
    sending = rng.random(count) < 0.4
    sessions["dst_port"] = np.where(sending, rng.choice([25, 587], count), rng.choice([143, 993], count))
    sessions["greeting_octets"] = rng.integers(30, 120, count)
    sessions["exchanges"] = rng.integers(4, 10, count)
    body = _sizes(rng, count, 2_500, 1.4, scale.most_octets)
    sessions["request_octets"] = np.where(sending, body, 40)
    sessions["response_octets"] = np.where(sending, 45, body)
    sessions["think_ns"] = _sizes(rng, count, 60, 0.8, 10_000) * MILLISECOND
    sessions["manner"] = rng.choice([CLOSED, LEFT_OPEN, RESET], count, p=[0.92, 0.04, 0.04])
    return sessions


def ssh(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """Interactive work: many small packets each way, at the pace of fingers, for minutes."""
    sessions = sessions_between(rng, count, "ssh", clients, servers, scale.v6_share)
    sessions["dst_port"] = 22
    sessions["greeting_octets"] = 41
    sessions["exchanges"] = np.minimum(rng.geometric(0.008, count) + 12, max(12, int(scale.most_octets / 400)))
    sessions["request_octets"] = rng.integers(36, 90, count)
    sessions["response_octets"] = _sizes(rng, count, 110, 0.8, 4_000)
    sessions["think_ns"] = _sizes(rng, count, 350, 0.8, 8_000) * MILLISECOND
    sessions["spread"] = 230
    return sessions


def video(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """Streaming over QUIC, or over TLS where that is blocked: a chunk every few seconds."""
    sessions = sessions_between(rng, count, "video", clients, servers, scale.v6_share, popularity=3.0)
    sessions["dst_port"] = 443
    quic = rng.random(count) < 0.7
    sessions["protocol"][quic] = UDP
    sessions["segment_octets"][quic] = 1250
    sessions["exchanges"] = rng.integers(4, 40, count)
    sessions["request_octets"] = rng.integers(60, 400, count)
    sessions["response_octets"] = np.minimum(
        _sizes(rng, count, 180_000, 0.7, 1_500_000), scale.most_octets / sessions["exchanges"] + 4_000
    )
    sessions["think_ns"] = rng.integers(2 * SECOND, 6 * SECOND, count)
    sessions["spread"] = 60
    return sessions


def ntp(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """48 octets there, 48 back."""
    sessions = sessions_between(rng, count, "ntp", clients, servers, scale.v6_share)
    sessions["protocol"] = UDP
    sessions["dst_port"] = 123
    sessions["request_octets"] = 48
    sessions["response_octets"] = 48
    sessions["spread"] = 0
    return sessions


def icmp(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """Pings of a few packets, a second apart."""
    sessions = sessions_between(rng, count, "icmp", clients, servers, scale.v6_share)
    six = sessions["ip_version"] == 6
    sessions["protocol"] = np.where(six, ICMPV6, ICMP)
    sessions["src_port"] = np.where(six, 128, 8)
    sessions["dst_port"] = np.where(six, 129, 0)
    sessions["exchanges"] = rng.choice([1, 4, 4, 10], count)
    sessions["request_octets"] = rng.choice([32, 56, 56, 1000], count)
    sessions["response_octets"] = np.where(rng.random(count) < 0.9, sessions["request_octets"], 0)
    sessions["think_ns"] = SECOND
    sessions["spread"] = 0
    return sessions


def bulk(rng: np.random.Generator, count: int, clients: Group, servers: Group, scale: Scale) -> np.ndarray:
    """Plain sessions of about `scale.mean_packets` packets and 500 octets a frame, TCP and UDP, for benchmarks."""
    mean_packets = scale.mean_packets
    sessions = sessions_between(rng, count, "bulk", clients, servers, scale.v6_share)
    sessions["src_port"] = rng.integers(1024, 65536, count)
    sessions["dst_port"] = rng.choice([443, 80, 53, 22, 8080, 5432], count)
    sessions["loss"] = 20
    datagrams = rng.random(count) < (0.3 if mean_packets >= 14 else 1.0)
    sessions["protocol"][datagrams] = UDP
    wanted = mean_packets * rng.lognormal(-0.5, 1, count)  # of mean 1
    # A TCP session has seven packets of ceremony; an exchange is a request, two segments of response and an ACK.
    exchanges = np.where(datagrams, wanted / 2, np.maximum(wanted - 7, 1) / 4)
    sessions["exchanges"] = np.maximum(np.floor(exchanges + rng.random(count)), 1)
    sessions["think_ns"] = SECOND / sessions["exchanges"]
    sessions["request_octets"] = np.where(datagrams, 300, 180)
    sessions["response_octets"] = np.where(datagrams, 620, 2_900) * (rng.random(count) >= (mean_packets < 1.5))
    sessions["spread"] = 100
    return sessions

"""What packets carry: for each kind of session two regions of octets, the initiator's and the responder's.

A region begins as the application's first message does; text or what looks encrypted follows. Longer streams start over
behind the opening, so a payload is always a piece of the pool, and its checksum a difference of two sums.
"""

import struct

import numpy as np

from sources.generate.sessions import NAMES

REGION = 8192
BEHIND_OPENING, REPEAT = 512, 6144
"""A stream that comes to REPEAT goes on at BEHIND_OPENING; both are ends of TLS records."""

TLS_KIND = len(NAMES)
"""The place of the regions of any TCP session to port 443, after those of NAMES."""

_TEXT = (
    b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    b'magna aliqua.\r\n<p>Ut enim ad minim veniam</p>\r\n{"quis": "nostrud", "exercitation": 2026}\r\n'
)
_NOISE = np.random.PCG64(20260105).random_raw(REGION // 8).astype("<u8").tobytes()

_HTTP_GET = b"GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"
_HTTP_OK = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<!doctype html>\r\n"
_SLOW_GET = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n" + b"X-a: b\r\n" * 1000
_QUIC_INITIAL = bytes.fromhex("c00000000108")
_QUESTION = b"\x03www\x07example\x03com\x00" + struct.pack(">HH", 1, 1)
_DNS_QUERY = struct.pack(">6H", 0x1A2B, 0x0100, 1, 0, 0, 0) + _QUESTION
_DNS_ANSWER = (
    struct.pack(">6H", 0x1A2B, 0x8180, 1, 1, 0, 0) + _QUESTION + bytes.fromhex("c00c00010001000000900004c0000201")
)
_SSH_BANNER = b"SSH-2.0-OpenSSH_9.6p1 Debian-1+exp1xyz\r\n"
_MAIL_REQUEST = b"EHLO client.example.com\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
_MAIL_ANSWER = b"220 mail.example.com ESMTP\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n"
_NTP_REQUEST = bytes.fromhex("230006ec000000000000000000000000")
_NTP_ANSWER = bytes.fromhex("240206e90000001a00000412c0000201")


def _record(kind: int, body: bytes) -> bytes:
    """A TLS record."""
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


def _handshake(kind: int, body: bytes) -> bytes:
    """A TLS record of one handshake message."""
    return _record(22, bytes([kind]) + len(body).to_bytes(3, "big") + body)


def _tls(first: bytes) -> bytes:
    """A region that begins with the record `first` and goes on with application data."""
    gap = BEHIND_OPENING - len(first)
    rest = first + (_record(23, _NOISE[: gap - 5]) if gap else b"")
    return (rest + _record(23, _NOISE[: BEHIND_OPENING - 5]) * (REGION // BEHIND_OPENING))[:REGION]


def _client_hello() -> bytes:
    """A ClientHello (RFC 8446, section 4.1.2), padded to the end of the opening."""
    name = b"www.example.com"
    server_name = struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    versions = struct.pack(">HHBH", 43, 3, 2, 0x0304)
    fixed = struct.pack(">H", 0x0303) + _NOISE[:32] + b"\x20" + _NOISE[32:64] + bytes.fromhex("000213010100")
    padding = BEHIND_OPENING - 9 - len(fixed) - 2 - len(server_name) - len(versions) - 4
    extensions = server_name + versions + struct.pack(">HH", 21, padding) + bytes(padding)
    return _handshake(1, fixed + struct.pack(">H", len(extensions)) + extensions)


def _server_hello() -> bytes:
    """A ServerHello (RFC 8446, section 4.1.3)."""
    versions = struct.pack(">HHH", 43, 2, 0x0304)
    fixed = struct.pack(">H", 0x0303) + _NOISE[64:96] + b"\x20" + _NOISE[32:64] + bytes.fromhex("130100")
    return _handshake(2, fixed + struct.pack(">H", len(versions)) + versions)


_TLS_CLIENT, _TLS_SERVER = _tls(_client_hello()), _tls(_server_hello())
_BODY = (_TEXT * (REGION // len(_TEXT) + 1))[:REGION]

_REGIONS = {  # how the initiator's and the responder's streams begin, and what follows
    "web": (_HTTP_GET, _HTTP_OK, _BODY),
    "dns": (_DNS_QUERY, _DNS_ANSWER, _NOISE),
    "mail": (_MAIL_REQUEST, _MAIL_ANSWER, _BODY),
    "ssh": (_SSH_BANNER, _SSH_BANNER, _NOISE),
    "video": (_QUIC_INITIAL, _QUIC_INITIAL, _NOISE),
    "ntp": (_NTP_REQUEST, _NTP_ANSWER, bytes(REGION)),
    "icmp": (b"", b"", _BODY),
    "slow_http": (_SLOW_GET[: REGION // 8 * 8], _HTTP_OK, _BODY),
    "dns_amplification": (_DNS_ANSWER, b"", _NOISE),
    "ssh_brute_force": (b"SSH-2.0-libssh2_1.11.0\r\n", _SSH_BANNER, _NOISE),
    "exfiltration": (b"SSH-2.0-OpenSSH_9.2\r\n", _SSH_BANNER, _NOISE),
}


def _pool() -> np.ndarray:
    regions = []
    for name in NAMES:
        *openings, body = _REGIONS.get(name.name, (b"", b"", _NOISE))
        regions += [(opening + body[len(opening) :])[:REGION] for opening in openings]
    return np.frombuffer(b"".join([*regions, _TLS_CLIENT, _TLS_SERVER]), np.uint8)


POOL = _pool()
"""Region after region, two for each kind of session: always the same octets."""


def _sums(octets: np.ndarray) -> np.ndarray:
    """The sum of the big-endian 16-bit words before each word, modulo 2**32."""
    words = octets[: len(octets) // 2 * 2].view(">u2")
    return np.concatenate([[0], np.cumsum(words, dtype=np.uint64)]).astype(np.uint32)


SUMS = np.stack([_sums(POOL), _sums(np.append(POOL[1:], np.uint8(0)))])
"""Sums of words that begin at even places, and at odd ones."""

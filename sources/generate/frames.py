"""Writes segments as frames of a capture file: Ethernet, IP, TCP, UDP or ICMP, all checksums right."""

import numpy as np

from sources.generate.payloads import BEHIND_OPENING, POOL, REGION, REPEAT, SUMS, TLS_KIND
from sources.generate.sessions import MILLISECOND, OPTIONS_FULL, OPTIONS_MSS
from transforms.kernel import kernel
from transforms.records import ACK, ICMP, SYN, TCP, UDP

LONGEST_FRAME = 14 + 40 + 40 + 1460
LONGEST_RECORD = 32 + LONGEST_FRAME + 3  # a pcapng block with its padding


def write_frames(
    segments: np.ndarray, sessions: np.ndarray, start_ns: int, is_pcapng: bool, out: np.ndarray
) -> tuple[int, int]:
    """Writes `SEGMENT[n]` as records of a capture; returns octets written, and octets on the wire.

    Args:
        segments: In the order of the capture.
        sessions: `SESSION[m]`, what `segments` point to.
        start_ns: Time of the capture's start, ns since the Unix epoch.
        is_pcapng: Enhanced packet blocks of nanoseconds, otherwise records of classic pcap, of microseconds.
        out: `uint8`, at least n × LONGEST_RECORD.
    """
    end, wire_octets = _write_frames(segments, sessions, start_ns, is_pcapng, POOL, SUMS, out)
    return int(end), int(wire_octets)


@kernel
def _put_big(out, at, number, octets):
    """Writes a big-endian number; returns the next place."""
    for i in range(octets):
        out[at + i] = (number >> (8 * (octets - 1 - i))) & 255
    return at + octets


@kernel
def _put_little(out, at, number):
    """Writes 32 bits little-endian, as capture files have them here."""
    for i in range(4):
        out[at + i] = (number >> (8 * i)) & 255
    return at + 4


@kernel
def _sum(out, start, end):
    """The sum of the 16-bit words from `start` to `end`, an even number of octets."""
    total = 0
    for i in range(start, end, 2):
        total += (np.int64(out[i]) << 8) | np.int64(out[i + 1])
    return total


@kernel
def _put_checksum(out, at, total):
    """Writes the Internet checksum (RFC 1071) of words that add up to `total`."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    _put_big(out, at, 0xFFFF - total, 2)


@kernel
def _put_network(out, at, session, segment, length):
    """Writes Ethernet and IP headers before `length` octets; returns the next place and the pseudo-header's sum."""
    src_mac, dst_mac, src_hi, dst_hi = session.src_mac, session.dst_mac, session.src_hi, session.dst_hi
    src_lo, dst_lo, ttl = session.src_lo, session.dst_lo, np.int64(session.src_ttl)
    if segment.reverse:
        src_mac, dst_mac, src_hi, dst_hi, src_lo, dst_lo = dst_mac, src_mac, dst_hi, src_hi, dst_lo, src_lo
        ttl = np.int64(session.dst_ttl)
    at = _put_big(out, at, np.int64(dst_mac), 6)
    at = _put_big(out, at, np.int64(src_mac), 6)
    protocol = np.int64(session.protocol)
    if session.ip_version == 4:
        at = _put_big(out, at, 0x0800, 2)
        ip_at = at
        at = _put_big(out, at, 0x4500_0000 + 20 + length, 4)
        at = _put_big(out, at, np.int64(segment.ip_id) << 16 | 0x4000, 4)  # don't fragment
        at = _put_big(out, at, ttl << 24 | protocol << 16, 4)
        addresses_at = at
        at = _put_big(out, at, np.int64(src_lo & np.uint64(0xFFFFFFFF)), 4)
        at = _put_big(out, at, np.int64(dst_lo & np.uint64(0xFFFFFFFF)), 4)
        _put_checksum(out, ip_at + 10, _sum(out, ip_at, at))
    else:
        at = _put_big(out, at, 0x86DD, 2)
        at = _put_big(out, at, 0x6000_0000, 4)
        at = _put_big(out, at, length << 16 | protocol << 8 | ttl, 4)
        addresses_at = at
        at = _put_big(out, at, np.int64(src_hi), 8)
        at = _put_big(out, at, np.int64(src_lo), 8)
        at = _put_big(out, at, np.int64(dst_hi), 8)
        at = _put_big(out, at, np.int64(dst_lo), 8)
    return at, _sum(out, addresses_at, at) + protocol + length


@kernel
def _tcp_header_octets(session, segment):
    """The length of a TCP header with its options."""
    if segment.flags & SYN:
        return 40 if session.options == OPTIONS_FULL else (24 if session.options == OPTIONS_MSS else 20)
    return 32 if session.options == OPTIONS_FULL else 20


@kernel
def _put_tcp(out, at, session, segment, header_octets):
    """Writes a TCP header, its checksum 0."""
    src_port, dst_port = np.int64(session.src_port), np.int64(session.dst_port)
    at = _put_big(out, at, dst_port << 16 | src_port if segment.reverse else src_port << 16 | dst_port, 4)
    at = _put_big(out, at, np.int64(segment.seq), 4)
    at = _put_big(out, at, np.int64(segment.ack), 4)
    at = _put_big(out, at, (header_octets // 4) << 28 | np.int64(segment.flags) << 16 | np.int64(segment.window), 4)
    at = _put_big(out, at, 0, 4)
    if segment.flags & SYN and header_octets > 20:
        at = _put_big(out, at, 0x0204_0000 + (1460 if session.ip_version == 4 else 1440), 4)
    if session.options == OPTIONS_FULL:
        at = _put_big(out, at, 0x0402_080A if segment.flags & SYN else 0x0101_080A, 4)  # SACK permitted; timestamps
        now_ms = segment.time_ns // MILLISECOND
        own = np.int64(session.seed & np.uint64(0x3FFFFFFF)) + now_ms
        other = np.int64((session.seed >> np.uint64(32)) & np.uint64(0x3FFFFFFF)) + now_ms
        if segment.reverse:
            own, other = other, own
        at = _put_big(out, at, own, 4)
        at = _put_big(out, at, other if segment.flags & ACK else 0, 4)
        if segment.flags & SYN:
            at = _put_big(out, at, 0x0103_0307, 4)  # windows are scaled by 128
    return at


@kernel
def _put_other(out, at, session, segment, length):
    """Writes a UDP or ICMP header, its checksum 0; returns the next place and the checksum's."""
    src_port, dst_port = np.int64(session.src_port), np.int64(session.dst_port)
    if session.protocol == UDP:
        at = _put_big(out, at, dst_port << 16 | src_port if segment.reverse else src_port << 16 | dst_port, 4)
        return _put_big(out, at, length << 16, 4), at + 2
    at = _put_big(out, at, (dst_port if segment.reverse else src_port) << 24, 4)
    identifier = np.int64(session.seed & np.uint64(0xFFFF))
    number = np.int64(segment.payload_at) // max(np.int64(segment.payload_octets), 1)
    return _put_big(out, at, identifier << 16 | number & 0xFFFF, 4), at - 2


@kernel
def _payload_place(session, segment):
    """Where in the pool a segment's payload lies: each stream, and each datagram, begins with its opening."""
    kind = np.int64(session.name)
    within = np.int64(segment.payload_at)
    if session.protocol == TCP and session.dst_port == 443:
        kind = TLS_KIND
    elif session.protocol == UDP and session.dst_port != 443:
        within = 0
    if within >= REPEAT:
        within = BEHIND_OPENING + (within - REPEAT) % (REPEAT - BEHIND_OPENING)
    return (2 * kind + np.int64(segment.reverse)) * REGION + within


@kernel
def _put_frame(out, at, session, segment, pool, sums):
    """Writes one frame; returns the next place."""
    octets = np.int64(segment.payload_octets)
    is_tcp = session.protocol == TCP
    header_octets = _tcp_header_octets(session, segment) if is_tcp else 8
    at, total = _put_network(out, at, session, segment, header_octets + octets)
    transport_at = at
    if is_tcp:
        at, checksum_at = _put_tcp(out, at, session, segment, header_octets), at + 16
    else:
        at, checksum_at = _put_other(out, at, session, segment, header_octets + octets)
    if session.protocol == ICMP:
        total = 0
    total += _sum(out, transport_at, at)
    place = _payload_place(session, segment)
    for i in range(octets):
        out[at + i] = pool[place + i]
    sums_from, word = sums[place & 1], place >> 1
    total += np.int64(np.uint32(sums_from[word + (octets >> 1)] - sums_from[word]))
    if octets & 1:
        total += np.int64(pool[place + octets - 1]) << 8
    _put_checksum(out, checksum_at, total)
    return at + octets


@kernel
def _write_frames(segments, sessions, start_ns, is_pcapng, pool, sums, out):
    at, wire_octets = 0, 0
    header = 28 if is_pcapng else 16
    for i in range(len(segments)):
        segment = segments[i]
        end = _put_frame(out, at + header, sessions[segment.session], segment, pool, sums)
        length = end - at - header
        wire_octets += length
        time_ns = start_ns + segment.time_ns
        if is_pcapng:
            block_octets = 32 + (length + 3) // 4 * 4
            at = _put_little(out, at, 6)  # enhanced packet block
            at = _put_little(out, at, block_octets)
            at = _put_little(out, at, 0)
            at = _put_little(out, at, time_ns >> 32)
            at = _put_little(out, at, time_ns & 0xFFFFFFFF)
        else:
            at = _put_little(out, at, time_ns // 1_000_000_000)
            at = _put_little(out, at, time_ns % 1_000_000_000 // 1_000)
        at = _put_little(out, at, length)
        at = _put_little(out, at, length)
        at = end
        if is_pcapng:
            while at & 3:
                out[at] = 0
                at += 1
            at = _put_little(out, at, block_octets)
    return at, wire_octets

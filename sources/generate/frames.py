"""Writes segments as frames of a capture file: Ethernet, IP, TCP, UDP or ICMP, all checksums right."""

import numpy as np

from sources.generate.payloads import BEHIND_OPENING, POOL, REGION, REPEAT, SUMS, TLS_KIND
from sources.generate.sessions import MILLISECOND, OPTIONS_FULL, OPTIONS_MSS, SECOND
from transforms.kernel import kernel, kernel_part
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


@kernel_part
def _put(words, at, number, count):
    """Writes a number as `count` 16-bit words, the highest first; returns the next place."""
    for i in range(count):
        words[at + i] = (number >> (16 * (count - 1 - i))) & 0xFFFF
    return at + count


@kernel_part
def _put_little(out, at, number):
    """Writes 32 bits little-endian, as capture files have them here."""
    for i in range(4):
        out[at + i] = (number >> (8 * i)) & 255
    return at + 4


@kernel_part
def _sum(words, start, end):
    total = 0
    for i in range(start, end):
        total += words[i]
    return total


@kernel_part
def _checksum(total):
    """The Internet checksum (RFC 1071) of words that add up to `total`."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@kernel_part
def _put_network(words, session, segment, length):
    """Writes Ethernet and IP headers before `length` octets; returns the next place and the pseudo-header's sum."""
    src_mac, dst_mac, src_hi, dst_hi = session.src_mac, session.dst_mac, session.src_hi, session.dst_hi
    src_lo, dst_lo, ttl = session.src_lo, session.dst_lo, np.int64(session.src_ttl)
    if segment.reverse:
        src_mac, dst_mac, src_hi, dst_hi, src_lo, dst_lo = dst_mac, src_mac, dst_hi, src_hi, dst_lo, src_lo
        ttl = np.int64(session.dst_ttl)
    protocol = np.int64(session.protocol)
    at = _put(words, 0, np.int64(dst_mac), 3)
    at = _put(words, at, np.int64(src_mac), 3)
    if session.ip_version == 4:
        words[7], words[8], words[9], words[10] = 0x4500, 20 + length, segment.ip_id, 0x4000  # don't fragment
        words[6], words[11], words[12] = 0x0800, ttl << 8 | protocol, 0
        at = _put(words, 13, np.int64(src_lo), 2)
        at = _put(words, at, np.int64(dst_lo), 2)
        addresses = _sum(words, 13, at)
        words[12] = _checksum(addresses + _sum(words, 7, 12))
    else:
        words[6], words[7], words[8], words[9], words[10] = 0x86DD, 0x6000, 0, length, protocol << 8 | ttl
        at = _put(words, 11, np.int64(src_hi), 4)
        at = _put(words, at, np.int64(src_lo), 4)
        at = _put(words, at, np.int64(dst_hi), 4)
        at = _put(words, at, np.int64(dst_lo), 4)
        addresses = _sum(words, 11, at)
    return at, addresses + protocol + length


@kernel_part
def _tcp_header_octets(session, segment):
    """The length of a TCP header with its options."""
    if segment.flags & SYN:
        return 40 if session.options == OPTIONS_FULL else (24 if session.options == OPTIONS_MSS else 20)
    return 32 if session.options == OPTIONS_FULL else 20


@kernel_part
def _put_tcp(words, at, session, segment, header_octets):
    """Writes what a TCP header has behind the ports, its checksum 0; returns the next place."""
    at = _put(words, at, np.int64(segment.seq), 2)
    at = _put(words, at, np.int64(segment.ack), 2)
    words[at] = (header_octets // 4) << 12 | np.int64(segment.flags)
    words[at + 1], words[at + 2], words[at + 3] = segment.window, 0, 0
    at += 4
    is_syn = segment.flags & SYN != 0
    if is_syn and header_octets > 20:
        words[at], words[at + 1] = 0x0204, 1460 if session.ip_version == 4 else 1440
        at += 2
    if session.options == OPTIONS_FULL:
        words[at], words[at + 1] = 0x0402 if is_syn else 0x0101, 0x080A  # SACK permitted; timestamps
        now_ms = segment.time_ns // MILLISECOND
        own = np.int64(session.seed & np.uint64(0x3FFFFFFF)) + now_ms
        other = np.int64((session.seed >> np.uint64(32)) & np.uint64(0x3FFFFFFF)) + now_ms
        if segment.reverse:
            own, other = other, own
        at = _put(words, at + 2, own << 32 | (other if segment.flags & ACK else 0), 4)
        if is_syn:
            words[at], words[at + 1] = 0x0103, 0x0307  # windows are scaled by 128
            at += 2
    return at


@kernel_part
def _put_transport(words, at, session, segment, header_octets):
    """Writes a TCP, UDP or ICMP header, its checksum 0; returns the next place and the checksum's."""
    src_port, dst_port = np.int64(session.src_port), np.int64(session.dst_port)
    if segment.reverse:
        src_port, dst_port = dst_port, src_port
    octets = np.int64(segment.payload_octets)
    words[at], words[at + 1] = src_port, dst_port
    if session.protocol == TCP:
        return _put_tcp(words, at + 2, session, segment, header_octets), at + 8
    if session.protocol == UDP:
        words[at + 2], words[at + 3] = header_octets + octets, 0
        return at + 4, at + 3
    words[at], words[at + 1] = src_port << 8, 0  # the type; the code is 0
    words[at + 2] = np.int64(session.seed & np.uint64(0xFFFF))
    words[at + 3] = np.int64(segment.payload_at) // max(octets, 1) & 0xFFFF
    return at + 4, at + 1


@kernel_part
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


@kernel_part
def _put_frame(out, at, session, segment, words, pool, sums):
    """Writes one frame; returns the next place. `words` is scratch for its headers."""
    octets = np.int64(segment.payload_octets)
    header_octets = _tcp_header_octets(session, segment) if session.protocol == TCP else 8
    transport, total = _put_network(words, session, segment, header_octets + octets)
    if session.protocol == ICMP:
        total = 0
    end, checksum = _put_transport(words, transport, session, segment, header_octets)
    total += _sum(words, transport, end)
    place = _payload_place(session, segment)
    odd, word = place & 1, place >> 1
    total += np.int64(np.uint32(sums[odd, word + (octets >> 1)] - sums[odd, word]))
    if octets & 1:
        total += np.int64(pool[place + octets - 1]) << 8
    words[checksum] = _checksum(total)
    for i in range(end):
        out[at + 2 * i], out[at + 2 * i + 1] = words[i] >> 8, words[i] & 255
    at += 2 * end
    for i in range(octets):
        out[at + i] = pool[place + i]
    return at + octets


@kernel
def _write_frames(segments, sessions, start_ns, is_pcapng, pool, sums, out):
    words = np.empty(LONGEST_FRAME // 2, np.int64)
    at, wire_octets = 0, 0
    header = 28 if is_pcapng else 16
    for i in range(len(segments)):
        segment = segments[i]
        end = _put_frame(out, at + header, sessions[segment.session], segment, words, pool, sums)
        length = end - at - header
        wire_octets += length
        time_ns = start_ns + segment.time_ns
        block_octets = 32 + (length + 3) // 4 * 4
        if is_pcapng:  # an enhanced packet block
            for number in (6, block_octets, 0, time_ns >> 32, time_ns & 0xFFFFFFFF):
                at = _put_little(out, at, number)
        else:
            at = _put_little(out, at, time_ns // SECOND)
            at = _put_little(out, at, time_ns % SECOND // 1_000)
        at = _put_little(out, at, length)
        at = _put_little(out, at, length)
        at = end
        if is_pcapng:
            while at & 3:
                out[at] = 0
                at += 1
            at = _put_little(out, at, block_octets)
    return at, wire_octets

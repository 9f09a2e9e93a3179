"""What identifies a flow: its key, its id, the shard it belongs to, and the Community ID (docs/identity.md).

Every hash here is fixed by its version (`id@1`, `shard@1`, Community ID v1) and has test vectors: flow ids made by
different releases, machines and runners are equal. XXH3 is Yann Collet's, seed 0, in the form for 17 to 128 octets
(https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md); kernels compute it straight from the fields.
"""

import numpy as np
import pyarrow as pa
import xxhash

from transforms.kernel import kernel, kernel_part
from transforms.records import ICMP, ICMPV6, SCTP, TCP, UDP

KEY = np.dtype(
    [
        ("src_hi", "u8"),  # initiator's address, as in PACKET
        ("src_lo", "u8"),
        ("dst_hi", "u8"),
        ("dst_lo", "u8"),
        ("flow_first_ns", "i8"),  # first packet of part 0
        ("ordinal", "u4"),  # earlier flows of this key with this flow_first_ns
        ("flow_part", "u4"),  # part of a flow that the active timeout split, from 0
        ("vni", "i4"),  # -1 without
        ("src_port", "u2"),  # ICMP: mapped type
        ("dst_port", "u2"),
        ("vlan_id", "u2"),
        ("protocol", "u1"),
        ("ip_version", "u1"),
    ],
    align=True,
)
"""All that tells one flow from another, apart from the sensor; initiator first."""

ID_LAYOUT = np.dtype(
    [
        ("version", "S4"),  # b"id@1"
        ("ip_version", "u1"),
        ("protocol", "u1"),
        ("vlan_id", "<u2"),
        ("sensor", "u1", 16),  # XXH3-128 of the sensor's UTF-8 name; the name is "" with merged sensors
        ("src_ip", "u1", 16),  # network order; IPv4 as ::ffff:a.b.c.d
        ("dst_ip", "u1", 16),
        ("src_port", "<u2"),
        ("dst_port", "<u2"),
        ("vni", "<i4"),
        ("flow_first_ns", "<i8"),
        ("ordinal", "<u4"),
        ("flow_part", "<u4"),
    ]
)
"""The 80 octets that `flow_id` is the XXH3-128 of."""

SHARD_LAYOUT = np.dtype(
    [
        ("low_ip", "u1", 16),  # of the endpoint whose (address, port) is less
        ("high_ip", "u1", 16),
        ("low_port", "<u2"),
        ("high_port", "<u2"),
        ("protocol", "u1"),
        ("zero", "u1", 3),
    ]
)
"""The 40 octets that the shard hash is the XXH3-64 of. Ports are 0 for ICMP and ICMPv6."""


def flow_ids(keys: np.ndarray, sensor: str) -> np.ndarray:
    """The flow ids of `KEY[n]` seen by `sensor`: `uint8[n, 16]`, XXH3-128 digests in canonical (big-endian) order."""
    ids = np.empty((len(keys), 2), np.uint64)
    low, high = np.frombuffer(xxhash.xxh3_128_digest(sensor.encode()), "<u8")
    _flow_ids(np.ascontiguousarray(keys), low, high, ids)
    return ids.view(np.uint8)


def shard_hash(packets: np.ndarray) -> np.ndarray:
    """The shard hash of `PACKET[n]`: `uint64[n]`, equal for both directions of a flow.

    It covers addresses, ports and protocol. VLAN, VNI and sensor are left out, and the ports of ICMP, so that options
    which change the key never move a flow to another shard. A later fragment whose ports are unknown has ports 0: it
    goes where its flow, which has ports 0 too, goes.
    """
    hashes = np.empty(len(packets), np.uint64)
    _shard_hash(packets, hashes)
    return hashes


def community_ids(keys: np.ndarray, seed: int = 0) -> pa.StringArray:
    """Community ID v1 of `KEY[n]`: strings of 30 characters (https://github.com/corelight/community-id-spec).

    TCP, UDP, SCTP, ICMP and ICMPv6 are hashed with ports, all else without. One-way ICMP types keep their direction.

    Args:
        keys: `KEY[n]`; at most 71 million rows, what an Arrow string array holds.
        seed: The network's seed, 0 to 65535.
    """
    texts = np.empty((len(keys), _COMMUNITY_ID_OCTETS), np.uint8)
    _community_ids(np.ascontiguousarray(keys), np.uint64(seed), texts)
    offsets = np.arange(len(keys) + 1, dtype=np.int32) * np.int32(_COMMUNITY_ID_OCTETS)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(texts))


# --- ICMP: types that ask and answer -------------------------------------------------------------------------------

ICMP_PAIRS = ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18))
"""ICMP types that Community ID pairs: echo, timestamp, information, router solicitation, address mask."""

ICMPV6_PAIRS = ((128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145))
"""Likewise ICMPv6: echo, listener query, router and neighbour solicitation, node information, home agent address."""

_ONE_WAY = -1


def _counterparts(pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    types = np.full(256, _ONE_WAY, np.int16)
    for request, answer in pairs:
        types[request], types[answer] = answer, request
    return types


_ICMP_COUNTERPARTS = _counterparts(ICMP_PAIRS)
_ICMPV6_COUNTERPARTS = _counterparts(ICMPV6_PAIRS)


@kernel
def icmp_ports(protocol, icmp_type, code):
    """The ports that stand for an ICMP or ICMPv6 message: its type, and the paired type, or the code without one."""
    counterparts = _ICMP_COUNTERPARTS if protocol == ICMP else _ICMPV6_COUNTERPARTS
    counterpart = counterparts[icmp_type]
    return np.uint16(icmp_type), np.uint16(code if counterpart == _ONE_WAY else counterpart)


@kernel
def icmp_two_way(protocol, src_port, dst_port):
    """Whether both directions of an ICMP or ICMPv6 key are one flow; so too for ports 0/0, which hold no type."""
    if src_port == 0 and dst_port == 0:
        return True
    counterparts = _ICMP_COUNTERPARTS if protocol == ICMP else _ICMPV6_COUNTERPARTS
    return counterparts[src_port & 255] != _ONE_WAY


@kernel
def icmp_answer(protocol, src_port, dst_port):
    """Whether a message is an answer by nature: it then comes from the responder, even as the first of its flow."""
    if protocol == ICMP:
        return (src_port == 0 and dst_port == 8) or src_port == 14 or src_port == 16 or src_port == 18
    return protocol == ICMPV6 and src_port == 129


# --- XXH3 ----------------------------------------------------------------------------------------------------------

_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    ),
    "<u8",
).astype(np.uint64)
"""The first half of XXH3's default secret."""

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_AVALANCHE = np.uint64(0x165667919E3779F9)
_LOW_32 = np.uint64(0xFFFFFFFF)
_ID_OCTETS, _SHARD_OCTETS = np.uint64(ID_LAYOUT.itemsize), np.uint64(SHARD_LAYOUT.itemsize)
_ID_TAG = np.uint64(int.from_bytes(b"id@1", "little"))


@kernel_part
def _shifted(number, bits):
    """A 64-bit number times 2**bits. Callers convert to `uint64`, so that there is one compiled form."""
    return number << np.uint64(bits)


@kernel_part
def _swapped(number):
    """The octets of a 64-bit number in reverse."""
    number = ((number & np.uint64(0x00FF00FF00FF00FF)) << np.uint64(8)) | (
        (number >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    )
    number = ((number & np.uint64(0x0000FFFF0000FFFF)) << np.uint64(16)) | (
        (number >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    )
    return (number << np.uint64(32)) | (number >> np.uint64(32))


@kernel_part
def _mixed(low, high, secret):
    """XXH3_mix16B: halves of the 128-bit product of 16 keyed octets, XORed; `secret` counts 8 octets."""
    low ^= _SECRET[secret]
    high ^= _SECRET[secret + 1]
    thirty_two = np.uint64(32)
    low_0, low_1 = low & _LOW_32, low >> thirty_two
    high_0, high_1 = high & _LOW_32, high >> thirty_two
    inner = low_0 * high_0
    cross = low_1 * high_0
    middle = (inner >> thirty_two) + (cross & _LOW_32) + low_0 * high_1
    upper = (cross >> thirty_two) + (middle >> thirty_two) + low_1 * high_1
    return upper ^ ((middle << thirty_two) | (inner & _LOW_32))


@kernel_part
def _avalanche(number):
    number ^= number >> np.uint64(37)
    number *= _PRIME_AVALANCHE
    return number ^ (number >> np.uint64(32))


@kernel_part
def _write_words(key, words):
    """Writes words 3 to 9 of `ID_LAYOUT` and the key's part of word 0, which holds the tag."""
    words[0] = (
        _ID_TAG
        | _shifted(np.uint64(key.ip_version), 32)
        | _shifted(np.uint64(key.protocol), 40)
        | _shifted(np.uint64(key.vlan_id), 48)
    )
    words[3], words[4] = _swapped(key.src_hi), _swapped(key.src_lo)
    words[5], words[6] = _swapped(key.dst_hi), _swapped(key.dst_lo)
    words[7] = np.uint64(key.src_port) | _shifted(np.uint64(key.dst_port), 16) | _shifted(np.uint64(key.vni), 32)
    words[8] = key.flow_first_ns
    words[9] = np.uint64(key.ordinal) | _shifted(np.uint64(key.flow_part), 32)


@kernel
def _flow_ids(keys, sensor_low, sensor_high, ids):
    words = np.empty(10, np.uint64)
    words[1], words[2] = sensor_low, sensor_high
    for i in range(len(keys)):
        _write_words(keys[i], words)
        low, high = _ID_OCTETS * _PRIME_1, np.uint64(0)
        for pair in range(2, -1, -1):  # from the middle outwards: XXH3 mixes pairs from both ends
            first, last = 2 * pair, 8 - 2 * pair
            low += _mixed(words[first], words[first + 1], 4 * pair)
            low ^= words[last] + words[last + 1]
            high += _mixed(words[last], words[last + 1], 4 * pair + 2)
            high ^= words[first] + words[first + 1]
        upper = low * _PRIME_1 + high * _PRIME_4 + _ID_OCTETS * _PRIME_2
        ids[i, 0] = _swapped(np.uint64(0) - _avalanche(upper))
        ids[i, 1] = _swapped(_avalanche(low + high))


@kernel
def packet_shard(packet):
    """The shard hash of one `PACKET` record, as `shard_hash` has it."""
    low_hi, low_lo, high_hi, high_lo = packet.src_hi, packet.src_lo, packet.dst_hi, packet.dst_lo
    low_port, high_port = np.uint64(packet.src_port), np.uint64(packet.dst_port)
    if packet.protocol == ICMP or packet.protocol == ICMPV6:
        low_port, high_port = np.uint64(0), np.uint64(0)
    if (low_hi > high_hi) or (low_hi == high_hi and (low_lo > high_lo or (low_lo == high_lo and low_port > high_port))):
        low_hi, low_lo, low_port, high_hi, high_lo, high_port = high_hi, high_lo, high_port, low_hi, low_lo, low_port
    low_hi, low_lo, high_hi, high_lo = _swapped(low_hi), _swapped(low_lo), _swapped(high_hi), _swapped(high_lo)
    tail = low_port | _shifted(high_port, 16) | _shifted(np.uint64(packet.protocol), 32)
    total = _SHARD_OCTETS * _PRIME_1
    total += _mixed(high_hi, high_lo, 4) + _mixed(low_lo, high_hi, 6)
    total += _mixed(low_hi, low_lo, 0) + _mixed(high_lo, tail, 2)
    return _avalanche(total)


@kernel
def _shard_hash(packets, hashes):
    for i in range(len(packets)):
        hashes[i] = packet_shard(packets[i])


# --- Community ID: SHA-1 of one block (RFC 3174), and base64 (RFC 4648) ---------------------------------------------

_COMMUNITY_ID_OCTETS = 30  # "1:" and 28 of base64
_ONE, _COLON, _PADDING = b"1:="
_BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_SHA1_START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)
_SHA1_ROUNDS = np.array([0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6], np.uint32)


@kernel_part
def _write_message(key, seed, message):
    """Writes the block that Community ID hashes, its endpoints in order, as eight big-endian numbers."""
    protocol = key.protocol
    is_icmp = protocol in (ICMP, ICMPV6)
    src_hi, src_lo, src_port = key.src_hi, key.src_lo, np.uint64(key.src_port)
    dst_hi, dst_lo, dst_port = key.dst_hi, key.dst_lo, np.uint64(key.dst_port)
    if not is_icmp or icmp_two_way(protocol, key.src_port, key.dst_port):
        same = src_hi == dst_hi and src_lo == dst_lo
        if src_hi > dst_hi or (src_hi == dst_hi and src_lo > dst_lo) or (same and src_port > dst_port):
            src_hi, src_lo, src_port, dst_hi, dst_lo, dst_port = dst_hi, dst_lo, dst_port, src_hi, src_lo, src_port
    for i in range(1, 8):
        message[i] = 0
    message[0] = _shifted(seed, 48)
    if key.ip_version == 4:
        last = 1
        message[0] |= _shifted(src_lo & _LOW_32, 16) | ((dst_lo & _LOW_32) >> np.uint64(16))
    else:
        last = 4
        message[0] |= src_hi >> np.uint64(16)
        message[1] = _shifted(src_hi, 48) | (src_lo >> np.uint64(16))
        message[2] = _shifted(src_lo, 48) | (dst_hi >> np.uint64(16))
        message[3] = _shifted(dst_hi, 48) | (dst_lo >> np.uint64(16))
    message[last] = _shifted(dst_lo, 48) | _shifted(np.uint64(protocol), 40)
    if is_icmp or protocol in (TCP, UDP, SCTP):
        message[last] |= _shifted(src_port, 16) | dst_port
        message[last + 1] = _shifted(np.uint64(0x80), 56)
        message[7] = 64 * (last + 1)
    else:
        message[last] |= _shifted(np.uint64(0x80), 24)
        message[7] = 64 * (last + 1) - 32


@kernel_part
def _rotated(word, bits):
    return np.uint32((word << np.uint32(bits)) | (word >> np.uint32(32 - bits)))


@kernel_part
def _sha1(message, words, digest):
    """SHA-1 of one padded block of eight numbers, as five; `words` is scratch for 80."""
    for i in range(8):
        words[2 * i], words[2 * i + 1] = message[i] >> np.uint64(32), message[i] & _LOW_32
    for i in range(16, 80):
        words[i] = _rotated(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1)
    a, b, c, d, e = _SHA1_START[0], _SHA1_START[1], _SHA1_START[2], _SHA1_START[3], _SHA1_START[4]
    for i in range(80):
        if i < 20:
            chosen = (b & c) | (~b & d)
        elif i < 40 or i >= 60:
            chosen = b ^ c ^ d
        else:
            chosen = (b & c) | (b & d) | (c & d)
        turned = np.uint32(_rotated(a, 5) + chosen + e + _SHA1_ROUNDS[i // 20] + words[i])
        a, b, c, d, e = turned, a, _rotated(b, 30), c, d
    digest[0], digest[1], digest[2], digest[3], digest[4] = a, b, c, d, e
    for i in range(5):
        digest[i] += _SHA1_START[i]


@kernel
def _community_ids(keys, seed, texts):
    message = np.empty(8, np.uint64)
    words = np.empty(80, np.uint32)
    digest = np.empty(5, np.uint32)
    for i in range(len(keys)):
        _write_message(keys[i], seed, message)
        _sha1(message, words, digest)
        text = texts[i]
        text[0], text[1] = _ONE, _COLON
        for letter in range(27):  # six bits each, the last one of four
            bit = 6 * letter
            pair = _shifted(np.uint64(digest[bit // 32]), 32)
            if bit < 128:
                pair |= np.uint64(digest[bit // 32 + 1])
            text[2 + letter] = _BASE64[(pair >> np.uint64(58 - bit % 32)) & np.uint64(63)]
        text[29] = _PADDING

"""Addresses as text: RFC 5952 for IPv6, dotted for IPv4, colons for MACs."""

import numpy as np
import pyarrow as pa

from transforms.kernel import kernel, kernel_part

_IPV4_LONGEST, _IPV6_LONGEST, _MAC_OCTETS = 15, 39, 17
_SEPARATOR = 1  # written behind each part, also the last, and then overwritten
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_MAPPED = np.frombuffer(b"::ffff:", np.uint8)
_DOT, _COLON, _ZERO = ord("."), ord(":"), ord("0")


def address_texts(hi: np.ndarray, lo: np.ndarray, version: np.ndarray) -> pa.StringArray:
    """Addresses in their canonical text form; null where `version` is 0.

    An IPv6 address within ::ffff:0:0/96 is written ::ffff:a.b.c.d, as RFC 5952 section 5 recommends.

    Args:
        hi: `uint64[n]`, the high halves.
        lo: `uint64[n]`, the low halves; IPv4 is the low 32 bits of it.
        version: `uint8[n]`, 4, 6, or 0 for no address.
    """
    hi, lo = np.ascontiguousarray(hi, np.uint64), np.ascontiguousarray(lo, np.uint64)
    version = np.ascontiguousarray(version, np.uint8)
    longest = _IPV6_LONGEST if (version == 6).any() else _IPV4_LONGEST
    characters = np.empty(len(version) * longest + _SEPARATOR, np.uint8)
    offsets = np.empty(len(version) + 1, np.int32)
    return _string_array(characters[: _write_addresses(hi, lo, version, characters, offsets)], offsets, version != 0)


def mac_texts(macs: np.ndarray) -> pa.StringArray:
    """MAC addresses, `uint64[n]`, as aa:bb:cc:dd:ee:ff; null for 0."""
    macs = np.ascontiguousarray(macs, np.uint64)
    characters = np.empty(len(macs) * _MAC_OCTETS + _SEPARATOR, np.uint8)
    offsets = np.empty(len(macs) + 1, np.int32)
    return _string_array(characters[: _write_macs(macs, characters, offsets)], offsets, macs != 0)


def _string_array(characters: np.ndarray, offsets: np.ndarray, valid: np.ndarray) -> pa.StringArray:
    nulls = len(valid) - int(np.count_nonzero(valid))
    validity = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
    return pa.StringArray.from_buffers(len(valid), pa.py_buffer(offsets), pa.py_buffer(characters), validity, nulls)


@kernel_part
def _put_ipv4(out, at, address):
    for i in range(4):
        octet = (address >> (24 - 8 * i)) & 255
        if octet >= 100:
            out[at] = _ZERO + octet // 100
            at += 1
        if octet >= 10:
            out[at] = _ZERO + octet // 10 % 10
            at += 1
        out[at] = _ZERO + octet % 10
        out[at + 1] = _DOT
        at += 2
    return at - 1


@kernel_part
def _put_ipv6(out, at, hi, lo, groups):
    """Writes the RFC 5952 form; `groups` is scratch for eight numbers."""
    for i in range(4):
        groups[i] = (hi >> np.uint64(48 - 16 * i)) & np.uint64(0xFFFF)
        groups[4 + i] = (lo >> np.uint64(48 - 16 * i)) & np.uint64(0xFFFF)
    run_at, run_length, length = 8, 1, 0  # the first longest run of at least two zero groups
    for i in range(8):
        length = length + 1 if groups[i] == 0 else 0
        if length > run_length:
            run_at, run_length = i + 1 - length, length
    i = 0
    while i < 8:
        if i == run_at:
            out[at], out[at + 1] = _COLON, _COLON
            at += 2
            i += run_length
            continue
        if i > 0 and i != run_at + run_length:
            out[at] = _COLON
            at += 1
        started = False
        for nibble in range(4):
            digit = (groups[i] >> (12 - 4 * nibble)) & 15
            started = started or digit != 0 or nibble == 3
            if started:
                out[at] = _HEX[digit]
                at += 1
        i += 1
    return at


@kernel
def _write_addresses(hi, lo, version, out, offsets):
    groups = np.empty(8, np.int64)
    at = np.int64(0)  # a plain 0 has a type of its own: what takes it would be compiled twice
    for i in range(len(version)):
        offsets[i] = at
        mapped = hi[i] == 0 and lo[i] >> np.uint64(32) == np.uint64(0xFFFF)
        if version[i] == 6 and mapped:
            for letter in range(len(_MAPPED)):
                out[at] = _MAPPED[letter]
                at += 1
        if version[i] == 4 or (version[i] == 6 and mapped):
            at = _put_ipv4(out, at, np.int64(lo[i] & np.uint64(0xFFFFFFFF)))
        elif version[i] == 6:
            at = _put_ipv6(out, at, hi[i], lo[i], groups)
    offsets[len(version)] = at
    return at


@kernel
def _write_macs(macs, out, offsets):
    at = 0
    for i in range(len(macs)):
        offsets[i] = at
        if macs[i] == 0:
            continue
        mac = np.int64(macs[i])
        for octet_at in range(6):
            octet = (mac >> (40 - 8 * octet_at)) & 255
            out[at] = _HEX[octet >> 4]
            out[at + 1] = _HEX[octet & 15]
            out[at + 2] = _COLON
            at += 3
        at -= 1
    offsets[len(macs)] = at
    return at

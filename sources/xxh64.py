"""XXH64, the 64-bit hash of xxHash (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), seed 0, as a kernel."""

import numpy as np

from sources.byte_order import le32, le64
from transforms.kernel import kernel, kernel_part

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_1, _7, _11, _12, _18, _23, _27, _31, _64 = (np.uint64(bits) for bits in (1, 7, 11, 12, 18, 23, 27, 31, 64))


@kernel_part
def _rotated(value, bits):
    return (value << bits) | (value >> (_64 - bits))


@kernel_part
def _round(lane, word):
    return _rotated(lane + word * _P2, _31) * _P1


@kernel
def xxh64(octets, at, end):
    """The hash of the octets from `at` to before `end`."""
    length = np.uint64(end - at)
    if end - at >= 32:
        one, two, three, four = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= end:
            one = _round(one, le64(octets, at))
            two = _round(two, le64(octets, at + 8))
            three = _round(three, le64(octets, at + 16))
            four = _round(four, le64(octets, at + 24))
            at += 32
        digest = _rotated(one, _1) + _rotated(two, _7) + _rotated(three, _12) + _rotated(four, _18)
        for lane in (one, two, three, four):
            digest = (digest ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        digest = _P5
    digest += length
    while at + 8 <= end:
        digest = _rotated(digest ^ _round(np.uint64(0), le64(octets, at)), _27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        digest = _rotated(digest ^ (np.uint64(le32(octets, at)) * _P1), _23) * _P2 + _P3
        at += 4
    while at < end:
        digest = _rotated(digest ^ (np.uint64(octets[at]) * _P5), _11) * _P1
        at += 1
    digest = (digest ^ (digest >> np.uint64(33))) * _P2
    digest = (digest ^ (digest >> np.uint64(29))) * _P3
    return digest ^ (digest >> np.uint64(32))

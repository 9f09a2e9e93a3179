"""Numbers in a buffer of octets.

None of these checks bounds. The discipline of every kernel that calls them: a read of k octets at `at` is preceded by a
comparison of `at + k` with the end of what was captured of the frame. Indices are unsigned: one that may be negative
is checked for counting from the end, octet by octet, and the octets are then not read together.
"""

import numpy as np

from transforms.kernel import kernel_part

_1, _2, _4 = np.uint64(1), np.uint64(2), np.uint64(4)


@kernel_part
def be16(octets, at):
    """The two octets at `at` in network order."""
    place = np.uint64(at)
    return (np.int64(octets[place]) << 8) | np.int64(octets[place + _1])


@kernel_part
def be24(octets, at):
    """The three octets at `at` in network order."""
    place = np.uint64(at)
    return (np.int64(octets[place]) << 16) | be16(octets, place + _1)


@kernel_part
def be32(octets, at):
    """The four octets at `at` in network order."""
    place = np.uint64(at)
    return (be16(octets, place) << 16) | be16(octets, place + _2)


@kernel_part
def be48(octets, at):
    """The six octets at `at` in network order: a MAC address."""
    place = np.uint64(at)
    return (be16(octets, place) << 32) | be32(octets, place + _2)


@kernel_part
def be64(octets, at):
    """The eight octets at `at` in network order, unsigned."""
    place = np.uint64(at)
    return (np.uint64(be32(octets, place)) << np.uint64(32)) | np.uint64(be32(octets, place + _4))


@kernel_part
def le16(octets, at):
    """The two octets at `at`, least significant first."""
    place = np.uint64(at)
    return (np.int64(octets[place + _1]) << 8) | np.int64(octets[place])


@kernel_part
def le32(octets, at):
    """The four octets at `at`, least significant first."""
    place = np.uint64(at)
    return (le16(octets, place + _2) << 16) | le16(octets, place)


@kernel_part
def le64(octets, at):
    """The eight octets at `at`, least significant first, unsigned."""
    place = np.uint64(at)
    return (np.uint64(le32(octets, place + _4)) << np.uint64(32)) | np.uint64(le32(octets, place))

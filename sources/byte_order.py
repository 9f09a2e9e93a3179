"""Numbers in a buffer of octets.

None of these checks bounds. The discipline of every kernel that calls them: a read of k octets at `at` is preceded by a
comparison of `at + k` with the end of what was captured of the frame.
"""

import numpy as np

from transforms.kernel import kernel_part


@kernel_part
def be16(octets, at):
    """The two octets at `at` in network order."""
    return (np.int64(octets[at]) << 8) | np.int64(octets[at + 1])


@kernel_part
def be24(octets, at):
    """The three octets at `at` in network order."""
    return (np.int64(octets[at]) << 16) | be16(octets, at + 1)


@kernel_part
def be32(octets, at):
    """The four octets at `at` in network order."""
    return (be16(octets, at) << 16) | be16(octets, at + 2)


@kernel_part
def be48(octets, at):
    """The six octets at `at` in network order: a MAC address."""
    return (be16(octets, at) << 32) | be32(octets, at + 2)


@kernel_part
def be64(octets, at):
    """The eight octets at `at` in network order, unsigned."""
    return (np.uint64(be32(octets, at)) << np.uint64(32)) | np.uint64(be32(octets, at + 4))


@kernel_part
def le16(octets, at):
    """The two octets at `at`, least significant first."""
    return (np.int64(octets[at + 1]) << 8) | np.int64(octets[at])


@kernel_part
def le32(octets, at):
    """The four octets at `at`, least significant first."""
    return (le16(octets, at + 2) << 16) | le16(octets, at)


@kernel_part
def le64(octets, at):
    """The eight octets at `at`, least significant first, unsigned."""
    return (np.uint64(le32(octets, at + 4)) << np.uint64(32)) | np.uint64(le32(octets, at))

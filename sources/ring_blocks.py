"""The blocks of a packet ring (TPACKET_V3): Linux fills them, a kernel here finds the frames in them.

A block belongs to Linux until its status says `user`; then it is ours until we write `kernel` there. Both sides run at
the same time on different cores, so each hand-over needs a fence: what a block holds is read after its status, and is
done with before the status is written (linux/if_packet.h, Documentation/networking/packet_mmap.rst).
"""

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from transforms.kernel import kernel

BLOCK_STATUS, BLOCK_PACKETS, BLOCK_FIRST = 8, 12, 16
"""Where `tpacket_block_desc` has the owner, the number of packets, and where the first of them begins."""

PACKET_NEXT, PACKET_SECONDS, PACKET_NANOSECONDS, PACKET_CAPTURED, PACKET_WIRE, PACKET_STATUS = range(0, 24, 4)
PACKET_FRAME_AT, PACKET_TAG = 24, 32
"""Where `tpacket3_hdr` has its fields: offset of the next, time, lengths, status, offset of the frame, VLAN tag."""

PACKET_HEADER_OCTETS = 48
LEAST_PACKET_OCTETS = 80
"""No packet takes less room in a ring: its header, and the link's address (`sockaddr_ll`) behind it."""

STATUS_KERNEL, STATUS_USER = 0, 1
STATUS_TAG = 1 << 4
"""The packet had a VLAN tag, which is in its header instead of in the frame."""

_TAG_OCTETS = 4
_NO_TAG = np.uint32(0)
_TAGGED = np.uint32(1 << 16)
_NS_PER_S = 1_000_000_000


@intrinsic  # type: ignore[misc]
def _fence(_typing: Any) -> Any:
    """Nothing is read or written across it, by the compiler or by the processor."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return numba.types.void(), generate


@kernel
def walk_blocks(words, halves, first, block_octets, link_type, frames, tags):
    """Finds the frames of the blocks that Linux has filled, from block `first` on, as many blocks as fit.

    Args:
        words: `u4[n]`, the ring.
        halves: `u2[2 * n]`, the same memory.
        first: Number of the block that is filled next.
        block_octets: Size of a block.
        link_type: LINKTYPE_* of the frames.
        frames: `FRAME[k]`; filled from the front. A frame that lost its VLAN tag to its header has the length on the
            wire that it had with it.
        tags: `u4[k]`, for `restore_tags`.

    Returns:
        How many frames there are, how many blocks hold them, whether any had a VLAN tag, and whether Linux had no more.
    """
    blocks = len(words) * 4 // block_octets
    count, walked, tagged = 0, 0, False
    while walked < blocks:
        at = (first + walked) % blocks * block_octets
        if not words[(at + BLOCK_STATUS) >> 2] & STATUS_USER:
            return count, walked, tagged, True
        _fence()
        packets = np.int64(words[(at + BLOCK_PACKETS) >> 2])
        if count + packets > len(frames):
            return count, walked, tagged, False
        at += np.int64(words[(at + BLOCK_FIRST) >> 2])
        for _ in range(packets):
            word = at >> 2
            frame = frames[count]
            seconds, nanoseconds = words[word + PACKET_SECONDS // 4], words[word + PACKET_NANOSECONDS // 4]
            frame.time_ns = np.int64(seconds) * _NS_PER_S + np.int64(nanoseconds)
            frame.offset = at + np.int64(halves[(at + PACKET_FRAME_AT) >> 1])
            frame.captured = words[word + PACKET_CAPTURED // 4]
            frame.frame_octets = words[word + PACKET_WIRE // 4]
            frame.link_type = link_type
            frame.damaged = 0
            tags[count] = _NO_TAG
            if words[word + PACKET_STATUS // 4] & STATUS_TAG:
                tags[count] = _TAGGED | (words[word + PACKET_TAG // 4] & np.uint32(0xFFFF))
                frame.frame_octets += _TAG_OCTETS
                tagged = True
            count += 1
            at += np.int64(words[word + PACKET_NEXT // 4])
        walked += 1
    return count, walked, tagged, False


@kernel
def release_blocks(words, first, count, block_octets):
    """Gives blocks back to Linux; nothing that points into them may be read after."""
    blocks = len(words) * 4 // block_octets
    for i in range(count):
        at = (first + i) % blocks * block_octets
        _fence()
        words[(at + BLOCK_STATUS) >> 2] = STATUS_KERNEL
    _fence()


@kernel
def restore_tags(packets, reasons, tags):
    """Gives rows the VLAN that Linux took out of their frames: always the outermost tag; one without a VLAN has id 0.

    Args:
        packets: `PACKET[m]`, of the frames that were accepted.
        reasons: `u1[n]`, 0 for those.
        tags: `u4[n]`, from `walk_blocks`.
    """
    at = 0
    for i in range(len(reasons)):
        if reasons[i] == 0:
            vlan_id = tags[i] & 0xFFF
            if vlan_id != 0:
                packets[at].vlan_id = vlan_id
            at += 1

"""The walker over blocks of a packet ring, on blocks made by hand as `linux/if_packet.h` lays them out."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.frames import FRAME
from sources.ring_blocks import release_blocks, restore_tags, walk_blocks
from transforms.records import PACKET

BLOCK = 4096
KERNEL, USER, TIMED_OUT = 0, 1, 1 << 5
TAG_VALID, TPID_VALID = 1 << 4, 1 << 6


def packet(frame: bytes, seconds=5, ns=6, wire=None, tag=None, last=False) -> bytes:
    """A `tpacket3_hdr` with its `sockaddr_ll` and frame, padded to eight octets."""
    frame_at = 82
    size = (frame_at + len(frame) + 7) // 8 * 8
    status = USER | (0 if tag is None else TAG_VALID | TPID_VALID)
    wire = len(frame) if wire is None else wire
    fixed = struct.pack("=6I2H", 0 if last else size, seconds, ns, len(frame), wire, status, frame_at, 96)
    return (fixed + struct.pack("=3IHH", 0xABCD, tag or 0, 0x8100, 0, 0)).ljust(frame_at, b"\xee") + frame.ljust(
        size - frame_at, b"\0"
    )


def block(packets: list[bytes], status=USER) -> bytes:
    """A `tpacket_block_desc` and its packets."""
    inside = b"".join(packets)
    fixed = struct.pack("=6IQ4I", 2, 48, status, len(packets), 48, 48 + len(inside), 1, 0, 0, 0, 0)
    return (fixed + inside).ljust(BLOCK, b"\xdd")


def walk(blocks: list[bytes], first=0, room=100):
    """The frames, tags and what else `walk_blocks` returns; `octets` is the ring."""
    octets = np.frombuffer(bytearray(b"".join(blocks)), np.uint8)
    frames, tags = np.zeros(room, FRAME), np.zeros(room, np.uint32)
    count, walked, tagged, drained = walk_blocks(
        octets.view(np.uint32), octets.view(np.uint16), first, BLOCK, 1, frames, tags
    )
    return octets, frames[:count], tags[:count], walked, tagged, drained


def test_a_packet_of_a_block():
    """Its time beyond 2038, its lengths, and where it lies."""
    blocks = [
        block([packet(b"first", 3_000_000_000, 999_999_999, wire=1500), packet(b"second", last=True)]),
        block([], KERNEL),
    ]
    octets, frames, tags, walked, tagged, drained = walk(blocks)
    assert frames.tolist()[0][:1] == (3_000_000_000_999_999_999,)
    assert [octets[row["offset"] :][: row["captured"]].tobytes() for row in frames] == [b"first", b"second"]
    assert frames["frame_octets"].tolist() == [1500, 6]
    assert set(frames["link_type"].tolist()) == {1}
    assert not frames["damaged"].any()
    assert (walked, tagged, drained, tags.any()) == (1, False, True, False)


def test_a_tag_beside_the_frame_counts_in_its_length():
    _, frames, tags, _, tagged, _ = walk([block([packet(bytes(60), tag=0xE007), packet(bytes(60), last=True)])])
    assert (frames["frame_octets"].tolist(), tagged, tags[1]) == ([64, 60], True, 0)
    packets = np.zeros(2, PACKET)
    restore_tags(packets, np.zeros(2, np.uint8), tags)
    assert packets["vlan_id"].tolist() == [7, 0]


def test_tags_go_to_the_rows_of_their_frames():
    """Frames that are no rows are passed over; a tag without a VLAN leaves what was in the frame."""
    packets = np.zeros(2, PACKET)
    packets["vlan_id"] = 3
    tags = np.array([5 | 1 << 16, 6 | 1 << 16, 0 | 1 << 16], np.uint32)
    restore_tags(packets, np.array([1, 0, 0], np.uint8), tags)
    assert packets["vlan_id"].tolist() == [6, 3]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_blocks_are_taken_in_a_circle(first):
    """From the next one on, up to one that is Linux's; a block handed over by the clock counts too."""
    blocks = [block([], KERNEL)] * 3
    blocks[first] = block([packet(b"one", last=True)], USER | TIMED_OUT)
    blocks[(first + 1) % 3] = block([packet(b"two", last=True)])
    octets, frames, _, walked, _, drained = walk(blocks, first)
    assert [octets[row["offset"] :][:3].tobytes() for row in frames] == [b"one", b"two"]
    assert (walked, drained) == (2, True)
    release_blocks(octets.view(np.uint32), first, walked, BLOCK)
    assert [octets.view(np.uint32)[i * BLOCK // 4 + 2] for i in range(3)] == [KERNEL] * 3


def test_a_ring_that_is_full_is_walked_once():
    _, frames, _, walked, _, drained = walk([block([packet(b"x", last=True)])] * 3, 1)
    assert (len(frames), walked, drained) == (3, 3, False)


def test_a_block_that_does_not_fit_waits():
    """It is not taken in part."""
    blocks = [block([packet(b"x")] * 2 + [packet(b"x", last=True)])] * 2
    _, frames, _, walked, _, drained = walk(blocks, room=5)
    assert (len(frames), walked, drained) == (3, 1, False)


@given(
    st.lists(
        st.lists(
            st.tuples(st.binary(max_size=40), st.integers(0, 2**32 - 1), st.none() | st.integers(0, 65535)), max_size=8
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_blocks_give_their_packets_back(contents):
    blocks = [block([packet(data, seconds, tag=tag) for data, seconds, tag in content]) for content in contents]
    octets, frames, tags, walked, _, _ = walk(blocks)
    expected = [part for content in contents for part in content]
    assert walked == len(contents)
    assert [octets[row["offset"] :][: row["captured"]].tobytes() for row in frames] == [part[0] for part in expected]
    assert frames["time_ns"].tolist() == [part[1] * 10**9 + 6 for part in expected]
    assert tags.tolist() == [0 if part[2] is None else part[2] | 1 << 16 for part in expected]

"""pcapng: blocks, sections, interfaces, times; and what is damaged."""

import contextlib

import numpy as np
import pytest
from capture_files import (
    block,
    enhanced,
    frame,
    interface,
    number_of,
    obsolete,
    option,
    read,
    section,
    simple,
    statistics,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sources import pcapng
from sources.frames import FRAME
from sources.octets import READ_OCTETS
from transforms.records import InputError


def written(tmp_path, *blocks):
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(blocks))
    return path


def exact_ns(ticks, resolution, offset_s):
    units = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    time_ns = ticks * 10**9 // units + offset_s * 10**9
    return time_ns if -(2**63) <= time_ns < 2**63 else None


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**64 - 1) | st.integers(2**63 - 5000, 2**63 + 5000),
    st.integers(0, 255),
    st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 3600, -1, -9223372037, 9223372036]),
)
@example(2**63 - 1, 9, 0)
@example(2**63, 9, 0)
@example((2**63 - 1) // 1000 + 1, 6, 0)
@example(145_224_192, 9, -9223372037)
@example(145_224_191, 9, -9223372037)
@example(854_775_807, 9, 9223372036)
@example(854_775_808, 9, 9223372036)
@example(2**64 - 1, 128 + 64, 0)
@example(2**64 - 1, 128 + 33, 0)
@example(2**64 - 1, 0, -(2**63))
@example(2**63 + 5, 0, -(2**63))
@example(2**64 - 1, 0, 2**63 - 1)
def test_times_equal_exact_arithmetic(ticks, resolution, offset_s):
    """Any resolution and offset, rounded down to ns; what is beyond int64 is damaged."""
    table = np.zeros(16, pcapng.INTERFACE)
    blocks = interface(resolution=resolution, offset_s=offset_s) + enhanced(ticks, b"")
    octets = np.frombuffer(blocks, np.uint8).copy()
    rows = np.zeros(4, FRAME), np.zeros(4, np.int64)
    count, *_ = pcapng.index_blocks(octets, 0, len(octets), 0, table, np.zeros(2, np.int64), *rows)
    assert count == 1
    found = rows[0][0]
    assert (None if found["damaged"] else found["time_ns"]) == exact_ns(ticks, resolution, offset_s)


@pytest.mark.parametrize("order", "<>", ids=["little-endian", "big-endian"])
def test_every_packet_block_is_read(tmp_path, order):
    """Enhanced, obsolete, and simple ones, which have no time of their own: that of the packet before."""
    path = written(
        tmp_path,
        section(order),
        interface(order),
        enhanced(1_000_001, frame(1), order, wire=100),
        simple(frame(2), order),
        obsolete(1_000_002, frame(3), order),
    )
    packets, report = read(path)
    assert number_of(packets) == [1, 2, 3]
    assert packets["time_ns"].tolist() == [1_000_001_000, 1_000_001_000, 1_000_002_000]
    assert packets["frame_octets"].tolist() == [100, len(frame(2)), len(frame(3))]
    assert report.damage == []


def test_a_simple_packet_is_as_long_as_the_snap_length_says(tmp_path):
    """Its block states only the length on the wire; what is behind the snap length is padding."""
    cut = frame(1, bytes(100))[:61]
    _, report = read(written(tmp_path, section(), interface(snap=61), simple(cut, wire=142)))
    assert report.packets_read == 1
    packets, _ = read(tmp_path / "a.pcapng")
    assert packets["frame_octets"].tolist() == [142]


def test_sections_have_their_own_byte_order_and_interfaces(tmp_path):
    path = written(
        tmp_path,
        section("<"),
        interface("<", resolution=9),
        interface("<", resolution=3, offset_s=100),
        enhanced(5, frame(1), "<", number=0),
        enhanced(6, frame(2), "<", number=1),
        section(">"),
        interface(">", resolution=128 + 1),
        enhanced(401, frame(3), ">", number=0),
    )
    packets, report = read(path)
    assert packets["time_ns"].tolist() == [5, 100_006_000_000, 200_500_000_000]
    assert number_of(packets) == [1, 2, 3]
    assert report.damage == []


def test_interfaces_may_be_many_and_come_late(tmp_path):
    blocks = [section()]
    for i in range(100):
        blocks += [interface(offset_s=i), enhanced(0, frame(i), number=i)]
    packets, report = read(written(tmp_path, *blocks))
    assert packets["time_ns"].tolist() == [i * 10**9 for i in range(100)]
    assert report.damage == []


def test_drops_are_the_last_of_each_interface(tmp_path):
    """isb_ifdrop counts from the interface's beginning; sections add up."""
    one = [
        section(),
        interface(),
        interface(),
        statistics(0, 3),
        statistics(1, 10),
        statistics(0, 5),
        statistics(9, 99),
    ]
    _, report = read(written(tmp_path, *one, section(), interface(), statistics(0, 100)))
    assert report.interface_drops == 115


def test_blocks_of_other_types_are_passed_over_whatever_their_size(tmp_path):
    others = [block(kind, bytes(17)) for kind in (4, 9, 10, 0xBAD, 0x40000BAD, 77)]
    large = block(0xBAD, bytes(3 * READ_OCTETS))
    path = written(
        tmp_path, section(), *others, interface(), large, enhanced(1, frame(1)), *others, enhanced(2, frame(2))
    )
    packets, report = read(path)
    assert number_of(packets) == [1, 2]
    assert report.damage == []


GOOD = [section(), interface(), enhanced(1, frame(1))]
AT = sum(map(len, GOOD))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (block(6, bytes(20), length=0), "a block with an impossible length"),
        (block(6, bytes(20), length=30), "a block with an impossible length"),
        (block(6, bytes(12)), "a block with an impossible length"),
        (enhanced(1, frame(1))[:20] + b"\xff\0\0\0" + enhanced(1, frame(1))[24:], "a block with an impossible length"),
        (block(6, bytes(20), trailer=28), "a block whose two lengths differ"),
        (enhanced(1, frame(1), number=1), "a packet of an interface that is not described"),
        (enhanced(1, bytes(262_145)), "a packet with more octets than the limit of its link type"),
        (block(1, bytes(8) + b"\x09\0\xff\0"), "an interface description whose options run past its end"),
        (block(1, bytes(4)), "a block with an impossible length"),
        (section(version=(2, 0)), "a section that is of pcapng version 2.0"),
        (block(0x0A0D0D0A, bytes(16)), "a section that has no byte order mark"),
        (block(0xBAD, bytes(3 * READ_OCTETS), trailer=12), "a block whose two lengths differ"),
        (block(0xBAD, bytes(3 * READ_OCTETS))[:-9], "a block that is cut off"),
        (enhanced(1, frame(1))[:-1], "the last block is cut off"),
        (b"\x06\0\0", "the last block is cut off"),
    ],
)
def test_damage_is_one_line_with_the_offset(tmp_path, bad, told):
    """What comes before it is processed; it is no reject."""
    path = written(tmp_path, *GOOD, bad)
    packets, report = read(path)
    assert number_of(packets) == [1]
    assert report.packets_read == 1
    assert len(report.damage) == 1
    assert report.damage[0].startswith(f"{path}: damaged at offset ")
    assert told in report.damage[0]
    if len(bad) < 1000:
        assert f"offset {AT}: " in report.damage[0]


def test_a_first_section_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no byte order mark"):
        read(written(tmp_path, block(0x0A0D0D0A, bytes(16))))


def test_a_time_outside_int64_is_malformed(tmp_path):
    path = written(tmp_path, section(), interface(resolution=0), enhanced(5, frame(1)), enhanced(2**40, frame(2)))
    packets, report = read(path)
    assert number_of(packets) == [1]
    assert report.rejects == {"malformed": 1}
    sample = report.samples[0]
    assert (sample.step, sample.source, sample.payload) == ("parse", str(path), frame(2))
    assert path.read_bytes()[sample.position :].startswith(enhanced(2**40, frame(2)))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_garbled_files_end_with_packets_and_a_line_never_otherwise(tmp_path_factory, data):
    """Any octets changed anywhere: everything read is a packet or a reject, and reading ends."""
    octets = bytearray(
        b"".join([*GOOD, option(1, b"x"), simple(frame(2)), *GOOD, statistics(0, 1), obsolete(3, frame(3))])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("garbled"), bytes(octets))
    if not octets.startswith(GOOD[0]):  # its first section header is not what it was: perhaps no capture at all
        with contextlib.suppress(InputError):
            read(path)
        return
    packets, report = read(path)
    assert len(packets) + sum(report.rejects.values()) == report.packets_read
    assert len(report.damage) <= 1

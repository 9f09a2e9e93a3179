"""pcap and snoop: versions, byte orders, units of time, and what is refused or damaged."""

import struct

import pytest
from capture_files import frame, number_of, pcap, pcap_header, pcap_record, read, snoop
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.records import InputError


@pytest.mark.parametrize("order", "<>", ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)], ids=["us", "ns"])
def test_times_are_exact_in_either_byte_order_and_unit(tmp_path, order, magic, unit_ns):
    path = tmp_path / "a.pcap"
    records = [(0, 0), (1_700_000_000, 999_999), (2**32 - 1, 999_999)]
    path.write_bytes(
        pcap_header(order, magic)
        + b"".join(pcap_record(*time, frame(i), order, wire=9000 + i) for i, time in enumerate(records))
    )
    packets, report = read(path)
    assert packets["time_ns"].tolist() == [s * 10**9 + units * unit_ns for s, units in records]
    assert packets["frame_octets"].tolist() == [9000, 9001, 9002]
    assert number_of(packets) == [0, 1, 2]
    assert (report.packets_read, report.damage, report.octets_read) == (3, [], path.stat().st_size - 24)


@pytest.mark.parametrize(
    ("version", "swapped"),
    [((2, 4), False), ((2, 3), True), ((2, 3), False), ((2, 2), True), ((2, 0), True), ((543, 0), True)],
)
def test_the_lengths_of_old_versions_are_put_right(tmp_path, version, swapped):
    """Before 2.3 the length on the wire came first, in 2.3 sometimes (libpcap, sf-pcap.c)."""
    path = tmp_path / "a.pcap"
    lengths = (len(frame(7)), 1500)
    lengths = lengths[::-1] if swapped else lengths
    path.write_bytes(pcap_header(version=version) + struct.pack("<4I", 5, 0, *lengths) + frame(7))
    packets, report = read(path)
    assert packets["frame_octets"].tolist() == [1500]
    assert number_of(packets) == [7]
    assert report.damage == []


def test_what_stands_above_the_link_type_is_not_part_of_it(tmp_path):
    """The upper bits hold the length of a frame check sequence (draft-ietf-opsawg-pcap)."""
    (tmp_path / "a.pcap").write_bytes(pcap_header(link=0x24000001) + pcap_record(1, 0, frame(3)))
    assert number_of(read(tmp_path / "a.pcap")[0]) == [3]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\xd4\xc3\xb2\xa1\x02\0\x04", "ends inside its file header"),
        (pcap_header()[:20], "ends inside its file header"),
        (pcap_header(magic=0xA1B2CD34), "Kuznetzov"),
        (pcap_header(magic=0xA1B234CD), "AIX"),
        (pcap_header(version=(3, 0)), "version 3.0"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image"),
        (b"GMBU" + bytes(100), "Network Monitor"),
        (b"hello, world, this is text", "is not a capture file (it begins with 68 65 6c 6c)"),
        (snoop([], version=3), "snoop of version 3"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_what_is_no_capture_is_refused_by_name_in_one_line(tmp_path, content, told):
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(24, 24 + 5 * (16 + len(frame(0)))))
def test_a_file_cut_anywhere_gives_its_whole_packets_and_one_line(tmp_path_factory, end):
    """A packet that is stored only in part is not read; the cut is a damage exactly if it is inside a record."""
    path = tmp_path_factory.mktemp("cut") / "a.pcap"
    path.write_bytes(pcap(range(5))[:end])
    packets, report = read(path)
    whole, rest = divmod(end - 24, 16 + len(frame(0)))
    assert number_of(packets) == list(range(whole))
    assert report.packets_read == whole
    assert report.rejects == {}
    line = f"{path}: damaged at offset {end - rest}: the last packet record is cut off; read up to there"
    assert report.damage == ([line] if rest else [])


@pytest.mark.parametrize(
    ("link", "captured", "damaged"), [(1, 262_144, False), (1, 262_145, True), (189, 262_145, False)]
)
def test_more_octets_than_the_link_type_allows_are_a_damage(tmp_path, link, captured, damaged):
    """The limits are libpcap's and Wireshark's; USB has a larger one."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap_header(link=link) + pcap_record(1, 0, b"") + pcap_record(1, 0, bytes(captured)))
    _, report = read(path)
    assert report.packets_read == (1 if damaged else 2)
    assert [line.split(": ")[1] for line in report.damage] == (["damaged at offset 40"] if damaged else [])


def test_snoop_is_read(tmp_path):
    path = tmp_path / "a.snoop"
    path.write_bytes(snoop([(10, 5, frame(1)), (11, 6, frame(2, b"odd"))]))
    packets, report = read(path)
    assert packets["time_ns"].tolist() == [10_000_005_000, 11_000_006_000]
    assert number_of(packets) == [1, 2]
    assert report.damage == []


def test_a_record_shorter_than_its_packet_is_a_damage(tmp_path):
    path = tmp_path / "a.snoop"
    good = snoop([(10, 5, frame(1))])
    path.write_bytes(good + struct.pack(">6I", 60, 60, 24, 0, 11, 0) + bytes(60))
    _, report = read(path)
    assert report.packets_read == 1
    assert report.damage == [
        f"{path}: damaged at offset {len(good)}: a record that is shorter than its packet; read up to there"
    ]


def test_an_empty_capture_is_fine(tmp_path):
    (tmp_path / "a.pcap").write_bytes(pcap_header())
    packets, report = read(tmp_path / "a.pcap")
    assert (len(packets), report.packets_read, report.damage) == (0, 0, [])

"""Plain, compressed and piped octets come out the same, as far as they go."""

import gzip
import lzma
import os
import tracemalloc

import pytest
import zstandard
from capture_files import number_of, pcap, read

from sources.octets import READ_OCTETS, Damaged, Unreadable, open_octets
from transforms.records import InputError

PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "xz": lzma.compress}
packings = pytest.mark.parametrize("name", PACK)


def unpacked(path):
    octets = open_octets(str(path))
    target, pieces = memoryview(bytearray(100_000)), []
    try:
        while count := octets.read_into(target):
            pieces.append(bytes(target[:count]))
        return b"".join(pieces), ""
    except Damaged as damage:
        return b"".join(pieces), str(damage)
    finally:
        octets.close()


CONTENT = os.urandom(300_000) + bytes(3 * READ_OCTETS) + b"end"


@packings
def test_members_one_after_another_and_padding(tmp_path, name):
    """As `cat a.gz b.gz` leaves them, and as a tape pads them."""
    path = tmp_path / "a"
    path.write_bytes(PACK[name](CONTENT[:1000]) + PACK[name](b"") + PACK[name](CONTENT[1000:]) + bytes(500))
    assert unpacked(path) == (CONTENT, "")


@packings
@pytest.mark.parametrize("kept", [0.3, 0.9999])
def test_what_precedes_a_cut_is_unpacked(tmp_path, name, kept):
    packed = PACK[name](CONTENT)
    path = tmp_path / "a"
    path.write_bytes(packed[: int(len(packed) * kept)])
    found, damage = unpacked(path)
    assert damage == f"the {name} data ends early"
    assert CONTENT.startswith(found)
    assert len(found) > 0.9 * kept * 300_000 - 2 * 131_072  # a zstd block is 128 KiB, and comes as a whole


@packings
def test_what_follows_the_data_is_a_damage(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(PACK[name](CONTENT) + b"something else")
    found, damage = unpacked(path)
    assert found == CONTENT
    assert f"the {name} data cannot be unpacked further" in damage


@packings
def test_memory_does_not_grow_with_what_is_unpacked(tmp_path, name):
    """100 MB of zeros are a few KB; not more than a few reads of them are held at a time."""
    path = tmp_path / "a"
    path.write_bytes(PACK[name](bytes(100 << 20)))
    octets = open_octets(str(path))
    target, total = memoryview(bytearray(READ_OCTETS)), 0
    tracemalloc.start()
    try:
        while count := octets.read_into(target):
            total += count
        assert tracemalloc.get_traced_memory()[1] < (150 << 20 if name == "zstd" else 16 << 20)
    finally:
        tracemalloc.stop()
        octets.close()
    assert total == 100 << 20


@pytest.mark.parametrize(
    ("start", "name"), [(b"BZh91AY", "bzip2"), (b"PK\x03\x04", "zip"), (b"7z\xbc\xaf\x27", "7-Zip")]
)
def test_other_packings_are_refused_by_name(tmp_path, start, name):
    (tmp_path / "a").write_bytes(start + bytes(100))
    with pytest.raises(Unreadable, match=f"is {name} data"):
        open_octets(str(tmp_path / "a"))


def test_a_terminal_is_no_capture():
    """Whoever writes `-` and pipes nothing is told so, where reading would wait for ever."""
    leader, follower = os.openpty()
    own = os.dup(0)
    os.write(leader, b"\x04")  # whoever reads it all the same comes to an end
    try:
        os.dup2(follower, 0)
        with pytest.raises(Unreadable, match=r"^is a terminal; pipe a capture into it$"):
            open_octets("-")
    finally:
        os.dup2(own, 0)
        for descriptor in (own, leader, follower):
            os.close(descriptor)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError) as refused:
        read(tmp_path / "none.pcap")
    assert str(refused.value) == f"{tmp_path}/none.pcap: cannot be opened: No such file or directory"


@packings
def test_a_compressed_capture_is_read_as_the_plain_one(tmp_path, name):
    times = [0, 5, 3, 9]
    path = tmp_path / "a"
    path.write_bytes(PACK[name](pcap(times)))
    packets, report = read(path)
    assert packets["time_ns"].tolist() == sorted(times)
    assert number_of(packets) == [0, 2, 1, 3]
    assert report.octets_read == path.stat().st_size


@packings
def test_a_compressed_capture_that_is_cut_gives_its_whole_packets(tmp_path, name):
    content = pcap(range(20_000))
    packed = PACK[name](content)
    path = tmp_path / "a"
    path.write_bytes(packed[:-10])
    packets, report = read(path)
    assert number_of(packets) == list(range(len(packets)))
    assert len(packets) > 0
    assert len(report.damage) == 1
    assert report.damage[0].startswith(f"{path}: damaged at offset ")
    assert report.damage[0].endswith(f" of its content: the {name} data ends early; read up to there")

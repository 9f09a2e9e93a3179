"""A scan that is begun before its reader is there gives what the reader would have found, or nothing."""

import gzip
import os

import pytest
from capture_files import pcap, read

from sources import captures, scan_ahead

TIMES = [*range(5000, 10_000), *range(5000)]


@pytest.fixture
def scanned(monkeypatch):
    """The numbers of the files that were scanned by their reader itself."""
    numbers, scan = [], captures.scan

    def told(file, number):
        numbers.append(number)
        return scan(file, number)

    monkeypatch.setattr(captures, "scan", told)
    return numbers


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_the_reader_takes_it(tmp_path, scanned, packed):
    """Packets are the same, out of order and compressed too; a second reader scans anew."""
    path = tmp_path / "one.pcap"
    path.write_bytes(packed(pcap(TIMES)))
    usual, _ = read(path)
    scan_ahead.begin(str(path))
    ahead, report = read(path)
    assert scanned == [0]
    assert list(map(repr, ahead)) == list(map(repr, usual))
    assert report.packets_read == len(TIMES)
    read(path)
    assert scanned == [0, 0]


def test_a_file_that_changed_is_scanned_anew(tmp_path, scanned):
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap(range(10)))
    scan_ahead.begin(str(path))
    path.write_bytes(pcap(range(5000)))
    os.utime(path, ns=(1, 1))
    assert len(read(path)[0]) == 5000
    assert scanned == [0]


def test_what_cannot_be_read_is_left_to_the_reader(tmp_path):
    path = tmp_path / "one.pcap"
    path.write_bytes(b"no capture")
    scan_ahead.begin(str(path))
    assert scan_ahead.taken(str(path)) is None
    path.unlink()
    scan_ahead.begin(str(path))
    assert scan_ahead.taken(str(path)) is None

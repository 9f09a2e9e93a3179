"""Packets of any set of files come in order of time, whole, and within bounded memory."""

import os
import threading

import numpy as np
import pytest
from capture_files import (
    FRAME_OCTETS,
    enhanced,
    frame,
    interface,
    number_of,
    pcap,
    pcap_header,
    pcap_record,
    read,
    read_batches,
    section,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import captures
from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from sources.headers import HeaderSettings
from transforms.records import InputError, Stream


def pcapng(times_ns, first=0):
    """As `pcap`; an interface of its own for every tenth packet."""
    blocks = [section(), interface(resolution=9)]
    for i, time_ns in enumerate(times_ns):
        if i % 10 == 9:
            blocks.append(interface(resolution=9, offset_s=0))
        blocks.append(enhanced(int(time_ns), frame(first + i), number=i // 10))
    return b"".join(blocks)


def expected_order(files):
    """Numbers of the packets by (time, file, place), the plain way."""
    rows = [(time, rank, i, first + i) for rank, (times, first) in enumerate(files) for i, time in enumerate(times)]
    return [number for *_, number in sorted(rows)]


def write_files(folder, lists, form=pcap):
    paths, files, first = [], [], 0
    for rank, times in enumerate(lists):
        paths.append(folder / f"{rank:03}.cap")
        paths[-1].write_bytes(form(times, first))
        files.append((times, first))
        first += len(times)
    return paths, expected_order(files)


def disordered(random, count, reach):
    """Times that run on, each up to `reach` places from where it belongs."""
    return np.argsort(np.arange(count) + random.uniform(0, reach, count), kind="stable").tolist()


RANDOM = np.random.default_rng(5)
ARRANGEMENTS = {
    "sorted": [range(20_000)],
    "rotated": [range(0, 9000), range(9000, 15_000), range(15_000, 20_000)],
    "rotated-and-named-backwards": [range(15_000, 20_000), range(9000, 15_000), range(0, 9000)],
    "overlapping": [range(0, 12_000), range(8000, 20_000), range(11_000, 13_000)],
    "interleaved": [range(0, 20_000, 2), range(1, 20_000, 2)],
    "same-times": [[7] * 9000, [7] * 5000, [3] * 10 + [7] * 5000],
    "coarse-times": [[i // 5000 for i in range(20_000)], [i // 3000 for i in range(20_000)]],
    "a-little-out-of-order": [disordered(RANDOM, 20_000, 30)],
    "two-captures-in-one-file": [[*range(10_000, 20_000), *range(0, 10_000)]],
    "backwards": [range(20_000, 0, -1)],
    "shuffled": [RANDOM.permutation(20_000).tolist(), RANDOM.permutation(9000).tolist()],
    "nothing-and-something": [[], range(10), []],
}


@pytest.mark.parametrize("form", [pcap, pcapng])
@pytest.mark.parametrize("name", ARRANGEMENTS)
@pytest.mark.parametrize("waiting", ["plenty", "little"])
def test_packets_come_by_time_then_file_then_place(tmp_path, monkeypatch, name, form, waiting):
    """However files were rotated, overlap or run backwards; with little memory they go through temporary files."""
    if waiting == "little":
        monkeypatch.setattr(captures, "WAITING_OCTETS", 1 << 20)
    paths, expected = write_files(tmp_path, ARRANGEMENTS[name], form)
    packets, report = read(*paths, settings=ReadSettings(temp_dir=str(tmp_path)))
    assert number_of(packets) == expected
    assert report.packets_read == len(expected)
    assert report.damage == []
    assert len(list(tmp_path.iterdir())) == len(paths)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=40), min_size=1, max_size=4), st.integers(1, 50), st.booleans())
def test_any_files_in_batches_of_any_size(tmp_path_factory, lists, block_packets, hold):
    """The same packets in the same order, whatever the size of spans, batches and memory."""
    folder = tmp_path_factory.mktemp("any")
    paths, expected = write_files(folder, lists)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("capture_file", "merging", "rows", "captures"):
            patch.setattr(f"sources.{module}.SPAN_PACKETS", 4)
        if not hold:
            patch.setattr(captures, "WAITING_OCTETS", 1)
        batches, _ = read_batches(*paths, settings=ReadSettings(block_packets=block_packets))
    numbers = [number for batch in batches for number in number_of(batch.packets)]
    assert numbers == expected
    assert all(len(batch.packets) == block_packets for batch in batches[:-1])


def test_batches_are_one_stream_and_are_not_used_again(tmp_path):
    paths, expected = write_files(tmp_path, [range(2500)])
    batches, _ = read_batches(*paths, settings=ReadSettings(block_packets=1000))
    assert [(batch.stream, batch.sequence, batch.observed_ns) for batch in batches] == [
        (Stream("tap", 0, 0), 0, 999),
        (Stream("tap", 0, 0), 1, 1999),
        (Stream("tap", 0, 0), 2, 2499),
    ]
    assert [number for batch in batches for number in number_of(batch.packets)] == expected
    assert not any(batch.packets.flags.writeable for batch in batches)


@pytest.mark.parametrize("name", ["sorted", "interleaved", "shuffled", "two-captures-in-one-file"])
@pytest.mark.parametrize("waiting", [160 << 20, 1 << 20], ids=["in-memory", "in-files"])
def test_payload_prefixes_stay_with_their_packets(tmp_path, monkeypatch, name, waiting):
    """Some packets have none; the others' begin with their own number."""
    monkeypatch.setattr(captures, "WAITING_OCTETS", waiting)
    first = 0
    paths = []
    for rank, times in enumerate(ARRANGEMENTS[name]):
        paths.append(tmp_path / f"{rank}.pcap")
        numbers = range(first, first + len(times))
        records = [pcap_record(0, int(t), frame(n, b"%d." % n * (n % 5))) for t, n in zip(times, numbers, strict=True)]
        paths[-1].write_bytes(pcap_header(magic=0xA1B23C4D) + b"".join(records))
        first += len(times)
    kept = ReadSettings(headers=HeaderSettings(payload_octets=12), block_packets=1000)
    batches, report = read_batches(*paths, settings=kept)
    assert report.packets_read == first
    for batch in batches:
        at, captured = batch.packets["payload_at"].tolist(), batch.packets["payload_captured"].tolist()
        found = [batch.payloads[begin : begin + count] for begin, count in zip(at, captured, strict=True)]
        assert found == [(b"%d." % n * (n % 5))[:12] for n in number_of(batch.packets)]


@pytest.mark.parametrize("count", [50, 20_000], ids=["in-memory", "in-files"])
def test_a_pipe_is_sorted_too(tmp_path, monkeypatch, count):
    monkeypatch.setattr(captures, "WAITING_OCTETS", 1 << 20)
    monkeypatch.setattr("sources.spool.RUN_PACKETS", 4096)
    times = np.random.default_rng(1).permutation(count).tolist()
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(pcap(times),))
    writer.start()
    packets, report = read(path)
    writer.join()
    assert packets["time_ns"].tolist() == list(range(count))
    assert report.octets_read == 24 + count * (16 + FRAME_OCTETS)


def test_standard_input_is_read(tmp_path):
    """Also compressed, and together with files."""
    (tmp_path / "in.pcap").write_bytes(pcap([1, 5], 10))
    (tmp_path / "a.pcap").write_bytes(pcap([3], 20))
    kept = os.dup(0)
    with open(tmp_path / "in.pcap", "rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        packets, _ = read("-", tmp_path / "a.pcap")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert number_of(packets) == [10, 20, 11]


def test_more_than_64_overlapping_compressed_files(tmp_path):
    """They cannot be read in turns, each would have to stay open: they go through temporary files."""
    import gzip

    lists = [range(rank, 7000, 70) for rank in range(70)]
    paths, expected = write_files(tmp_path, lists, lambda times, first: gzip.compress(pcap(times, first)))
    packets, _ = read(*paths)
    assert number_of(packets) == expected


def test_one_unusable_file_among_others_is_one_line(tmp_path):
    for name, content in {"a": b"\x89PNG\r\n\x1a\n", "b": pcap([1]), "c": b"", "d": pcap([0], 1)[:-1]}.items():
        (tmp_path / f"{name}.pcap").write_bytes(content)
    packets, report = read(*(tmp_path / f"{name}.pcap" for name in "abcd"))
    assert number_of(packets) == [0]
    assert report.damage == [
        f"{tmp_path}/a.pcap: is a PNG image, not a pcap, pcapng or snoop capture",
        f"{tmp_path}/c.pcap: is empty",
        f"{tmp_path}/d.pcap: damaged at offset 24: the last packet record is cut off; read up to there",
    ]


def test_refused_packets_are_counted_and_malformed_ones_kept(tmp_path):
    """`not_ip` is counted only; positions are offsets of the record."""
    arp = frame(0)[:12] + b"\x08\x06" + bytes(28)
    broken = frame(0)[:14] + b"\x46" + frame(0)[15:20]
    path = tmp_path / "a.pcap"
    path.write_bytes(
        pcap_header() + b"".join(pcap_record(i, 0, data) for i, data in enumerate([arp, broken, frame(5), broken]))
    )
    packets, report = read(path, settings=ReadSettings(max_rejects=1))
    assert number_of(packets) == [5]
    assert report.packets_read == 4
    assert report.rejects == {"not_ip": 1, "malformed": 2}
    assert [(s.step, s.reason, s.source, s.position, s.payload) for s in report.samples] == [
        ("parse", "malformed", str(path), 24 + 16 + len(arp), broken)
    ]


def test_a_file_that_shrinks_while_it_is_read_is_one_line(tmp_path):
    """What was there is processed; nothing ends the process."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(range(100_000)))
    report = ReadReport()
    batches = read_packets(SensorInput("tap", (str(path),)), ReadSettings(block_packets=1000), report)
    next(batches)
    os.truncate(path, 10_000)
    count = 1000 + sum(len(batch.packets) for batch in batches)
    assert count == report.packets_read < 100_000
    assert report.damage == [f"{path}: ends before packet {count}; it changed while it was read"]


def test_progress_reaches_the_size_of_the_file(tmp_path):
    paths, _ = write_files(tmp_path, [range(50_000)])
    seen: list[int] = []
    for _ in read_packets(SensorInput("tap", (str(paths[0]),)), ReadSettings(), ReadReport(), seen.append):
        pass
    assert seen == sorted(seen)
    assert seen[-1] == paths[0].stat().st_size - 24


def test_a_full_folder_for_temporary_files_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "WAITING_OCTETS", 1)
    paths, _ = write_files(tmp_path, [[2, 1]])
    with pytest.raises(
        InputError, match=r"^--temp_dir: /nowhere cannot hold the packets .*: No such file or directory$"
    ):
        read(*paths, settings=ReadSettings(temp_dir="/nowhere"))


@pytest.mark.parametrize(("name", "value"), [("block_packets", 0), ("max_rejects", -1)])
def test_settings_that_make_no_sense_are_named(name, value):
    with pytest.raises(InputError, match=f"^--{name}: {value} "):
        ReadSettings(**{name: value})

"""A watched spool: each block once and in order, whenever its file appears and wherever reading is interrupted."""

import os
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from flow_testing import packets
from hypothesis import given, settings
from hypothesis import strategies as st
from streaming_testing import Reader, numbers

import queues
from queues import spool_files
from sources import streaming
from sources.streaming import StreamSettings, spool, spool_progress
from transforms import avro
from transforms.records import GAP_JOINED, GAP_LOST, GAP_REPLACED, NO_TIME, Gap, InputError, PacketBatch, Stream


def block(sequence, *, sensor="a", epoch=7, partition=0, partitions=1, end=False):
    made = packets(at_s=[sequence])
    stream = Stream(sensor, epoch, partition)
    return PacketBatch(stream, sequence, int(made["time_ns"][0]), made, partitions=partitions, end=end)


def write(folder, *blocks, file_octets=1):
    """By default one file for each block."""
    live = queues.open_live(f"spool:{folder}?file_octets={file_octets}")
    for one in blocks:
        assert live.put(avro.encode_block(one), one.stream.partition, one.stream.sensor)
    live.close()


def names(*blocks):
    return [(*one.stream, one.sequence) for one in blocks]


def reader(folder, **values):
    transform = streaming.open_input(f"spool:{folder}", StreamSettings(**values))
    return Reader(spool.WatchFolderFn(), spool.SpoolReadings(), transform.watched)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Tests need not wait for what is not to come."""
    monkeypatch.setattr(spool, "IDLE_S", 0.0)
    monkeypatch.setattr(spool_progress, "POLL_S", 0.0)
    monkeypatch.setattr(spool_progress, "_SHARE", 0)


def test_files_are_read_as_they_appear(tmp_path):
    """Each block once; streams in order, sensors in turn."""
    reading = reader(tmp_path)
    assert reading.bundle() == []
    first = [block(i, sensor=sensor) for i in range(3) for sensor in ("a", "b")]
    write(tmp_path, *first)
    deliveries = reading.bundle()
    assert sorted(numbers(deliveries)) == sorted(names(*first))
    assert [name for name in numbers(deliveries) if name[0] == "b"] == names(*(block(i, sensor="b") for i in range(3)))
    assert [name[0] for name in numbers(deliveries)][:2] in (["a", "b"], ["b", "a"])
    write(tmp_path, block(3), block(4))
    deliveries = reading.bundle()
    assert numbers(deliveries) == names(block(3), block(4))
    assert {(one.received_ns, one.ordered, one.follows) for one in deliveries} == {(NO_TIME, True, -1)}
    assert deliveries[0].source == str(tmp_path / spool_files.name_of(Stream("a", 7, 0), 3))
    assert reading.bundle() == []


def test_a_restart_follows_its_predecessor(tmp_path):
    """The old epoch is read first, whatever appears first; what it did not say at its end is told."""
    write(tmp_path, *(block(i, epoch=8) for i in range(4)), block(0), block(2))
    deliveries = reader(tmp_path).bundle()
    assert numbers(deliveries) == names(block(0), block(2), *(block(i, epoch=8) for i in range(4)))
    assert [one.follows for one in deliveries] == [-1, -1, 7, 7, 7, 7]
    gaps = [gap for one in deliveries for gap in one.gaps]
    assert Gap(Stream("a", 7, 0), 1, 1, 2, GAP_LOST) in gaps
    assert gaps[-1].reason == GAP_REPLACED


@settings(max_examples=50)
@given(
    st.sampled_from([1, 500, 10**6]),
    st.lists(st.tuples(st.none() | st.integers(1, 3), st.booleans(), st.booleans()), max_size=12),
)
def test_interrupted_anywhere_every_block_comes_once(tmp_path_factory, file_octets, plan):
    """In bundles that a runner interrupts, that fail, or that go on in another process."""
    folder = tmp_path_factory.mktemp("spool")
    blocks = [block(i, partition=part, partitions=2, end=i == 5) for i in range(6) for part in range(2)]
    write(folder, *blocks, file_octets=file_octets)
    reading = reader(folder, stop_at_end=True)
    deliveries = []
    while not reading.over:
        interrupt_after, fails, moves = plan.pop(0) if plan else (None, False, False)
        got = reading.bundle(interrupt_after=interrupt_after, commit=not fails)
        deliveries += [] if fails else got
        if moves:
            spool._watches.clear()
    assert sorted(numbers(deliveries)) == sorted(names(*blocks))
    for partition in range(2):
        assert [name[3] for name in numbers(deliveries) if name[2] == partition] == list(range(6))
    assert not any(one.gaps for one in deliveries)


def test_long_files_are_read_in_pieces(tmp_path, monkeypatch):
    """A bundle ends in time; the next one goes on in the middle of the file."""
    monkeypatch.setattr(spool, "HOLD_S", -1.0)
    write(tmp_path, *map(block, range(5)), file_octets=10**6)
    reading = reader(tmp_path)
    assert [numbers(reading.bundle()) for _ in range(5)] == [names(block(i)) for i in range(5)]
    assert len(spool_files.names_in(tmp_path)) == 1


def test_files_with_several_blocks_in_one_are_resumed_within(tmp_path, monkeypatch):
    """Another Avro tool may have rewritten them, under names of its own."""
    import fastavro

    write(tmp_path, *map(block, range(4)), file_octets=10**6)
    (path,) = tmp_path.iterdir()
    with open(path, "rb") as file:
        records = list(fastavro.reader(file))
    path.unlink()
    with open(tmp_path / "rewritten.avro", "wb") as file:
        fastavro.writer(file, avro.current_schema(), records)
    reading = reader(tmp_path)
    assert numbers(reading.bundle(interrupt_after=3)) == names(block(0), block(1), block(2))
    assert numbers(reading.bundle()) == names(block(3))
    spool._watches.clear()
    assert reading.bundle() == []


def test_what_was_removed_is_not_read_again_and_late_files_are(tmp_path):
    """Old files may be cleaned up; one that was copied late comes late, after it was told as missing."""
    late = tmp_path / "late"
    write(late, block(1))
    write(tmp_path, block(0), *map(block, range(2, 6)))
    reading = reader(tmp_path)
    gaps = [gap for one in reading.bundle() for gap in one.gaps]
    assert gaps == [Gap(Stream("a", 7, 0), 1, 1, 2, GAP_LOST)]
    for name in spool_files.names_in(tmp_path):
        os.remove(tmp_path / name)
    assert reading.bundle() == []
    (name,) = spool_files.names_in(late)
    os.rename(late / name, tmp_path / name)
    assert numbers(reading.bundle()) == names(block(1))


def test_what_has_no_file_any_more_is_forgotten_in_time(tmp_path):
    """A sensor every six hours, the files of the last day: readings grow no further, and nothing is read twice."""
    reading, blocks, sizes = reader(tmp_path), [], []
    for at in range(60):
        one = block(0, sensor=f"s{at:02}", end=True)
        blocks.append(one._replace(observed_ns=one.observed_ns + at * 6 * 3600 * 10**9))
        write(tmp_path, blocks[-1])
        (tmp_path / f"copy{at:02}.avro").write_bytes((tmp_path / spool_files.name_of(one.stream, 0)).read_bytes())
        for gone in (spool_files.name_of(Stream(f"s{at - 4:02}", 7, 0), 0), f"copy{at - 4:02}.avro"):
            (tmp_path / gone).unlink(missing_ok=True)
        spool._watches.clear()
        assert numbers(reading.until(lambda read: len(read) == 2)) == names(one, one)
        sizes.append(len(reading.restriction.progress.to_bytes()))
    assert max(sizes) < sizes[33] * 1.02
    assert len(reading.restriction.progress.others) == 4
    for path in tmp_path.iterdir():
        path.rename(tmp_path / f".{path.name}")
    assert reading.bundle() == []  # such as a disk that is not mounted
    for path in tmp_path.iterdir():
        path.rename(tmp_path / path.name[1:])
    write(tmp_path, blocks[59 - 28])
    assert reading.bundle() == []
    write(tmp_path, blocks[0])
    assert numbers(reading.bundle()) == names(blocks[0])  # its shard knows that it was taken


def test_streams_whose_files_are_kept_are_known(tmp_path):
    """However long ago they ended."""
    reading = reader(tmp_path)
    for week in range(4):
        one = block(0, sensor=f"s{week}", end=True)
        write(tmp_path, one._replace(observed_ns=one.observed_ns + week * 8 * 86_400 * 10**9))
        spool._watches.clear()
        assert numbers(reading.bundle()) == names(one)


def test_damage_is_delivered_once_and_the_rest_is_read(tmp_path, caplog):
    """The piece goes to where blocks are decoded, which refuses it; a gap tells what it stood for."""
    write(tmp_path, *map(block, range(7)))
    broken = tmp_path / spool_files.name_of(Stream("a", 7, 0), 1)
    broken.write_bytes(broken.read_bytes()[:-20])
    (tmp_path / spool_files.name_of(Stream("a", 7, 0), 2)).write_bytes(b"")
    (tmp_path / "picture.avro").write_bytes(b"\x89PNG")
    os.mkdir(tmp_path / "folder.avro")
    reading = reader(tmp_path)
    deliveries = reading.bundle()
    pieces = [one for one in deliveries if not one.octets.startswith(avro.MARKER)]
    assert {one.source for one in pieces} == {str(broken), str(tmp_path / "picture.avro")}
    assert numbers(one for one in deliveries if one not in pieces) == names(*map(block, (0, 3, 4, 5, 6)))
    assert [gap for one in deliveries for gap in one.gaps] == [Gap(Stream("a", 7, 0), 1, 1, 3, GAP_LOST)]
    assert sum("damaged at offset" in line for line in caplog.messages) == 1
    spool._watches.clear()
    assert reading.bundle() == []


def test_a_file_that_is_gone_is_a_line(tmp_path, monkeypatch, caplog):
    """Somebody removed it between listing and reading."""
    write(tmp_path, block(0))
    listed = [spool_files.name_of(Stream("a", 7, 0), i) for i in (0, 1)]
    monkeypatch.setattr(spool_progress, "names_in", lambda _: listed)
    assert numbers(reader(tmp_path).bundle()) == names(block(0))
    assert "was removed before it was read" in caplog.text


def test_a_folder_that_is_gone_is_waited_for(tmp_path, caplog):
    """A file system that is not mounted just now ends no job."""
    folder = tmp_path / "blocks"
    write(folder, block(0))
    reading = reader(folder)
    assert len(reading.bundle()) == 1
    os.rename(folder, tmp_path / "elsewhere")
    assert reading.bundle() == []
    write(folder, block(1))
    assert numbers(reading.bundle()) == names(block(1))
    assert caplog.messages == [
        f"{folder}: cannot be listed: No such file or directory; trying again",
        f"{folder}: can be listed again",
    ]


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T12:00:00.5Z", "2026-01-31 12:00:00,50", "2026-01-31T13:00:00.500000000+0100", "1769860800.5"],
)
def test_a_time_to_start_at_is_the_same_to_every_python(text):
    """What `datetime` takes differs between Python 3.10 and later ones."""
    assert streaming.start_time_ns(text) == 1_769_860_800_500_000_000


def test_start_at_latest_and_at_a_time(tmp_path):
    """What is there, or was there at that time, is left out; what is missing before the rest is told."""
    write(tmp_path, block(0), block(1), block(0, sensor="b"))
    latest = reader(tmp_path, start_at="latest")
    for name in spool_files.names_in(tmp_path):
        os.utime(tmp_path / name, (1_000, 1_000))
    write(tmp_path, block(2))
    timed = reader(tmp_path, start_at="2001-01-01T00:00:00Z")
    for reading in (latest, timed):
        (given,) = reading.bundle()
        assert numbers([given]) == names(block(2))
        write(tmp_path, block(9), block(12))
        gaps = [gap[2:] for one in reading.bundle() for gap in one.gaps]
        assert gaps == [(0, 2, GAP_JOINED), (3, 9, GAP_LOST)]
        for number in (9, 12):
            os.remove(tmp_path / spool_files.name_of(Stream("a", 7, 0), number))
    assert len(reader(tmp_path).bundle()) == 4


def test_files_that_were_deleted_before_the_start_are_no_loss(tmp_path):
    """Who is to read them has read them."""
    write(tmp_path, *map(block, range(6)))
    os.remove(tmp_path / spool_files.name_of(Stream("a", 7, 0), 0))
    deliveries = reader(tmp_path).bundle()
    assert [gap[2:] for one in deliveries for gap in one.gaps] == [(0, 1, GAP_JOINED)]


def test_the_reading_ends_with_all_streams(tmp_path):
    """A sensor's partitions must all have ended, and all sensors that were named."""
    reading = reader(tmp_path, stop_at_end=True, sensors=("a", "b"))
    write(tmp_path, block(0, end=True, partitions=2))
    assert len(reading.until(bool)) == 1
    for last in (block(0, end=True, partition=1, partitions=2), block(0, sensor="b", end=True)):
        assert reading.bundle() == []
        assert not reading.over
        write(tmp_path, last)
        assert numbers(reading.until(bool)) == names(last)
    assert reading.bundle() == []
    assert reading.over


def test_what_is_missing_at_the_end_is_told(tmp_path):
    """After the bound, since nothing comes behind an end block."""
    write(tmp_path, block(0), block(2, end=True))
    reading = reader(tmp_path, stop_at_end=True, max_out_of_orderness_s=0.05)
    assert len(reading.bundle()) == 2
    (told,) = reading.until(bool)
    assert (told.octets, told.gaps) == (b"", (Gap(Stream("a", 7, 0), 1, 1, 2, GAP_LOST),))
    assert reading.bundle() == []
    assert reading.over


def test_the_watermark_is_that_of_the_data(tmp_path):
    """The last observed time, less the bound; it never goes back."""
    write(tmp_path, block(5))
    reading = reader(tmp_path)
    reading.bundle()
    assert reading.watermark.micros == block(5).observed_ns // 1000 - 2_000_000
    write(tmp_path, block(1, sensor="b"))
    before = reading.watermark
    reading.bundle()
    assert reading.watermark == before


def test_new_files_are_found_soon(tmp_path, monkeypatch):
    """A reader that waits looks often enough."""
    monkeypatch.setattr(spool, "IDLE_S", 30.0)
    monkeypatch.setattr(spool_progress, "POLL_S", 0.2)
    reading = reader(tmp_path)
    write(tmp_path / "ready", block(0))
    (path,) = (tmp_path / "ready").iterdir()
    written = []

    def appear():
        written.append(time.monotonic())
        os.rename(path, tmp_path / path.name)

    timer = threading.Timer(0.5, appear)
    timer.start()
    assert len(reading.bundle()) == 1
    assert time.monotonic() - written[0] < 2  # 0.3 s on a machine that does nothing else
    timer.join()


def test_a_folder_of_many_files_is_not_listed_all_the_time(tmp_path, monkeypatch):
    """Nothing new: not at all. Long listings: more seldom."""
    write(tmp_path, block(0))
    os.utime(tmp_path, (1_000, 1_000))
    clock = [100.0]
    listings = []

    def listed(folder):
        listings.append(clock[0])
        clock[0] += 1.0
        return spool_files.names_in(folder)

    monkeypatch.setattr(spool_progress, "names_in", listed)
    monkeypatch.setattr(spool_progress, "_SHARE", 5)
    watch = spool_progress.FolderWatch(tmp_path, lambda *_: False, lambda: clock[0])
    assert watch.next() is not None
    assert watch.wait_s == pytest.approx(5.0)
    clock[0] += 10
    assert watch.next() is None
    assert len(listings) == 1
    os.utime(tmp_path)
    clock[0] += 10
    assert watch.next() is None
    assert len(listings) == 2


@pytest.mark.parametrize(
    ("url", "values", "complaint"),
    [("spool:", {}, "names no folder"), ("spool:absent", {}, "absent: no such folder; make it"),
     ("spool:.?codec=null", {}, "unknown setting codec"),
     ("spool:.", {"start_at": "noon"}, "--start_at noon: neither")],
)  # fmt: skip
def test_mistakes_are_one_line(url, values, complaint, tmp_path, monkeypatch):
    """They are told before the pipeline runs."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=complaint):
        streaming.open_input(url, StreamSettings(**values))


def test_on_a_streaming_runner(tmp_path, prism):
    """Files that are there and files to come, on Prism, until all streams have ended."""
    first = [block(i, partition=part, partitions=2) for i in range(20) for part in range(2)]
    last = [block(20, partition=part, partitions=2, end=True) for part in range(2)]
    write(tmp_path, *first)
    timer = threading.Timer(2.0, write, (tmp_path, *last))
    timer.start()
    pipeline = beam.Pipeline(options=PipelineOptions([*prism, "--streaming"]))
    deliveries = pipeline | streaming.open_input(f"spool:{tmp_path}", StreamSettings(stop_at_end=True))
    assert_that(deliveries | beam.FlatMap(lambda one: numbers([one])), equal_to(names(*first, *last)))
    pipeline.run().wait_until_finish()
    timer.join()

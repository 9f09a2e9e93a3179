"""Reading a queue: each block once, in order, and whatever is missing or damaged told in a line."""

from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from flow_testing import packets
from queue_testing import put_all

from sources.captures import ReadReport, ReadSettings
from sources.headers import HeaderSettings
from sources.read_queue import ReadQueue, queue_inputs, read_packets
from transforms import avro
from transforms.decode import DecodePackets
from transforms.records import InputError, PacketBatch, Stream


def block(sequence, *, sensor="local", end=False, at_s=None, payloads=b"", **values):
    made = packets(at_s=[sequence] if at_s is None else at_s)
    if payloads:
        made["payload_captured"] = len(payloads)
    stream = Stream(sensor, values.pop("epoch", 0), values.pop("partition", 0))
    return PacketBatch(stream, sequence, int(made["time_ns"].max(initial=0)), made, payloads, end=end, **values)


def write(folder, *blocks):
    """One file for each block, so that files may be lost, copied and damaged."""
    put_all(f"spool:{folder}?file_octets=1", map(avro.encode_block, blocks))
    return f"spool:{folder}"


def read(url, payload_octets=0, max_rejects=10):
    """The identities of the batches, and the report."""
    report = ReadReport()
    settings = ReadSettings(HeaderSettings(payload_octets=payload_octets), max_rejects=max_rejects)
    batches = [batch for one in queue_inputs(url) for batch in read_packets(one, settings, report)]
    return batches, report


def file_of(folder, sequence):
    return next(path for path in folder.iterdir() if f".{sequence:012d}." in path.name)


def test_sensors_are_apart_and_streams_in_order(tmp_path):
    """An input for each stream, by sensor, epoch and partition; its batches by number, however they were written."""
    names = [("b", 0, 0, 0), ("a", 9, 0, 0), ("a", 9, 0, 1), ("a", 3, 1, 0), ("a", 3, 0, 0), ("a", 3, 0, 1)]
    url = write(
        tmp_path,
        *(block(n, sensor=sensor, epoch=epoch, partition=part, end=True) for sensor, epoch, part, n in names),
    )
    assert [tuple(one.stream) for one in queue_inputs(url)] == [("a", 3, 0), ("a", 3, 1), ("a", 9, 0), ("b", 0, 0)]
    batches, report = read(url)
    assert [(*batch.stream, batch.sequence) for batch in batches] == sorted(names)
    assert (report.packets_read, report.damage) == (6, [])


def test_packets_read_are_packets_and_rejects(tmp_path):
    """The report is that of the capture: blocks carry what was refused between them."""
    url = write(
        tmp_path,
        block(0, at_s=[0, 1], rejects=(("malformed", 2),), dropped=3),
        block(1, at_s=[], rejects=(("malformed", 1), ("not_ip", 5)), end=True),
    )
    _, report = read(url)
    assert report.rejects == Counter(malformed=3, not_ip=5)
    assert (report.packets_read, report.interface_drops) == (10, 3)


def test_repeated_blocks_are_dropped_and_counted(tmp_path):
    """A file that is there twice gives its blocks once."""
    url = write(tmp_path, block(0), block(1), block(2, end=True))
    (tmp_path / "again.avro").write_bytes(file_of(tmp_path, 1).read_bytes())
    batches, report = read(url)
    assert [batch.sequence for batch in batches] == [0, 1, 2]
    assert (report.blocks_repeated, report.packets_read) == (1, 3)


def test_missing_blocks_are_told(tmp_path):
    """Numbers are contiguous, so that a lost file is noticed; and so is the lack of an end."""
    url = write(tmp_path, *(block(i) for i in range(4)))
    file_of(tmp_path, 1).unlink()
    batches, report = read(url)
    assert [batch.sequence for batch in batches] == [0, 2, 3]
    assert report.damage == [
        f"{url}: sensor local: 1 of 4 blocks are missing; flows lack their packets",
        f"{url}: sensor local: its last block is missing; the capture was stopped, or still runs",
    ]


def test_undecodable_blocks_are_samples(tmp_path):
    """A block whose packets are damaged is left out with a line and its octets; the others come."""
    url = write(tmp_path, block(0), block(1), block(2, end=True))
    path = file_of(tmp_path, 1)
    octets = bytearray(path.read_bytes())
    protocol = octets.rindex(b"\x08\x0a\x00\x00\x02") + 8  # after the addresses and the ports 1234 and 80
    octets[protocol] = 0xFF
    path.write_bytes(octets)
    batches, report = read(url)
    assert [batch.sequence for batch in batches] == [0, 2]
    (sample,) = report.samples
    assert (sample.step, sample.reason, sample.source) == ("decode", "damaged packet", str(path))
    assert sample.payload.startswith(avro.MARKER + avro.FINGERPRINT)
    assert report.damage[0] == f"{path}: block at offset {sample.position} is left out: damaged packet"
    assert read(url, max_rejects=0)[1].samples == []


def test_damaged_files_are_lines_and_the_rest_is_read(tmp_path):
    """One that breaks off, one that is foreign; lines of the listing come with the first sensor only."""
    url = write(tmp_path, block(0), block(1, end=True), block(0, sensor="other", end=True))
    (tmp_path / "picture.avro").write_bytes(b"\x89PNG")
    batches, report = read(url)
    assert len(batches) == 3
    assert report.damage == [f"{tmp_path}/picture.avro: not an Avro object container file"]


def test_nothing_of_a_sensor_can_be_read(tmp_path):
    """A file that is gone since the listing is an error of the input when it was all there was."""
    url = write(tmp_path, block(0, end=True))
    (one,) = queue_inputs(url)
    file_of(tmp_path, 0).unlink()
    with pytest.raises(InputError, match="No such file"):
        list(read_packets(one, ReadSettings(), ReadReport()))


@pytest.mark.parametrize(("octets", "payloads"), [(0, b""), (3, b"GET"), (9, b"GET /")])
def test_payload_prefixes_are_cut_to_the_setting(tmp_path, octets, payloads):
    """Flows from a spool with payload are those of the files, for every setting up to what it carries."""
    url = write(tmp_path, block(0, payloads=b"GET /", end=True))
    (batch,), _ = read(url, payload_octets=octets)
    row = batch.packets[0]
    assert batch.payloads[row["payload_at"] :][: row["payload_captured"]] == payloads


def test_progress_grows(tmp_path):
    """It is told the octets read so far, after each block."""
    url = write(tmp_path, block(0), block(1, end=True))
    told = []
    (one,) = queue_inputs(url)
    report = ReadReport()
    list(read_packets(one, ReadSettings(), report, told.append))
    assert told == sorted(set(told))
    assert told[-1] == report.octets_read


def test_a_bounded_spool_through_beam(tmp_path, caplog):
    """Every block of every sensor is decoded; the piece at which a file breaks off is rejected, with its place."""
    url = write(tmp_path, block(0), block(1, at_s=[1, 2]), block(0, sensor="other", end=True))
    path = file_of(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"\x02\x08")
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))
    queue = pipeline | ReadQueue(url)
    decoded = queue.deliveries | DecodePackets()
    seen = decoded.arrivals | "Seen" >> beam.Map(
        lambda one: (one.batch.stream.sensor, one.batch.sequence, len(one.batch.packets))
    )
    assert_that(seen, equal_to([("local", 0, 1), ("local", 1, 2), ("other", 0, 1)]), label="Packets")
    rejects = queue.rejects | "Told" >> beam.Map(lambda one: (one.step, one.reason, one.source, one.payload))
    assert_that(rejects, equal_to([("read", "damaged", str(path), b"\x02\x08")]), label="Rejects")
    pipeline.run().wait_until_finish()
    assert f"{path}: damaged at offset" in caplog.text

"""What is told one by one, in a folder that is not of this machine: by Beam's file systems, as gs:// is."""

import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.localfilesystem import LocalFileSystem
from sink_testing import bundle, run

from pipelines import flows
from sinks import row_files
from sinks.drift import WriteDrift
from sinks.rejects import RejectFiles, RejectsSink
from sinks.row_files import UploadRows
from sinks.sensors import WriteSensorEvents
from transforms.records import EVENT_STARTED, NO_TIME, InputError, Reject, SensorEvent


class Shelf(LocalFileSystem):
    """What Beam finds for `shelf://BUCKET/NAME`: files of a folder, whose names have no folders, as in a bucket."""

    root = Path()
    full = False

    @classmethod
    def scheme(cls):
        return "shelf"

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        if self.full:
            raise BeamIOError("the shelf is full", {path: OSError()})
        return open(self.root / path.removeprefix("shelf://").replace("/", "|"), "wb")


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    (tmp_path / "shelf").mkdir()
    monkeypatch.setattr(Shelf, "root", tmp_path / "shelf")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shelf"


def reject(number, reason="malformed"):
    return Reject("parse", reason, "a.pcap", number, bytes([number % 256]) * 3)


def rows(folder, pattern):
    return [row for path in sorted(folder.glob(pattern)) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("streaming", [False, True], ids=["bounded", "streaming"])
def test_all_three_kinds_go_there(streaming, shelf, tmp_path):
    """And nowhere else; rejects as many of each reason as may be."""
    given = [reject(number, reason) for number in range(5) for reason in ("malformed", "late", "not_ip")]
    counters = run(given, RejectsSink("shelf://bucket/rejects/", 3, streaming=streaming))
    assert counters["malformed"] == counters["late"] == counters["not_ip"] == 5
    assert counters["rejects_written"] == 6
    assert sorted(row["reason"] for row in rows(shelf, "bucket|rejects|*.parquet")) == ["late"] * 3 + ["malformed"] * 3
    event = SensorEvent("tap", 7, 0, EVENT_STARTED, NO_TIME)
    run([event], WriteSensorEvents("shelf://bucket/sensors", streaming=streaming))
    assert [row["sensor"] for row in rows(shelf, "bucket|sensors|*.parquet")] == ["tap"]
    batch = pa.RecordBatch.from_pydict({"psi": [0.5, 0.25]})
    run([batch], WriteDrift("shelf://bucket/drift", batch.schema, streaming=streaming))
    assert [row["psi"] for row in rows(shelf, "bucket|drift|*.parquet")] == [0.5, 0.25]
    assert [path.name for path in tmp_path.iterdir()] == ["shelf"]


def test_a_repeated_bundle_replaces_its_file_and_another_does_not(shelf):
    step = UploadRows(RejectFiles("shelf://bucket/rejects"))
    for given in ([reject(1), reject(2)], [reject(1), reject(2)], [reject(3)]):
        bundle(step, given)
    assert sorted(row["position"] for row in rows(shelf, "*")) == [1, 2, 3]
    assert len(list(shelf.iterdir())) == 2


def test_a_large_bundle_is_several_files(shelf, monkeypatch):
    """Memory follows what is gathered."""
    monkeypatch.setattr(row_files, "GATHERED_OCTETS", 6)
    bundle(UploadRows(RejectFiles("shelf://bucket/rejects")), [reject(number) for number in range(5)])
    assert len(list(shelf.iterdir())) == 3
    assert sorted(row["position"] for row in rows(shelf, "*")) == [0, 1, 2, 3, 4]


def test_what_is_not_taken_fails_the_bundle(monkeypatch):
    """The runner repeats it: nothing is lost quietly."""
    monkeypatch.setattr(Shelf, "full", True)
    with pytest.raises(BeamIOError, match="the shelf is full"):
        bundle(UploadRows(RejectFiles("shelf://bucket/rejects")), [reject(1)])


def test_a_file_system_that_is_not_there_is_one_line():
    with pytest.raises(InputError) as told:
        RejectsSink("nowhere://bucket/rejects")
    assert "nowhere://bucket/rejects is of no file system" in str(told.value)


def test_the_main_job_takes_the_url(tmp_path, shelf):
    """As --rejects: a frame whose IP header is none is there."""
    head = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    frame = struct.pack("<IIII", 1, 0, 60, 60) + bytes(12) + b"\x08\x00" + bytes(46)
    (tmp_path / "odd.pcap").write_bytes(head + frame)
    words = ["--input=odd.pcap", "--output=parquet:flows", "--rejects=shelf://bucket/rejects", "--quiet"]
    assert flows.main(["--runner=DirectRunner", *words]) == 0
    assert len(rows(shelf, "bucket|rejects|*.parquet")) == 1
    assert not (tmp_path / "rejects").exists()
    assert not list(tmp_path.glob("shelf:*"))


def test_unsent_blocks_stay_on_this_machine(capsys):
    """Where pipelines.resend reads them."""
    assert flows.main(["--on_sink_failure=continue", "--unsent=gs://bucket/unsent"]) == 2
    assert "name a folder of this machine" in capsys.readouterr().err

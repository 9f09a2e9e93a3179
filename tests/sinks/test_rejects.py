import os

import pyarrow.parquet as pq
import pytest
from sink_testing import bundle, run

from sinks import journals, row_files
from sinks.hourly import HourlyCount
from sinks.rejects import AppendRejects, RejectFiles, RejectsSink
from sinks.row_files import WriteRows
from transforms.records import InputError, Reject


def reject(number, reason="malformed"):
    return Reject("parse", reason, "a.pcap", number, bytes([number % 256]) * 3)


def test_rejects_are_written_whole(tmp_path):
    given = [reject(1), Reject("decode", "undecodable", "topic", None, b"")]
    counters = run(given, RejectsSink(tmp_path / "rejects"))
    rows = pq.read_table(tmp_path / "rejects").to_pylist()
    assert sorted(rows, key=lambda row: row["reason"]) == [reject._asdict() for reject in given]
    assert counters == {"malformed": 1, "undecodable": 1, "rejects_written": 2}
    assert all(name.endswith(".parquet") for name in os.listdir(tmp_path / "rejects"))


def test_all_are_counted_and_so_many_of_each_reason_written(tmp_path):
    given = [reject(number, reason) for number in range(7) for reason in ("malformed", "late")]
    counters = run(given, RejectsSink(tmp_path / "rejects", 3))
    assert sorted(pq.read_table(tmp_path / "rejects")["reason"].to_pylist()) == ["late"] * 3 + ["malformed"] * 3
    assert counters == {"malformed": 7, "late": 7, "rejects_written": 6}


@pytest.mark.parametrize(("given", "most"), [([], 5), ([reject(1, "not_ip")] * 3, 5), ([reject(1)], 0)])
def test_without_anything_to_write_there_is_no_folder(given, most, tmp_path):
    counters = run(given, RejectsSink(tmp_path / "rejects", most))
    assert os.listdir(tmp_path) == []
    assert sum(counters.values()) == len(given)


def test_the_same_rejects_replace_their_file(tmp_path):
    for _ in range(2):
        run([reject(1), reject(2)], RejectsSink(tmp_path / "rejects"))
    assert len(os.listdir(tmp_path / "rejects")) == 1


def test_much_payload_is_written_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "GATHERED_OCTETS", 6)
    bundle(WriteRows(RejectFiles(tmp_path), "test"), [reject(number) for number in range(4)])
    (name,) = os.listdir(tmp_path)
    assert pq.read_table(tmp_path)["position"].to_pylist() == [0, 1, 2, 3]
    assert pq.ParquetFile(tmp_path / name).num_row_groups == 2


def test_a_failed_bundle_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "GATHERED_OCTETS", 1)
    failing = WriteRows(RejectFiles(tmp_path), "test")
    failing.start_bundle()
    failing.process(reject(1))
    assert os.listdir(tmp_path)
    failing.teardown()
    assert os.listdir(tmp_path) == []


def test_settings_are_checked_when_the_pipeline_is_built(tmp_path):
    with pytest.raises(InputError, match="--max_rejects -1: must be 0 or more"):
        RejectsSink(tmp_path, -1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        RejectsSink(tmp_path / "file")


def stream(folder, bundles, most=10_000, job="rejects"):
    """What one worker of a streaming job does, and the job's end."""
    step = RejectsSink(folder, most, job, streaming=True)
    append = AppendRejects(step.files, most, job, 3600.0)
    append.setup()
    for each in bundles:
        bundle(append, each)
    append.teardown()


def test_rejects_of_a_streaming_job_gather_in_a_file(tmp_path):
    """However many bundles they come in, in a folder of the day; those without IP are only counted."""
    given = [reject(number) for number in range(20)]
    stream(tmp_path / "rejects", [*([one] for one in given), [], [reject(1, "not_ip")]])
    (path,) = tmp_path.rglob("*.parquet")
    assert path.parent.name.startswith("day=")
    rows = pq.read_table(tmp_path / "rejects").drop_columns(["day"]).to_pylist()
    assert rows == [one._asdict() for one in given]


def test_a_streaming_job_writes_so_many_of_each_reason_in_an_hour(tmp_path):
    given = [reject(number, reason) for number in range(7) for reason in ("malformed", "late")]
    stream(tmp_path / "rejects", [given[:5], given[5:]], most=3)
    assert sorted(pq.read_table(tmp_path / "rejects")["reason"].to_pylist()) == ["late"] * 3 + ["malformed"] * 3
    count = HourlyCount()
    assert [count.add("late", now_s) for now_s in (0, 1, 3599, 3600, 3601, 3602)] == [1, 2, 3, 1, 2, 3]


def test_much_payload_of_a_streaming_job_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "GATHERED_OCTETS", 6)
    stream(tmp_path, [[reject(0), reject(1)], [reject(2), reject(3)]])
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).read()["position"].to_pylist() == [0, 1, 2, 3]
    assert pq.ParquetFile(path).num_row_groups == 2


def test_without_rejects_a_streaming_job_makes_no_folder(tmp_path):
    stream(tmp_path / "rejects", [[], [reject(1, "not_ip")]])
    assert os.listdir(tmp_path) == []


def test_the_streaming_step_counts_what_it_writes(tmp_path):
    """On a real runner, which tears its steps down at the end."""
    given = [reject(1), reject(2, "not_ip"), reject(3)]
    counters = run(given, RejectsSink(tmp_path / "rejects", 1, "counting", streaming=True))
    journals.end("counting")
    assert (counters["malformed"], counters["not_ip"], counters["rejects_written"]) == (2, 1, 1)
    assert pq.read_table(tmp_path / "rejects")["position"].to_pylist() == [1]


def test_a_streaming_job_tells_the_first_of_each_reason(tmp_path, caplog):
    """So that alerts can be made of logs; once an hour, however many there are."""
    given = [reject(number, reason) for number in range(5) for reason in ("malformed", "late", "not_ip")]
    stream(tmp_path / "rejects", [given[:5], given[5:]], job="told")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "rejects: malformed, told by parse: the first of this hour",
        "rejects: late, told by parse: the first of this hour",
    ]

import os

import pyarrow.parquet as pq
import pytest
from sink_testing import bundle, run

from sinks import rejects
from sinks.rejects import RejectsSink
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
    monkeypatch.setattr(rejects, "GATHERED_OCTETS", 6)
    bundle(rejects._WriteFiles(tmp_path, "test"), [reject(number) for number in range(4)])
    (name,) = os.listdir(tmp_path)
    assert pq.read_table(tmp_path)["position"].to_pylist() == [0, 1, 2, 3]
    assert pq.ParquetFile(tmp_path / name).num_row_groups == 2


def test_a_failed_bundle_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rejects, "GATHERED_OCTETS", 1)
    failing = rejects._WriteFiles(tmp_path, "test")
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

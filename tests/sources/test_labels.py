"""Labels on Beam: those there are, and those that come."""

import hashlib
import os
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from sources import labels
from sources.labels import ReadLabels
from transforms.records import InputError


def write(path, numbers, label="benign", age_s=60.0):
    lines = [f"{hashlib.md5(str(number).encode()).hexdigest()},{label}\n" for number in numbers]
    path.write_text("flow_id,label\n" + "".join(lines))
    touched = time.time() - age_s
    os.utime(path, (touched, touched))


class Watcher:
    """A folder that is watched, in bundles, each from what the last one left."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.fn = labels._WatchFn("label")
        self.provider = labels._FolderReadings()
        self.restriction = self.provider.initial_restriction(self.folder)

    def bundle(self, interrupt_after=None):
        """(labels, rejects) of a bundle."""
        coder = self.provider.restriction_coder()
        tracker = ThreadsafeRestrictionTracker(
            self.provider.create_tracker(coder.decode(coder.encode(self.restriction)))
        )
        read, rejects, rest = [], [], None
        for element in self.fn.process(self.folder, RestrictionTrackerView(tracker)):
            if hasattr(element, "tag"):
                rejects.append(element.value)
            else:
                read += element["label"].to_pylist()
            if len(read) + len(rejects) == interrupt_after:
                _, rest = tracker.try_split(0)
        tracker.check_done()
        self.restriction = rest or tracker.deferred_status()[0]
        return read, rejects


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(labels, "IDLE_S", 0.0)


@pytest.mark.usefixtures("quick")
def test_each_file_is_read_once_when_it_is_whole(tmp_path):
    watcher = Watcher(tmp_path)
    assert watcher.bundle() == ([], [])
    write(tmp_path / "b.csv", range(2), "b")
    write(tmp_path / "a.csv", range(3), "a")
    write(tmp_path / "new.csv", range(3), "new", age_s=0)
    write(tmp_path / ".hidden.csv", range(3))
    assert watcher.bundle() == (["a"] * 3 + ["b"] * 2, [])
    assert watcher.bundle() == ([], [])
    write(tmp_path / "new.csv", range(4), "new")
    assert watcher.bundle() == (["new"] * 4, [])


@pytest.mark.usefixtures("quick")
def test_an_interrupted_reading_goes_on_where_it_was(tmp_path):
    """Between files."""
    for name in "abc":
        write(tmp_path / f"{name}.csv", [1], name)
    watcher = Watcher(tmp_path)
    assert watcher.bundle(interrupt_after=1) == (["a"], [])
    assert watcher.bundle() == (["b", "c"], [])


@pytest.mark.usefixtures("quick")
def test_a_file_that_cannot_be_read_is_rejected_and_others_are_read(tmp_path, caplog):
    write(tmp_path / "a.csv", [1])
    (tmp_path / "a.csv").write_text("x,y\n")
    os.utime(tmp_path / "a.csv", (1, 1))
    write(tmp_path / "b.csv", [1])
    read, (reject,) = Watcher(tmp_path).bundle()
    assert read == ["benign"]
    assert (reject.step, reject.reason, reject.source) == (
        "labels",
        "unreadable_label_file",
        str(tmp_path / "a.csv"),
    )
    assert "has no column flow_id" in caplog.text


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_gone_may_come_back(tmp_path):
    watcher = Watcher(tmp_path / "labels")
    assert watcher.bundle() == ([], [])
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels" / "a.csv", [1])
    assert watcher.bundle() == (["benign"], [])


@pytest.mark.usefixtures("quick")
def test_names_of_files_that_were_taken_away_are_forgotten(tmp_path):
    """So a folder may be followed for years; one that is empty may be a disk that is not mounted."""
    watcher = Watcher(tmp_path)
    for number in range(20):
        write(tmp_path / f"{number}.csv", [1])
        (tmp_path / f"{number - 3}.csv").unlink(missing_ok=True)
        assert watcher.bundle() == (["benign"], [])
    assert watcher.restriction.progress == {"17.csv", "18.csv", "19.csv"}
    for file in tmp_path.iterdir():
        file.unlink()
    assert watcher.bundle() == ([], [])
    write(tmp_path / "19.csv", [1])
    assert watcher.bundle() == ([], [])


def test_a_bounded_job_reads_what_is_there(tmp_path):
    write(tmp_path / "a.csv", range(5))
    (tmp_path / "b.csv").write_text("flow_id,label\nnone,benign\n")
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    read, rejects = pipeline | ReadLabels(str(tmp_path))
    _ = read | "Found" >> beam.Map(_count, "found") | "Lost" >> beam.Map(lambda _: None)
    _ = rejects | "Rejected" >> beam.Map(_count, "rejected")
    result = pipeline.run()
    result.wait_until_finish()
    counters = {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}
    assert {name: counters[name] for name in ("labels_read", "found", "rejected")} == {
        "labels_read": 5,
        "found": 1,
        "rejected": 1,
    }


def _count(_, name):
    beam.metrics.Metrics.counter("test", name).inc()


def test_what_is_watched_is_a_folder(tmp_path):
    write(tmp_path / "a.csv", [1])
    with pytest.raises(InputError, match=r"a\.csv: is no folder; on endless input, name the folder"):
        ReadLabels(str(tmp_path / "a.csv"), watch=True)

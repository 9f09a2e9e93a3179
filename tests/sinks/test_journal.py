import errno
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks import journal
from sinks.journal import Journal, left_in

TOP = Path(__file__).parents[2]
SCHEMA = pa.schema({"number": pa.int64(), "text": pa.string(), "list": pa.list_(pa.int32())})


def batch(numbers):
    rows = [{"number": number, "text": "x" * (number % 5), "list": [number] * (number % 3)} for number in numbers]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def numbers(one):
    return [number for each in one.batches() for number in each["number"].to_pylist()]


@pytest.fixture
def made(tmp_path):
    """A journal with two batches; given up at the end."""
    one = Journal.create(tmp_path / "flows", "job", SCHEMA)
    one.append([batch([1, 2]), batch([3])])
    yield one
    one.release()


def abandoned(one):
    """What `kill -9` makes of a journal: the lock is free, the file stays."""
    one.release()
    return one.path


def test_a_journal_is_a_hidden_arrow_stream(made):
    """Any Arrow tool reads it."""
    assert made.path.name.startswith(".flows.journal-job-")
    with pa.memory_map(str(made.path)) as file:
        assert pa.ipc.open_stream(file).read_all()["number"].to_pylist() == [1, 2, 3]
    assert numbers(made) == [1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=4), max_size=4), st.data())
@settings(max_examples=60)
def test_a_torn_tail_is_cut_and_nothing_else(tmp_path_factory, appended, data):
    """Wherever a write was interrupted: the batches before it are there, the one it wrote is not."""
    one = Journal.create(tmp_path_factory.mktemp("torn"), "job", SCHEMA)
    ends = [one.octets]
    for each in appended:
        one.append([batch(each)])
        ends.append(one.octets)
    path = abandoned(one)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    adopted = Journal.adopt(path)
    whole = sum(end <= cut for end in ends[1:])
    assert numbers(adopted) == [number for each in appended[:whole] for number in each]
    adopted.remove()


def test_octets_that_never_reached_the_disk_are_cut(made, caplog):
    """After the machine stopped, a file may end in zeros."""
    path = abandoned(made)
    with open(path, "ab") as file:
        file.write(bytes(1000))
    adopted = Journal.adopt(path)
    assert numbers(adopted) == [1, 2, 3]
    assert "unfinished write" in caplog.text
    adopted.remove()


def test_a_full_disk_leaves_a_journal_as_it_was(made, monkeypatch):
    """Of a write that fails halfway nothing stays; when there is room again, the journal goes on."""
    write, size = os.write, made.octets

    def half(file, octets):
        if len(octets) < 300:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, octets[:200])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        made.append([batch([4]), batch(range(100))])
    monkeypatch.undo()
    assert made.octets == made.path.stat().st_size == size
    made.append([batch([5])])
    assert numbers(made) == [1, 2, 3, 5]


def test_a_journal_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        Journal.create(tmp_path, "job", SCHEMA)
    assert os.listdir(tmp_path) == []
    assert not journal._held


def test_a_journal_is_adopted_once_and_only_when_its_process_is_gone(made):
    assert Journal.adopt(made.path) is None
    assert left_in(made.path.parent) == []
    path = abandoned(made)
    assert left_in(path.parent) == [path]
    adopted = Journal.adopt(path)
    assert Journal.adopt(path) is None
    adopted.remove()
    assert Journal.adopt(path) is None
    assert left_in(path.parent) == left_in(path.parent / "missing") == []


def test_another_process_sees_the_lock(made):
    """Its own view of what it holds plays no part there."""
    code = "import sys, pathlib; from sinks.journal import Journal; print(Journal.adopt(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(made.path)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "None\n"


def test_a_name_taken_by_whoever_looks_for_journals_is_not_used(tmp_path, monkeypatch):
    """Between making and locking a file another process may lock it, and remove it because it is empty."""
    lock, tried = journal._lock, []

    def locked_elsewhere(file):
        tried.append(file)
        return len(tried) > 1 and lock(file)

    monkeypatch.setattr(journal, "_lock", locked_elsewhere)
    one = Journal.create(tmp_path, "job", SCHEMA)
    assert len(tried) == 2
    one.append([batch([1])])
    assert numbers(one) == [1]
    one.remove()


def test_records_outlive_their_folder(made):
    """Someone removes the output while the job runs: what was appended is still there to be completed."""
    made.path.unlink()
    assert numbers(made) == [1, 2, 3]


@pytest.mark.parametrize("job", ["job", "a-b", "ä b/c"])
def test_the_name_tells_job_and_stem(tmp_path, job):
    one = Journal.create(tmp_path / "a.b", job, SCHEMA)
    name, stem = journal.parts_of(one.path)
    assert name == journal.places.as_name(job)
    assert stem == one.stem
    one.remove()
    assert os.listdir(tmp_path / "a.b") == []

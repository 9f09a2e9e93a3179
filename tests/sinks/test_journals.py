import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_testing import until

from sinks import journals, record_files
from sinks.journal import Journal, left_in
from sinks.journals import Journals, Stopped
from sinks.record_files import RecordFiles, Written, adopt, wait_for_others
from transforms.records import InputError

TOP = Path(__file__).parents[2]
LONG_S = 3600.0
LIMIT_S = 60.0


class Plain(RecordFiles):
    """One file for each journal."""

    def write(self, batches, stem, hidden):
        table = pa.Table.from_batches(batches, SCHEMA)
        file = hidden.with_name(f"{hidden.name}1")
        pq.write_table(table, file)
        yield Written(file, Path(f"{stem}.parquet"), len(table), file.stat().st_size)


SCHEMA = pa.schema({"number": pa.int64()})


def batch(*numbers):
    return pa.RecordBatch.from_pydict({"number": numbers}, SCHEMA)


def in_files(folder):
    """Numbers in whole files, in order."""
    return sorted(pq.read_table(folder)["number"].to_pylist()) if any(folder.glob("*.parquet")) else []


def hidden_in(folder):
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Bundles that come too late fail at once."""
    monkeypatch.setattr(journals, "_ENDING_S", 0.0)


@pytest.fixture
def kept(tmp_path):
    """Makes `Journals` of one folder, and ends what the test left of them."""
    made = []

    def make(max_age_s=LONG_S, folder=tmp_path / "out"):
        made.append(Journals(Plain("parquet:out", folder), "job", max_age_s))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_closing_completes_everything(tmp_path, kept):
    """What was appended is in files, nothing hidden is left, and what comes later is refused."""
    one = kept()
    one.append([batch(1, 2), batch(), batch(3)])
    one.append([])
    assert in_files(tmp_path / "out") == []
    one.close()
    assert in_files(tmp_path / "out") == [1, 2, 3]
    assert hidden_in(tmp_path / "out") == []
    assert one.completed()["files_written"] == 1
    with pytest.raises(Stopped):
        one.append([batch(4)])


def test_without_records_there_is_no_folder(tmp_path, kept):
    kept().close()
    assert os.listdir(tmp_path) == []


def test_records_of_a_line_that_went_quiet_appear(tmp_path, kept):
    """Age is told by the clock, not by what comes next."""
    one = kept(max_age_s=0.2)
    one.append([batch(1)])
    until(lambda: in_files(tmp_path / "out") == [1])
    one.append([batch(2)])
    until(lambda: in_files(tmp_path / "out") == [1, 2])


def test_a_large_journal_is_completed_at_once(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(journals, "JOURNAL_OCTETS", 1000)
    one = kept()
    for number in range(10):
        one.append([batch(*range(100 * number, 100 * number + 100))])
    until(lambda: in_files(tmp_path / "out") == list(range(1000)))
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 10


def test_records_of_other_columns_are_in_another_journal(tmp_path, kept):
    one = kept()
    one.append([batch(1)])
    first = one._open
    one.append([batch(2)])
    assert one._open is first
    one.append([pa.RecordBatch.from_pydict({"other": [3]})])
    assert one._open is not first
    until(lambda: in_files(tmp_path / "out") == [1, 2])
    one._open.remove()
    one._open = None


@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=4), max_size=5), st.integers(1, 6))
@settings(max_examples=30)
def test_any_bundles_come_out_as_they_went_in(tmp_path_factory, bundles, combined):
    """Whichever batches are joined on the way."""
    folder = tmp_path_factory.mktemp("any")
    one = Journals(Plain("parquet:out", folder), "job", LONG_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "COMBINED_ROWS", combined)
        for bundle in bundles:
            one.append([batch(*numbers) for numbers in bundle])
    one.close()
    assert in_files(folder) == sorted(number for bundle in bundles for numbers in bundle for number in numbers)


def test_many_threads_append_to_one_journal(tmp_path, kept, monkeypatch):
    """The threads of a worker: each record is there once, though journals are completed meanwhile."""
    monkeypatch.setattr(journals, "JOURNAL_OCTETS", 5000)
    one = kept()

    def work(first):
        for number in range(first, first + 100):
            one.append([batch(number)])

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    assert in_files(tmp_path / "out") == list(range(400))
    assert one.completed()["files_written"] > 1


def test_a_full_disk_fails_the_bundle_and_keeps_the_rest(tmp_path, kept, monkeypatch):
    """The runner repeats the bundle; what earlier bundles brought stays."""
    one = kept()
    one.append([batch(1)])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; free room"):
        one.append([batch(2)])
    monkeypatch.undo()
    one.append([batch(2)])
    one.close()
    assert in_files(tmp_path / "out") == [1, 2]


def test_files_are_tried_again_and_the_pipeline_waits_for_them(tmp_path, kept, monkeypatch, caplog):
    """Where files cannot be made, records wait in so many journals; then bundles fail; then all is well again."""
    monkeypatch.setattr(journals, "JOURNAL_OCTETS", 1)
    monkeypatch.setattr(journals, "_RETRY_S", (0.01, 0.02))
    broken = threading.Event()
    broken.set()
    write = Plain.write

    def failing(self, batches, stem, hidden):
        hidden.with_name(f"{hidden.name}1").write_bytes(b"half")
        if broken.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield from write(self, batches, stem, hidden)

    monkeypatch.setattr(Plain, "write", failing)
    one = kept()
    for number in range(journals.FULL_WAITING):
        one.append([batch(number)])
    with pytest.raises(InputError, match="No space left on device"):
        one.append([batch(9)])
    assert all(".part-" not in name for name in hidden_in(tmp_path / "out"))
    assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    broken.clear()
    until(lambda: in_files(tmp_path / "out") == list(range(journals.FULL_WAITING)))
    one.append([batch(9)])
    one.close()
    assert in_files(tmp_path / "out") == [0, 1, 9]


def test_what_cannot_be_completed_in_the_end_waits_for_the_next_job(tmp_path, monkeypatch):
    one = Journals(Plain("parquet:out", tmp_path), "job", LONG_S)
    one.append([batch(1)])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(InputError, match="No space left on device"):
        one.close()
    monkeypatch.undo()
    assert len(left_in(tmp_path)) == 1
    adopt(one.files)
    assert in_files(tmp_path) == [1]


WRITER = f"""if True:
    import sys, time
    sys.path[:0] = [{str(TOP)!r}, {str(TOP / "tests")!r}]
    import importlib.util, pathlib
    from sinks.journals import Journals
    spec = importlib.util.spec_from_file_location("plain", {__file__!r})
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    one = Journals(plain.Plain("parquet:out", pathlib.Path(sys.argv[1])), "job", plain.LONG_S)
    for number in range(int(sys.argv[2]), 10**9):
        one.append([plain.batch(number, number)])
        print(number, flush=True)
"""


def writing(folder, first=0):
    """A process that appends numbers, twice each, and tells each that is safe."""
    command = [sys.executable, "-c", WRITER, str(folder), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TOP)


def killed(process, after):
    """Kills it when so many numbers are told; returns the last that was."""
    told = [int(process.stdout.readline()) for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait(LIMIT_S)
    process.stdout.close()
    return told[-1]


def test_nothing_that_was_appended_is_lost_by_a_kill(tmp_path, kept):
    """A process killed while it writes; another one, which writes there too, completes what it left."""
    with writing(tmp_path / "out") as process:
        last = killed(process, 200)
    assert in_files(tmp_path / "out") == []
    kept()
    until(lambda: not hidden_in(tmp_path / "out"))
    there = in_files(tmp_path / "out")
    assert there[: 2 * (last + 1)] == sorted(2 * list(range(last + 1)))
    assert there[2 * (last + 1) :] in ([], [last + 1] * 2)  # a write that was done and not yet told


def test_two_processes_write_to_one_folder(tmp_path, kept):
    """Each keeps to its own journal: a live one is never completed by the other."""
    one = kept()
    one.append([batch(-1)])
    with writing(tmp_path / "out", 1000) as process:
        for _ in range(10):
            process.stdout.readline()
        (other,) = left_in(tmp_path / "out")
        assert not adopt(one.files)
        one.close()
        assert in_files(tmp_path / "out") == [-1]
        assert left_in(tmp_path / "out") == [other]
        assert wait_for_others([one.files], "job", 0.0) == 1
        assert wait_for_others([one.files], "another-job", 0.0) == 0
        last = killed(process, 10)
    assert wait_for_others([one.files], "job", LIMIT_S) == 0
    assert set(in_files(tmp_path / "out")) >= {-1, *range(1000, last + 1)}


def test_a_process_killed_while_it_makes_files_leaves_each_record_once(tmp_path, monkeypatch):
    """Files are named after their journal: made again they replace those that were there."""
    files = Plain("parquet:out", tmp_path)
    one = Journal.create(tmp_path, "job", SCHEMA)
    one.append([batch(1, 2)])
    monkeypatch.setattr(Journal, "remove", Journal.release)  # killed before the journal was removed
    record_files.complete(one, files)
    monkeypatch.undo()
    (tmp_path / f"{one.path.name}.part-7").write_bytes(b"half")
    assert in_files(tmp_path) == [1, 2]
    adopt(files)
    assert in_files(tmp_path) == [1, 2]
    assert hidden_in(tmp_path) == []


def test_a_journal_that_no_file_can_be_made_of_does_not_stop_the_others(tmp_path, caplog, kept):
    """It stays, and is complained of once."""
    for number in (1, 2, 3):
        schema = pa.schema({"other": pa.string()}) if number == 2 else SCHEMA
        one = Journal.create(tmp_path / "out", "old", schema)
        one.append([batch(number) if number != 2 else pa.RecordBatch.from_pydict({"other": ["x"]})])
        one.release()
    kept().append([batch(4)])
    until(lambda: in_files(tmp_path / "out") == [1, 3])
    until(lambda: len(left_in(tmp_path / "out")) == 1)
    until(lambda: len(caplog.records) == 1)


def test_the_steps_of_a_process_share_a_journal(tmp_path):
    """It is completed when the last step gives it back."""
    files = Plain("parquet:out", tmp_path)
    one, other = journals.keep(files, "shared", LONG_S), journals.keep(files, "shared", LONG_S)
    assert one is other
    one.append([batch(1)])
    journals.give_back(one)
    assert in_files(tmp_path) == []
    journals.give_back(other)
    assert in_files(tmp_path) == [1]
    assert journals.keep(files, "shared", LONG_S) is not one
    journals.end("shared")


def test_a_job_that_ends_completes_its_files_alone(tmp_path):
    """What comes after the end of the job is refused; other jobs of the process go on."""
    files = [Plain("parquet:out", tmp_path / name) for name in ("a", "b", "c")]
    ending = [journals.keep(each, "ending", LONG_S) for each in files[:2]]
    other = journals.keep(files[2], "other", LONG_S)
    for each in (*ending, other):
        each.append([batch(1)])
    journals.end("ending")
    assert [in_files(each.folder) for each in files] == [[1], [1], []]
    with pytest.raises(Stopped):
        journals.keep(files[0], "ending", LONG_S)
    with pytest.raises(Stopped):
        ending[0].append([batch(2)])
    journals.give_back(ending[0])
    journals.end("other")
    assert in_files(files[2].folder) == [1]


def test_an_end_that_fails_in_one_folder_completes_the_others(tmp_path, monkeypatch):
    files = [Plain("parquet:out", tmp_path / name) for name in ("a", "b")]
    for each in files:
        journals.keep(each, "failing", LONG_S).append([batch(1)])
    write = pq.write_table

    def failing(table, file):
        if file.parent.name == "a":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(table, file)

    monkeypatch.setattr(pq, "write_table", failing)
    with pytest.raises(InputError, match="No space left"):
        journals.end("failing")
    assert in_files(tmp_path / "b") == [1]

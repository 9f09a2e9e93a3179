import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sink_testing import bundle, flow_id, flows

from sinks import compaction, parquet
from sinks.compaction import Compacted, compact
from sinks.flow_files import FlowFiles
from transforms.records import InputError

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_slow_readers(monkeypatch):
    monkeypatch.setattr(compaction, "LISTING_S", 0.0)


def add(folder, numbers, **columns):
    """One more small file, as a job writes it."""
    bundle(parquet._WriteFiles(FlowFiles("parquet:flows", folder), "test"), [flows(numbers, **columns)])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def table(folder):
    return pq.read_table(folder).drop_columns(["hour"]).sort_by("flow_start_ns")


@pytest.fixture
def folder(tmp_path):
    """Three small files of one hour, one of another."""
    place = tmp_path / "flows"
    for numbers in ([1, 5], [2, 9], [3], [4000]):
        add(place, numbers, fwd_iat_mean_us=[None, 0.1][: len(numbers)], fwd_packets=list(numbers))
    return place


def test_small_files_become_one_and_nothing_else_changes(folder):
    before, schema = table(folder), pq.read_schema(folder / files(folder)[0])
    assert compact(folder) == Compacted(3, 1, 0)
    assert table(folder).equals(before)
    first, second = files(folder)
    file = pq.ParquetFile(folder / first)
    assert file.schema_arrow.equals(schema, check_metadata=True)
    starts = file.read()["flow_start_ns"].to_pylist()
    assert starts == sorted(starts)
    assert second.startswith("hour=2026-11-21T14")
    assert compact(folder) == Compacted(0, 0, 0)
    assert files(folder) == [first, second]


def test_the_same_files_give_the_same_file(folder, tmp_path):
    subprocess.run(["cp", "-r", folder, tmp_path / "copy"], check=True)
    compact(folder)
    compact(tmp_path / "copy")
    assert files(folder) == files(tmp_path / "copy")


def test_records_that_are_there_twice_are_there_once(folder):
    """As after a job that was run again, or a bundle that was: the highest number stays."""
    add(folder, [1], record_number=1, fwd_packets=7)
    add(folder, [9], record_number=0, fwd_packets=9)
    assert compact(folder) == Compacted(5, 1, 2)
    rows = {row["flow_id"]: row["fwd_packets"] for row in table(folder).to_pylist()}
    assert rows == {flow_id(n): packets for n, packets in ((1, 7), (2, 2), (3, 3), (5, 5), (9, 9), (4000, 4000))}


def test_interim_records_keep_all_their_numbers(tmp_path):
    for number in (0, 1, 1):
        add(tmp_path, [1, 2], record_kind="interim", record_number=number, fwd_packets=len(files(tmp_path)))
    add(tmp_path, [1], record_number=2)
    assert compact(tmp_path) == Compacted(2, 1, 0)
    kept = pq.read_table(tmp_path / "_interim")
    assert sorted(kept["record_number"].to_pylist()) == [0, 0, 1, 1]
    assert pq.read_table(tmp_path)["record_kind"].to_pylist() == ["final"]


def test_large_files_and_other_schemas_stay(tmp_path):
    add(tmp_path, range(6))
    add(tmp_path, [10])
    (large, small) = sorted(files(tmp_path))
    bundle(parquet._WriteFiles(FlowFiles("parquet:flows", tmp_path), "test"), [flows([11], ("nfstream@1",))])
    assert compact(tmp_path, file_rows=10) == Compacted(0, 0, 0)
    add(tmp_path, [12])
    assert compact(tmp_path, file_rows=10) == Compacted(2, 1, 0)
    assert large in files(tmp_path)
    assert small not in files(tmp_path)
    assert len(pq.read_table(tmp_path / large, partitioning=None)) == 6


def test_files_have_no_more_than_so_many_records(tmp_path):
    for first in range(0, 30, 3):
        add(tmp_path, range(first, first + 3))
    assert compact(tmp_path, file_rows=10).made == 3
    sizes = [pq.ParquetFile(tmp_path / name).metadata.num_rows for name in files(tmp_path)]
    assert sorted(sizes) == [3, 9, 9, 9]


@pytest.mark.parametrize("able", [True, False], ids=["exchanged", "one-after-the-other"])
def test_a_job_may_add_files_at_any_moment(folder, monkeypatch, able):
    """Between listing, linking, exchanging and removing: it is there in the end, and so is all else."""
    steps = ["_merge", "_link_others", "_exchange", "_finish"]
    number = iter(range(100, 200))
    for name in steps:
        real = getattr(compaction, name)

        def adding(*arguments, real=real, name=name, **more):
            add(folder, [next(number)])
            return False if name == "_exchange" and not able else real(*arguments, **more)

        monkeypatch.setattr(compaction, name, adding)
    assert compact(folder).merged == 3
    ids = {flow_id(n) for n in (1, 2, 3, 5, 9, 4000, *range(100, next(number)))}
    found = table(folder)["flow_id"].to_pylist()
    assert len(found) == len(ids)
    assert set(found) == ids


def test_who_lists_meanwhile_sees_all_old_files_or_all_new_ones(tmp_path, monkeypatch):
    """However slowly: the folder may lose its name between being opened and being listed."""
    monkeypatch.setattr(compaction, "LISTING_S", 0.3)
    for number in range(30):
        add(tmp_path / "flows", [number])
    (hour,) = (tmp_path / "flows").glob("hour=*")
    old = frozenset(os.listdir(hour))
    done = threading.Event()
    seen = set()

    def look():
        while not done.is_set():
            directory = os.open(hour, os.O_RDONLY)
            done.wait(0.01)
            seen.add(frozenset(os.listdir(directory)))
            os.close(directory)

    looking = threading.Thread(target=look)
    looking.start()
    compact(tmp_path / "flows", file_rows=10)
    done.set()
    looking.join()
    assert seen <= {old, frozenset(os.listdir(hour))}
    assert len(pq.read_table(tmp_path / "flows")) == 30


KILLED = """
import os, sys
from pathlib import Path
from sinks import compaction
compaction.LISTING_S = 0.0
name, able = sys.argv[2], sys.argv[3] == "True"
if not able:
    compaction._exchange = lambda *_: False
real = getattr(os, name)
left = int(sys.argv[4])
def killed(*arguments, **more):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return real(*arguments, **more)
setattr(os, name, killed)
compaction.compact(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("able", [True, False], ids=["exchanged", "one-after-the-other"])
@pytest.mark.parametrize(
    ("call", "after"), [("replace", 0), ("replace", 1), ("replace", 2), ("fsync", 3), ("unlink", 0), ("rmdir", 0)]
)
def test_a_killed_compaction_loses_and_doubles_nothing(folder, call, after, able):
    """Whatever it was at; the next one finishes or undoes it."""
    before = table(folder)
    command = [sys.executable, "-c", KILLED, str(folder), call, str(able), str(after)]
    ended = subprocess.run(command, cwd=TOP, check=False, capture_output=True, timeout=120)
    assert ended.returncode in (-9, 0), ended.stderr
    latest = f"SELECT DISTINCT ON (flow_id) * FROM '{folder}/*/*.parquet' ORDER BY flow_id, record_number DESC"
    assert len(duckdb.sql(latest).fetchall()) == len(before)
    if able:
        assert table(folder).equals(before)
    compact(folder)
    assert table(folder).equals(before)
    assert len(files(folder)) == 2
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_what_a_job_added_to_the_old_folder_outlives_a_kill(folder, monkeypatch):
    """Its file went where the folder's name led when it was opened; then the compaction is killed."""
    move_over = compaction._move_over

    def killed(old, hour, inputs):
        pq.write_table(pa.Table.from_batches([flows([77])]), old / "late.parquet")
        raise KeyboardInterrupt

    monkeypatch.setattr(compaction, "_move_over", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(folder)
    assert len(table(folder)) == 6
    monkeypatch.setattr(compaction, "_move_over", move_over)
    compact(folder)
    assert len(table(folder)) == 7


def test_a_full_disk_leaves_all_as_it_was(folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    before = files(folder)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; free room"):
        compact(folder)
    assert files(folder) == before
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_only_one_works_at_a_time(folder):
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another compaction is at work there"):
        compact(folder)
    os.close(holder)
    assert compact(folder).made == 1


def test_the_command(folder, capsys):
    assert parquet.main(["--compact", str(folder)]) == 0
    assert capsys.readouterr().out == "3 files became 1; 0 records were there twice\n"


@pytest.mark.parametrize("wrong", ["no-folder", "damaged", "rows"])
def test_what_is_wrong_is_one_line(folder, capsys, wrong):
    arguments = ["--compact", str(folder / "none" if wrong == "no-folder" else folder)]
    if wrong == "damaged":
        (folder / "hour=2026-11-21T13" / "x.parquet").write_bytes(b"PAR1 no")
    assert parquet.main([*arguments, *(["--file_rows=0"] if wrong == "rows" else [])]) == 2
    told = {
        "no-folder": "there is no such folder; name that of an output parquet:DIR",
        "damaged": "x.parquet: cannot be read: ",
        "rows": "--file_rows: 0; give 1 or more",
    }[wrong]
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line

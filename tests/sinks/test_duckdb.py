import os
import subprocess
import sys

import duckdb
import pytest
from sink_testing import bundle, flow_id, flows, write

from sinks import whole_file
from sinks.duckdb import Database
from transforms.records import InputError


def query(path, sql):
    with duckdb.connect(str(path), read_only=True) as database:
        return database.execute(sql).fetchall()


def numbers(path):
    return query(path, "SELECT record_number, record_kind, fwd_packets FROM flows ORDER BY flow_start_ns")


def test_a_table_with_types_and_comments(tmp_path):
    counters = write(f"duckdb:{tmp_path}/x.duckdb", [flows([1, 2], fwd_packets=[3, 4])])
    path = tmp_path / "x.duckdb"
    assert query(path, "SELECT flow_id, fwd_packets FROM flows ORDER BY ALL DESC") == sorted(
        [(flow_id(1), 3), (flow_id(2), 4)], reverse=True
    )
    described = {
        name: (kind, comment)
        for name, kind, comment in query(
            path, "SELECT column_name, data_type, comment FROM duckdb_columns WHERE table_name = 'flows'"
        )
    }
    assert described["flow_id"][0] == "BLOB"
    assert described["src_port"][0] == "USMALLINT"
    assert described["flow_start_ns"] == ("BIGINT", "First packet of this part, since the Unix epoch. [ns]")
    assert described["fwd_iat_mean_us"][0] == "DOUBLE"
    assert all(comment for _, comment in described.values())
    assert os.listdir(tmp_path) == ["x.duckdb"]
    assert counters == {"flows_written": 2, "octets_written": path.stat().st_size}


def test_the_higher_record_replaces_the_lower_in_any_order(tmp_path):
    """Within a job, whichever comes first; and in a job that comes later."""
    place, path = f"duckdb:{tmp_path}/x.duckdb", tmp_path / "x.duckdb"
    interim = flows([1, 2], record_kind="interim", record_number=0, fwd_packets=1)
    final = flows([1], record_number=1, fwd_packets=9)
    write(place, [final, interim])
    assert numbers(path) == [(1, "final", 9), (0, "interim", 1)]
    write(place, [flows([2], record_number=3, fwd_packets=5), interim])
    assert numbers(path) == [(1, "final", 9), (3, "final", 5)]


def test_the_same_job_again_changes_nothing(tmp_path):
    for _ in range(2):
        write(f"duckdb:{tmp_path}/x.duckdb", [flows([1, 2]), flows([3])])
        assert len(numbers(tmp_path / "x.duckdb")) == 3


def test_any_bundles_give_the_same_table(tmp_path):
    """Records of one flow in different bundles, too."""
    file = Database("duckdb:x", tmp_path / "x", ("cic@1",))
    bundles = [
        [flows([1, 2], record_kind="interim")],
        [flows([1], record_number=1)],
        [flows([2, 3], record_number=2), flows([2], record_number=1)],
    ]
    parts = [part for each in bundles for part in bundle(whole_file._WritePart(file, "test"), each)]
    bundle(whole_file._WritePart(file, "test"), bundles[-1])  # its result was lost
    list(whole_file._JoinParts(file, "test").process(b"", parts))
    assert numbers(tmp_path / "x") == [(1, "final", 0), (2, "final", 0), (2, "final", 0)]
    assert os.listdir(tmp_path) == ["x"]


def test_other_tables_and_jobs_with_other_sets_stay(tmp_path):
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE notes AS SELECT 'mine' AS text")
    write(f"duckdb:{path}", [flows([1])])
    write(f"duckdb:{path}", [flows([2], ("nfstream@1",), fwd_end_ns=7)], ("nfstream@1",))
    assert query(path, "SELECT text FROM notes") == [("mine",)]
    rows = query(path, "SELECT flow_ack_count, fwd_end_ns, active_mean_us FROM flows ORDER BY flow_start_ns")
    assert rows == [(0, None, None), (0, 7, None)]
    comments = query(
        path, "SELECT comment FROM duckdb_columns WHERE column_name = 'fwd_end_ns' AND table_name = 'flows'"
    )
    assert comments[0][0]


def test_the_view_has_each_flow_once_and_new_columns(tmp_path):
    """After a job with other sets, too; a table of that name stays what it is."""
    path = tmp_path / "x.duckdb"
    write(f"duckdb:{path}", [flows([1], record_kind="interim"), flows([1], record_number=1, fwd_packets=9)])
    write(f"duckdb:{path}", [flows([2], ("nfstream@1",), fwd_end_ns=7)], ("nfstream@1",))
    assert query(path, "SELECT fwd_packets, fwd_end_ns FROM flows_latest ORDER BY ALL") == [(0, 7), (9, None)]
    with duckdb.connect(str(path)) as database:
        database.execute("DROP VIEW flows_latest; CREATE TABLE flows_latest AS SELECT 1 AS mine")
    write(f"duckdb:{path}", [flows([3])])
    assert query(path, "FROM flows_latest") == [(1,)]


def test_a_failed_join_leaves_the_file_as_it_was(tmp_path):
    """The first part is in when the second turns out not to fit: neither is then."""
    path = tmp_path / "x.duckdb"
    write(f"duckdb:{path}", [flows([1])])
    file = Database("duckdb:x", path, ("cic@1",))
    renamed = flows([9])
    wrong = renamed.set_column(renamed.schema.names.index("sensor"), "sensor", renamed["fwd_packets"])
    parts = [part for each in (flows([5]), wrong) for part in bundle(whole_file._WritePart(file, "test"), [each])]
    with pytest.raises(InputError, match="the column sensor is VARCHAR, not BIGINT; choose another --output"):
        list(whole_file._JoinParts(file, "test").process(b"", parts))
    assert len(numbers(path)) == 1


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE flows AS SELECT 1 AS n")
    with pytest.raises(InputError, match="column flow_id is missing, not BLOB"):
        write(f"duckdb:{path}", [flows([1])])


def test_a_file_open_elsewhere_is_one_line(tmp_path):
    path = tmp_path / "x.duckdb"
    write(f"duckdb:{path}", [flows([1])])
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match="is open in another program; close it there") as error:
            write(f"duckdb:{path}", [flows([2])])
        assert "\n" not in str(error.value)
        other.communicate(b"\n")


def test_without_flows_the_table_is_empty(tmp_path):
    write(f"duckdb:{tmp_path}/x.duckdb", [])
    assert numbers(tmp_path / "x.duckdb") == []
    assert query(tmp_path / "x.duckdb", "SELECT count(*) > 100 FROM duckdb_columns") == [(True,)]


def test_a_failed_bundle_leaves_nothing(tmp_path):
    failing = whole_file._WritePart(Database("duckdb:x", tmp_path / "x", ("cic@1",)), "test")
    failing.start_bundle()
    failing.process(flows([1]))
    failing.teardown()
    assert os.listdir(tmp_path) == []

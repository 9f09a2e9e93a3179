import errno
import math
import os
from datetime import datetime, timezone

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_testing import HOUR_NS, START_NS, bundle, flow_id, flows, write

from sinks import flow_files, parquet
from sinks.flow_files import FlowFiles
from transforms.records import InputError


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def writer(folder):
    return parquet._WriteFiles(FlowFiles("parquet:flows", folder), "test")


def test_the_folder_reads_as_one_table(tmp_path):
    """DuckDB, with the query that the summary shows, and pyarrow give every flow once, all columns as they went in."""
    batch = flows([3, 1, 2, 4000], fwd_packets=[1, 2, 3, 4], fwd_iat_mean_us=[None, 1.5, 0.1, 2.5])
    counters = write(f"parquet:{tmp_path}/flows", [batch])
    ordered = pa.Table.from_batches([batch]).sort_by("flow_start_ns")
    read = pq.read_table(tmp_path / "flows").sort_by("flow_start_ns")
    assert read.drop_columns(["hour"]).to_pydict() == ordered.to_pydict()
    rows = duckdb.sql(f"SELECT hour, fwd_packets FROM '{tmp_path}/flows/*/*.parquet' ORDER BY flow_start_ns").fetchall()
    assert rows == [("2026-11-21T13", 2), ("2026-11-21T13", 3), ("2026-11-21T13", 1), ("2026-11-21T14", 4)]
    assert counters["flows_written"] == 4
    assert counters["octets_written"] == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))


def test_files_carry_units_definitions_and_order(tmp_path):
    write(f"parquet:{tmp_path}/flows", [flows([5, 1])])
    (path,) = tmp_path.rglob("*.parquet")
    file = pq.ParquetFile(path)
    assert file.schema_arrow == flows([1]).schema
    assert file.schema_arrow.field("flow_start_ns").metadata[b"unit"] == b"ns"
    assert file.schema_arrow.field("fwd_packets").metadata[b"doc"]
    assert file.schema_arrow.metadata[b"features"] == b"cic@1"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    start = file.schema_arrow.names.index("flow_start_ns")
    assert file.metadata.row_group(0).column(start).statistics.min == START_NS + 1_000_000_000


NUMBERS = [2**63 - 1, -(2**63), 0, -1, 2**53 + 1, -(2**63) + 1, 1, 2**62]
REALS = [math.inf, -math.inf, -0.0, None, 5e-324, 1.7976931348623157e308, 0.1, math.nan]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_no_encoding_changes_a_value(tmp_path, compression):
    """To the bit, by both readers: the ends of the ranges, and differences that no 64 bits hold."""
    lists = [NUMBERS, None, [], NUMBERS[:3], [0] * 50, [1], [-1], [2**31]]
    columns = {"fwd_packets": NUMBERS, "fwd_iat_mean_us": REALS, "fwd_burst_octets": lists}
    batch = flows(range(8), ["flowbeam@1"], rev_packets=NUMBERS[::-1], **columns)
    write(f"parquet:{tmp_path}/flows?compression={compression}", [batch], ["flowbeam@1"])
    (path,) = tmp_path.rglob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    codecs = {group.column(number).compression for number in range(group.num_columns)}
    assert codecs == {compression.upper()}
    read = pq.read_table(path, partitioning=None)
    assert read.schema == batch.schema
    for name in batch.schema.names:
        assert bits(read[name].combine_chunks()) == bits(batch[name]), name
    rows = duckdb.sql(f"SELECT {', '.join(columns)} FROM '{path}'").to_arrow_table()
    for name in columns:
        assert bits(rows[name].combine_chunks().cast(batch[name].type)) == bits(batch[name])


def bits(column):
    """The values, reals as whole numbers of the same bits."""
    if not pa.types.is_float64(column.type):
        return column.to_pylist()
    whole = column.fill_null(0.0).to_numpy().view("i8").tolist()
    return [one if valid else None for one, valid in zip(whole, column.is_valid().to_pylist(), strict=True)]


def test_an_unknown_compression_is_one_line(tmp_path):
    with pytest.raises(InputError, match="compression=gzip is not one of zstd, lz4"):
        write(f"parquet:{tmp_path}/flows?compression=gzip", [flows([1])])


def test_interim_records_are_in_a_partition_of_their_own(tmp_path):
    """What reads the folder, or one level of it, counts no flow twice."""
    kinds = ["interim", "final", "interim"]
    write(f"parquet:{tmp_path}/flows", [flows([1, 1, 2], record_kind=kinds, record_number=[0, 1, 0])])
    assert pq.read_table(tmp_path / "flows")["record_kind"].to_pylist() == ["final"]
    assert duckdb.sql(f"SELECT record_kind FROM '{tmp_path}/flows/*/*.parquet'").fetchall() == [("final",)]
    assert pq.read_table(tmp_path / "flows" / "_interim")["record_kind"].to_pylist() == ["interim", "interim"]


def test_the_same_job_again_replaces_its_files(tmp_path):
    batches = [flows([1, 2]), flows([3, 4000])]
    write(f"parquet:{tmp_path}/flows", batches)
    once = files(tmp_path)
    write(f"parquet:{tmp_path}/flows", batches[::-1])
    assert files(tmp_path) == once
    write(f"parquet:{tmp_path}/flows", [flows([9])])
    assert len(files(tmp_path)) == len(once) + 1


def test_without_flows_there_is_no_folder(tmp_path):
    write(f"parquet:{tmp_path}/flows", [])
    assert os.listdir(tmp_path) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 1, -HOUR_NS, 5 * HOUR_NS])), min_size=1))
@settings(max_examples=40, deadline=None)
def test_rows_are_sorted_by_start_then_id(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("sorted")
    starts = [START_NS + shift for _, shift in drawn]
    ids = [flow_id(number) for number, _ in drawn]
    bundle(writer(folder), [flows(range(len(drawn)), flow_id=ids, flow_start_ns=starts)])
    seen = []
    for path in folder.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        rows = list(zip(table["flow_start_ns"].to_pylist(), table["flow_id"].to_pylist(), strict=True))
        assert rows == sorted(rows)
        (hour,) = {start // HOUR_NS for start, _ in rows}
        assert path.parent.name == f"hour={datetime.fromtimestamp(hour * 3600, timezone.utc):%Y-%m-%dT%H}"
        seen += rows
    assert sorted(seen) == sorted(zip(starts, ids, strict=True))


@pytest.mark.parametrize("start_ns", [-(2**63), -1, 0, 2**63 - 1])
def test_every_time_has_its_hour(tmp_path, start_ns):
    bundle(writer(tmp_path), [flows([1], flow_start_ns=[start_ns])])
    assert pq.read_table(tmp_path)["flow_start_ns"].to_pylist() == [start_ns]


def test_constant_columns_keep_their_values_when_rows_are_sorted(tmp_path):
    """A column that is constant but for NaN or null is none."""
    nan = float("nan")
    batch = flows([2, 1, 0], fwd_iat_mean_us=[1.0, nan, 1.0], fwd_iat_std_us=[1.0, None, 1.0], fwd_packets=[1, 2, 1])
    bundle(writer(tmp_path), [batch])
    read = pq.read_table(tmp_path)
    assert pc.is_nan(read["fwd_iat_mean_us"]).to_pylist() == [False, True, False]
    assert read["fwd_iat_std_us"].to_pylist() == [1.0, None, 1.0]
    assert read["fwd_packets"].to_pylist() == [1, 2, 1]


def test_batches_that_share_memory_are_not_taken_for_one(tmp_path):
    """Two slices of a batch lie in the same memory, the first of them not constant although its ends are equal."""
    batch = flows([5, 4, 3, 2, 1, 0], fwd_packets=[1, 2, 1, 1, 1, 1])
    bundle(writer(tmp_path), [batch.slice(0, 3), batch.slice(3)])
    assert pq.read_table(tmp_path)["fwd_packets"].to_pylist() == [1, 1, 1, 1, 2, 1]


def test_much_is_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(flow_files, "FLUSH_OCTETS", 1)
    bundle(writer(tmp_path), [flows([1]), flows([2]), flows([3])])
    assert len(files(tmp_path)) == 3
    assert len(pq.read_table(tmp_path)) == 3


def test_a_failed_bundle_leaves_nothing(tmp_path, monkeypatch):
    """Neither the files that were done when it failed, nor hidden ones; what earlier bundles wrote stays."""
    monkeypatch.setattr(flow_files, "FLUSH_OCTETS", 1)
    failing = writer(tmp_path)
    bundle(failing, [flows([1])])
    before = files(tmp_path)
    failing.start_bundle()
    for number in range(5):
        failing.process(flows([number]))
    failing.start_bundle()  # the runner tries again
    assert files(tmp_path) == before
    failing.process(flows([7]))
    failing.teardown()
    assert files(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError) as error:
        write(f"parquet:{tmp_path}/flows", [flows([1])])
    place = f"{tmp_path}/flows"
    line = f"parquet:{place}: cannot write {place}: No space left on device; free room or choose another --output"
    assert str(error.value).startswith(line)
    assert files(tmp_path) == set()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_the_system_says_of_a_full_disk_is_understood(tmp_path, monkeypatch):
    """The error of a real write that finds no room, as pyarrow raises it."""
    make = pq.ParquetWriter.__init__
    monkeypatch.setattr(pq.ParquetWriter, "__init__", lambda self, _, *args, **kw: make(self, "/dev/full", *args, **kw))
    with pytest.raises(InputError, match="No space left on device; free room"):
        bundle(writer(tmp_path), [flows(range(8000))])

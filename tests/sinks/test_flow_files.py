"""Parquet files of a streaming job: the same folders as a bounded job's, of journals."""

import itertools

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_testing import HOUR_NS, START_NS, flow_id, flows, schema_of

from sinks import flow_files, journals, outputs
from sinks.flow_files import FlowFiles
from sinks.journal import Journal
from sinks.outputs import SinkContext
from sinks.parquet import _AppendFlows
from sinks.record_files import complete
from transforms.records import InputError


def context(job):
    return SinkContext(("cic@1",), schema_of(), job, streaming=True, file_max_age_s=3600.0)


def stream(folder, bundles, job="stream"):
    """The bundles of one worker, and the job's end."""
    step = _AppendFlows(FlowFiles("parquet:flows", folder), context(job))
    step.setup()
    for bundle in bundles:
        step.start_bundle()
        for batch in bundle:
            assert list(step.process(batch)) == []
        step.finish_bundle()
    step.teardown()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_folder_reads_as_a_bounded_job_s(tmp_path):
    """DuckDB and pyarrow give every flow once, all columns as they went in, by hour, interim records apart."""
    batch = flows([3, 1, 2, 4000], fwd_packets=[1, 2, 3, 4], fwd_iat_mean_us=[None, 1.5, 0.1, 2.5])
    stream(
        tmp_path, [[batch.slice(0, 2), batch.slice(2, 1)], [], [batch.slice(3)], [flows([9], record_kind="interim")]]
    )
    ordered = pa.Table.from_batches([batch]).sort_by("flow_start_ns")
    read = pq.read_table(tmp_path).sort_by("flow_start_ns")
    assert read.drop_columns(["hour"]).to_pydict() == ordered.to_pydict()
    rows = duckdb.sql(f"SELECT hour, fwd_packets FROM '{tmp_path}/*/*.parquet' ORDER BY flow_start_ns").fetchall()
    assert rows == [("2026-11-21T13", 2), ("2026-11-21T13", 3), ("2026-11-21T13", 1), ("2026-11-21T14", 4)]
    assert pq.read_table(tmp_path / "_interim")["record_kind"].to_pylist() == ["interim"]
    assert [name.partition("/")[0] for name in files(tmp_path)] == [
        "_interim",
        "hour=2026-11-21T13",
        "hour=2026-11-21T14",
    ]
    (first, second) = tmp_path.glob("hour=*/*")
    assert first.name == second.name
    assert pq.ParquetFile(first).schema_arrow.equals(batch.schema, check_metadata=True)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 1, -HOUR_NS, 5 * HOUR_NS])), min_size=1, max_size=20),
    st.lists(st.integers(0, 20)),
    st.integers(1, 3),
)
@settings(max_examples=40)
def test_each_row_group_is_sorted_and_of_one_hour(tmp_path_factory, drawn, cuts, open_files):
    """Whatever comes in whichever batches, and however few files may be open at a time."""
    folder = tmp_path_factory.mktemp("sorted")
    starts = [START_NS + shift for _, shift in drawn]
    ids = [flow_id(number) for number, _ in drawn]
    batch = flows(range(len(drawn)), flow_id=ids, flow_start_ns=starts)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(drawn)), len(drawn)})
    one = Journal.create(folder, "job", batch.schema)
    one.append([batch.slice(first, end - first) for first, end in itertools.pairwise(bounds)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_files, "ROW_GROUP_OCTETS", 1)
        patch.setattr(flow_files, "OPEN_FILES", open_files)
        done = complete(one, FlowFiles("parquet:flows", folder))
    seen = []
    for path in folder.rglob("*.parquet"):
        file = pq.ParquetFile(path)
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            rows = list(zip(table["flow_start_ns"].to_pylist(), table["flow_id"].to_pylist(), strict=True))
            assert rows == sorted(rows)
            assert {start // HOUR_NS for start, _ in rows} == {rows[0][0] // HOUR_NS}
            seen += rows
    assert sorted(seen) == sorted(zip(starts, ids, strict=True))
    assert done["files_written"] == len(files(folder))


def test_many_small_batches_become_one_row_group(tmp_path):
    stream(tmp_path, [[flows([number])] for number in range(50)])
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).num_row_groups == 1
    assert len(pq.read_table(path)) == 50


def test_a_large_bundle_is_not_held(tmp_path, monkeypatch):
    """It is appended in pieces, long before it ends."""
    monkeypatch.setattr("sinks.append_records.BUNDLE_OCTETS", 1)
    step = _AppendFlows(FlowFiles("parquet:flows", tmp_path), context("large"))
    step.setup()
    step.start_bundle()
    list(step.process(flows([1])))
    assert step._gathered == []
    (journal,) = tmp_path.glob(".*")
    assert journal.stat().st_size > 0
    step.teardown()


def test_a_failed_bundle_is_forgotten(tmp_path):
    """What it brought is not appended with the next."""
    step = _AppendFlows(FlowFiles("parquet:flows", tmp_path), context("failing"))
    step.setup()
    for number in (1, 2):
        step.start_bundle()
        list(step.process(flows([number])))
    step.finish_bundle()
    step.teardown()
    assert pq.read_table(tmp_path)["flow_id"].to_pylist() == [flow_id(2)]


def test_the_sink_of_a_streaming_job_appends(tmp_path):
    """`open_sink` chooses by the context; the place is checked as ever."""
    ((url, sink),) = outputs.open_outputs([f"parquet:{tmp_path}/flows"], context("open"))
    assert (sink.files.folder, sink.context.streaming) == (tmp_path / "flows", True)
    assert str(url) == f"parquet:{tmp_path}/flows"
    ((url, sink),) = outputs.open_outputs([f"parquet:{tmp_path}/flows?compression=lz4"], context("open"))
    step = _AppendFlows(sink.files, sink.context)
    step.setup()
    step.start_bundle()
    list(step.process(flows([1])))
    step.finish_bundle()
    step.teardown()
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "LZ4"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        outputs.open_outputs([f"parquet:{tmp_path}/file"], context("open"))
    assert not journals._kept

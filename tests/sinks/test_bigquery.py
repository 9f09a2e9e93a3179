"""Against a stand-in that refuses what BigQuery refuses: BigQuery itself runs nowhere else than at Google."""

import json
import math
import re
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers.bigquery_gate import gate as make_gate
from servers.processes import wait_until
from sink_testing import HOUR_NS, START_NS, extreme_flows, flow_id, flows, rows_of_bigquery, run, schema_of, write

from pipelines import flows as main_job
from pipelines import generate
from sinks import bigquery, bigquery_client, bigquery_rows, bigquery_schema
from sinks.outputs import SinkContext, open_outputs
from transforms.records import InputError

TABLE = "test.net.flows"


@pytest.fixture
def gate(monkeypatch):
    for started in make_gate():
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", started.endpoint)
        yield started


def client():
    return bigquery_client.client_of(bigquery_client.place_of("test", TABLE))


def sink(**context):
    ((_, opened),) = open_outputs([f"bigquery:{TABLE}"], SinkContext(("cic@1",), schema_of(), "test", **context))
    return opened


def block_writer():
    place = bigquery_client.place_of("bigquery:t", TABLE)
    bigquery_client.prepare(place, schema_of())
    return bigquery_client.RowWriter(place, 1)


def by_id(rows):
    return sorted(rows, key=lambda row: (row["flow_id"], row["record_number"]))


def test_every_column_comes_back_as_it_went_in(gate):
    """Nulls, 64 bits, IPv6, nanoseconds, Unicode, lists."""
    batch = extreme_flows(['tap "1"\\ \x00\n', "äöü 🜁", None])
    counters = write(f"bigquery:{TABLE}", [batch], ("flowbeam@1",))
    assert counters["records_written"] == 3
    assert by_id(gate.rows(TABLE)) == by_id(rows_of_bigquery(batch))


def test_from_a_capture_to_the_table(gate, tmp_path):
    """In one job with Parquet: every field of every flow is the same in both."""
    capture, folder = tmp_path / "c.pcap", tmp_path / "flows"
    assert generate.main(["--output", str(capture), "--packets", "3000", "--quiet"]) == 0
    outputs = [f"--output=parquet:{folder}", f"--output=bigquery:{TABLE}"]
    assert main_job.main(["--runner=DirectRunner", "--quiet", f"--input={capture}", *outputs]) == 0
    (batch,) = pq.read_table(folder, partitioning=None).combine_chunks().to_batches()
    assert len(batch) > 100
    assert by_id(gate.rows(TABLE)) == by_id(rows_of_bigquery(batch))


def test_nan_infinities_and_nested_columns(gate):
    """What a model adds is nested: which features moved the score."""
    reasons = pa.list_(pa.struct([("feature", pa.string()), ("contribution", pa.float32())]))
    batch = flows([1, 2, 3, 4], fwd_iat_mean_us=[math.nan, math.inf, -math.inf, 1.5])
    given = [[{"feature": 'a"b', "contribution": 0.5}, {"feature": "c", "contribution": None}], [], None, [{}]]
    batch = batch.append_column("explanation", pa.array(given, reasons))
    batch = batch.append_column("is_alert", pa.array([True, False, None, True]))
    batch = batch.append_column("count", pa.array([2**64 - 1, None, 0, 1], pa.uint64()))
    place = bigquery_client.place_of("bigquery:t", TABLE)
    bigquery_client.prepare(place, batch.schema)
    assert list(bigquery_client.RowWriter(place, 1).write(batch)) == []
    rows = gate.rows(TABLE)
    values = [row["fwd_iat_mean_us"] for row in rows]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.5]
    assert [row["explanation"] for row in rows] == [
        given[0], [], [], [{"feature": None, "contribution": None}]
    ]  # fmt: skip
    assert [row["is_alert"] for row in rows] == [True, False, None, True]
    assert [row["count"] for row in rows] == [2**64 - 1, None, 0, 1]


def test_slices_and_lengths_of_octets(gate):
    """Base64 of any length, of a batch that begins in the middle of another."""
    octets = [bytes(range(n)) for n in range(8)]
    for width in (1, 2, 3, 4, 16, 17):
        column = pa.array([bytes([n] * width) for n in range(6)], pa.binary(width))
        texts = bigquery_rows._values(column.slice(2, 3)).to_pylist()
        assert texts == bigquery_rows._values(column.slice(2, 3).cast(pa.binary())).to_pylist()
    assert bigquery_rows._values(pa.array(octets[:3])).to_pylist() == ['""', '"AA=="', '"AAE="']


@pytest.mark.parametrize("ns", [-(2**63), -1001, -1000, -1, 0, 999, 1000, 2**63 - 1])
def test_times_are_rounded_down(ns):
    assert bigquery_schema.microseconds(pa.array([ns])).cast(pa.int64()).to_pylist() == [ns // 1000]


def test_the_table_is_partitioned_clustered_and_described(gate):
    write(f"bigquery:{TABLE}", [flows([1])])
    table = client().get_table(TABLE)
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("DAY", "flow_start")
    assert table.clustering_fields == ["src_ip", "dst_ip", "predicted_class"]
    by_name = {field.name: field for field in table.schema}
    assert by_name["fwd_ip_octets"].description == "Sum of IP total lengths sent by the initiator. [octets]"
    assert [name for name, field in by_name.items() if field.mode == "REQUIRED"] == [
        "flow_id", "record_kind", "record_number", "flow_start", "flow_start_ns"
    ]  # fmt: skip
    view = client().get_table("test.net.flows_latest")
    assert re.search("PARTITION BY flow_start, flow_id ORDER BY record_number DESC", view.view_query)


def test_a_table_gets_what_it_lacks_and_keeps_what_it_has(gate):
    write(f"bigquery:{TABLE}", [flows([1])])
    write(f"bigquery:{TABLE}", [flows([2], ("nfstream@1",), fwd_end_ns=7)], ("nfstream@1",))
    write(f"bigquery:{TABLE}", [flows([3])])
    rows = {row["flow_id"]: row for row in gate.rows(TABLE)}
    assert rows[flow_id(2)]["fwd_end_ns"] == 7
    assert rows[flow_id(2)].get("active_mean_us") is None
    assert rows[flow_id(3)]["fwd_end_ns"] is None
    names = [field.name for field in client().get_table(TABLE).schema]
    assert len(names) == len(set(names))


def test_a_check_makes_nothing(gate):
    """It says what a run would make."""
    names = ("latest", "alerts", "talkers", "conversations")
    assert sink(only_check=True).makes == (f"table {TABLE}", *(f"view flows_{name}" for name in names))
    assert gate.tables == {}
    sink()
    assert sink(only_check=True).makes == ()
    place = bigquery_client.place_of("bigquery:t", TABLE)
    before = json.dumps(gate.tables, default=str)
    assert bigquery_client.prepare(place, schema_of(["nfstream@1"]), only_check=True)[0].endswith(f"columns of {TABLE}")
    assert json.dumps(gate.tables, default=str) == before


def test_nested_columns_get_more_fields(gate):
    """What a STRUCT gets more stands in it, and may be null."""
    place = bigquery_client.place_of("bigquery:t", TABLE)
    for names in (["a"], ["b"]):
        geo = pa.field("geo", pa.struct([(name, pa.string()) for name in names]))
        bigquery_client.prepare(place, schema_of().append(geo))
    (field,) = [field for field in client().get_table(TABLE).schema if field.name == "geo"]
    assert [inner.name for inner in field.fields] == ["a", "b"]


def test_a_column_of_another_type_is_one_line(gate):
    write(f"bigquery:{TABLE}", [flows([1])])
    schema = schema_of()
    changed = schema.set(schema.get_field_index("sensor"), pa.field("sensor", pa.int64()))
    with pytest.raises(InputError) as error:
        bigquery_client.prepare(bigquery_client.place_of(f"bigquery:{TABLE}", TABLE), changed)
    told = f"bigquery:{TABLE}: in the table the column sensor is STRING, not INT64; choose another table"
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("bigquery:flows", "flows is no table; write bigquery:PROJECT.DATASET.TABLE"),
        ("bigquery:test.net.flows?rows=1", "unknown parameter 'rows'; known: calls"),
        ("bigquery:test.net.flows?calls=0", "calls=0; give 1 to 64"),
        ("bigquery:test.none.flows", "there is no dataset test.none; make it: bq mk --dataset test:none"),
    ],
    ids=["no-table", "parameter", "calls", "no-dataset"],
)
def test_a_wrong_setting_is_one_line(gate, output, told):
    with pytest.raises(InputError, match=re.escape(told)):
        open_outputs([output], SinkContext(("cic@1",), schema_of(), "test"))


def test_what_we_may_not_do_is_one_line(gate):
    gate.forbidden = True
    with pytest.raises(InputError, match=r"not allowed: .*Permission denied.*; give the account roles/bigquery.dataEd"):
        sink()


def test_without_credentials_is_one_line(monkeypatch, tmp_path):
    """Nor does it take long: no server of a cloud is asked."""
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(InputError, match="no Google credentials: run `gcloud auth application-default login`") as error:
        sink()
    assert "\n" not in str(error.value)


def test_nobody_there_is_one_line(monkeypatch, capsys):
    """Soon: Google's client alone would try for ten minutes, and say nothing."""
    monkeypatch.setattr(bigquery_client, "ASKED_S", 0.5)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    assert bigquery.main(["--setup", "--table", TABLE]) == 2
    told = "--table: no answer in 0.5 s: Connection refused; see that BigQuery can be reached from here"
    assert capsys.readouterr().err == f"flowbeam: {told}\n"


def test_without_the_library_is_one_line(monkeypatch):
    for name in ("google.api_core", "google.api_core.client_options", "google.cloud.bigquery"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"needs google-cloud-bigquery, .*: pip install 'flowbeam\[bigquery\]'"):
        sink()


def test_refused_rows_are_rejects_with_the_reason(gate):
    """All others are in the table, whatever stands beside them."""
    written = block_writer()
    decades = 40 * 366 * 24 * HOUR_NS
    batch = flows([1, 2, 3], flow_start_ns=[START_NS, START_NS - decades, START_NS])
    lists = pa.array([[1], [2], [3, None]])
    gate.tables[TABLE]["schema"]["fields"].append({"name": "sizes", "type": "INT64", "mode": "REPEATED"})
    rejects = list(written.write(batch.append_column("sizes", lists)))
    assert [row["flow_id"] for row in gate.rows(TABLE)] == [flow_id(1)]
    assert [(reject.step, reject.source) for reject in rejects] == [("bigquery", TABLE)] * 2
    assert "is outside the allowed bounds" in rejects[0].reason
    assert rejects[1].reason == "Only optional fields can be set to NULL. Field: sizes; Value: NULL"
    assert json.loads(rejects[1].payload)["json"]["sizes"] == [3, None]


def test_a_column_that_is_not_known_yet_is_waited_for(gate):
    """For minutes after a table got more columns some of BigQuery's servers refuse them."""
    column = {"reason": "invalid", "message": "no such field: fwd_packets."}
    gate.faults.append({"insertErrors": [{"index": 0, "errors": [column]}]})
    counters = run([flows([1])], sink())
    assert counters["blocks_retried"] == 1
    assert len(gate.rows(TABLE)) == 1


@pytest.mark.parametrize("fault", [503, 500, 429, 404, "reset", "lost"])
def test_what_failed_is_tried_again_and_is_there_once(gate, fault):
    opened = sink()
    gate.faults += [fault, fault]
    counters = run([flows([1, 2])], opened)
    assert counters["records_written"] == 2
    assert counters["blocks_retried"] == 2
    assert len(gate.rows(TABLE)) == 2


def test_after_its_time_it_gives_up_with_one_line(gate):
    opened = sink(retry_s=0.05)
    gate.faults += [503] * 100
    with pytest.raises(Exception, match=r"bigquery:test.net.flows: gave up after \d+ (try|tries).*503"):
        run([flows([1])], opened)


def test_a_call_that_will_never_be_taken_is_one_line(gate):
    opened = sink()
    gate.faults += [403]
    gate.forbidden = True
    with pytest.raises(Exception, match="BigQuery refuses to be written: 403 Access Denied"):
        run([flows([1])], opened)


def test_a_server_that_goes_and_comes_back_has_all_once(gate):
    """It is stopped in the middle of a stream of blocks, and started again on the same port."""
    opened = sink()
    batches = [flows(range(first, first + 20)) for first in range(0, 800, 20)]
    opened.block_rows = 20

    def interrupt():
        wait_until(lambda: gate.calls > 10, 120, "some blocks are written")
        gate.stop()
        gate.start()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    counters = run(batches, opened)
    interrupting.join()
    assert counters["records_written"] == 800
    assert sorted(row["flow_id"] for row in gate.rows(TABLE)) == sorted(map(flow_id, range(800)))


def test_requests_are_as_large_as_bigquery_takes(gate, monkeypatch):
    """By octets, and by rows; what it says is too large goes in halves, and a row too large alone to the rejects."""
    written = block_writer()
    list(written.write(flows(range(6000), sensor="x" * 2000)))
    assert len(gate.rows(TABLE)) == 6000
    assert gate.largest < 10 << 20
    monkeypatch.setattr("servers.bigquery_gate.REQUEST_OCTETS_MOST", 20_000)
    batch = flows([7001, 7002, 7003], sensor=["a", "b" * 30_000, "c"])
    (reject,) = written.write(batch)
    assert reject.reason == "Request payload size exceeds the limit: 20000 bytes."
    assert [row["sensor"] for row in gate.rows(TABLE)[6000:]] == ["a", "c"]


def test_the_command_writes_the_schema(capsys):
    assert bigquery.main(["--schema", "--features", "cic@1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == bigquery_schema.table_fields(schema_of())


def test_files_are_loaded_once(gate, tmp_path, capsys):
    """With all types, and what a job before had not got to."""
    batch = flows([1, 2, 4000], ("flowbeam@1",), splt_iat_us=[[1, 2], [], None], vni=[None, 1, 2], sensor="é")
    write(f"parquet:{tmp_path}/flows", [batch], ("flowbeam@1",))
    arguments = ["--load", f"{tmp_path}/flows", "--table", TABLE]
    assert bigquery.main(arguments) == 0
    assert by_id(gate.rows(TABLE)) == by_id(rows_of_bigquery(batch))
    assert capsys.readouterr().out == "3 records of 2 files loaded; 0 files had been loaded before\n"
    write(f"parquet:{tmp_path}/flows", [flows([9])])
    assert bigquery.main(arguments) == 0
    assert capsys.readouterr().out == "1 records of 1 files loaded; 2 files had been loaded before\n"
    assert len(gate.rows(TABLE)) == 4


def test_loaded_rows_equal_inserted_ones(gate, tmp_path):
    batch = flows(range(50), ("flowbeam@1",), fwd_iat_mean_us=0.1)
    write(f"bigquery:{TABLE}", [batch], ("flowbeam@1",))
    write(f"parquet:{tmp_path}/flows", [batch], ("flowbeam@1",))
    assert bigquery.main(["--load", f"{tmp_path}/flows", "--table", "test.net.loaded"]) == 0
    assert by_id(gate.rows("test.net.loaded")) == by_id(gate.rows(TABLE))


@pytest.mark.parametrize("wrong", ["empty", "damaged", "table", "no-table"])
def test_what_cannot_be_loaded_is_one_line(gate, tmp_path, capsys, wrong):
    if wrong in ("damaged", "no-table", "table"):
        (tmp_path / "hour=2026-11-21T13").mkdir()
        pq.write_table(pa.table({"flow_id": [b"1" * 16]}), tmp_path / "hour=2026-11-21T13" / "a.parquet")
    if wrong == "damaged":
        (tmp_path / "hour=2026-11-21T13" / "b.parquet").write_bytes(b"PAR1 no")
    arguments = ["--load", str(tmp_path), *(["--table", TABLE] if wrong != "no-table" else [])]
    assert bigquery.main(arguments) == 2
    told = {
        "empty": "holds no files",
        "damaged": "b.parquet: cannot be read",
        "no-table": "say where to",
        "table": "cannot ask BigQuery: ",
    }[wrong]
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line

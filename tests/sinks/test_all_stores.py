"""One job with an output for each store there is: every field of every record is in every one of them."""

import io
import json
import secrets
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow.parquet as pq
import pytest
from fault_testing import messages_in
from search_testing import as_flows
from servers.bigquery_gate import gate as make_gate
from servers.cassandra import PASSWORD, USER
from sink_testing import rows_of_bigquery, rows_of_cassandra

from pipelines import flows as main_job
from pipelines import generate
from transforms.model.reasons import REASON

TABLE = "test.net.flows"
MODEL = Path(__file__).parents[2] / "models" / "demo"
pytestmark = pytest.mark.xdist_group("cassandra")


@pytest.fixture
def gate(monkeypatch):
    for started in make_gate():
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", started.endpoint)
        yield started


def nanosecond_capture(path):
    """Traffic over IPv4 and IPv6 with times that end in odd nanoseconds."""
    assert generate.main(["--output", str(path), "--packets", "3000", "--quiet"]) == 0
    path.write_bytes(b"\x4d\x3c\xb2\xa1" + path.read_bytes()[4:])  # what were microseconds are nanoseconds
    return path


def single(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose scores and reasons, as decimals, are the float32 that they stand for."""

    def rounded(value: Any) -> Any:
        return float(np.float32(value)) if isinstance(value, float) else value

    reasons = row["explanation"] and [{name: rounded(one[name]) for name in one} for one in row["explanation"]]
    return {**row, "score": rounded(row["score"]), "explanation": reasons}


def test_one_job_fills_every_store(kafka, elasticsearch, opensearch, cassandra, gate, monkeypatch, tmp_path):
    """Kafka, Elasticsearch, OpenSearch, Cassandra, BigQuery, Parquet: nulls, IPv6, nanoseconds, Unicode, reasons."""
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)
    name = f"all{secrets.token_hex(4)}"
    kafka.create_topic(name, 2)
    cassandra.create_keyspace(name)
    capture = nanosecond_capture(tmp_path / "demo.pcap")
    sensor = 'Gerät \U0001f6f0 "1"\\'
    schema = tmp_path / "flow.avsc"
    places = (
        f"parquet:{tmp_path}/flows",
        f"kafka://{kafka.bootstrap}/{name}?schema={schema}",
        f"elasticsearch://{elasticsearch.host}/{name}?replicas=0",
        f"opensearch://{opensearch.host}/{name}?replicas=0",
        f"cassandra://{cassandra.address}/{name}?consistency=ONE",
        f"bigquery:{TABLE}",
    )
    outputs = [f"--output={place}" for place in places]
    scored = [f"--model={MODEL}", "--explain=3", "--sensor", sensor]
    assert main_job.main(["--runner=DirectRunner", "--quiet", f"--input={capture}", *scored, *outputs]) == 0
    table = pq.read_table(tmp_path / "flows", partitioning=None).sort_by("flow_id")
    flows = {row["flow_id"]: row for row in table.to_pylist()}
    assert len(flows) > 100
    assert {row["sensor"] for row in flows.values()} == {sensor}
    assert {row["ip_version"] for row in flows.values()} == {4, 6}
    assert any(row["flow_start_ns"] % 1000 for row in flows.values())
    assert any(row["explanation"] for row in flows.values())
    nulls = {name for row in flows.values() for name, value in row.items() if value is None}
    assert len(nulls) > 50
    parsed = fastavro.parse_schema(json.loads(schema.read_text(encoding="utf-8")))
    records = [
        fastavro.schemaless_reader(io.BytesIO(octets[10:]), parsed, None)
        for octets in messages_in(kafka.bootstrap, name)
    ]
    assert {record["flow_id"]: record for record in records} == flows
    for node in (elasticsearch, opensearch):
        found = as_flows(node.documents(name), table.schema)
        assert {row["flow_id"]: single(row) for row in found} == flows
    with cassandra.session() as session:
        for table_name in ("flows_by_source", "flows_by_destination"):
            found = rows_of_cassandra(session.execute(f"SELECT * FROM {name}.{table_name}"), REASON.names)
            names = found[0].keys()
            assert table_name == "flows_by_destination" or set(names) == set(table.schema.names)
            assert {row["flow_id"]: row for row in found} == {
                flow_id: {column: row[column] for column in names} for flow_id, row in flows.items()
            }
    (batch,) = table.combine_chunks().to_batches()
    stored = sorted(gate.rows(TABLE), key=lambda row: row["flow_id"])
    assert list(map(single, stored)) == rows_of_bigquery(batch)

"""One job with an output for each store there is: every record is in every one of them."""

import io
import json
import secrets

import fastavro
import pyarrow.parquet as pq
import pytest
from fault_testing import messages_in
from search_testing import as_flows
from servers.bigquery_gate import gate as make_gate
from servers.cassandra import PASSWORD, USER

from pipelines import flows as main_job
from pipelines import generate

TABLE = "test.net.flows"
pytestmark = pytest.mark.xdist_group("cassandra")


@pytest.fixture
def gate(monkeypatch):
    for started in make_gate():
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", started.endpoint)
        yield started


def test_one_job_fills_every_store(kafka, elasticsearch, opensearch, cassandra, gate, monkeypatch, tmp_path):
    """Kafka, Elasticsearch, OpenSearch, Cassandra, BigQuery, Parquet: the same flows."""
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)
    name = f"all{secrets.token_hex(4)}"
    kafka.create_topic(name, 2)
    cassandra.create_keyspace(name)
    capture = str(tmp_path / "demo.pcap")
    assert generate.main(["--output", capture, "--packets", "3000", "--quiet"]) == 0
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
    assert main_job.main(["--runner=DirectRunner", "--quiet", f"--input={capture}", *outputs]) == 0
    table = pq.read_table(tmp_path / "flows", partitioning=None).sort_by("flow_id")
    flows = {row["flow_id"]: row for row in table.to_pylist()}
    assert len(flows) > 100
    parsed = fastavro.parse_schema(json.loads(schema.read_text(encoding="utf-8")))
    records = [
        fastavro.schemaless_reader(io.BytesIO(octets[10:]), parsed, None)
        for octets in messages_in(kafka.bootstrap, name)
    ]
    assert {record["flow_id"]: record for record in records} == flows
    for node in (elasticsearch, opensearch):
        found = as_flows(node.documents(name), table.schema)
        assert {row["flow_id"]: row for row in found} == flows
    with cassandra.session() as session:
        in_cassandra = {row["flow_id"] for row in session.execute(f"SELECT flow_id FROM {name}.flows_by_source")}
    assert in_cassandra == set(flows)
    assert {row["flow_id"]: row["fwd_packets"] for row in gate.rows(TABLE)} == {
        flow_id: row["fwd_packets"] for flow_id, row in flows.items()
    }

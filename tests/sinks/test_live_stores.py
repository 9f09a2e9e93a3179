"""Stores that fail under a job that goes on: in the end every flow is in each of them, once, and alerts were posted.

A sensor replays traffic onto a topic, and the job on a real runner writes flows to real servers. What the servers have
is compared with the flows in files, and these with those of the bounded job on the topic's content.
"""

import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import command_testing
import duckdb
import fastavro
import pyarrow.parquet as pq
import pytest
from fault_testing import LIMIT_S, Job, Sensor, bounded, capture_of, check_flows, messages_in, rejects_of, topic_of
from proxy_testing import Proxy, Wire
from search_testing import as_flows
from servers.cassandra import PASSWORD, USER
from servers.fixtures import need
from servers.processes import wait_until
from sink_testing import rows_of_cassandra
from webhook_testing import Receiver, serving

from pipelines import resend

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cassandra")]

MODEL = ("--model", Path(__file__).parents[2] / "models" / "demo", "--drift_window_s=60", "--drift_min_flows=20")
RATE = 1500


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """What the sensor replays: attacks, too."""
    return capture_of(tmp_path_factory.mktemp("capture"), 20_000)


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setitem(command_testing.ENVIRONMENT, "FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setitem(command_testing.ENVIRONMENT, "FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from serving(Receiver())


@pytest.fixture
def start(tmp_path, capture, kafka) -> Iterator[Callable[..., tuple[Sensor, Job, str]]]:
    """Starts a job that ends with its sensor, and the sensor; gives these, and the topic's name."""
    with ExitStack() as stack:

        def started(runner, *arguments: object) -> tuple[Sensor, Job, str]:
            topic = stack.enter_context(topic_of(kafka, 2))
            url = f"kafka://{kafka.bootstrap}/{topic}"
            words = (*MODEL, "--stop_at_end", "--sensors=north", "--shards=2", *arguments)
            job = stack.enter_context(Job(tmp_path, runner, url, *words))
            job.runs()
            sensor = stack.enter_context(Sensor(tmp_path, url, capture, "north", RATE))
            job.writes()
            return sensor, job, topic

        yield started


def flows_in_files(tmp_path, kafka, topic):
    """What the job put into files, proved to be what it had to; by flow id."""
    count, _ = check_flows(tmp_path, bounded(messages_in(kafka.bootstrap, topic), tmp_path, *map(str, MODEL)))
    assert not rejects_of(tmp_path)
    rows = f"SELECT DISTINCT * FROM read_parquet('{tmp_path}/live/**/*.parquet', hive_partitioning = false)"
    table = duckdb.sql(rows).to_arrow_table()
    flows = {row["flow_id"]: row for row in table.to_pylist()}
    assert len(flows) == count > 100
    whole = next(path for path in (tmp_path / "live").rglob("*.parquet") if not path.name.startswith("."))
    return flows, pq.read_schema(whole)  # DuckDB does not hand the fields' metadata on


def check_search(server, index, flows, schema):
    found = server.documents(index)
    assert len(found) == len(flows)
    (name,) = {field.name for field in schema} & {"score"}
    for row in as_flows(found, schema):
        assert row[name] == pytest.approx(flows[row["flow_id"]][name])
        assert {**row, name: 0, "explanation": 0} == {**flows[row["flow_id"]], name: 0, "explanation": 0}


def check_cassandra(server, keyspace, flows):
    with server.session() as session:
        rows = rows_of_cassandra(session.execute(f"SELECT flow_id, fwd_packets FROM {keyspace}.flows_by_source"))
    assert len(rows) == len(flows)
    assert {row["flow_id"]: row["fwd_packets"] for row in rows} == {one: flows[one]["fwd_packets"] for one in flows}


def check_kafka(bootstrap, topic, schema_file, flows):
    """A repeated message is equal to the octet."""
    schema = fastavro.parse_schema(json.loads(schema_file.read_text(encoding="utf-8")))
    messages = set(messages_in(bootstrap, topic))
    assert len(messages) == len(flows)
    records = [fastavro.schemaless_reader(io.BytesIO(octets[10:]), schema, None) for octets in messages]
    assert {row["flow_id"]: row["fwd_packets"] for row in records} == {one: flows[one]["fwd_packets"] for one in flows}


def check_alerts(receiver, flows):
    alerts = {one.hex() for one, row in flows.items() if row["is_alert"]}
    assert alerts
    assert {alert["id"] for alert in receiver.alerts} == alerts


def test_a_network_that_is_cut_holds_nobody_up(
    start, kafka, elasticsearch, cassandra, receiver, prism, credentials, tmp_path
):
    """Resets, silence, 429, 503, slowness while a job runs: files go on, and later each store has everything once."""
    keyspace = index = f"cut{secrets.token_hex(4)}"
    cassandra.create_keyspace(keyspace)
    with (
        Proxy(elasticsearch.port("http")) as search,
        Wire(cassandra.port("native")) as node,
        Proxy(receiver.server_port) as posts,
    ):
        outputs = (
            f"elasticsearch://127.0.0.1:{search.port}/{index}?replicas=0",
            f"cassandra://127.0.0.1:{node.port}/{keyspace}?consistency=ONE",
            f"webhook:http://127.0.0.1:{posts.port}/?window_s=0&posts_per_s=1000&timeout_s=2",
        )
        words = (*(f"--output={one}" for one in outputs), "--on_sink_failure=continue", "--sink_retry_s=1")
        sensor, job, topic = start(prism, *words)
        wait_until(lambda: elasticsearch.count(index) > 0 or not job.alive, LIMIT_S, "documents", 0.2)
        before = memory_of(job)
        for fault in ("reset", "503", "429", "refuse", "stall", "slow"):
            search.fault = posts.fault = fault
            search.faults_left = posts.faults_left = -1
            if fault != "slow":
                node.cut()
            job.writes(more_than=job.written)
            sensor.has_captured(sensor.captured + RATE)
            job.writes(more_than=job.written)
            search.fault = posts.fault = ""
            node.mend()
        assert memory_of(job) < before + (400 << 20)
        sensor.stops()
        job.process.wait(LIMIT_S)
        if (tmp_path / "unsent").exists():
            assert job.process.returncode == 2
            assert "records that a server did not take are in" in job.said[-1]
            assert resend.main([str(tmp_path / "unsent")]) == 0
            assert list((tmp_path / "unsent").iterdir()) == []
    flows, schema = flows_in_files(tmp_path, kafka, topic)
    check_search(elasticsearch, index, flows, schema)
    check_cassandra(cassandra, keyspace, flows)
    check_alerts(receiver, flows)
    assert {one["event"]["action"] for one in events_in(elasticsearch, f"{index}.sensors")} >= {"started", "ended"}
    assert len(events_in(elasticsearch, f"{index}.drift")) > 0


def test_a_slow_store_holds_nobody_up(start, kafka, elasticsearch, opensearch, prism, tmp_path):
    """Each of its answers takes half a second more, ten times as long as the other's: all go on, in little memory."""
    need("opensearch")
    index = f"slow{secrets.token_hex(4)}"
    with Proxy(opensearch.port("http")) as slow:
        outputs = (
            f"elasticsearch://{elasticsearch.host}/{index}?replicas=0",
            f"opensearch://127.0.0.1:{slow.port}/{index}?replicas=0",
        )
        slow.fault, slow.faults_left = "slow", -1
        sensor, job, topic = start(prism, *(f"--output={one}" for one in outputs))
        wait_until(lambda: opensearch.count(index) > 0 or not job.alive, LIMIT_S, "documents", 0.2)
        before = memory_of(job)
        for _ in range(3):
            documents = elasticsearch.count(index)
            sensor.has_captured(sensor.captured + 3 * RATE)
            job.writes(more_than=job.written)
            wait_until(lambda: elasticsearch.count(index) > documents or not job.alive, LIMIT_S, "documents", 0.2)  # noqa: B023
        assert memory_of(job) < before + (400 << 20)
        sensor.stops()
        job.ends()
    flows, schema = flows_in_files(tmp_path, kafka, topic)
    for server in (elasticsearch, opensearch):
        check_search(server, index, flows, schema)


def test_a_broker_behind_a_network_that_fails(prism, capture, tmp_path):
    """The job reads a topic and writes another through it: cut, silent, and back, with everything once."""
    need("kafka")
    from servers.kafka import KafkaServer

    broker = KafkaServer(tmp_path / "broker")
    with Wire(broker.port("wire")) as wire, behind(wire, broker) as broker, ExitStack() as stack:
        for topic in ("packets", "flows"):
            broker.create_topic(topic, 2)
        schema_file = tmp_path / "flow.avsc"
        way = f"kafka://127.0.0.1:{wire.port}"
        words = ("--stop_at_end", "--sensors=north", "--shards=2", *MODEL, "--sink_retry_s=280")
        output = f"--output={way}/flows?schema={schema_file}"
        job = stack.enter_context(Job(tmp_path, prism, f"{way}/packets", output, *words))
        job.runs()
        where = f"kafka://{broker.bootstrap}/packets"
        sensor = stack.enter_context(Sensor(tmp_path, where, capture, "north", RATE))
        for fail in (wire.cut, wire.stall):
            job.writes(more_than=job.written)
            fail()
            sensor.has_captured(sensor.captured + 5 * RATE)
            wire.mend()
        job.writes(more_than=job.written)
        sensor.stops()
        job.ends()
        whole = bounded(messages_in(broker.bootstrap, "packets"), tmp_path, *map(str, MODEL))
        check_flows(tmp_path, whole)
        table = pq.read_table(whole, partitioning=None)
        check_kafka(broker.bootstrap, "flows", schema_file, {row["flow_id"]: row for row in table.to_pylist()})


def behind(wire, broker):
    """The broker, which sends clients of one more listener to a proxy before that."""
    ours, name = broker.bootstrap, "listener.security.protocol.map"
    settings = {
        "listeners": f"PLAIN://{ours},WIRE://127.0.0.1:{broker.port('wire')},"
        f"CONTROLLER://127.0.0.1:{broker.port('controller')}",
        "advertised.listeners": f"PLAIN://{ours},WIRE://127.0.0.1:{wire.port}",
        name: "PLAIN:PLAINTEXT,WIRE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    return type(broker)(broker.folder, settings=settings)


def memory_of(job) -> int:
    """Octets of the job's process that are in memory."""
    with open(f"/proc/{job.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def events_in(server, index):
    server.ask("POST", f"/{index}-*/_refresh")
    return [hit["_source"] for hit in server.ask("POST", f"/{index}-*/_search", {"size": 1000})["hits"]["hits"]]


def test_servers_that_are_killed_and_come_back_have_everything(start, kafka, receiver, prism, credentials, tmp_path):
    """One after the other, in the middle of a stream; the job waits for them and ends well."""
    need("elasticsearch", "cassandra", "kafka")
    from servers.cassandra import CassandraServer
    from servers.kafka import KafkaServer
    from servers.search import ElasticsearchServer

    with ExitStack() as stack:
        elasticsearch, cassandra, broker = (
            stack.enter_context(kind(tmp_path / kind.__name__))
            for kind in (ElasticsearchServer, CassandraServer, KafkaServer)
        )
        cassandra.create_keyspace("killed")
        broker.create_topic("killed", 2)
        schema_file = tmp_path / "flow.avsc"
        outputs = (
            f"elasticsearch://{elasticsearch.host}/killed?replicas=0",
            f"cassandra://{cassandra.address}/killed?consistency=ONE",
            f"kafka://{broker.bootstrap}/killed?schema={schema_file}",
        )
        sensor, job, topic = start(prism, *(f"--output={one}" for one in outputs), "--sink_retry_s=280")
        for server in (elasticsearch, cassandra, broker):
            job.writes(more_than=job.written)
            server.kill()
            sensor.has_captured(sensor.captured + 3 * RATE)
            server.start()
        job.writes(more_than=job.written)
        sensor.stops()
        job.ends()
        flows, schema = flows_in_files(tmp_path, kafka, topic)
        check_search(elasticsearch, "killed", flows, schema)
        check_cassandra(cassandra, "killed", flows)
        check_kafka(broker.bootstrap, "killed", schema_file, flows)


def test_kafka_and_webhook_live_on_flink(start, kafka, flink, receiver, tmp_path):
    """What a checkpoint repeats is the same message, and the same alert."""
    with topic_of(kafka, 2) as topic_of_flows:
        schema_file = tmp_path / "flow.avsc"
        outputs = (
            f"kafka://{kafka.bootstrap}/{topic_of_flows}?schema={schema_file}",
            f"{receiver.url}?window_s=0&posts_per_s=1000",
        )
        where = flink.pipeline_args("LOOPBACK", parallelism=2, checkpoint_ms=1000)
        runner = [*where, f"--flink_master={flink.rest_url.removeprefix('http://')}"]
        sensor, job, topic = start(runner, *(f"--output={one}" for one in outputs))
        job.writes(more_than=job.written)
        sensor.stops()
        job.ends()
        flows, _ = flows_in_files(tmp_path, kafka, topic)
        check_kafka(kafka.bootstrap, topic_of_flows, schema_file, flows)
        check_alerts(receiver, flows)

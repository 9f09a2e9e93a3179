"""Flows onto a Kafka topic, read back by a consumer that knows nothing of us."""

import io
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import alert_testing
import fastavro
import pyarrow as pa
import pytest
import sink_testing
from confluent_kafka import Consumer, TopicPartition
from servers.fixtures import need
from servers.kafka import KafkaServer

from queues.kafka_client import TopicFacts, topic_of
from sinks import drift, outputs, sensors
from sinks.blocks import LEFT_OUT, Unavailable, WriteBlocks
from sinks.kafka import JsonMessages, KafkaWriter
from sinks.outputs import SinkContext
from transforms.drift import rows
from transforms.records import EVENT_DROPPING, NO_TIME, InputError, Reject, SensorEvent

EXTREMES = {
    "sensor": ["Gerät \U0001f6f0", 'a"b\\c\n', "local"],
    "src_ip": ["2001:db8::1", "::ffff:10.0.0.1", "10.0.0.1"],
    "flow_start_ns": [1_795_266_000_123_456_789, -1, 2**63 - 1],
    "fwd_packets": [2**63 - 1, 0, 2**53 + 1],
    "end_reason": [1, None, 255],
}
"""Of three flows: what a store may lose."""


def read(bootstrap, topic):
    """Every message of a topic: key and value."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, ends = [], 0
    while ends < len(partitions):
        message = consumer.poll(10)
        assert message is not None, f"{topic}: not read to its end"
        if message.error():
            ends += 1
        else:
            found.append((message.key(), message.value(), message.partition()))
    consumer.close()
    return found


def opened(url, flows, **of) -> WriteBlocks:
    ((_, sink),) = outputs.open_outputs([url], alert_testing.context(flows, **of))
    return sink


def send(url, flows, **of) -> list[Reject]:
    """Sends one block as a worker would; what the brokers refused."""
    sender = opened(url, flows, **of).sender()
    try:
        return sender.send(flows).rejects
    finally:
        sender.close()


def test_avro_messages_hold_every_field(kafka, tmp_path):
    """The schema file and the messages are all that a consumer needs."""
    kafka.create_topic("flows-avro", 2)
    flows = alert_testing.scored(range(3), [True, False, True], feature_sets=["flowbeam@1"], **EXTREMES)
    url = f"kafka://{kafka.bootstrap}/flows-avro?schema={tmp_path}/flow.avsc"
    counted = sink_testing.run([flows], opened(url, flows))
    assert counted["records_written"] == 3
    schema = fastavro.parse_schema(json.loads((tmp_path / "flow.avsc").read_text(encoding="utf-8")))
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads((tmp_path / "flow.avsc").read_text()))
    header = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    rows = {}
    for key, value, _ in read(kafka.bootstrap, "flows-avro"):
        assert value[:10] == header
        rows[key] = fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None)
    assert rows == {row["flow_id"]: row for row in flows.to_pylist()}


def test_a_check_makes_nothing(kafka, tmp_path):
    """What a run would write is told."""
    kafka.create_topic("checked")
    schema, flows = tmp_path / "flow.avsc", sink_testing.flows([1])
    url = f"kafka://{kafka.bootstrap}/checked?schema={schema}"
    assert opened(url, flows, only_check=True).makes == (f"file {schema}",)
    with pytest.raises(InputError, match="there is no folder"):
        opened(f"{url}/x", flows, only_check=True)
    assert list(tmp_path.iterdir()) == []


def test_json_messages_hold_every_field(kafka):
    kafka.create_topic("flows-json")
    flows = alert_testing.scored(range(3), [True, False, True], **EXTREMES)
    assert send(f"kafka://{kafka.bootstrap}/flows-json?format=json&compression=zstd", flows) == []
    rows = [json.loads(value) for _, value, _ in read(kafka.bootstrap, "flows-json")]
    expected = [
        {name: value for name, value in {**row, "flow_id": row["flow_id"].hex()}.items() if value is not None}
        for row in flows.to_pylist()
    ]
    assert [{**row, "score": pytest.approx(row["score"])} for row in rows] == expected


def test_alerts_alone_are_keyed_by_their_source(kafka):
    """All alerts of a source are in one partition, in order."""
    kafka.create_topic("alerts", 4)
    sources = [f"10.0.0.{number % 5}" for number in range(100)]
    flows = alert_testing.scored(range(100), [number % 2 == 0 for number in range(100)], src_ip=sources)
    counted = sink_testing.run([flows], opened(f"kafka://{kafka.bootstrap}/alerts?key=source&only=alerts", flows))
    assert (counted["records_written"], counted["records_left_out"]) == (50, 50)
    messages = read(kafka.bootstrap, "alerts")
    assert Counter(key.decode() for key, _, _ in messages) == Counter(sources[::2])
    assert len({(key, partition) for key, _, partition in messages}) == 5
    ids = {flow_id.as_py(): number for number, flow_id in enumerate(flows["flow_id"])}
    numbers = [ids[value[11:27]] for key, value, _ in messages if key == b"10.0.0.2"]
    assert numbers == [2, 12, 22, 32, 42, 52, 62, 72, 82, 92]


@pytest.mark.parametrize("form", ["avro", "json"])
def test_events_have_topics_of_their_own(kafka, form, tmp_path):
    """Rows of the folders `sensors` and `drift`, whatever is chosen for flows; without `events=yes`, none."""
    name = f"told-{form}"
    schemas = {sensors.NAME: sensors.SensorFiles.schema, drift.NAME: rows.SCHEMA}
    for dataset in schemas:
        kafka.create_topic(f"{name}.{dataset}", 2)
    psi = [{"feature": "fwd_packets", "psi": 0.5}, {"feature": "protocol", "psi": None}]
    told = {
        sensors.NAME: sensors.rows_of(SensorEvent("Gerät", 7, 1, EVENT_DROPPING, 2**62, NO_TIME, 3, 41, None)),
        drift.NAME: rows.batch([{"event": "inputs", "psi": 0.25, "features": psi}]),
    }
    file = f"&schema={tmp_path}/flow.avsc" if form == "avro" else ""
    url = outputs.parse_url(f"kafka://{kafka.bootstrap}/{name}?format={form}&key=source&only=alerts&events=yes{file}")
    context = SinkContext(("cic@1",), sink_testing.schema_of(), "test")
    for dataset, schema in schemas.items():
        ((_, sink),) = outputs.open_events([url], context, dataset, schema)
        sender = sink.sender()
        assert sender.send(told[dataset]).written == 1
        sender.close()
        ((key, value, _),) = read(kafka.bootstrap, f"{name}.{dataset}")
        assert key == ("Gerät".encode() if dataset == sensors.NAME else None)
        (row,) = told[dataset].to_pylist()
        if form == "json":
            row = {name: value for name, value in row.items() if value is not None}
            assert json.loads(value) == row
        else:
            parsed = fastavro.parse_schema(json.loads((tmp_path / f"flow.avsc.{dataset}").read_text("utf-8")))
            assert parsed["name"] == f"flowbeam.{'SensorEvent' if dataset == sensors.NAME else 'DriftEvent'}"
            read_row = fastavro.schemaless_reader(io.BytesIO(value[10:]), parsed, None)
            assert {name: one for name, one in read_row.items() if name in row} == row
        without = url._replace(parameters={"format": form})
        assert outputs.open_events([without], context, dataset, schema) == []


def test_a_record_that_is_too_large_is_rejected(kafka):
    """The others are delivered."""
    kafka.create_topic("narrow-flows", 1, {"max.message.bytes": "20000"})
    flows = alert_testing.scored(range(3), sensor=["a", "b" * 20_000, "c"])
    (reject,) = send(f"kafka://{kafka.bootstrap}/narrow-flows", flows)
    assert reject[:3] == ("kafka", "too large", f"kafka://{kafka.bootstrap}/narrow-flows")
    assert b"b" * 20_000 in reject.payload
    assert {key for key, _, _ in read(kafka.bootstrap, "narrow-flows")} == {flows["flow_id"][i].as_py() for i in (0, 2)}


def test_a_record_that_only_the_broker_knows_to_be_too_large_is_rejected(kafka):
    """The limit of the topic was lowered while the job ran."""
    kafka.create_topic("lowered", 1, {"max.message.bytes": "30000"})
    flows = alert_testing.scored(range(1), sensor=["b" * 20_000])
    sender = opened(f"kafka://{kafka.bootstrap}/lowered?compression=none", flows).sender()
    kafka.delete_topic("lowered")
    kafka.create_topic("lowered", 1, {"max.message.bytes": "10000"})
    (reject,) = sender.send(flows).rejects
    assert reject.reason == "too large"
    assert send(f"kafka://{kafka.bootstrap}/lowered", alert_testing.scored(range(2))) == []
    sender.close()


def test_a_record_that_the_broker_takes_for_invalid_does_not_take_others_with_it(kafka):
    """A topic that is compacted wants keys; the others of the same request are delivered."""
    kafka.create_topic("compacted", 1, {"cleanup.policy": "compact"})
    topic = topic_of(f"//{kafka.bootstrap}/compacted")
    chosen = {"only": "all", "key": "flow", "compression": "lz4"}
    writer = KafkaWriter(topic, TopicFacts(1, 100_000, True), JsonMessages(), chosen)
    events = pa.record_batch({"sensor": ["a", None, "b"], "number": [1, 2, 3]})
    counted, reject = writer.write(events)
    assert counted == (LEFT_OUT, 0)
    assert reject == Reject("kafka", "invalid", topic.url, None, b'{"sensor":null,"number":2}')
    assert {key for key, _, _ in read(kafka.bootstrap, "compacted")} == {b"a", b"b"}
    writer.close()


def test_nothing_is_lost_while_the_broker_is_away(tmp_path, monkeypatch):
    """Killed with messages under way, and back later: every record is there, repeated ones equal to the octet."""
    need("kafka")
    with KafkaServer(tmp_path / "kafka") as server:
        server.create_topic("away", 2)
        url = f"kafka://{server.bootstrap}/away"
        blocks = [sink_testing.flows(range(first, first + 500)) for first in range(0, 10_000, 500)]
        sender = opened(url, blocks[0], retry_s=120).sender()
        for block in blocks[:5]:
            sender.send(block)
        server.kill()
        back = threading.Thread(target=server.start)
        back.start()
        for block in blocks[5:]:
            assert sender.send(block).rejects == []
        back.join()
        sender.close()
        messages = read(server.bootstrap, "away")
        values = {key: value for key, value, _ in messages}
        assert len(values) == 10_000
        assert set(messages) == {(key, values[key], partition) for key, _, partition in messages}

        impatient = opened(url, blocks[0], retry_s=0.1).sender()
        server.kill()
        monkeypatch.setattr("sinks.kafka._DELIVERY_S", 1.0)
        with pytest.raises(InputError, match=r"no broker answers.*see that it is up"):
            impatient.send(blocks[0])


def test_a_name_that_is_not_known_for_a_while_is_waited_for(monkeypatch):
    """Where brokers are restarted with their names, as in a cluster of containers."""
    monkeypatch.setattr("sinks.kafka._DELIVERY_S", 0.5)
    flows = sink_testing.flows([1])
    topic, facts = topic_of("//broker.invalid:9092/flows"), TopicFacts(1, 100_000, True)
    chosen = {"only": "all", "key": "flow", "compression": "lz4"}
    writer = KafkaWriter(topic, facts, JsonMessages(), chosen)
    with pytest.raises(Unavailable):
        list(writer.write(flows))
    writer.close()


def test_blocks_of_several_threads_have_their_own_rejects(kafka):
    """Two are under way at a time; here, the broker refuses one record of each."""
    kafka.create_topic("threads", 2, {"max.message.bytes": "30000"})
    blocks = [alert_testing.scored([n, n + 100], sensor=["a", str(n) * 20_000]) for n in range(8)]
    sender = opened(f"kafka://{kafka.bootstrap}/threads?compression=none", blocks[0]).sender()
    kafka.delete_topic("threads")
    kafka.create_topic("threads", 2, {"max.message.bytes": "10000"})
    with ThreadPoolExecutor(4) as pool:
        every = list(pool.map(sender.send, blocks))
    sender.close()
    for number, sent in enumerate(every):
        (reject,) = sent.rejects
        assert sent.written == 1
        assert str(number).encode() * 20_000 in reject.payload
    expected = {flows["flow_id"][0].as_py() for flows in blocks}
    assert {key for key, _, _ in read(kafka.bootstrap, "threads")} == expected


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("format=xml", "format=xml is not one of avro, json"),
        ("key=destination", "key=destination is not one of flow, source"),
        ("only=alerts", "there are alerts only where flows are scored; add --model DIR"),
        ("format=json&schema=x.avsc", "schema=x.avsc is for format=avro"),
        ("schema=/nowhere/x.avsc", "cannot write /nowhere/x.avsc: No such file or directory"),
        ("colour=red", "unknown setting colour"),
        ("sasl_password=secret", "does not belong into a URL"),
    ],
)
def test_settings_are_checked_before_anything_is_sent(settings, line):
    """No broker is asked for it."""
    with pytest.raises(InputError, match=line):
        opened(f"kafka://127.0.0.1:1/flows?{settings}", sink_testing.flows([1]))


def test_a_topic_that_is_missing_is_one_line(kafka):
    with pytest.raises(InputError, match="no such topic; make it with kafka-topics --create"):
        opened(f"kafka://{kafka.bootstrap}/missing", sink_testing.flows([1]))


def test_a_column_that_avro_has_not_is_one_line():
    flows = sink_testing.flows([1]).append_column("since", pa.array([1], pa.uint64()))
    with pytest.raises(InputError, match="Avro has no uint64; take format=json"):
        opened("kafka://127.0.0.1:1/flows", flows)

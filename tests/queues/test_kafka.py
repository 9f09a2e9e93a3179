"""A Kafka topic as a queue: order, completeness and plain words, against a real broker."""

from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka_testing import block
from queue_testing import put_all
from servers.kafka import KafkaServer
from servers.processes import wait_until

import queues
from queues import kafka as kafka_queue
from queues.kafka_client import facts_of, topic_of
from sources.journal import BufferSettings, Journal
from sources.sending import Sender
from transforms import avro
from transforms.records import InputError


def messages(bootstrap, topic, partition=0):
    """What is in a partition: key, and number of the block."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        found.append((message.key().decode(), avro.decode_header(message.value()).sequence))
    consumer.close()
    assert message is not None, f"{topic}: not read to its end"
    return found


def settle(writer, count, limit_s=30):
    """Waits until so many blocks are settled."""
    wait_until(lambda: writer.settled(0.1) >= count, limit_s, f"{count} blocks are settled")
    assert writer.settled(0) == count


def test_blocks_lie_in_their_partitions_in_order(kafka):
    """The key is the sensor; a sensor with more partitions than the topic shares them."""
    kafka.create_topic("written", 2)
    made = (block(number, sensor=f"s{part}", partition=part) for number in range(100) for part in range(3))
    put_all(f"kafka://{kafka.bootstrap}/written", made)
    assert messages(kafka.bootstrap, "written", 1) == [("s1", number) for number in range(100)]
    both = messages(kafka.bootstrap, "written", 0)
    assert [one for one in both if one[0] == "s0"] == [("s0", number) for number in range(100)]
    assert [one for one in both if one[0] == "s2"] == [("s2", number) for number in range(100)]


def test_what_a_topic_is_like(kafka):
    kafka.create_topic("small", 3, {"max.message.bytes": "20000", "message.timestamp.type": "CreateTime"})
    assert facts_of(topic_of(f"//{kafka.bootstrap}/small")) == (3, 20_000, False)
    kafka.create_topic("usual")
    assert facts_of(topic_of(f"//{kafka.bootstrap}/usual")) == (1, 4 << 20, True)


def test_a_block_that_is_too_large_is_one_line(kafka):
    """The limit is known before: the largest block that is allowed is taken."""
    kafka.create_topic("narrow", 1, {"max.message.bytes": "20000"})
    writer = queues.open_live(f"kafka://{kafka.bootstrap}/narrow?compression=none")
    assert writer.put(bytes(writer.message_octets_most), 0, "a")
    settle(writer, 1)
    with pytest.raises(InputError, match=r"a block has 19,489 octets, the topic takes 19,488 .*lower --block_packets"):
        writer.put(bytes(writer.message_octets_most + 1), 0, "a")
    writer.close()


def test_a_topic_that_shrinks_its_limit_refuses(kafka, monkeypatch):
    """What the broker refuses for good is an error at the next call."""
    kafka.create_topic("shrunk", 1, {"max.message.bytes": "20000"})
    facts = facts_of(topic_of(f"//{kafka.bootstrap}/shrunk"))
    monkeypatch.setattr(kafka_queue, "facts_of", lambda _: facts._replace(message_octets_most=1 << 20))
    writer = queues.open_live(f"kafka://{kafka.bootstrap}/shrunk?compression=none")
    assert writer.put(bytes(100_000), 0, "a")
    with pytest.raises(InputError, match=r"a block is larger than max.message.bytes; lower --block_packets"):
        settle(writer, 1)
    writer.close()


def test_a_topic_that_does_not_exist(kafka):
    with pytest.raises(
        InputError, match=r"/nowhere: no such topic; make it with kafka-topics --create --topic nowhere"
    ):
        queues.open_live(f"kafka://{kafka.bootstrap}/nowhere")


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr("queues.kafka_client.PATIENCE_S", 2)
    with pytest.raises(InputError, match=r"kafka://127.0.0.1:1/t: no broker answers \(.*\); see that it is up"):
        queues.open_live("kafka://127.0.0.1:1/t")


def test_a_host_that_does_not_exist():
    with pytest.raises(InputError, match=r"kafka://no-such-host.invalid/t: no such host"):
        queues.open_live("kafka://no-such-host.invalid/t")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, kafka):
    """A broker with passwords and TLS, and the topic `t`, that only one of its users may use."""
    folder = tmp_path_factory.mktemp("guarded") / "broker"
    with KafkaServer(folder, users={"ours": "word", "theirs": "word"}, tls=True) as server:
        server.create_topic("t")
        server.restrict("t", "ours")
        yield server


def test_passwords(guarded, monkeypatch):
    """Right, wrong, of another user, none."""
    url = f"kafka://{guarded.bootstrap_sasl}/t?security=sasl_plaintext"
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_USERNAME", "ours")
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_PASSWORD", "word")
    put_all(url, [block(0)])
    assert messages(guarded.bootstrap, "t") == [("a", 0)]
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_PASSWORD", "old")
    with pytest.raises(
        InputError, match=r"/t: the broker does not take the credentials .*set FLOWBEAM_KAFKA_SASL_USER"
    ):
        queues.open_live(url)
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_USERNAME", "theirs")
    monkeypatch.setenv("FLOWBEAM_KAFKA_SASL_PASSWORD", "word")
    with pytest.raises(InputError, match=r"/t: no (permission for this|such) topic"):
        queues.open_live(url)


def test_tls(guarded, monkeypatch, tmp_path):
    """With the authority's certificate, and without."""
    url = f"kafka://{guarded.bootstrap_tls}/t?security=ssl"
    config = tmp_path / "client.properties"
    config.write_text(f"ssl.ca.location={guarded.authority}\n")
    assert queues.open_live(f"{url}&client_config={config}").partitions == 1
    monkeypatch.setattr("queues.kafka_client.PATIENCE_S", 5)
    with pytest.raises(InputError, match=r"/t: no TLS connection \(.*\); name the authority with ssl.ca.location"):
        queues.open_live(url)


def test_a_broker_that_is_killed_loses_and_repeats_nothing(guarded):
    """It is waited for: the client is full after a while, and says why; then all goes out, each once, in order."""
    guarded.create_topic("killed")
    writer = queues.open_live(f"kafka://{guarded.bootstrap}/killed?compression=none")
    pieces = [block(number, count=3000) for number in range(300)]
    for piece in pieces[:20]:
        assert writer.put(piece, 0, "a")
    writer.settled(0.05)
    guarded.kill()
    put = 20
    for piece in pieces[20:]:
        if not writer.put(piece, 0, "a"):
            break
        put += 1
    assert put < 300
    wait_until(lambda: writer.settled(0.1) < 0 or writer.problem, 30, "the problem is told")
    assert writer.problem.startswith(f"kafka://{guarded.bootstrap}/killed: no broker answers")
    guarded.start()
    for piece in pieces[put:]:
        wait_until(lambda piece=piece: writer.put(piece, 0, "a") or writer.settled(0.1) < 0, 60, "room in the client")
    settle(writer, 300)
    assert writer.problem is None
    writer.close()
    assert messages(guarded.bootstrap, "killed") == [("a", number) for number in range(300)]


def test_a_capture_that_can_be_read_again_gives_up_after_a_while(guarded, monkeypatch):
    """A broker that is down for longer than that is one line; this test comes last and leaves it so."""
    guarded.create_topic("gone")
    monkeypatch.setattr("sources.sending.PATIENCE_S", 2)
    opened = partial(queues.open_live, f"kafka://{guarded.bootstrap}/gone")
    journal, told = Journal(BufferSettings(), "a"), []
    sender = Sender(journal, opened, opened(), told.append, patient=False)
    guarded.kill()
    assert journal.append(avro.decode_block(block(1)), block(1), 0)
    sender.start()
    with pytest.raises(InputError, match=r"/gone: no broker answers .*; gave up after 2 s"):
        sender.drained(60)
    assert [line for line in told if "/gone: no broker answers" in line]
    sender.stop()

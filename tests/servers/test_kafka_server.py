"""The Kafka broker of the tests is a real one: it keeps what it has over a kill, and refuses who may not come in."""

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from servers.fixtures import need
from servers.kafka import KafkaServer

QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A broker that the tests here may kill, with a user and a certificate."""
    need("kafka")
    with KafkaServer(tmp_path_factory.mktemp("kafka"), users={"sensor": "secret"}, tls=True) as server:
        yield server


def send(server, topic, *messages):
    producer = Producer({"bootstrap.servers": server.bootstrap, **QUIET})
    for message in messages:
        producer.produce(topic, message)
    assert producer.flush(30) == 0


def received(server, topic, count):
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none", **QUIET})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages = consumer.consume(count, timeout=30)
    consumer.close()
    return [message.value() for message in messages]


def signed_in(server, password):
    return {
        "bootstrap.servers": server.bootstrap_sasl,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "sensor",
        "sasl.password": password,
        **QUIET,
    }


def test_topics_bear_the_brokers_time(kafka):
    kafka.create_topic("of-the-broker", partitions=3)
    assert kafka.settings_of("of-the-broker")["message.timestamp.type"] == "LogAppendTime"
    assert len(kafka.admin().list_topics("of-the-broker", timeout=10).topics["of-the-broker"].partitions) == 3
    kafka.delete_topic("of-the-broker")


def test_a_killed_broker_comes_back_with_its_messages_on_its_port(own):
    own.create_topic("kept")
    send(own, "kept", b"before")
    own.kill()
    assert not own.is_up()
    own.start()
    send(own, "kept", b"after")
    assert received(own, "kept", 2) == [b"before", b"after"]


def test_a_wrong_password_is_refused(own):
    client = AdminClient(signed_in(own, "secret"))
    assert client.list_topics(timeout=30).brokers
    client = AdminClient(signed_in(own, "wrong"))
    with pytest.raises(KafkaException):
        client.list_topics(timeout=1)


def test_a_certificate_is_checked_by_its_authority(own):
    settings = {"bootstrap.servers": own.bootstrap_tls, "security.protocol": "SSL", **QUIET}
    client = AdminClient({**settings, "ssl.ca.location": str(own.authority)})
    assert client.list_topics(timeout=30).brokers
    client = AdminClient(settings)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=1)


def test_a_restricted_topic_is_for_its_user_alone(own):
    own.create_topic("restricted")
    own.restrict("restricted", "someone-else")
    refused = []
    producer = Producer({**signed_in(own, "secret"), "on_delivery": lambda error, _: refused.append(error.name())})
    producer.produce("restricted", b"x")
    producer.flush(30)
    assert refused == ["TOPIC_AUTHORIZATION_FAILED"]

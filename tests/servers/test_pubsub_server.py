"""The Pub/Sub emulator keeps the order of a key; what a killed one had is gone."""

import pytest
from google.api_core.exceptions import NotFound
from google.cloud import pubsub_v1
from servers.fixtures import need
from servers.pubsub import PubSubEmulator


@pytest.fixture
def clients(monkeypatch):
    """Makes clients of an emulator, and closes them."""
    opened = []

    def made(server, kind, **settings):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.host)
        client = kind(**settings)
        opened.append(client)
        return client

    yield made
    for client in opened:
        if isinstance(client, pubsub_v1.PublisherClient):
            client.stop()
        client.transport.close()


def test_messages_of_a_key_come_in_order(pubsub, clients):
    pubsub.create_topic("in-order", "its-reader")
    ordered = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    publisher = clients(pubsub, pubsub_v1.PublisherClient, publisher_options=ordered)
    sent = [b"%d" % number for number in range(20)]
    futures = [publisher.publish(pubsub.topic("in-order"), one, ordering_key="sensor") for one in sent]
    for future in futures:
        future.result(30)
    subscriber = clients(pubsub, pubsub_v1.SubscriberClient)
    received = []
    while len(received) < len(sent):
        answer = subscriber.pull(subscription=pubsub.subscription("its-reader"), max_messages=100, timeout=30)
        subscriber.acknowledge(
            subscription=pubsub.subscription("its-reader"), ack_ids=[one.ack_id for one in answer.received_messages]
        )
        received += [one.message.data for one in answer.received_messages]
    assert received == sent


def test_a_killed_emulator_comes_back_empty_on_its_port(tmp_path, clients):
    need("pubsub")
    with PubSubEmulator(tmp_path) as own:
        own.create_topic("lost")
        own.kill()
        assert not own.is_up()
        own.start()
        publisher = clients(own, pubsub_v1.PublisherClient)
        with pytest.raises(NotFound):
            publisher.get_topic(topic=own.topic("lost"))

"""Pub/Sub for sensors: blocks in order, whatever fails meanwhile, and one line for what cannot be."""

import sys
import threading

import pytest
from flow_testing import packets
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from queue_testing import put_all
from servers.fixtures import need

import queues
from queues import pubsub, pubsub_client
from transforms import avro
from transforms.records import InputError, PacketBatch, Stream

TOPIC = pubsub_client.place_of("topic", "//a-project/blocks", ())


def block(sequence, *, sensor="local", partition=0, end=False, rows=3):
    made = packets(at_s=[sequence + i / 10 for i in range(rows)])
    stream = Stream(sensor, 7, partition)
    return avro.encode_block(PacketBatch(stream, sequence, int(made["time_ns"].max(initial=0)), made, end=end))


class Client:
    """Takes what is published, unless it shall fail."""

    def __init__(self, *errors):
        self.published = []
        self.errors = list(errors)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.transport = self

    def publish(self, request, retry, timeout):
        assert self.may_go_on.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        self.published += request["messages"]

    def close(self):
        self.may_go_on.set()


@pytest.fixture
def writer_on():
    """Makes writers on clients, and closes them."""
    opened = []

    def made(client, partitions=1):
        opened.append(pubsub.PubSubLiveWriter(TOPIC, client, partitions))
        return opened[-1]

    yield made
    for one in opened:
        one.close()


@pytest.fixture
def emulator(pubsub, monkeypatch):
    """The shared emulator, where clients of this process find it."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    return pubsub


def settled(writer, count, limit=200):
    """Waits until so many blocks are settled."""
    return any(writer.settled(0.1) >= count for _ in range(limit))


def numbers(messages):
    return [avro.decode_header(message["data"]).sequence for message in messages]


def test_what_fails_is_sent_again_in_order(writer_on, monkeypatch):
    """Nothing overtakes, nothing is sent twice that did not fail; a problem is told as long as it lasts."""
    monkeypatch.setattr(pubsub, "_AGAIN_S", 0.001)
    client = Client(exceptions.ServiceUnavailable("down"), exceptions.DeadlineExceeded("slow"))
    client.may_go_on.clear()
    writer = writer_on(client)
    for i in range(20):
        assert writer.put(block(i), 0, "local")
    assert writer.settled(0) == 0
    client.may_go_on.set()
    assert settled(writer, 20)
    assert numbers(client.published) == list(range(20))
    assert writer.problem is None
    assert {message["ordering_key"] for message in client.published} == {"local/0"}
    attributes = {"sensor": "local", "epoch": "7", "partition": "0", "sequence": "3"}
    assert client.published[3]["attributes"] == attributes


def test_a_problem_is_one_line(writer_on, monkeypatch):
    """While Pub/Sub does not answer, the sensor knows why nothing is settled."""
    monkeypatch.setattr(pubsub, "_AGAIN_S", 0.001)
    client = Client(*[exceptions.ServiceUnavailable("all is down")] * 10_000)
    writer = writer_on(client)
    assert writer.put(block(0), 0, "local")
    for _ in range(200):
        if writer.problem:
            break
        writer.settled(0.1)
    assert writer.problem == "pubsub://a-project/blocks: Pub/Sub does not answer (all is down)"
    client.errors.clear()
    assert settled(writer, 1)
    assert writer.problem is None


@pytest.mark.parametrize(
    ("error", "complaint"),
    [(exceptions.NotFound("gone"), "no such topic; make it with gcloud pubsub topics create blocks --project=a-proj"),
     (exceptions.PermissionDenied("no"), "no permission; the account in use needs roles/pubsub.publisher on the to"),
     (exceptions.Unauthenticated("who"), "no Google credentials, or expired ones; run gcloud auth"),
     (RefreshError("expired"), "no Google credentials, or expired ones; run gcloud auth"),
     (exceptions.ServiceUnavailable("Getting metadata from plugin failed with error: x"), "no Google credentials"),
     (exceptions.InvalidArgument("odd"), r"Pub/Sub refuses \(odd\)")],
    ids=["deleted", "forbidden", "unknown", "expired", "expired-in-a-call", "refused"],
)  # fmt: skip
def test_what_is_refused_for_good_is_an_error(writer_on, error, complaint):
    """Of the next calls too; a new writer must be handed everything again."""
    writer = writer_on(Client(error))
    assert writer.put(block(0), 0, "local")
    with pytest.raises(InputError, match=complaint):
        settled(writer, 1)
    with pytest.raises(InputError, match=complaint):
        writer.put(block(1), 0, "local")


def test_a_fault_of_the_program_is_told_as_it_is(writer_on):
    """It must not end in a thread that nobody hears of."""
    writer = writer_on(Client(ZeroDivisionError("fault")))
    assert writer.put(block(0), 0, "local")
    with pytest.raises(ZeroDivisionError):
        settled(writer, 1)


def test_too_much_is_not_accepted(writer_on, monkeypatch):
    """Until some is published; the first block is taken whatever its size."""
    monkeypatch.setattr(pubsub, "WAITING_OCTETS_MOST", 2 * len(block(0)))
    client = Client()
    client.may_go_on.clear()
    writer = writer_on(client)
    assert writer.put(block(0), 0, "local")
    assert writer.put(block(1), 0, "local")
    assert not writer.put(block(2), 0, "local")
    client.may_go_on.set()
    assert settled(writer, 2)
    assert writer.put(block(2), 0, "local")
    assert settled(writer, 3)


def test_partitions_are_apart(writer_on):
    """Each has an ordering key and requests of its own; settled blocks count in the order of put."""
    client = Client()
    writer = writer_on(client, partitions=3)
    for i in range(30):
        assert writer.put(block(i // 3, partition=i % 3), i % 3, "local")
    assert settled(writer, 30)
    for partition in range(3):
        own = [message for message in client.published if message["ordering_key"] == f"local/{partition}"]
        assert numbers(own) == list(range(10))


def test_requests_are_bounded(writer_on, monkeypatch):
    """Pub/Sub takes 10 MB in one; a block larger than that is refused at once."""
    monkeypatch.setattr(pubsub, "_REQUEST_OCTETS", 3 * len(block(0)))
    client = Client()
    sizes = []
    publish = client.publish
    client.publish = lambda request, **details: sizes.append(len(request["messages"])) or publish(request, **details)
    client.may_go_on.clear()
    writer = writer_on(client)
    for i in range(10):
        assert writer.put(block(i), 0, "local")
    client.may_go_on.set()
    assert settled(writer, 10)
    assert max(sizes) <= 3
    writer.message_octets_most = 10
    with pytest.raises(InputError, match="lower --block_packets"):
        writer.put(block(0), 0, "local")


def test_long_names_fit(writer_on):
    """Ordering keys and attributes have at most 1,024 octets."""
    client = Client()
    writer = writer_on(client)
    for i, sensor in enumerate(("ü" * 1000, "ü" * 1001)):
        assert writer.put(block(i, sensor=sensor), 0, sensor)
    assert settled(writer, 2)
    keys = [message["ordering_key"] for message in client.published]
    assert len(set(keys)) == 2
    texts = [*keys, *(message["attributes"]["sensor"] for message in client.published)]
    assert all(len(text.encode()) <= 1024 for text in texts)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [("pubsub:blocks", "names no topic; write pubsub://PROJECT/TOPIC"), ("pubsub://p", "names no topic"),
     ("pubsub:///blocks", "names no topic; write pubsub://PROJECT/TOPIC"),
     ("pubsub://p/blocks", r"p is no id of a project \(6 to 30 small letters, .*\); see `gcloud projects list`"),
     ("pubsub://a-project/x", r"x is no name of a topic \(3 to 255 .*; see `gcloud pubsub topics list --project=a-p"),
     ("pubsub://a-project/a/b", "a/b is no name of a topic"),
     ("pubsub://a-project/blocks?colour=red", "unknown setting colour; there are partitions, endpoint"),
     ("pubsub://a-project/blocks?partitions=0", "partitions 0 is not a number from 1 to 1,000"),
     ("pubsub://a-project/blocks?password=x", "unknown setting password")],
)  # fmt: skip
def test_wrong_urls_are_one_line(url, complaint):
    with pytest.raises(InputError, match=complaint):
        queues.open_live(url)


def test_a_missing_topic_is_told_at_once(emulator):
    with pytest.raises(InputError, match="no such topic; make it with gcloud pubsub topics create absent"):
        queues.open_live(f"pubsub://{emulator.project}/absent")


def test_missing_credentials_are_told_at_once(monkeypatch):
    def none(*_, **__):
        raise DefaultCredentialsError("none")

    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(InputError, match="pubsub://a-project/blocks: no Google credentials"):
        queues.open_live("pubsub://a-project/blocks")


def test_a_missing_library_is_told_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.pubsub_v1", None)
    with pytest.raises(InputError, match=r"pip install 'flowbeam\[pubsub\]'"):
        queues.open_live("pubsub://a-project/blocks")


def test_a_topic_that_may_be_used_but_not_looked_at():
    """Publishers may not read what a topic is like; the right to publish is asked for then."""

    class Forbidden:
        def __init__(self, *permissions):
            self.permissions = permissions

        def get_topic(self, **_):
            raise exceptions.PermissionDenied("no")

        def test_iam_permissions(self, **_):
            return self

    pubsub_client.check(TOPIC, Forbidden("pubsub.topics.publish"))
    with pytest.raises(InputError, match=r"needs roles/pubsub\.publisher"):
        pubsub_client.check(TOPIC, Forbidden())


def test_a_subscription_is_no_bounded_input():
    with pytest.raises(InputError, match=r"has no end; add --streaming, and --stop_at_end"):
        queues.open_reader("pubsub://a-project/reader")


def test_a_finite_capture_is_published_whole(emulator):
    """Everything that is settled is there, in the order of each stream."""
    emulator.create_topic("finite", "finite-reader", ordered=False)
    put_all(f"pubsub://{emulator.project}/finite?partitions=2", (block(i // 2, partition=i % 2) for i in range(20)))
    place = pubsub_client.place_of("subscription", f"//{emulator.project}/finite-reader", ())
    client = pubsub_client.client_of(place)
    answer = client.pull(subscription=place.path, max_messages=100)
    heads = [avro.decode_header(one.message.data) for one in answer.received_messages]
    found = sorted((head.stream.partition, head.sequence) for head in heads)
    assert found == [(partition, i) for partition in range(2) for i in range(10)]
    client.transport.close()


def test_an_emulator_that_comes_back(tmp_path, monkeypatch):
    """What was not settled when it went away reaches the next one, in order."""
    need("pubsub")
    from servers.pubsub import PubSubEmulator

    monkeypatch.setattr(pubsub, "_AGAIN_MOST_S", 0.2)
    with PubSubEmulator(tmp_path) as own:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", own.host)
        own.create_topic("blocks")
        writer = queues.open_live(f"pubsub://{own.project}/blocks")
        assert writer.put(block(0), 0, "local")
        assert settled(writer, 1)
        own.kill()
        unsettled = [block(i) for i in range(1, 6)]
        for one in unsettled:
            assert writer.put(one, 0, "local")
        for _ in range(200):
            if writer.problem:
                break
            assert writer.settled(0.1) == 1
        assert "Pub/Sub does not answer" in writer.problem
        own.start()
        with pytest.raises(InputError, match="no such topic"):  # of this emulator, as it has forgotten it
            settled(writer, 6)
        writer.close()
        own.create_topic("blocks-again", "reader", ordered=False)
        writer = queues.open_live(f"pubsub://{own.project}/blocks-again")
        for one in unsettled:
            assert writer.put(one, 0, "local")
        assert settled(writer, 5)
        writer.close()

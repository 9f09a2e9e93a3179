"""A Kafka topic as an endless input: each block once, in order, wherever it is interrupted; every loss told."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from kafka_testing import Reader, block, numbers
from queue_testing import put_all
from servers.kafka import KafkaServer
from servers.prism import prism_arguments
from servers.processes import wait_until

from queues.kafka_client import topic_of
from sources.streaming import StreamSettings, open_input
from sources.streaming import kafka as kafka_input
from sources.streaming.kafka_topics import DiscoverPartitionsFn
from transforms.records import GAP_JOINED, GAP_LOST, NO_TIME, Gap, InputError, Stream


@pytest.fixture
def topic(kafka, request):
    """A topic for the test: a function that makes it and gives its URL."""
    count = itertools.count()

    def made(partitions=1, settings=None):
        name = f"{request.node.originalname}-{next(count)}"
        kafka.create_topic(name, partitions, settings)
        return f"kafka://{kafka.bootstrap}/{name}"

    return made


@pytest.fixture(autouse=True)
def _no_feed_stays():
    """Nobody reads on after a test."""
    yield
    kafka_input._feeds.close()


def reader(url, partition=0, offset=0, *, first_offset=0, **settings):
    """Reads one partition."""
    fn = kafka_input.ReadPartitionFn(topic_of(url.partition(":")[2], ("group",)), StreamSettings(**settings))
    return Reader(fn, (partition, offset, first_offset))


def discovered(url, start="earliest", once=True, look_s=0.0):
    """Finds the partitions of a topic."""
    return Reader(DiscoverPartitionsFn(topic_of(url.partition(":")[2]), start, once, look_s), url)


def enough(count):
    """Whether so many blocks have come."""
    return lambda given: sum(bool(one.octets) for one in given) >= count


def produce(url, *values, **of):
    """Puts messages as they are."""
    brokers, name = url.removeprefix("kafka://").split("/")
    producer = Producer({"bootstrap.servers": brokers})
    for value in values:
        producer.produce(name, value, **of)
    assert producer.flush(30) == 0


def test_blocks_come_in_order_with_place_and_time(topic):
    """And with what is missing of them, once the stream has come further by the bound."""
    url = topic()
    before_ns = time.time_ns()
    put_all(url, [block(number) for number in (0, 1, 3, 4, 5, 6)])
    given = reader(url).turns(enough(6))
    assert numbers(given) == [0, 1, 3, 4, 5, 6]
    assert [(one.source, one.position) for one in given] == [(f"{url}/0", offset) for offset in range(6)]
    assert all(before_ns - 10**6 <= one.received_ns <= time.time_ns() for one in given)
    assert [one.gaps for one in given if one.gaps] == [(Gap(Stream("a", 1), 1, 2, 3, GAP_LOST),)]
    assert all(one.ordered and one.follows == -1 for one in given)


def test_what_lies_before_the_first_offset_was_not_read(topic):
    """That is no loss; what is missing behind it is."""
    url = topic()
    put_all(url, [block(number) for number in (0, 1, 2, 4, 5, 6)])
    given = reader(url, offset=2, max_out_of_orderness_s=0.5).turns(enough(4))
    gaps = [gap for one in given for gap in one.gaps]
    assert gaps == [Gap(Stream("a", 1), 1, 0, 2, GAP_JOINED), Gap(Stream("a", 1), 1, 3, 4, GAP_LOST)]


def test_the_watermark_is_the_observed_time_less_the_bound(topic):
    """Of the stream furthest behind; it does not go back."""
    url = topic()
    put_all(url, [block(0, at_s=100), block(0, at_s=60, sensor="b")])
    one = reader(url, max_out_of_orderness_s=5)
    one.turns(enough(2))
    assert one.watermark == 55
    put_all(url, [block(1, at_s=70, sensor="b", end=True)])
    one.turns(enough(1))
    assert one.watermark == 95


def test_a_new_epoch_follows_the_one_before(topic):
    url = topic()
    put_all(url, [block(0, end=True), block(0, epoch=2), block(1, epoch=2)])
    assert [one.follows for one in reader(url).turns(enough(3))] == [-1, 1, 1]


def test_no_receive_time_without_the_brokers_clock(topic, caplog):
    """A topic with the producer's times is read, and warned of at the start."""
    url = topic(settings={"message.timestamp.type": "CreateTime"})
    put_all(url, [block(0)])
    assert [one.received_ns for one in reader(url).turns(enough(1))] == [NO_TIME]
    open_input(url, StreamSettings())
    assert "message.timestamp.type is CreateTime" in caplog.text
    caplog.clear()
    open_input(topic(), StreamSettings())
    assert caplog.text == ""


def test_what_is_no_block_goes_on_as_it_is(topic):
    """Whoever decodes rejects it, with its octets; what has none is counted."""
    url = topic()
    produce(url, b"garbage", None)
    put_all(url, [block(0)])
    given = reader(url).turns(lambda given: len(given) == 3)
    assert [one.octets for one in given] == [b"garbage", b"", block(0)]


def test_a_reader_goes_on_where_it_was_interrupted(topic):
    """In this process or another, by itself or by the runner: each block once, and the gaps of a straight reading."""
    url = topic()
    put_all(url, [block(number) for number in range(200) if number % 50])
    one = reader(url)
    given = []
    for most in itertools.cycle([7, None, 1, 30]):
        if most == 1:
            kafka_input._feeds.close()  # as if another worker went on
        given += one.turn(most)
        if enough(196)(given):
            break
    assert numbers(given) == [number for number in range(200) if number % 50]
    assert [gap[2:4] for delivery in given for gap in delivery.gaps] == [(0, 1), (50, 51), (100, 101), (150, 151)]


def test_a_partition_waits_while_another_has_something(topic, monkeypatch):
    """Partitions of a bundle are read in turn: one without news gives way to one that was parked with some."""
    monkeypatch.setattr("queues.kafka_feed.TURN_S", 120.0)
    url = topic(2)
    quiet, busy = reader(url, 0), reader(url, 1)
    put_all(url, [block(0, partition=1)])
    busy.turns(enough(1))
    with ThreadPoolExecutor(1) as background:
        quiet.turn()  # opens its feed
        monkeypatch.setattr(kafka_input, "IDLE_S", 120.0)
        waiting = background.submit(quiet.turn)
        put_all(url, [block(1, partition=1)])
        assert waiting.result(60) == []
    assert numbers(busy.turn()) == [1]


def test_reading_stops_where_all_streams_have_ended(topic):
    """Also in partitions that nobody writes to: partition 0 tells who writes where."""
    url = topic(3)
    blocks = [block(n, partition=p, partitions=2, end=n == 3) for n in range(4) for p in range(2)]
    put_all(url, [*blocks, block(0, sensor="b")])
    readers = [reader(url, number, stop_at_end=True) for number in range(3)]
    for one in readers:
        one.turns(enough(4 if one is not readers[2] else 1), limit_s=5) if one is not readers[2] else one.turn()
    assert not any(one.over for one in readers)  # b has not ended
    put_all(url, [block(1, sensor="b", end=True)])
    for one in readers:
        one.all()


def test_reading_goes_on_until_the_named_sensors_have_ended(topic):
    url = topic()
    put_all(url, [block(0, end=True)])
    one = reader(url, stop_at_end=True, sensors=("a", "b"))
    assert numbers(one.turns(enough(1))) == [0]
    one.turn()
    assert not one.over
    put_all(url, [block(0, sensor="b", end=True)])
    assert numbers(one.all()) == [0]


def test_a_block_lost_before_the_end_is_told_when_nothing_more_comes(topic):
    """So that the stream ends, and with it the reading."""
    url = topic()
    put_all(url, [block(0), block(2, end=True)])
    given = reader(url, stop_at_end=True, max_out_of_orderness_s=0.5).all()
    assert numbers(given) == [0, 2]
    assert [one.gaps for one in given if one.gaps] == [(Gap(Stream("a", 1), 1, 1, 2, GAP_LOST),)]


def test_partitions_are_found_and_where_they_begin(topic):
    """From the earliest block, from a time on, or only what comes."""
    url = topic(2)
    put_all(url, [block(0), block(0, partition=1)])
    at_ns = time.time_ns() + 10**6
    wait_until(lambda: time.time_ns() > at_ns + 10**6, 1, "a time between")
    put_all(url, [block(1)])
    assert discovered(url).all() == [(0, 0, 0), (1, 0, 0)]
    assert discovered(url, "latest").all() == [(0, 2, 2), (1, 1, 2)]
    assert discovered(url, at_ns).all() == [(0, 1, 1), (1, 1, 1)]
    assert discovered(url, at_ns + 3600 * 10**9).all() == [(0, 2, 2), (1, 1, 2)]


def test_partitions_that_are_added_are_read_from_their_beginning(topic, kafka):
    url = topic(1)
    put_all(url, [block(0)])
    found = discovered(url, "latest", once=False)
    assert found.turn() == [(0, 1, 1)]
    assert found.turn() == []
    admin = kafka.admin()
    name = url.rpartition("/")[2]
    admin.create_partitions([NewPartitions(name, 3)])[name].result(30)
    assert found.turns(lambda given: given, limit_s=30) == [(1, 0, 0), (2, 0, 0)]


def test_a_reader_that_finds_no_broker_says_so_once(monkeypatch, caplog):
    """Brokers may go away between the start of a job and its first look at the topic."""
    monkeypatch.setattr("sources.streaming.kafka_topics.PATIENCE_S", 0.2)
    one = discovered("kafka://127.0.0.1:9/t", once=False)
    one.turns(lambda _: "; waiting" in caplog.text, limit_s=60)
    assert one.turn() == []
    assert [
        record.getMessage().startswith("kafka://127.0.0.1:9/t: no broker answers") for record in caplog.records
    ] == [True]


def test_blocks_that_expired_are_told_as_lost(topic, kafka, caplog):
    """A reader that was away for longer than the topic keeps blocks goes on with the first that is there."""
    url = topic()
    put_all(url, [block(number) for number in range(10)])
    one = reader(url)
    assert numbers(one.turn(3)) == [0, 1, 2]
    kafka_input._feeds.close()
    admin = kafka.admin()
    place = TopicPartition(url.rpartition("/")[2], 0, 7)
    admin.delete_records([place])[place].result(30)
    put_all(url, [block(number) for number in range(10, 12)])
    given = one.turns(enough(5))
    assert numbers(given) == [7, 8, 9, 10, 11]
    assert [gap[2:4] for delivery in given for gap in delivery.gaps] == [(3, 7)]
    assert "offset 3 is gone; reading goes on at 7" in caplog.text


def test_a_topic_that_is_gone_is_one_line(topic, kafka, monkeypatch):
    """It may be missing for a while, as brokers change; then waiting does not help."""
    monkeypatch.setattr("queues.kafka_feed.PATIENCE_S", 0)
    monkeypatch.setenv("FLOWBEAM_KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS", "500")
    url = topic()
    put_all(url, [block(0)])
    one = reader(url)
    one.turns(enough(1))
    kafka.delete_topic(url.rpartition("/")[2])
    with pytest.raises(InputError, match="-0: no such topic; make it with kafka-topics --create"):
        one.turns(lambda _: False, limit_s=60)


@pytest.mark.parametrize(
    ("url", "settings", "line"),
    [
        ("kafka://127.0.0.1:1/t", {}, "kafka://127.0.0.1:1/t: no broker answers"),
        ("kafka://{bootstrap}/nowhere", {}, "no such topic"),
        ("kafka://{bootstrap}/t?compression=lz4", {}, "unknown setting compression; there are .*group"),
        ("kafka://{bootstrap}/t", {"start_at": "yesterday"}, "--start_at yesterday: neither earliest"),
    ],
)
def test_mistakes_are_found_before_the_pipeline_runs(kafka, monkeypatch, url, settings, line):
    monkeypatch.setattr("queues.kafka_client.PATIENCE_S", 1)
    with pytest.raises(InputError, match=line):
        open_input(url.format(bootstrap=kafka.bootstrap), StreamSettings(**settings))


def test_offsets_are_committed_for_whoever_watches(topic, kafka, monkeypatch):
    """Those of blocks that were processed: a turn later, when the runner has kept what came of them."""
    monkeypatch.setattr("queues.kafka_feed._COMMIT_S", 0)
    url = topic() + "?group=watched"
    put_all(url.partition("?")[0], [block(0), block(1)])
    one = reader(url)
    one.turns(enough(2))
    place = TopicPartition(topic_of(url.partition(":")[2], ("group",)).name, 0)
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": "watched", "enable.auto.commit": False}
    watcher = Consumer(settings)

    def committed():
        one.turn()
        return watcher.committed([place], 10)[0].offset

    wait_until(lambda: committed() == 2, 30, "the offset is committed")
    watcher.close()


def test_a_broker_that_is_killed_is_waited_for(kafka, tmp_path, caplog):
    """Blocks before and after come once and in order; one warning tells of the outage."""
    with KafkaServer(tmp_path / "broker") as broker:
        broker.create_topic("t")
        url = f"kafka://{broker.bootstrap}/t"
        put_all(url, [block(number) for number in range(5)])
        one = reader(url)
        given = one.turns(enough(5))
        broker.kill()
        wait_until(lambda: one.turn() == [] and "no broker answers" in caplog.text, 30, "the outage is told")
        broker.start()
        put_all(url, [block(number) for number in range(5, 10)])
        given += one.turns(enough(5))
    assert numbers(given) == list(range(10))
    assert sum(line.startswith(url) and line.endswith("; waiting") for line in caplog.messages) == 1


def test_a_topic_through_prism(topic):
    """Every block of four partitions, once, by a real runner that ends when the streams have ended."""
    url = topic(4)
    blocks = [block(n, partition=p, partitions=3, end=n == 49) for n in range(50) for p in range(3)]
    put_all(url, blocks)
    pipeline = beam.Pipeline(options=PipelineOptions([*prism_arguments(), "--streaming"]))
    deliveries = pipeline | "Input" >> open_input(url, StreamSettings(stop_at_end=True))
    deliveries | "Places" >> beam.Map(_place_of) | "Seen" >> beam.ParDo(_KeepPlaces())
    result = pipeline.run()
    result.wait_until_finish()
    counters = {
        (one.key.metric.namespace, one.key.metric.name): one.committed for one in result.metrics().query()["counters"]
    }
    assert counters["read_queue", "blocks_read"] == len(blocks)
    assert counters["read_queue", "octets_read"] == sum(map(len, blocks))
    expected = {(str(p), n, len(blocks[3 * n + p]), ()) for n in range(50) for p in range(3)}
    assert _KeepPlaces.seen == expected


class _KeepPlaces(beam.DoFn):
    """Keeps what came; the runner's worker is this process."""

    seen: ClassVar[set] = set()

    def process(self, place):
        assert place not in self.seen
        self.seen.add(place)


def _place_of(delivery):
    return delivery.source[-1], delivery.position, len(delivery.octets), delivery.gaps

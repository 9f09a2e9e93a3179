"""Pub/Sub as an endless input: nothing is acknowledged before it is committed, so that nothing is lost."""

import datetime
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from flow_testing import packets
from queue_testing import put_all
from streaming_testing import Finalizer, Reader, numbers

from queues import pubsub_client
from sources import streaming
from sources.streaming import StreamSettings, pubsub, pubsub_pull, streams_seen
from transforms import avro
from transforms.records import NO_TIME, InputError, PacketBatch, Stream


def block(sequence, *, epoch=7, partition=0, partitions=1, end=False):
    made = packets(at_s=[sequence])
    stream = Stream("a", epoch, partition)
    return PacketBatch(stream, sequence, int(made["time_ns"][0]), made, partitions=partitions, end=end)


def names(*blocks):
    return [(*one.stream, one.sequence) for one in blocks]


class Line:
    """A topic with a subscription, of this test alone."""

    def __init__(self, emulator, ordered=False):
        self.emulator = emulator
        self.name = f"line-{uuid.uuid4().hex}"
        emulator.create_topic(self.name, f"{self.name}-reader", ordered=ordered)
        self.url = f"pubsub://{emulator.project}/{self.name}-reader"
        self.place = pubsub_client.place_of("subscription", self.url.removeprefix("pubsub:"), ())

    def publish(self, *blocks):
        put_all(f"pubsub://{self.emulator.project}/{self.name}", map(avro.encode_block, blocks))

    def waiting(self, count=0):
        """The blocks that nobody has acknowledged; waits until there are so many that nobody holds either."""
        client = pubsub_client.client_of(self.place)
        found, until_s = set(), time.monotonic() + 20
        while True:
            answer = client.pull(request={"subscription": self.place.path, "max_messages": 1000})
            found |= {avro.decode_header(one.message.data).sequence for one in answer.received_messages}
            if len(found) >= count or time.monotonic() > until_s:
                client.transport.close()
                return sorted(found)

    def reader(self, reader=0, **values):
        transform = streaming.open_input(self.url, StreamSettings(**values))
        return Reader(pubsub.PullFn(), pubsub.PullReadings(), transform.sources[reader])


@pytest.fixture
def line(pubsub, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    return Line(pubsub)


@pytest.fixture(autouse=True)
def _end_of_pulls():
    """No pull outlives its test."""
    yield
    for pull in pubsub._pulls.values():
        pull.close()
        pull.join(5)
    pubsub._pulls.clear()


def read(reading, count, *, finalize=True, limit_s=20):
    """Bundles until so many blocks have come."""
    deliveries, until_s = [], time.monotonic() + limit_s
    while len(set(numbers(deliveries))) < count:
        assert time.monotonic() < until_s, f"{len(deliveries)} of {count} in {limit_s} s"
        finalizer = Finalizer()
        deliveries += reading.bundle(finalizer)
        if finalize:
            finalizer.finalize()
    return deliveries


def settle(reading, limit_s=20):
    """Idle bundles until everything is acknowledged; as a runner runs them."""
    (pull,) = pubsub._pulls.values()
    until_s = time.monotonic() + limit_s
    while pull.uncommitted:
        assert time.monotonic() < until_s
        finalizer = Finalizer()
        assert reading.bundle(finalizer) == []
        finalizer.finalize()


def test_blocks_come_as_they_are(line):
    """With the time at which Pub/Sub received them, and without promises of order."""
    before_ns = time.time_ns()
    line.publish(*map(block, range(10)))
    reading = line.reader()
    deliveries = read(reading, 10)
    assert sorted(numbers(deliveries)) == names(*map(block, range(10)))
    for one in deliveries:
        assert before_ns - 10**9 < one.received_ns < time.time_ns() + 10**9
        assert (one.source, one.ordered, one.follows, one.gaps) == (line.url, False, -1, ())
    assert reading.watermark.micros == block(9).observed_ns // 1000 - 2_000_000
    settle(reading)


def test_nothing_is_acknowledged_before_it_is_committed(line):
    """What a closed reader had not committed goes to the next one, at once."""
    line.publish(*map(block, range(10)))
    reading = line.reader()
    read(reading, 10, finalize=False)
    (pull,) = pubsub._pulls.values()
    assert pull.uncommitted == 10
    pull.close()
    pull.join(5)
    assert line.waiting(10) == list(range(10))


def test_what_is_committed_is_acknowledged(line):
    """And comes to nobody else."""
    line.publish(*map(block, range(10)))
    reading = line.reader()
    read(reading, 10)
    settle(reading)
    (pull,) = pubsub._pulls.values()
    pull.close()
    pull.join(5)
    assert line.waiting() == []


def test_a_bundle_that_fails_is_pulled_again(line):
    """The runner goes on where it was before; so does Pub/Sub."""
    line.publish(*map(block, range(10)))
    reading = line.reader()
    failed = []
    while not failed:
        failed = reading.bundle(Finalizer(), commit=False)
    deliveries = read(reading, 10)
    assert sorted(set(numbers(deliveries))) == names(*map(block, range(10)))
    settle(reading)


def test_an_interrupted_bundle_loses_nothing(line):
    """What was pulled and not delivered is the next to come."""
    line.publish(*map(block, range(10)))
    reading = line.reader()
    pull = pubsub._pull_of(reading.element)
    pulled = []
    while len(pulled) < 10:
        pulled += pull.take(20)
    pull.put_back(pulled)  # together, so that bundles are interrupted among them
    deliveries = [one for _ in range(10) for one in reading.bundle(Finalizer(), interrupt_after=1)]
    assert sorted(numbers(deliveries)) == names(*map(block, range(10)))


def test_a_reader_that_moves_gives_back_what_it_held(line):
    """Another process has gone on from the last commit, or the job from a checkpoint."""
    line.publish(*map(block, range(10)))
    reading = line.reader()
    start = reading.restriction
    read(reading, 10, finalize=False)
    reading.restriction = start._replace(progress=pubsub.PullProgress())
    assert sorted(set(numbers(read(reading, 10)))) == names(*map(block, range(10)))


KILLED = """
import os, signal, sys
from queues.pubsub_client import place_of
from sources.streaming.pubsub_pull import Pull
pull = Pull(place_of("subscription", sys.argv[1], ()), 1)
count = 0
while count < 10:
    count += len(pull.take(1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_reader_loses_nothing(line):
    """Its leases expire, and another one gets the messages."""
    line.publish(*map(block, range(10)))
    environment = {**os.environ, "PYTHONPATH": str(Path(pubsub.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, line.url.removeprefix("pubsub:")]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -9
    assert sorted(set(numbers(read(line.reader(), 10)))) == names(*map(block, range(10)))


def test_a_reader_that_is_left_gives_up(line, monkeypatch):
    """Its runner reads elsewhere; the messages are not kept from there."""
    monkeypatch.setattr(pubsub_pull, "LEFT_S", 0.0)
    line.publish(block(0))
    pull = pubsub_pull.Pull(line.place, 1)
    pull.join(20)
    assert pull.closed
    assert line.waiting(1) == [0]


def test_with_ordering_keys_streams_come_in_order(pubsub, monkeypatch):
    """Each part of a sensor has a key of its own."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    line = Line(pubsub, ordered=True)
    blocks = [block(i, partition=part, partitions=2) for i in range(3) for part in range(2)]
    line.publish(*blocks)
    deliveries = read(line.reader(), 6)
    for part in range(2):
        assert [name for name in numbers(deliveries) if name[2] == part] == names(*blocks[part::2])


def test_an_epoch_follows_the_one_before(line):
    """As far as any reader in this process has seen one."""
    reading = line.reader()
    line.publish(block(0, epoch=5))
    assert [one.follows for one in read(reading, 1)] == [-1]
    line.publish(block(0, epoch=6))
    assert [one.follows for one in read(reading, 1)] == [5]
    line.publish(block(1, epoch=5))
    assert [one.follows for one in read(reading, 1)] == [-1]


def test_what_is_no_block_is_delivered_all_the_same(line):
    """It is refused where blocks are decoded, with its octets; and acknowledged."""
    place = pubsub_client.place_of("topic", f"//{line.emulator.project}/{line.name}", ())
    client = pubsub_client.client_of(place)
    client.publish(topic=place.path, messages=[{"data": b"no block"}])
    client.transport.close()
    reading = line.reader()
    deliveries = []
    while not deliveries:
        deliveries = reading.bundle(Finalizer())
    assert [one.octets for one in deliveries] == [b"no block"]


def test_the_reading_ends_when_all_has_ended_and_is_committed(line):
    """Nothing that was read comes to the next job."""
    line.publish(*(block(i, partition=part, partitions=2, end=i == 4) for i in range(5) for part in range(2)))
    reading = line.reader(stop_at_end=True, sensors=("a",))
    deliveries = []
    while not reading.over:
        finalizer = Finalizer()
        deliveries += reading.bundle(finalizer)
        finalizer.finalize()
    assert len(set(numbers(deliveries))) == 10
    assert line.waiting() == []


def test_start_at_latest(line):
    """The subscription moves, for all who read it."""
    line.publish(block(0))
    transform = streaming.open_input(line.url, StreamSettings(start_at="latest"))
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))
    assert pipeline | transform is not None
    line.publish(block(1))
    assert set(numbers(read(line.reader(), 1))) == set(names(block(1)))


@pytest.mark.parametrize(
    ("suffix", "values", "complaint"),
    [("-absent", {}, "no such subscription; make it with gcloud pubsub subscriptions create"),
     ("?readers=0", {}, "readers 0 is not a number from 1 to 100"),
     ("?ack_deadline_s=5", {}, "ack_deadline_s 5 is not a number from 10 to 600"),
     ("?partitions=2", {}, "unknown setting partitions"),
     ("", {"start_at": "noon"}, "--start_at noon: neither earliest, latest nor a time")],
)  # fmt: skip
def test_mistakes_are_one_line(line, suffix, values, complaint):
    """They are told before the pipeline runs."""
    with pytest.raises(InputError, match=complaint):
        streaming.open_input(f"{line.url}{suffix}", StreamSettings(**values))


def test_a_subscription_that_is_deleted_is_an_error_after_a_while(line, monkeypatch):
    """Not at once: it may be made again."""
    monkeypatch.setattr(pubsub_pull, "REFUSED_S", 0.2)
    reading = line.reader()
    client = pubsub_client.client_of(line.place)
    client.delete_subscription(subscription=line.place.path)
    client.transport.close()
    with pytest.raises(InputError, match="no such subscription"):
        read(reading, 1)


def test_on_dataflow_beam_reads(line):
    """Its own reader knows the service; what it gives becomes the same deliveries."""
    options = PipelineOptions([])
    options.view_as(StandardOptions).runner = "DataflowRunner"
    options.view_as(StandardOptions).streaming = True
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=options)
    assert pipeline | streaming.open_input(line.url, StreamSettings()) is not None
    labels = pipeline.applied_labels
    assert any(label.endswith("Read") for label in labels)
    assert not any("Pull/" in label or label.endswith("Pull") for label in labels)


def test_messages_of_beams_reader_become_deliveries(line):
    """Times are exact, as far as they are told."""
    published = datetime.datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=datetime.timezone.utc)
    deliver = pubsub._DeliverFn(line.place)
    message = PubsubMessage(avro.encode_block(block(3)), {}, "12", published)
    (element,) = deliver.process(message)
    delivery = element.value
    assert (delivery.position, delivery.received_ns, delivery.ordered) == (12, 1_769_860_800_250_000_000, False)
    assert element.timestamp.micros == block(3).observed_ns // 1000
    (damaged,) = deliver.process(PubsubMessage(b"no block", {}))
    assert (damaged.octets, damaged.received_ns) == (b"no block", NO_TIME)


@pytest.mark.parametrize(("to_the_end", "sensors"), [(False, {"b"}), (True, {"a", "b"})])
def test_sensors_that_never_come_back_are_forgotten(line, monkeypatch, to_the_end, sensors):
    """By publish time, of the reading and of the process; a reading that waits for their ends must know them."""
    monkeypatch.setattr(streams_seen, "FORGOTTEN_NS", 0)
    reading = line.reader(stop_at_end=to_the_end)
    for sensor in "ab":
        one = block(0)
        line.publish(one._replace(stream=one.stream._replace(sensor=sensor)))
        read(reading, 1)
    progress = pubsub.PullProgress.from_bytes(reading.restriction.progress.to_bytes())
    kept = {sensor for sensor in "ab" if progress.seen.holds(Stream(sensor, 7, 0), 0)}
    assert kept == sensors
    in_process = pubsub._seen[reading.element.name]
    assert [in_process.holds(Stream(sensor, 7, 0), 0) for sensor in "ab"] == [False, True]


def test_on_a_streaming_runner(line, prism):
    """Every block of two partitions, on Prism; afterwards nothing is left for the next job."""
    blocks = [block(i, partition=part, partitions=2, end=i == 19) for i in range(20) for part in range(2)]
    line.publish(*blocks)
    pipeline = beam.Pipeline(options=PipelineOptions([*prism, "--streaming"]))
    deliveries = pipeline | streaming.open_input(line.url, StreamSettings(stop_at_end=True))

    def complete(found):
        assert set(found) == set(names(*blocks))

    assert_that(deliveries | beam.FlatMap(lambda one: numbers([one])), complete)
    pipeline.run().wait_until_finish()
    assert line.waiting() == []

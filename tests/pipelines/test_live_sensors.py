"""Sensors that are killed, stop, fall silent, or have a wrong clock: their own flows end as said, others never change.

Each test has a real topic and a real job; the flows are those of the bounded job on what is on the topic.
"""

import re
import threading
import time
from contextlib import closing
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import duckdb
import numpy as np
import pytest
from capture_files import frame, pcap_header, pcap_record
from fault_testing import (
    LIMIT_S,
    START_NS,
    Job,
    Sensor,
    blocks_of,
    bounded,
    capture_of,
    check_flows,
    events_of,
    messages_in,
    reasons_of,
    rejects_of,
    times_of,
    topic_of,
)
from flow_testing import packets
from live_testing import Block, blocks_in, produce
from sensor_testing import Line, chunk
from servers.processes import wait_until

import queues
from pipelines import capture as capture_command
from sources import sensor as sensors
from sources.blocks import BlockSettings
from sources.journal import BufferSettings, Journal
from sources.sending import Sender
from sources.sensor import SensorSettings
from sources.sensor_meters import Meters
from transforms import avro
from transforms.records import PacketBatch, Stream

pytestmark = pytest.mark.xdist_group("faults")

RATE = 1500
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def capture(compiled, tmp_path_factory):
    """What sensors replay."""
    return capture_of(tmp_path_factory.mktemp("capture"), 20_000)


@pytest.fixture
def topic(request, kafka):
    """A new topic, of as many partitions as the test is marked to need."""
    with topic_of(kafka, request.param) as name:
        yield name


@pytest.fixture
def url(kafka, topic) -> str:
    """The topic's URL."""
    return f"kafka://{kafka.bootstrap}/{topic}"


def partitions(number: int) -> pytest.MarkDecorator:
    """The topic of a test has so many."""
    return pytest.mark.parametrize("topic", [number], indirect=True, ids=lambda number: f"{number}-partitions")


def times_in(blocks: list[PacketBatch]) -> np.ndarray:
    """The times of all packets, sorted."""
    return np.sort(np.concatenate([block.packets["time_ns"] for block in blocks]))


@partitions(2)
def test_a_sensor_is_killed_and_started_again(prism, kafka, topic, url, capture, tmp_path):
    """It loses the packets of blocks that are not closed yet, at most, and says from when on."""
    age_s = 0.5
    how = (url, capture, "north", RATE, f"--block_max_age_ms={1000 * age_s}")
    with Job(tmp_path, prism, url, "--stop_at_end", "--sensors=north") as job:
        job.runs()
        with Sensor(tmp_path, *how) as sensor:
            job.writes()
            safe, at_s = sensor.captured, time.monotonic()
            wait_until(lambda: time.monotonic() > at_s + age_s, LIMIT_S, "blocks of that time are closed")
            for _ in range(2):  # then it has been through its loop
                sensor.has_captured(sensor.captured + 1)
            sensor.kill()
        with Sensor(tmp_path, *how) as sensor:
            sensor.has_captured(RATE)
            said = "\n".join(sensor.stops())
        job.ends()
    messages = messages_in(kafka.bootstrap, topic)
    blocks = blocks_of(messages)
    first, second = sorted({block.stream.epoch for block in blocks})
    assert all(block.sequence < sum(other.stream == block.stream for other in blocks) for block in blocks)
    assert [block.stream for block in blocks if block.end] == [
        Stream("north", epoch, partition) for epoch in (first, second) for partition in (0, 1)
    ]
    kept = times_in([block for block in blocks if block.stream.epoch == first])
    captured = times_of(capture, len(kept) + 100 * RATE)
    lost_from = int((kept != captured[: len(kept)]).argmax()) if (kept != captured[: len(kept)]).any() else len(kept)
    assert lost_from >= safe
    told = re.search(
        r"sensor north did not stop cleanly: packets from (\S+) until now may be lost; .* sent first", said
    )
    assert told is not None
    since = datetime.strptime(told[1], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()
    assert START_NS / 1e9 + 1 < since <= captured[lost_from] / 1e9
    replayed = times_in([block for block in blocks if block.stream.epoch == second])
    assert np.array_equal(replayed, times_of(capture, len(replayed)))
    check_flows(tmp_path, bounded(messages, tmp_path))
    assert not rejects_of(tmp_path)
    assert events_of(tmp_path, "north") == {"started": 4, "killed": 2, "ended": 2}
    rows = f"SELECT DISTINCT time_ns, time_ns + amount FROM '{tmp_path}/sensors/**/*.parquet' WHERE event = 'killed'"
    told_from, told_until = zip(*duckdb.sql(rows).fetchall(), strict=True)
    assert min(told_from) // 1_000_000 == round(1000 * since)
    assert set(told_until) == {second}


@partitions(8)
def test_partitions_without_traffic_and_a_sensor_that_stops(prism, kafka, topic, url, compiled, tmp_path):
    """All traffic is one flow after another between two ports; time goes on in the other partitions, too."""
    halves = [(second, 1_000_000 * i) for second in (1_700_000_000, 1_700_000_050) for i in range(100)]
    records = [pcap_record(*at, frame(7)) for at in halves]
    (tmp_path / "one.pcap").write_bytes(pcap_header(magic=0xA1B23C4D) + b"".join(records))
    where = (url, "--stop_at_end", "--idle_timeout_s=10")
    with Job(tmp_path, prism, *where) as job:
        job.runs()
        with Sensor(tmp_path, url, tmp_path / "one.pcap", "north", 200) as sensor:
            job.writes()
            sensor.has_captured(500)
            sensor.stops()
        job.ends()
    messages = messages_in(kafka.bootstrap, topic)
    blocks = blocks_of(messages)
    assert len({block.stream.partition for block in blocks if len(block.packets)}) == 1
    assert sum(block.end for block in blocks) == 8
    check_flows(tmp_path, bounded(messages, tmp_path, "--idle_timeout_s=10"))
    reasons = reasons_of(tmp_path, "north")
    assert reasons == {1: reasons.total() - 1, 4: 1}
    assert reasons.total() > 2
    assert events_of(tmp_path, "north") == {"started": 8, "ended": 8}


@partitions(2)
def test_a_sensor_falls_silent(prism, kafka, topic, url, capture, tmp_path):
    """Its flows end after the timeout, while the other sensor goes on; so a job can end without it."""
    where = (url, "--stop_at_end", "--sensors=north,south", "--sensor_timeout_s=8", "--file_max_age_s=1")
    with (
        Job(tmp_path, prism, *where) as job,
        Sensor(tmp_path, url, capture, "north", RATE) as north,
        Sensor(tmp_path, url, capture, "south", RATE) as south,
    ):
        north.has_captured(RATE)
        south.has_captured(RATE)
        job.writes()
        south.kill()
        forced = lambda: reasons_of(tmp_path, "south")[4] or not job.alive  # noqa: E731
        wait_until(forced, LIMIT_S, "the flows of the silent sensor have ended", 0.5)
        assert not reasons_of(tmp_path, "north")[4]
        north.stops()
        job.ends()
    messages = messages_in(kafka.bootstrap, topic)
    check_flows(tmp_path, bounded(messages, tmp_path))
    assert not rejects_of(tmp_path)
    assert events_of(tmp_path, "north") == {"started": 2, "ended": 2}
    assert events_of(tmp_path, "south") == {"started": 2, "silent": 2}


def capture_line(url: str, folder: Path, name: str, *steps: object) -> list[str]:
    """Runs a sensor on what it is to see, onto a topic; what it said."""
    said: list[str] = []
    writer = queues.open_live(url)
    with closing(Journal(BufferSettings(folder), name)) as journal:
        sender = Sender(journal, lambda: queues.open_live(url), writer, said.append, True, writer.partitions)
        sender.start()
        settings = SensorSettings(BlockSettings(1000), heartbeat_s=None)
        epochs = count(1).__next__
        sensor = sensors.Sensor(name, settings, journal, sender, Meters(), epochs, None, said.append, threading.Event())
        sensor.run(Line(*steps))
        assert sender.drained(LIMIT_S)
        sender.stop()
    return said


def block(sensor: str, epoch: int, number: int, at_s: float, end: bool = False, partitions: int = 1) -> Block:
    """A block for partition 0, of ten packets of a flow, or the end block."""
    made = packets(at_s=[at_s + i / 10 for i in range(0 if end else 10)], src_port=4000)
    observed_ns = START_NS + round((at_s + 1) * SECOND)
    stream = Stream(sensor, epoch, 0)
    return Block(
        0, observed_ns, avro.encode_block(PacketBatch(stream, number, observed_ns, made, b"", partitions, end))
    )


@partitions(2)
def test_clocks_that_jump_back_by_an_hour(prism, kafka, topic, url, compiled, tmp_path):
    """A sensor that notices ends its streams; one that does not is known by its new epoch, once that goes on."""
    seconds = [chunk([at + i / 20 for i in range(20)]) for at in (*range(5), *range(-3600, -3595))]
    said = capture_line(url, tmp_path / "buffer", "east", *seconds)
    assert said == ["sensor east: the clock went back; a new epoch begins"]
    before = [block("west", 1, number, number) for number in range(5)]
    after = [block("west", 2, number, number - 3600) for number in range(5)]
    produce(kafka.bootstrap, topic, [*before, *after, block("west", 2, 5, -3595, end=True)])
    with Job(tmp_path, prism, url, "--stop_at_end", "--sensors=east,west") as job:
        job.ends()
    messages = messages_in(kafka.bootstrap, topic)
    assert check_flows(tmp_path, bounded(messages, tmp_path)) == (2 * 6 + 2, 0)
    assert not rejects_of(tmp_path)
    assert events_of(tmp_path, "east") == {"started": 4, "ended": 4}
    assert events_of(tmp_path, "west") == {"started": 2, "replaced": 1, "ended": 1}


@partitions(3)
def test_a_block_from_the_future(prism, kafka, topic, url, capture, tmp_path):
    """It is rejected, and changes nothing for anybody else; nobody writes to the third partition."""
    spool = tmp_path / "captured"
    words = ["--input", capture, "--sensor=good", "--queue", f"spool:{spool}?partitions=2", "--quiet"]
    assert capture_command.main(list(map(str, words))) == 0
    days = (time.time_ns() - START_NS) / SECOND + 86_400
    bad = [*(block("bad", 1, number, days if number == 2 else number) for number in range(5))]
    good = blocks_in(spool)
    middle = len(good) // 2
    produce(kafka.bootstrap, topic, [*good[:middle], *bad, block("bad", 1, 5, 5, end=True), *good[middle:]])
    with Job(tmp_path, prism, url, "--stop_at_end", "--sensors=good,bad") as job:
        job.ends()
    messages = [message for message in messages_in(kafka.bootstrap, topic) if message != bad[2].octets]
    flows, again = check_flows(tmp_path, bounded(messages, tmp_path))
    assert flows > 1000
    assert again == 0
    assert rejects_of(tmp_path) == {"from_future": 1}
    assert events_of(tmp_path, "bad") == {"started": 1, "from_future": 1, "ended": 1}
    assert events_of(tmp_path, "good") == {"started": 2, "ended": 2}

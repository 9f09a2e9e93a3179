"""The sensor against a queue that is slow, down or gone: what is lost is beyond its buffer, and told."""

import re
import threading
import urllib.request
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from flow_testing import START_NS
from sensor_testing import SECOND_NS, Line, Queue, chunk, until

from sources import journal as journals
from sources import sending
from sources.blocks import BlockSettings
from sources.journal import BufferSettings, Journal
from sources.sending import Sender
from sources.sensor import Sensor, SensorSettings
from sources.sensor_meters import Health, Meters, clock_error_ns, served
from transforms.records import InputError, Stream


class Rig:
    """A sensor with all that belongs to it."""

    def __init__(self, queue, folder, *, patient=True, writer=True, first_epoch=1, **settings):
        settings.setdefault("blocks", BlockSettings(10))
        settings.setdefault("heartbeat_s", None)
        self.queue, self.lines, self.meters, self.stopping = queue, [], Meters(), threading.Event()
        self.journal = Journal(BufferSettings(folder), "tap")
        opened = queue.open() if writer else None
        self.sender = Sender(self.journal, queue.open, opened, self.lines.append, patient, queue.partitions)
        self.sensor = Sensor(
            "tap",
            SensorSettings(**settings),
            self.journal,
            self.sender,
            self.meters,
            count(first_epoch).__next__,
            Health(self.meters, self.journal),
            self.lines.append,
            self.stopping,
        )

    def run(self, *steps):
        self.sensor.run(Line(*steps))

    def close(self):
        self.sender.stop()
        self.journal.close()


@contextmanager
def rig(queue, folder, **settings):
    made = Rig(queue, folder, **settings)
    made.sender.start()
    try:
        yield made
    finally:
        made.close()


def seconds(*numbers):
    """A chunk of twenty packets for each."""
    return [chunk([number + i / 20 for i in range(20)]) for number in numbers]


def in_order(queue):
    """Whether the blocks of each stream came in order, and were ended by the last."""
    return all(
        [block.sequence for block in blocks] == list(range(len(blocks)))
        and [block.end for block in blocks] == [False] * (len(blocks) - 1) + [True]
        for blocks in queue.streams().values()
    )


@pytest.mark.parametrize("partitions", [1, 3])
def test_everything_reaches_the_queue(tmp_path, partitions):
    """In order, ended, and nothing stays behind."""
    queue = Queue(partitions)
    with rig(queue, tmp_path) as one:
        one.run(*seconds(0, 1, 2), chunk([3], rejects={"not_ip": 2}, dropped=5))
        assert one.sender.drained(20)
    assert in_order(queue)
    assert (queue.packets(), queue.told()) == (61, (5, {"not_ip": 2}))
    assert sorted(queue.streams()) == [Stream("tap", 1, partition) for partition in range(partitions)]
    assert (one.meters.packets, one.meters.packets_kept, one.meters.kernel_drops) == (63, 61, 5)
    assert list(tmp_path.rglob("*.blocks")) == []


def test_an_input_that_fails_ends_its_streams(tmp_path):
    """Such as an interface that is taken away: what was captured goes out, then the mistake is told."""
    queue = Queue()

    def gone():
        raise InputError("the interface is gone")

    with rig(queue, tmp_path) as one:
        with pytest.raises(InputError, match="is gone"):
            one.run(*seconds(0, 1), gone)
        assert one.sender.drained(20)
    assert in_order(queue)
    assert queue.packets() == 40


def test_a_queue_that_is_down_costs_nothing(tmp_path):
    """The capture goes on; when it is back, everything goes out in order, and both are told once."""
    queue = Queue()

    def down():
        queue.up = False

    with rig(queue, tmp_path) as one:
        one.run(*seconds(0, 1), down, *seconds(*range(2, 50)))
        until(lambda: not one.sender.up)
        assert not one.sender.drained(0.01)
        queue.up = True
        assert one.sender.drained(20)
        until(lambda: one.sender.up)
    assert in_order(queue)
    assert queue.packets() == 1000
    assert [line.partition(";")[0] for line in one.lines] == ["the broker is down", "the queue takes blocks again"]


def test_a_queue_that_refuses_is_opened_again(tmp_path, monkeypatch):
    """A topic that is deleted and made again: what was not settled is sent once more, so nothing is lost."""
    monkeypatch.setattr(sending, "_AGAIN_S", 0.01)
    queue = Queue()

    def refuse():
        until(lambda: queue.packets() > 0)
        queue.refuses = True

    with rig(queue, tmp_path) as one:
        one.run(*seconds(0, 1), refuse, *seconds(2, 3, 4))
        until(lambda: len(one.lines) == 1)
        queue.refuses = False
        assert one.sender.drained(20)
    assert queue.opened >= 2
    assert in_order(queue)
    assert queue.packets() == 100
    assert one.lines[0] == "the topic is gone; blocks are kept, trying again"


def test_a_sensor_begins_while_the_queue_is_down(tmp_path, monkeypatch):
    """Where it knows from its last run how many parts there are."""
    monkeypatch.setattr(sending, "_AGAIN_S", 0.01)
    queue = Queue(2)
    queue.refuses = True
    with rig(queue, tmp_path, writer=False) as one:
        one.run(*seconds(0, 1))
        queue.refuses = False
        assert one.sender.drained(20)
    assert in_order(queue)
    assert {stream.partition for stream in queue.streams()} == {0, 1}


def test_a_queue_with_other_parts_makes_a_new_epoch(tmp_path, monkeypatch):
    """Packets of a flow stay in one stream."""
    monkeypatch.setattr(sending, "_AGAIN_S", 0.01)
    queue = Queue(2)

    def refuse():
        queue.refuses = True
        until(lambda: len(one.lines) == 1)
        queue.partitions, queue.refuses = 3, False
        until(lambda: one.sender.partitions == 3)

    with rig(queue, tmp_path) as one:
        one.run(*seconds(0), refuse, *seconds(1))
        assert one.sender.drained(20)
    assert in_order(queue)
    epochs = {stream.epoch: blocks[0].partitions for stream, blocks in queue.streams().items()}
    assert epochs == {1: 2, 2: 3}
    assert queue.packets() == 40


def test_a_full_buffer_drops_the_newest_and_tells(tmp_path, monkeypatch):
    """Their numbers are missing, and later blocks tell how many packets there were; rejects are not lost with them."""
    monkeypatch.setattr(journals, "MEMORY_OCTETS", 10_000)
    queue = Queue()
    queue.up = False

    def back():
        queue.up = True
        until(lambda: one.journal.waiting == 0)

    with rig(queue, None) as one:
        lost = [chunk([100 + i / 20 for i in range(20)], rejects={"not_ip": 1})]
        one.run(*seconds(*range(50)), *lost, back, *seconds(200))
        assert one.sender.drained(20)
    dropped, rejects = queue.told()
    assert dropped > 400
    assert queue.packets() + dropped == 1040
    assert rejects == {"not_ip": 1}
    assert one.meters.queue_drops == dropped
    (blocks,) = queue.streams().values()
    numbers = [block.sequence for block in blocks]
    assert numbers == sorted(numbers)
    assert len(numbers) < numbers[-1] + 1
    assert blocks[-1].end
    told = [line for line in one.lines if "sensor tap" in line]
    assert "the buffer is full" in told[0]
    assert f"{dropped:,} packets were dropped" in told[1]


def test_an_input_that_can_wait_does(monkeypatch):
    """Files are read as fast as the queue takes them, and nothing is dropped."""
    monkeypatch.setattr(journals, "MEMORY_OCTETS", 10_000)
    queue = Queue()
    queue.up = False
    back = threading.Timer(0.1, lambda: setattr(queue, "up", True))
    back.start()
    with rig(queue, None, waits=True) as one:
        one.run(*seconds(*range(100)))
        assert one.sender.drained(20)
    back.join()
    assert in_order(queue)
    assert (queue.packets(), one.meters.queue_drops) == (2000, 0)


def test_an_impatient_sender_gives_up(monkeypatch):
    """A person who captures a file is told that the queue takes nothing."""
    monkeypatch.setattr(sending, "PATIENCE_S", 0.05)
    queue = Queue()
    queue.up = False
    with rig(queue, None, patient=False) as one:
        one.run(*seconds(0))
        with pytest.raises(InputError, match="the broker is down; gave up"):
            one.sender.drained(20)


@pytest.mark.parametrize("within", [False, True], ids=["between-chunks", "within-a-chunk"])
def test_a_clock_that_goes_back_makes_a_new_epoch(tmp_path, within):
    """The streams before are ended with what they had; time goes on in the new ones from where the clock is."""
    steps = [chunk([3600, 3601, 0, 1, 2])] if within else [chunk([3600, 3601]), chunk([0, 1, 2])]
    queue = Queue()
    with rig(queue, tmp_path) as one:
        one.run(*steps)
        assert one.sender.drained(20)
    assert in_order(queue)
    first, second = (queue.streams()[Stream("tap", epoch, 0)] for epoch in (1, 2))
    assert [sum(len(block.packets) for block in blocks) for blocks in (first, second)] == [2, 3]
    assert first[-1].observed_ns == START_NS + 3601 * SECOND_NS
    assert second[-1].observed_ns == START_NS + 2 * SECOND_NS


def test_a_silent_line_notices_the_clock_too(tmp_path):
    """What was observed goes back, without a packet."""
    queue = Queue()
    with rig(queue, tmp_path, heartbeat_s=1e-9) as one:
        one.run(chunk([3600]), chunk([], 100), chunk([], 101))
        assert one.sender.drained(20)
    assert in_order(queue)
    assert queue.streams()[Stream("tap", 2, 0)][0].observed_ns == START_NS + 100 * SECOND_NS


def test_what_is_within_the_bound_is_no_jump(tmp_path):
    """Packets may be out of order by as much, and the clock may go forward as far as it likes."""
    queue = Queue()
    with rig(queue, tmp_path) as one:
        one.run(chunk([10, 8, 9.5]), chunk([8.1]), chunk([4000]), chunk([3998]))
        assert one.sender.drained(20)
    assert set(queue.streams()) == {Stream("tap", 1, 0)}


def test_heartbeats_tell_how_the_sensor_is(tmp_path):
    """Packets taken from the line, memory, what waits for the queue."""
    queue = Queue(2)
    with rig(queue, tmp_path, heartbeat_s=1e-9) as one:
        one.run(*seconds(0), chunk([], 2))
        assert one.sender.drained(20)
    beats = [block for block in queue.blocks() if block.health is not None]
    assert {block.stream.partition for block in beats} == {0, 1}
    assert all(not len(block.packets) for block in beats)
    assert beats[-1].health.captured_packets == 20
    assert beats[-1].health.memory_octets > 10_000_000
    assert beats[-1].observed_ns == START_NS + 2 * SECOND_NS


class Killed(BaseException):
    """Ends a run as `kill -9` does: nothing is cleaned up."""


def die():
    raise Killed


def killed(one, *steps):
    """Runs and dies."""
    with pytest.raises(Killed):
        one.run(*steps, die)
    one.sender.stop()
    one.journal._lock.close()
    one.journal._lock = None


@pytest.mark.parametrize("reached", [True, False], ids=["queue-up", "queue-down"])
def test_the_next_run_ends_what_a_killed_one_left(tmp_path, reached):
    """First the blocks that were kept, under their identity, then the ends, then its own."""
    queue = Queue(2)
    queue.up = reached
    one = Rig(queue, tmp_path, blocks=BlockSettings(1))
    one.sender.start()
    killed(one, *seconds(0, 1), chunk([2, 3]))
    assert not any(block.end for block in queue.blocks())
    queue.up = True
    with rig(queue, tmp_path, first_epoch=2) as two:
        two.run(*seconds(10))
        assert two.sender.drained(20)
    assert in_order(queue)
    assert queue.packets() == 62
    order = [block.stream.epoch for block in queue.blocks()]
    assert order == sorted(order)
    ends = [block.observed_ns for block in queue.blocks() if block.end and block.stream.epoch == 1]
    assert ends == [START_NS + 3 * SECOND_NS] * 2
    assert [block.ended_by for block in queue.blocks() if block.end] == [2, 2, 0, 0]
    assert two.lines[0].startswith("sensor tap did not stop cleanly: packets from 2023-11-14T22:13:2")


def test_streams_are_not_ended_by_guess(tmp_path, monkeypatch):
    """After a power cut the files may be older than the queue; a number given twice would hide the end."""
    queue = Queue()
    one = Rig(queue, tmp_path, blocks=BlockSettings(1))
    one.sender.start()
    killed(one, *seconds(0))
    monkeypatch.setattr(journals, "_boot_id", lambda: "another start of the machine")
    with rig(queue, tmp_path, first_epoch=2) as two:
        two.run(*seconds(10))
        assert two.sender.drained(20)
    assert [block.stream.epoch for block in queue.blocks() if block.end] == [2]
    assert queue.packets() == 40


def test_metrics_are_what_prometheus_reads(tmp_path):
    """Counters, gauges, and rejects by reason; a port that is taken is one line."""
    queue = Queue()
    with rig(queue, tmp_path) as one:
        one.run(*seconds(0), chunk([1], rejects={"not_ip": 3}, dropped=7))
        assert one.sender.drained(20)
        parts = "tap", one.meters, one.journal, one.sender
        with served(0, *parts) as port:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
            with pytest.raises(InputError, match=f"--metrics_port: {port} cannot be used"), served(port, *parts):
                pass
    assert 'flowbeam_sensor_packets_total{sensor="tap"} 24.0' in lines
    assert 'flowbeam_sensor_kernel_drops_total{sensor="tap"} 7.0' in lines
    assert 'flowbeam_sensor_rejects_total{reason="not_ip",sensor="tap"} 3.0' in lines
    assert 'flowbeam_sensor_waiting_blocks{sensor="tap"} 0.0' in lines
    assert 'flowbeam_sensor_queue_up{sensor="tap"} 1.0' in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    served_names = set(re.findall(r"^(flowbeam_sensor_\w+){", "\n".join(lines), re.MULTILINE))
    assert told_in("sensor.md") == served_names
    assert {"flowbeam_sensor_kernel_drops_total"} <= told_in("operations.md") <= served_names


def told_in(page):
    """The metrics that a page names; in a table with what they have in common once a row."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    return {f"flowbeam_sensor{name}" for name in re.findall(r"`(?:flowbeam_sensor)?(_[a-z_]+)[`{]", text)}


def test_the_error_of_the_clock_is_a_number():
    """-1 where no time service has set it."""
    assert clock_error_ns() >= -1

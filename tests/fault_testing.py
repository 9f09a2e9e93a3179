"""What tests of faults share: sensors and jobs as processes of their own, and what lies on a topic in the end.

A sensor replays its capture again and again, until it is stopped: so a machine that is busy only makes more of it.
"""

import contextlib
import re
import signal
import subprocess
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import duckdb
import numpy as np
from capture_files import read
from command_testing import ENVIRONMENT, command
from confluent_kafka import Consumer, TopicPartition
from live_testing import differences
from queue_testing import put_all
from servers.kafka import KafkaServer
from servers.processes import free_port, wait_until

from pipelines import flows
from sources.generate.capture import GenerateSettings, generate
from transforms import avro
from transforms.records import PacketBatch

START_NS = 1_700_000_000_000_000_000
LIMIT_S = 300

_Run = TypeVar("_Run", bound="Run")


class Run:
    """A command that runs beside the test; leaving the context kills it.

    Args:
        module: Which command.
        folder: Where it runs, and where what it says goes.
        name: Of that file, without its ending.
        arguments: What follows the command.
    """

    def __init__(self, module: str, folder: Path, name: str, *arguments: object) -> None:
        self._said = folder / f"{name}-{uuid.uuid4().hex[:6]}.err"
        with open(self._said, "wb") as said:
            self.process = subprocess.Popen(
                command(*arguments, module=module),
                cwd=folder,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    @property
    def said(self) -> list[str]:
        """Its lines on standard error so far."""
        return self._said.read_text().splitlines()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def ends(self, limit_s: float = LIMIT_S) -> list[str]:
        """Waits until it has ended, and well; what it said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(limit_s)
        assert self.process.poll() == 0, "\n".join([f"status {self.process.poll()}", *self.said[-30:]])
        return self.said

    def __enter__(self: _Run) -> _Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class Sensor(Run):
    """A sensor that replays a capture onto a topic.

    Args:
        folder: Where it keeps its buffer.
        topic: URL of the topic.
        capture: What it replays.
        name: Its name.
        rate: How many packets a second, over and over.
        arguments: More of them.
    """

    def __init__(self, folder: Path, topic: str, capture: Path, name: str, rate: float, *arguments: object) -> None:
        self._metrics = free_port()
        where = ("--queue", topic, "--sensor", name, "--buffer_dir", folder / "buffer")
        words = ("--input", f"replay:{capture}", *where, "--metrics_port", self._metrics, "--quiet")
        pace = ("--rate", rate, "--loop", "--stop_timeout_s", LIMIT_S)
        super().__init__("pipelines.capture", folder, name, *words, *pace, *arguments)

    @property
    def captured(self) -> int:
        """Packets that it took from its line so far; 0 before it answers."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics") as page:
            found = re.search(rb"^flowbeam_sensor_packets_total{[^}]*} (\S+)", page.read(), re.MULTILINE)
            return int(float(found[1])) if found else 0
        return 0

    def has_captured(self, packets: int) -> None:
        """Waits until it took so many from its line."""
        wait_until(lambda: self.captured >= packets or not self.alive, LIMIT_S, f"{packets} packets captured", 0.1)
        assert self.alive, self.said

    def stops(self) -> list[str]:
        """Asks it to stop, and waits until it did; what it said."""
        self.signal(signal.SIGTERM)
        return self.ends()


class Job(Run):
    """The main job, from a topic into the folder `live`.

    Args:
        folder: Where that is.
        runner: The runner's options.
        topic: URL of the topic.
        arguments: More of them.
    """

    def __init__(self, folder: Path, runner: Iterable[str], topic: str, *arguments: object) -> None:
        self._live = folder / "live"
        where = ("--input", topic, "--output", f"parquet:{self._live}")
        super().__init__("pipelines.flows", folder, "job", *runner, *where, *arguments)

    def runs(self) -> None:
        """Waits until its runner has it."""
        wait_until(lambda: any("running;" in line for line in self.said) or not self.alive, LIMIT_S, "the job runs")
        assert self.alive, self.said

    @property
    def written(self) -> int:
        """Octets of what it put out, in files and in journals."""
        return sum(path.stat().st_size for path in self._live.rglob("*") if path.is_file())

    def writes(self, more_than: int = 0) -> None:
        """Waits until it put out more than so many octets."""
        wait_until(lambda: self.written > more_than or not self.alive, LIMIT_S, "flows are written")
        assert self.alive, self.said


def capture_of(folder: Path, packets: int, seed: int = 1) -> Path:
    """Office traffic: about 300 packets and 25 flows for each second."""
    path = folder / f"{seed}.pcap"
    generate(GenerateSettings(output=str(path), packets=packets, seed=seed, start_ns=START_NS))
    return path


@contextlib.contextmanager
def topic_of(broker: KafkaServer, partitions: int) -> Iterator[str]:
    """The name of a new topic."""
    name = f"faults-{uuid.uuid4().hex}"
    broker.create_topic(name, partitions)
    yield name
    broker.delete_topic(name)


def messages_in(bootstrap: str, topic: str) -> list[bytes]:
    """All messages of a topic, partition by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "faults", "enable.auto.commit": False})
    found: list[bytes] = []
    try:
        for number in sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions):
            place = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=30)
            consumer.assign([place])
            count = len(found) + end
            while len(found) < count:
                message = consumer.poll(30)
                assert message is not None
                assert message.error() is None, message.error()
                found.append(message.value())
    finally:
        consumer.close()
    return found


def blocks_of(messages: Iterable[bytes]) -> list[PacketBatch]:
    """The blocks in messages, each once, stream by stream."""
    blocks = (avro.decode_block(message) for message in messages)
    unique = {(block.stream, block.sequence): block for block in blocks}
    return [unique[place] for place in sorted(unique)]


def times_of(capture: Path, count: int) -> np.ndarray:
    """The times of the first packets of a capture that is replayed again and again."""
    (times,) = (read(capture)[0]["time_ns"],)
    span = int(times[-1] - times[0])
    passes = range(-(-count // len(times)))
    return np.concatenate([times + number * (span + span // (len(times) - 1)) for number in passes])[:count]


def bounded(messages: Iterable[bytes], folder: Path, *arguments: str) -> Path:
    """The flows that the bounded job makes of messages."""
    put_all(f"spool:{folder / 'spool'}", map(avro.encode_block, blocks_of(messages)))
    words = ["--input", f"spool:{folder / 'spool'}", "--output", f"parquet:{folder / 'whole'}", "--quiet"]
    assert flows.main([*words, *arguments]) == 0
    return folder / "whole"


def check_flows(folder: Path, whole: Path) -> tuple[int, int]:
    """The job put out the flows that the bounded job does, in files that are complete.

    Returns:
        The number of flow records, and how many are there again.
    """
    live = folder / "live"
    count, lost, changed = differences(whole, live)
    assert (lost, changed) == (0, 0)
    rows = duckdb.sql(f"SELECT count(*) FROM '{live}/**/*.parquet'").fetchall()[0][0]
    hidden = [path for path in live.rglob("*") if path.is_file() and path.name.startswith(".")]
    assert hidden == []
    return count, rows - count


def rejects_of(folder: Path) -> Counter[str]:
    """How many pieces of input the job refused, by reason."""
    if not (folder / "rejects").exists():
        return Counter()
    return Counter(
        dict(duckdb.sql(f"SELECT reason, count(*) FROM '{folder}/rejects/**/*.parquet' GROUP BY 1").fetchall())
    )


def reasons_of(folder: Path, sensor: str) -> Counter[int]:
    """How many of a sensor's flows that are in files ended by which reason."""
    files = [*(folder / "live").glob("*/*.parquet")]
    if not files:
        return Counter()
    rows = f"SELECT DISTINCT flow_id, end_reason FROM '{folder}/live/*/*.parquet' WHERE sensor = '{sensor}'"
    return Counter(reason for _, reason in duckdb.sql(rows).fetchall())


def events_of(folder: Path, sensor: str) -> Counter[str]:
    """How often what was told of a sensor, apart from that it is behind, as replayed traffic always is."""
    columns = "event, epoch, partition, sequence, amount"
    files = f"'{folder}/sensors/**/*.parquet'"
    where = f"sensor = '{sensor}' AND event <> 'stale'"
    rows = duckdb.sql(f"SELECT DISTINCT {columns} FROM {files} WHERE {where}").fetchall()
    return Counter(event for event, *_ in rows)

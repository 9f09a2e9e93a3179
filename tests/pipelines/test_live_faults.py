"""Processes that are killed in the middle of traffic: no flow is lost, none changed; some are put out again.

Each test has a real broker, a real sensor and a real job. The sensor is stopped after the fault; then the topic holds
all that it captured, and the job's flows are those of the bounded job on the topic's content.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from corpus_captures import CHECK_ALL
from fault_testing import (
    LIMIT_S,
    Job,
    Sensor,
    blocks_of,
    bounded,
    capture_of,
    check_flows,
    messages_in,
    rejects_of,
    times_of,
    topic_of,
)
from servers.fixtures import need
from servers.processes import wait_until

from pipelines import capture as capture_command
from pipelines import flows

pytestmark = pytest.mark.xdist_group("faults")

RATE = 1500
PARTITIONS = 4
CUT_OFF_S = 30 if CHECK_ALL else 10
PACKET_OCTETS = 38
"""Of a packet in a block, at least."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of these tests alone, that may be killed."""
    need("kafka")
    from servers.kafka import KafkaServer

    with KafkaServer(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Flink cluster of these tests alone."""
    need("flink", "flink-job-server", "python-worker")
    from servers.flink import FlinkCluster

    with FlinkCluster(tmp_path_factory.mktemp("flink"), slots=2, settings={"heartbeat.timeout": 30_000}) as server:
        yield server


@pytest.fixture(scope="module")
def capture(compiled, tmp_path_factory):
    """What the sensor replays."""
    return capture_of(tmp_path_factory.mktemp("capture"), 20_000)


@pytest.fixture
def topic(broker) -> Iterator[str]:
    """The name of a new topic."""
    with topic_of(broker, PARTITIONS) as name:
        yield name


@pytest.fixture
def start(tmp_path, capture, broker, topic) -> Iterator[Callable[..., tuple[Sensor, Job]]]:
    """Starts a job that ends with its sensor, and the sensor; neither outlives the test."""
    url = f"kafka://{broker.bootstrap}/{topic}"
    with ExitStack() as stack:

        def started(*runner: str) -> tuple[Sensor, Job]:
            job = stack.enter_context(Job(tmp_path, runner, url, "--stop_at_end", "--sensors=north"))
            job.runs()
            sensor = stack.enter_context(Sensor(tmp_path, url, capture, "north", RATE))
            job.writes()
            return sensor, job

        yield started


@pytest.fixture
def check(tmp_path, capture, broker, topic) -> Callable[[], int]:
    """Compares what a job put out, once it ended, with what the topic holds; gives the number of repeated records."""

    def checked() -> int:
        messages = messages_in(broker.bootstrap, topic)
        blocks = blocks_of(messages)
        times = np.sort(np.concatenate([block.packets["time_ns"] for block in blocks]))
        assert np.array_equal(times, times_of(capture, len(times)))  # the sensor lost nothing either
        assert sum(block.end for block in blocks) == PARTITIONS
        count, again = check_flows(tmp_path, bounded(messages, tmp_path))
        assert not rejects_of(tmp_path)
        assert count > 100
        return again

    return checked


def flink_arguments(cluster, environment: str) -> list[str]:
    """The options that run a job on the cluster, with frequent checkpoints."""
    where = cluster.pipeline_args(environment, parallelism=2, checkpoint_ms=1000)
    return [*where, f"--flink_master={cluster.rest_url.removeprefix('http://')}"]


class Checkpoints:
    """Those of the job that a cluster runs."""

    def __init__(self, cluster) -> None:
        self._cluster = cluster
        (self.job,) = [job for job, state in cluster.jobs().items() if state in ("RUNNING", "RESTARTING")]

    def another(self) -> None:
        """Waits for a checkpoint that began after now: the second one that completes."""
        before = self._cluster.completed_checkpoints(self.job)
        done = lambda: self._cluster.completed_checkpoints(self.job) > before + 1  # noqa: E731
        wait_until(done, LIMIT_S, "a checkpoint is complete", 0.1)


def kill_task_manager(cluster) -> None:
    """Kills the one that works, once another one is there."""
    number = max(int(name.rpartition("-")[2]) for name in cluster.task_managers())
    cluster.start_task_manager(f"task-manager-{number + 1}")
    cluster.kill_task_manager(f"task-manager-{number}")


def kill_worker(cluster) -> None:
    """Kills the processes that run Python."""
    workers = cluster.worker_pids()
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("environment", "faults"),
    [
        pytest.param("EXTERNAL", [kill_worker, kill_task_manager], marks=slow),
        pytest.param("PROCESS", [kill_task_manager, kill_worker], marks=slow),
        pytest.param("LOOPBACK", [kill_task_manager, kill_task_manager], marks=slow),
    ],
    ids=["workers-of-a-pool", "workers-of-task-managers", "worker-in-the-job"],
)
def test_a_task_manager_and_a_worker_are_killed(environment, faults, start, cluster, check):
    """Flink goes on from its last checkpoint, on another task manager, with other workers."""
    sensor, job = start(*flink_arguments(cluster, environment))
    checkpoints = Checkpoints(cluster)
    for kill in faults:
        checkpoints.another()
        kill(cluster)
    checkpoints.another()
    sensor.stops()
    restarts = [line for line in job.ends() if "Flink restarts the job: " in line]
    assert len(restarts) >= len(faults)
    check()


@pytest.mark.parametrize("runner", ["prism", pytest.param("cluster", marks=slow)])
def test_the_broker_is_killed(runner, request, start, broker, topic, check):
    """It comes back with its data; sensor and job go on as if it had been slow."""
    server = request.getfixturevalue(runner)
    sensor, job = start(*(server if runner == "prism" else flink_arguments(server, "EXTERNAL")))
    broker.kill()
    gone = sensor.captured
    sensor.has_captured(gone + 2 * RATE)
    broker.start()
    job.writes(job.written)
    said = sensor.stops()
    assert "no broker answers" in said[0]
    assert "the queue takes blocks again" in said[-1]
    told = [line.endswith("waiting") for line in job.ends() if topic in line]
    assert told == [True, False] * (len(told) // 2)  # once for all partitions
    check()


def test_a_sensor_is_cut_off(start, prism, broker, check, tmp_path):
    """The broker is there and takes nothing: what the sensor captures meanwhile waits on its disk."""
    sensor, job = start(*prism)
    os.kill(broker.pid("kafka"), signal.SIGSTOP)
    try:
        sensor.has_captured(sensor.captured + CUT_OFF_S * RATE)
        waiting = sum(path.stat().st_size for path in (tmp_path / "buffer").rglob("*.blocks"))
    finally:
        os.kill(broker.pid("kafka"), signal.SIGCONT)
    assert waiting > 0.8 * CUT_OFF_S * RATE * PACKET_OCTETS
    job.writes(job.written)
    sensor.stops()
    job.ends()
    check()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_second_job_goes_on(how, start, prism, broker, topic, check, tmp_path):
    """Prism keeps nothing: the second job reads the topic from its start, and puts out some flows again."""
    sensor, job = start(*prism)
    sensor.has_captured(sensor.captured + RATE)
    before = job.written
    job.signal(how)
    if how == signal.SIGINT:
        job.ends()
    else:
        job.process.wait(LIMIT_S)
    url = f"kafka://{broker.bootstrap}/{topic}"
    with Job(tmp_path, prism, url, "--stop_at_end", "--sensors=north") as second:
        second.writes(before)
        sensor.stops()
        second.ends()
    assert check() > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk (tmpfs)")
def test_an_output_without_room_is_one_line(prism, capture, tmp_path):
    """With room, the same command has all flows."""
    words = ["--input", capture, "--queue", f"spool:{tmp_path / 'spool'}", "--quiet"]
    assert capture_command.main(list(map(str, words))) == 0
    live = tmp_path / "live"
    live.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "flowbeam-test", live], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with Job(tmp_path, prism, f"spool:{tmp_path / 'spool'}", "--streaming", "--stop_at_end", "--quiet") as job:
            assert job.process.wait(LIMIT_S) == 2
            assert job.said == [
                f"flowbeam: parquet:{live}: cannot write {live}: No space left on device; free room or choose another"
                " --output"
            ]
        subprocess.run(["mount", "-o", "remount,size=50m", live], check=True)
        with Job(tmp_path, prism, f"spool:{tmp_path / 'spool'}", "--streaming", "--stop_at_end", "--quiet") as job:
            assert job.ends() == []
        words = ["--input", f"spool:{tmp_path / 'spool'}", "--output", f"parquet:{tmp_path / 'whole'}", "--quiet"]
        assert flows.main(words) == 0
        assert check_flows(tmp_path, tmp_path / "whole")[0] > 100
    finally:
        subprocess.run(["umount", "-l", live], check=True)


@slow
def test_a_new_version_goes_on_from_where_the_old_one_was_stopped(start, cluster, broker, topic, check, tmp_path):
    """Ctrl-C tells the option that goes on from there; workers, files and some options may be others then."""
    sensor, job = start(*flink_arguments(cluster, "EXTERNAL"))
    Checkpoints(cluster).another()
    job.signal(signal.SIGINT)
    (line,) = [line for line in job.ends() if "--savepoint_path=" in line]
    option = line[line.index("--savepoint_path=") :]
    before = job.written
    changed = (*flink_arguments(cluster, "EXTERNAL"), option, "--file_max_age_s=5", "--table_cache_bytes=1000000")
    url = f"kafka://{broker.bootstrap}/{topic}"
    with Job(tmp_path, changed, url, "--stop_at_end", "--sensors=north") as second:
        second.writes(before)
        sensor.stops()
        second.ends()
    check()

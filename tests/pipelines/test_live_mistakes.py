"""Queues that are taken away from a running job, as an operator meets it: told once, given up where waiting is no help.

What came before is in complete files, whatever happens to the queue.
"""

import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from command_testing import ENVIRONMENT
from fault_testing import LIMIT_S, Job, rejects_of
from flow_testing import packets
from live_testing import Block, produce
from servers.fixtures import need
from servers.processes import wait_until

from transforms import avro
from transforms.records import PacketBatch, Stream

pytestmark = pytest.mark.xdist_group("faults")

PROPAGATION_MS = "FLOWBEAM_KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS"
"""So long the client believes that a topic which is missing is a new one; half a minute else."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker with passwords, of these tests alone."""
    need("kafka")
    from servers.kafka import KafkaServer

    with KafkaServer(tmp_path_factory.mktemp("broker"), users={"job": "word"}) as server:
        yield server


@pytest.fixture
def topic(broker):
    """The name of a new topic, on a broker that is up and takes the job's password."""
    if broker.passwords["job"] != "word":
        broker.change_password("job", "word")
    broker.start()
    name = f"mistakes-{uuid.uuid4().hex}"
    broker.create_topic(name)
    return name


@pytest.fixture
def url(broker, topic, monkeypatch) -> str:
    """Its URL for the job, which has the password from the environment."""
    monkeypatch.setitem(ENVIRONMENT, "FLOWBEAM_KAFKA_SASL_USERNAME", "job")
    monkeypatch.setitem(ENVIRONMENT, "FLOWBEAM_KAFKA_SASL_PASSWORD", "word")
    monkeypatch.setitem(ENVIRONMENT, PROPAGATION_MS, "500")
    return f"kafka://{broker.bootstrap_sasl}/{topic}?security=sasl_plaintext"


def blocks() -> list[bytes]:
    """Three blocks of a sensor, with a flow each; at the last one's time the first two have ended."""
    made = []
    for number in range(3):
        rows = packets(at_s=[200 * number, 200 * number + 1], src_port=1000 + number)
        made.append(avro.encode_block(PacketBatch(Stream("north", 7), number, int(rows["time_ns"][-1]), rows)))
    return made


def put(broker, topic: str, messages: list[bytes]) -> None:
    """Puts blocks onto the topic's one partition."""
    produce(broker.bootstrap, topic, [Block(0, 0, message) for message in messages])


def told(job: Job) -> list[str]:
    """What a job said, apart from that it runs."""
    return [line for line in job.said if "running;" not in line]


def credentials_expire(broker, topic: str) -> None:
    """The broker knows another password from now on, and closes what was open."""
    broker.change_password("job", "another")


def the_topic_is_deleted(broker, topic: str) -> None:
    """Somebody deletes it."""
    broker.delete_topic(topic)


@pytest.mark.slow  # a minute of patience
@pytest.mark.parametrize(
    ("happens", "line"),
    [
        (credentials_expire, "the broker does not take the credentials"),
        (the_topic_is_deleted, "no such topic; make it with kafka-topics --create"),
    ],
)
def test_what_waiting_does_not_help_ends_the_job(happens: Callable, line, broker, topic, url, prism, tmp_path):
    """It may come back within a minute, as brokers change; then it is one line, and status 2."""
    put(broker, topic, blocks())
    with Job(tmp_path, prism, url, "--file_max_age_s=1") as job:
        wait_for_flows(job, tmp_path, 2)
        happens(broker, topic)
        assert job.process.wait(LIMIT_S) == 2
    waiting, given_up = told(job)
    assert waiting.endswith("; waiting")
    assert given_up.startswith(f"flowbeam: {url.partition('?')[0]}: {line}")
    assert_two_flows(tmp_path)


@pytest.mark.slow
def test_a_password_that_is_put_right_in_time_is_enough(broker, topic, url, prism, tmp_path):
    """The job goes on as if the broker had been slow."""
    *first, last = blocks()
    put(broker, topic, first)
    with Job(tmp_path, prism, url, "--file_max_age_s=1") as job:
        wait_for_flows(job, tmp_path, 1)
        broker.change_password("job", "another")
        wait_until(lambda: told(job) or not job.alive, LIMIT_S, "the job says that it waits")
        broker.change_password("job", "word")
        put(broker, topic, [last])
        wait_for_flows(job, tmp_path, 2)
        job.signal(signal.SIGTERM)
        job.ends()
    waiting, again = told(job)
    assert waiting.endswith("; waiting")
    assert again.endswith("answers again")
    assert_two_flows(tmp_path)


def test_a_broker_that_never_comes_back_is_waited_for_and_the_job_can_be_stopped(broker, topic, url, prism, tmp_path):
    """A broker may be away for long; who does not want to wait stops the job."""
    put(broker, topic, blocks())
    try:
        with Job(tmp_path, prism, url, "--file_max_age_s=1") as job:
            wait_for_flows(job, tmp_path, 2)
            broker.kill()
            wait_until(lambda: told(job) or not job.alive, LIMIT_S, "the job says that it waits")
            job.signal(signal.SIGTERM)
            (line,) = [line for line in job.ends() if "running;" not in line]
    finally:
        broker.start()
    assert "no broker answers" in line
    assert line.endswith("; waiting")
    assert_two_flows(tmp_path)


def test_blocks_of_a_schema_that_nobody_knows_are_rejects(broker, topic, url, prism, tmp_path):
    """A sensor of a version to come does not stop the others; what it sends is kept, and named."""
    unknown = b"\xc3\x01" + b"12345678" + blocks()[0][10:]
    first, *rest = blocks()
    put(broker, topic, [unknown, first, b"no block", *rest])
    with Job(tmp_path, prism, url, "--file_max_age_s=1") as job:
        wait_for_flows(job, tmp_path, 2)
        job.signal(signal.SIGTERM)
        job.ends()
    reasons = rejects_of(tmp_path)
    assert sum(reasons.values()) == 2
    assert any("3132333435363738" in reason for reason in reasons), reasons
    assert_two_flows(tmp_path)


def ended(folder: Path) -> list[tuple[int, int]]:
    """The flows that are in files, by their port, with the reason of their end."""
    if not any((folder / "live").glob("*/*.parquet")):
        return []
    return duckdb.sql(f"SELECT DISTINCT src_port, end_reason FROM '{folder}/live/*/*.parquet' ORDER BY 1").fetchall()


def wait_for_flows(job: Job, folder: Path, count: int) -> None:
    """Until so many flows are in files."""
    wait_until(lambda: len(ended(folder)) == count or not job.alive, LIMIT_S, f"{count} flows are in files", 0.2)
    assert job.alive, job.said


def assert_two_flows(folder: Path) -> None:
    """The flows that ended are in complete files, and the one that did not is in none."""
    assert ended(folder) == [(1000, 1), (1001, 1)]
    assert not [path for path in (folder / "live").rglob(".*") if path.is_file()]

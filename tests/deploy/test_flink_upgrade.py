"""The life of the job on a session cluster, with the very options and settings of deploy/flink.

What the manifests say is read from them; only names of hosts, folders and stores are those of this machine.
"""

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import numpy as np
import pytest
import yaml
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

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]

DEPLOYED = Path(__file__).parents[2] / "deploy" / "flink"
CLUSTER = yaml.safe_load((DEPLOYED / "flink.yaml").read_text(encoding="utf-8"))["spec"]
OPTIONS = yaml.safe_load(
    next(
        document["data"]["flows.yaml"]
        for document in yaml.safe_load_all((DEPLOYED / "flows.yaml").read_text(encoding="utf-8"))
        if document["kind"] == "ConfigMap"
    )
)
ELSEWHERE = ("high-availability.", "metrics.reporter", "job.autoscaler.", "taskmanager.memory.")
"""Settings of Kubernetes and of larger machines."""

OF_HOSTS = {"job_endpoint", "artifact_endpoint", "flink_master", "environment_config", "input", "output"}
"""Options whose values are names of hosts and folders."""

RATE, PARTITIONS = 1000, 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster with the settings of `flink.yaml`; state is where the tests' is instead of in a bucket."""
    need("flink", "flink-job-server", "python-worker")
    from servers.flink import FlinkCluster

    folder = tmp_path_factory.mktemp("flink")
    settings: dict[str, object] = {}
    for name, value in CLUSTER["flinkConfiguration"].items():
        if not name.startswith(ELSEWHERE):
            settings[name] = value.replace("s3://flowbeam-state", f"file://{folder}/state")
    slots = int(settings["taskmanager.numberOfTaskSlots"])
    managers = CLUSTER["taskManager"]["replicas"]
    with FlinkCluster(folder, task_managers=managers, slots=slots, settings=settings) as server:
        yield server


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of this test alone."""
    need("kafka")
    from servers.kafka import KafkaServer

    with KafkaServer(tmp_path_factory.mktemp("broker")) as server:
        yield server


def arguments(cluster, folder: Path, name: str, **changed: Any) -> list[str]:
    """The file of options as deployed, with this machine's names, and what another version of it changes."""
    options = {key: value for key, value in OPTIONS.items() if key not in OF_HOSTS}
    options |= {
        "job_endpoint": cluster.job_endpoint,
        "artifact_endpoint": f"127.0.0.1:{cluster.port('artifacts')}",
        "flink_master": cluster.rest_url.removeprefix("http://"),
        "environment_config": f"127.0.0.1:{cluster.port('workers')}",
        **changed,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    return [f"--config={path}"]


def checkpoint(cluster, job: str) -> None:
    """Waits for a checkpoint that began after now: the second one that completes."""
    before = cluster.completed_checkpoints(job)
    wait_until(lambda: cluster.completed_checkpoints(job) > before + 1, LIMIT_S, "a checkpoint is complete", 0.1)


def savepoint(cluster, job: str) -> str:
    """Stops a job with a savepoint, as an operator does in Flink; where it is."""
    asked = urllib.request.Request(f"{cluster.rest_url}/jobs/{job}/stop", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        trigger = json.load(answer)["request-id"]
    found: dict[str, Any] = {}

    def done() -> bool:
        found.update(cluster.rest(f"/jobs/{job}/savepoints/{trigger}"))
        return found["status"]["id"] == "COMPLETED"

    wait_until(done, LIMIT_S, "the savepoint is complete", 0.2)
    return str(found["operation"]["location"])


def flows_in(folder: Path) -> int:
    """How many flows are in whole files."""
    files = [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
    counted = "SELECT count(DISTINCT flow_id) FROM read_parquet(?, union_by_name = true)"
    return duckdb.execute(counted, [list(map(str, files))]).fetchall()[0][0] if files else 0


def test_options_that_the_test_changes_are_names_alone():
    """Whoever adds an option to the manifest has it tested here."""
    assert OPTIONS.keys() >= OF_HOSTS
    assert {"environment_type", "parallelism", "checkpointing_interval", "max_cache_memory_usage_mb"} <= OPTIONS.keys()
    assert OPTIONS["parallelism"] == CLUSTER["taskManager"]["replicas"] * int(
        CLUSTER["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    )


def test_start_kill_recover_savepoint_upgrade_resume(cluster, broker, tmp_path):
    """Flows are those of the bounded job on the same topic, bit for bit, after all of it."""
    capture = capture_of(tmp_path, 20_000)
    with topic_of(broker, PARTITIONS) as topic:
        url = f"kafka://{broker.bootstrap}/{topic}?group=flowbeam"
        with Job(tmp_path, arguments(cluster, tmp_path, "old"), url) as job:
            job.runs()
            with Sensor(tmp_path, f"kafka://{broker.bootstrap}/{topic}", capture, "north", RATE) as sensor:
                job.writes()
                number = cluster.job(OPTIONS["job_name"])
                checkpoint(cluster, number)
                cluster.start_task_manager("task-manager-9")
                cluster.kill_task_manager("task-manager-0")
                checkpoint(cluster, number)
                assert any("Flink restarts the job: " in line for line in job.said)

                state = savepoint(cluster, number)
                wait_until(lambda: not job.alive, LIMIT_S, "the old job's command has ended")
                assert Path(urlsplit(state).path).is_relative_to(cluster.folder / "state" / "savepoints")

                before = job.written
                version = arguments(
                    cluster, tmp_path, "new", savepoint_path=state, file_max_age_s=5, table_cache_bytes=1_000_000
                )
                with Job(tmp_path, version, url) as changed:
                    changed.writes(before)
                    number = cluster.job(OPTIONS["job_name"])
                    assert cluster.rest(f"/jobs/{number}/checkpoints")["latest"]["restored"]["external_path"] == state
                    checkpoint(cluster, number)
                    sensor.stops()
                    messages = messages_in(broker.bootstrap, topic)
                    whole = bounded(messages, tmp_path)
                    wait_until(
                        lambda: flows_in(tmp_path / "live") >= flows_in(whole), LIMIT_S, "all flows are in files", 1.0
                    )
                    changed.signal(signal.SIGINT)
                    changed.ends()
    times = np.sort(np.concatenate([block.packets["time_ns"] for block in blocks_of(messages)]))
    assert np.array_equal(times, times_of(capture, len(times)))
    count, _ = check_flows(tmp_path, whole)
    assert count > 100
    assert not rejects_of(tmp_path)

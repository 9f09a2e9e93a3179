"""A Flink cluster of tests, with Beam's job server before it and Python workers beside it."""

import contextlib
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from servers.install import installed
from servers.processes import Server, answers, wait_until

TOP = Path(__file__).parents[2]

_OPENED = (
    "java.lang",
    "java.lang.reflect",
    "java.net",
    "java.io",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.nio.ch",
)
"""Packages of Java that Flink looks into."""

_SESSION = ("--executionMode", "cluster")
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


def job_server_jar() -> Path:
    """Beam's job server, for `--flink_job_server_jar`, and the part of Beam that runs in Flink."""
    (jar,) = installed("flink-job-server").rglob("*.jar")
    return jar


class FlinkCluster(Server):
    """A job manager, task managers, Beam's job server, and where Python workers come from.

    State and checkpoints are files in the cluster's folder. Task managers are named `task-manager-0` and so on.

    Attributes:
        rest_url: Flink's REST interface.
        job_endpoint: Beam's job service, for `--job_endpoint`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        task_managers: int = 1,
        slots: int = 4,
        task_heap_mb: int = 512,
        settings: dict[str, object] | None = None,
        quick_start: bool = True,
    ) -> None:
        """Describes the cluster; `start` starts it.

        Args:
            folder: Where its ports, checkpoints and logs are.
            task_managers: How many `start` starts.
            slots: Of each task manager; what runs at a time with `--parallelism=2` takes two.
            task_heap_mb: Heap of a task manager for tasks and their state.
            settings: Flink's settings over ours, by full name.
            quick_start: Starts sooner and is slower later; False for measurements.
        """
        super().__init__(folder)
        self._task_managers = task_managers
        self._slots = slots
        self._task_heap_mb = task_heap_mb
        self._settings = dict(settings or {})
        self._quick_start = quick_start
        self.rest_url = f"http://127.0.0.1:{self.port('rest')}"
        self.job_endpoint = f"127.0.0.1:{self.port('jobs')}"

    def start(self) -> "FlinkCluster":
        """Starts what does not run of it; returns when task managers are registered and jobs are accepted."""
        self._configure(worker=installed("python-worker") / "container")
        self._run_java("job-manager", 512, "-cp", self._class_path(), _JOB_MANAGER, *self._where(), *_SESSION)
        self._run_java(
            "job-server",
            512,
            "-jar",
            job_server_jar(),
            f"--flink-master=127.0.0.1:{self.port('rest')}",
            "--job-host=127.0.0.1",
            f"--job-port={self.port('jobs')}",
            f"--artifact-port={self.port('artifacts')}",
            "--expansion-port=0",
            f"--artifacts-dir={self.folder / 'artifacts'}",
        )
        self.run_process(
            "worker-pool",
            sys.executable,
            "-m",
            "apache_beam.runners.worker.worker_pool_main",
            f"--service_port={self.port('workers')}",
            environment=_worker_environment(),
        )
        for number in range(self._task_managers):
            self._run_task_manager(f"task-manager-{number}")
        for number in range(self._task_managers):
            self._wait_for_task_manager(f"task-manager-{number}")
        self.wait_for("job-server", lambda: answers(self.port("jobs")))
        self.wait_for("worker-pool", lambda: answers(self.port("workers")))
        return self

    def is_up(self) -> bool:
        """Whether there is a task manager, and jobs are accepted."""
        try:
            return bool(self.task_managers()) and answers(self.port("jobs")) and answers(self.port("workers"))
        except OSError:
            return False

    def pipeline_args(
        self, environment: str = "LOOPBACK", parallelism: int = 2, checkpoint_ms: int = 2000
    ) -> list[str]:
        """The options that run a streaming pipeline here, so that it goes on exactly where it was after a kill.

        Args:
            environment: Where Python runs: LOOPBACK in this process; EXTERNAL in one process for each task manager,
                which outlives it; PROCESS in processes that task managers start.
            parallelism: Slots that the job takes.
            checkpoint_ms: Time between checkpoints. A job with checkpoints never ends by itself, Flink waits with
                sources that are done: `cancel` it. With 0 there are none, and a job ends with its input.
        """
        checkpoints = [
            f"--checkpointing_interval={checkpoint_ms}",
            "--finish_bundle_before_checkpointing",  # without it the first element is lost when a job is restored
        ]
        config = {
            "LOOPBACK": [],
            "EXTERNAL": [f"--environment_config=127.0.0.1:{self.port('workers')}"],
            "PROCESS": [f"--environment_config={json.dumps({'command': str(self.folder / 'worker.sh')})}"],
        }
        return [
            "--runner=FlinkRunner",
            f"--job_endpoint={self.job_endpoint}",
            f"--environment_type={environment}",
            *config[environment],
            "--streaming",
            f"--parallelism={parallelism}",
            *(checkpoints if checkpoint_ms else ["--shutdown_sources_after_idle_ms=0"]),
            "--max_bundle_time_mills=50",
        ]

    def rest(self, path: str, method: str = "GET") -> Any:
        """What Flink's REST interface answers.

        Raises:
            OSError: It does not, or with an error.
        """
        request = urllib.request.Request(f"{self.rest_url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def jobs(self) -> dict[str, str]:
        """The state of each job (RUNNING, FAILED, …), by its id."""
        return {job["jid"]: job["state"] for job in self.rest("/jobs/overview")["jobs"]}

    def job(self, name: str) -> str | None:
        """The id of the newest job whose name begins so."""
        jobs = [job for job in self.rest("/jobs/overview")["jobs"] if job["name"].startswith(name)]
        return max(jobs, key=lambda job: job["start-time"])["jid"] if jobs else None

    def completed_checkpoints(self, job: str) -> int:
        """How many checkpoints of a job are complete."""
        count: int = self.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"]
        return count

    def cancel(self, job: str) -> None:
        """Ends a job, and waits until it has ended."""
        self.rest(f"/jobs/{job}?mode=cancel", method="PATCH")
        wait_until(lambda: self.jobs()[job] in ("CANCELED", "FAILED", "FINISHED"), 60, f"job {job} is cancelled")

    def task_managers(self) -> list[str]:
        """Names of those that the job manager knows."""
        return sorted(one["id"] for one in self.rest("/taskmanagers")["taskmanagers"])

    def kill_task_manager(self, name: str = "task-manager-0") -> None:
        """Ends a task manager as `kill -9` does; its Python workers go on for a while, as on a real machine."""
        self.kill_process(name)

    def start_task_manager(self, name: str) -> None:
        """Starts a task manager, of a name not used before, and waits until it is registered."""
        self._run_task_manager(name)
        self._wait_for_task_manager(name)

    def worker_pids(self) -> list[int]:
        """The Python workers of running jobs, by EXTERNAL or PROCESS."""
        import psutil

        found = []
        for name in self._process_names():
            if name == "worker-pool" or name.startswith("task-manager"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found += psutil.Process(self.pid(name)).children(recursive=True)
        return [child.pid for child in found if _is_worker(child)]

    def _run_task_manager(self, name: str) -> None:
        heap_mb = self._task_heap_mb + 128
        words = ("-XX:MaxDirectMemorySize=256m", "-cp", self._class_path(), _TASK_MANAGER, *self._where())
        self._run_java(name, heap_mb, *words, f"-Dtaskmanager.resource-id={name}")

    def _wait_for_task_manager(self, name: str) -> None:
        def known() -> bool:
            with contextlib.suppress(OSError):  # the job manager is not ready itself
                return name in self.task_managers()
            return False

        self.wait_for(name, known)

    def _run_java(self, name: str, heap_mb: int, *words: object) -> None:
        self.run_process(
            name,
            "java",
            f"-Xmx{heap_mb}m",
            "-XX:MaxMetaspaceSize=256m",
            "-XX:-UsePerfData",
            *(["-XX:TieredStopAtLevel=1"] if self._quick_start else []),
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
            "-Dflowbeam.log.level=INFO",
            f"-Dlog4j.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            *words,
        )

    def _class_path(self) -> str:
        """Flink's jars, and last Beam's, which is then not sent and loaded again with each job (12 s)."""
        return os.pathsep.join(map(str, [*sorted(installed("flink").iterdir()), job_server_jar()]))

    def _where(self) -> tuple[str, str]:
        return "--configDir", str(self.folder / "conf")

    def _configure(self, worker: Path) -> None:
        """Writes Flink's settings, and what starts a Python worker for `PROCESS`."""
        settings: dict[str, object] = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self.port("rpc"),
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.heap.size": "512m",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.port("rest"),
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": self._slots,
            "taskmanager.cpu.cores": 2,
            "taskmanager.memory.task.heap.size": f"{self._task_heap_mb}m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.network.min": "64m",
            "taskmanager.memory.network.max": "64m",
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "128m",
            "taskmanager.memory.jvm-overhead.max": "128m",
            "state.checkpoints.dir": f"file://{self.folder / 'checkpoints'}",
            "io.tmp.dirs": self.folder / "tmp",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 20,
            "restart-strategy.fixed-delay.delay": "1 s",
            "heartbeat.interval": 1000,
            "metrics.fetcher.update-interval": 1000,  # so old may be what REST says of steps; 10 s else
            "heartbeat.timeout": 8000,
            "web.timeout": 30_000,  # so long REST has no figures once a task manager was lost; 10 minutes else
        }
        (self.folder / "conf").mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        lines = [f"{name}: {value}\n" for name, value in (settings | self._settings).items()]
        (self.folder / "conf" / "config.yaml").write_text("".join(lines))
        environment = [f"export {name}='{value}'\n" for name, value in _worker_environment().items()]
        folder = f"$(mktemp -d -p '{self.folder / 'tmp'}')"  # workers would share one, and so their files' names
        script = self.folder / "worker.sh"
        script.write_text("".join(["#!/bin/sh\n", *environment, f'exec {worker} "$@" --semi_persist_dir="{folder}"\n']))
        script.chmod(0o755)


def _worker_environment() -> dict[str, str]:
    """Workers run this environment's Python, and find the project and what tests define."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "tests")]),
        "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1",
    }


def _is_worker(process: Any) -> bool:
    """Whether a process of psutil is a Python worker."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "sdk_worker" in " ".join(process.cmdline())
    return False

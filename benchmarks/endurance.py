"""Endurance: sensor, Kafka and streaming job for a while at a steady rate, with the memory that each of them takes.

    python benchmarks/endurance.py --runner prism|flink [--minutes 20] [--rate 100000] [--open_flows 200000]

The traffic is that of `steady_traffic.py`. A sensor replays it onto a topic of four partitions, a job makes flows with
all features of it and writes Parquet. Figures are taken every five seconds; in the end the sensor is stopped, the job
ends with its streams, and packets are added up. Servers are those of the tests (`make servers`). On Flink the heap for
tasks is 2 GB, checkpoints are made every five seconds, and Python runs in a process of a worker pool.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import duckdb
import grpc
import numpy as np
import psutil
from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from confluent_kafka import Consumer, KafkaException, TopicPartition

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from servers.fixtures import need  # noqa: E402
from servers.flink import FlinkCluster  # noqa: E402
from servers.kafka import KafkaServer  # noqa: E402
from servers.prism import prism_arguments  # noqa: E402
from servers.processes import free_port, wait_until  # noqa: E402

from pipelines.flink_cluster import FlinkJob, request  # noqa: E402

IDLE_TIMEOUT_S = 10.0
"""As `steady_traffic.py` has it."""

PARTITIONS = 4
SAMPLE_S = 5.0
DISTRIBUTIONS = ("assemble_observed_to_assembled_ms", "assemble_shard_open_flows", "read_queue_blocks_behind")
SETTLED_S = 300.0
"""Slopes are taken from here on."""


class Counters:
    """The counters of a job, wherever it runs: sums by name, and of distributions sum, count and largest."""

    def __init__(self, flink: FlinkJob | None, endpoint: str) -> None:
        self._flink = flink
        self._jobs = None if flink else beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(endpoint))

    def read(self) -> dict[str, float]:
        """What they are now, as far as the runner tells; `namespace_name`."""
        if self._flink is not None:
            return {**self._flink.counters(), **_flink_distributions(self._flink)}
        assert self._jobs is not None
        (job,) = self._jobs.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info
        answer = self._jobs.GetJobMetrics(beam_job_api_pb2.GetJobMetricsRequest(job_id=job.job_id))
        found: dict[str, float] = {}
        for info in answer.metrics.committed:  # the others are those of one bundle
            if not monitoring_infos.is_user_monitoring_info(info):
                continue
            name = f"{info.labels['NAMESPACE']}_{info.labels['NAME']}"
            if monitoring_infos.is_counter(info):
                found[name] = found.get(name, 0) + monitoring_infos.extract_counter_value(info)
            elif monitoring_infos.is_distribution(info):
                count, total, _, most = monitoring_infos.extract_distribution(info)
                found[f"{name}_count"] = found.get(f"{name}_count", 0) + count
                found[f"{name}_sum"] = found.get(f"{name}_sum", 0) + total
                found[f"{name}_max"] = max(found.get(f"{name}_max", 0), most)
        return found


def _flink_distributions(job: FlinkJob) -> dict[str, float]:
    """Of all subtasks together."""
    found: dict[str, float] = {}
    for vertex in request("GET", f"{job.rest}/jobs/{job.job}")["vertices"]:
        url = f"{job.rest}/jobs/{job.job}/vertices/{vertex['id']}/metrics"
        for one in request("GET", url):
            name = one["id"].rpartition("}.")[2]
            if name in DISTRIBUTIONS:
                (answer,) = request("GET", f"{url}?get={urllib.parse.quote(one['id'])}")
                total, count, _, most = map(int, re.findall(r"=(-?\d+)", answer["value"]))
                for part, value in (("sum", total), ("count", count)):
                    found[f"{name}_{part}"] = found.get(f"{name}_{part}", 0) + value
                found[f"{name}_max"] = max(found.get(f"{name}_max", 0), most)
    return found


def mb_of(*processes: psutil.Process) -> float:
    """Resident memory; 0 of those that are gone."""
    octets = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            octets += process.memory_info().rss
    return octets / 1e6


def cpu_s_of(processes: list[psutil.Process]) -> float:
    """CPU time that they have used."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


def descendants(pid: int, part: str) -> list[psutil.Process]:
    """A process and those below it, as far as their program is called so."""
    found = []
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if part in process.name():
                found.append(process)
    return found


class Run:
    """Everything that runs meanwhile, and what is measured of it."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self._topic = "blocks"
        folder = options.folder
        capture = folder / f"traffic-{options.rate}-{options.open_flows}.pcap"
        if not capture.exists():
            words = [str(capture), f"--rate={options.rate}", f"--open_flows={options.open_flows}"]
            subprocess.run([sys.executable, str(Path(__file__).with_name("steady_traffic.py")), *words], check=True)
        self.output = folder / "flows"
        self.kafka = stack.enter_context(
            KafkaServer(folder / "kafka", quick_start=False, settings={"log.retention.check.interval.ms": 10_000})
        )
        keep = {"segment.bytes": str(32 << 20), "retention.bytes": str(512 << 20)}
        self.kafka.create_topic(self._topic, PARTITIONS, keep)
        self.cluster: FlinkCluster | None = None
        if options.runner == "flink":
            cluster = FlinkCluster(folder / "flink", task_heap_mb=2048, quick_start=False, settings=options.flink)
            self.cluster = stack.enter_context(cluster)
        self.job = self._start(stack, "job", *self._job_words())
        self._prism: list[psutil.Process] = []
        self._consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "endurance"})
        stack.callback(self._consumer.close)
        self.counters = self._counters()
        self.metrics = f"http://127.0.0.1:{free_port()}/metrics"
        port = self.metrics.rpartition(":")[2].partition("/")[0]
        self.sensor = self._start(
            stack, "sensor", "-m", "pipelines.capture", f"--input=replay:{capture}", f"--rate={options.rate}",
            "--shift_times", "--loop", f"--queue=kafka://{self.kafka.bootstrap}/{self._topic}",
            f"--metrics_port={port}", f"--buffer_dir={folder / 'buffer'}", "--quiet",
        )  # fmt: skip

    def _job_words(self) -> list[str]:
        folder = self.options.folder
        words = [
            "-m", "pipelines.flows", f"--output=parquet:{self.output}", f"--summary={folder / 'summary.json'}",
            f"--input=kafka://{self.kafka.bootstrap}/{self._topic}?group=endurance", "--stop_at_end",
            f"--idle_timeout_s={IDLE_TIMEOUT_S:g}", "--job_name=endurance", *self.options.job,
        ]  # fmt: skip
        if self.cluster is None:
            return [*words, *prism_arguments()]
        runner = self.cluster.pipeline_args("EXTERNAL", self.options.parallelism, checkpoint_ms=5000)
        return [*words, *runner, f"--flink_master={self.cluster.rest_url.removeprefix('http://')}"]

    def _start(self, stack: ExitStack, name: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self.options.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=CHECKOUT, stdout=log, stderr=log, start_new_session=True
            )
        stack.callback(process.kill)
        return process

    def _counters(self) -> Counters:
        """Waits until the job reads."""
        log = self.options.folder / "job.log"

        def running() -> bool:
            if self.job.poll() is not None:
                raise SystemExit(f"the job ended: {log.read_text()}")
            return "running;" in log.read_text() and bool(self._processes()["worker"])

        wait_until(running, 600, "the job runs")
        if self.cluster is not None:
            found: list[str] = []
            wait_until(lambda: found.extend(self.cluster.jobs()) or found, 60, "Flink has the job")
            job = FlinkJob(self.cluster.rest_url, found[0])
            wait_until(lambda: job.last_checkpoint() is not None, 120, "a checkpoint is made")
            return Counters(job, "")
        self._prism = descendants(self.job.pid, "prism")
        ports = {one.laddr.port for process in self._prism for one in process.net_connections() if not one.raddr}
        for port in ports:
            with contextlib.suppress(Exception):
                counters = Counters(None, f"127.0.0.1:{port}")
                counters.read()
                return counters
        raise SystemExit("Prism's job service is not found")

    def _processes(self) -> dict[str, list[psutil.Process]]:
        """The processes whose memory counts, by what they are."""
        job = psutil.Process(self.job.pid)
        if self.cluster is None:
            return {"worker": [job], "prism": descendants(self.job.pid, "prism")}
        found = {"worker": [psutil.Process(pid) for pid in self.cluster.worker_pids()], "client": [job]}
        for name in ("task-manager-0", "job-manager", "job-server"):
            found[name] = descendants(self.cluster.pid(name) or 0, "java")
        return found

    def sample(self) -> dict[str, float]:
        """All figures, now."""
        figures: dict[str, float] = {"load": os.getloadavg()[0]}
        sensor = psutil.Process(self.sensor.pid)
        broker = descendants(self.kafka.pid("kafka") or 0, "java")
        for name, processes in {"sensor": [sensor], **self._processes(), "kafka": broker}.items():
            figures[f"{name}_mb"] = mb_of(*processes)
            figures[f"{name}_cpu_s"] = cpu_s_of(processes)
        figures["cpu_s"] = sum(value for name, value in figures.items() if name.endswith("_cpu_s"))
        with contextlib.suppress(OSError):
            figures |= self.sensor_figures()
        with contextlib.suppress(KafkaException):
            figures["blocks_behind"] = self._behind()
        with contextlib.suppress(OSError):
            figures |= self.counters.read()
        if self.cluster is not None:
            with contextlib.suppress(OSError):
                figures |= _flink_figures(self.cluster)
        return figures

    def sensor_figures(self) -> dict[str, float]:
        """What the sensor tells Prometheus."""
        with urllib.request.urlopen(self.metrics, timeout=5) as answer:
            text = answer.read().decode()
        wanted = "packets_total|queue_drops_total|waiting_blocks|observed_lag_seconds"
        lines = re.findall(rf"^flowbeam_sensor_({wanted})\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        return {f"sensor_{name}": float(value) for name, value in lines}

    def _behind(self) -> float:
        """Blocks on the topic that the job has not finished with."""
        parts = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        total = 0
        for part in self._consumer.committed(parts, timeout=10):
            low, high = self._consumer.get_watermark_offsets(part, timeout=10)
            total += high - max(part.offset, low)
        return total


def _flink_figures(cluster: FlinkCluster) -> dict[str, float]:
    """Heaps after the last collection or now, and the last checkpoint, whole and by step."""
    used = "Status.JVM.Memory.Heap.Used"
    heap = {
        "task_heap_mb": cluster.rest(f"/taskmanagers/{cluster.task_managers()[0]}/metrics?get={used}"),
        "job_manager_heap_mb": cluster.rest(f"/jobmanager/metrics?get={used}"),
    }
    figures = {name: float(found[0]["value"]) / 1e6 for name, found in heap.items() if found}
    (job,) = cluster.jobs()
    checkpoints = cluster.rest(f"/jobs/{job}/checkpoints")
    figures["checkpoints"] = checkpoints["counts"]["completed"]
    figures["checkpoints_failed"] = checkpoints["counts"]["failed"]
    last = checkpoints["latest"]["completed"]
    if last:
        figures["checkpoint_mb"] = last["state_size"] / 1e6
        figures["checkpoint_ms"] = last["end_to_end_duration"]
        names = {one["id"]: one["name"] for one in cluster.rest(f"/jobs/{job}")["vertices"]}
        details = cluster.rest(f"/jobs/{job}/checkpoints/details/{last['id']}")
        for vertex, about in details["tasks"].items():
            figures[f"checkpoint_mb {names[vertex][:60]}"] = about["state_size"] / 1e6
    return figures


def slope_per_minute(samples: list[dict[str, float]], name: str) -> float | None:
    """How a figure grows, by least squares over the settled part."""
    from_s = min(SETTLED_S, samples[-1]["at_s"] / 2)
    points = [(one["at_s"] / 60, one[name]) for one in samples if one["at_s"] >= from_s and name in one]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 10 else None


def rates(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What happened between two samples."""
    seconds = now["at_s"] - before["at_s"]

    def more(name: str) -> float:
        return now.get(name, 0.0) - before.get(name, 0.0)

    def mean(name: str) -> float:
        count = more(f"{name}_count")
        return more(f"{name}_sum") / count if count else float("nan")

    return {
        "sent_per_s": more("sensor_packets_total") / seconds,
        "read_per_s": more("read_packets_read") / seconds,
        "flows_per_s": sum(more(name) for name in now if name.startswith("assemble_flows_ended_")) / seconds,
        "shard_open_flows": mean("assemble_shard_open_flows"),
        "lag_ms": mean("assemble_observed_to_assembled_ms"),
        "cores": more("cpu_s") / seconds,
    }


def follow(run: Run, minutes: float, path: Path) -> list[dict[str, float]]:
    """Takes samples until the time is over; a line each minute."""
    samples: list[dict[str, float]] = []
    started = shown = time.monotonic()
    last_minute: dict[str, float] | None = None
    with open(path, "w", encoding="utf-8") as file:
        while time.monotonic() - started < minutes * 60:
            if run.job.poll() is not None or run.sensor.poll() is not None:
                raise SystemExit(f"the job or the sensor ended; see the logs in {run.options.folder}")
            one = run.sample() | {"at_s": time.monotonic() - started}
            samples.append(one)
            file.write(json.dumps(one) + "\n")
            file.flush()
            if last_minute is None:
                last_minute = one
            elif time.monotonic() - shown >= 60:
                happened = rates(one, last_minute)
                sizes = {
                    name: value for name, value in one.items() if re.search(r"_mb$|_ms$|^blocks_behind$|^load$", name)
                }
                print(f"{one['at_s'] / 60:5.1f} min", *(f"{k} {v:,.0f}" for k, v in {**happened, **sizes}.items()))
                sys.stdout.flush()
                shown, last_minute = time.monotonic(), one
            time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - started) % SAMPLE_S))
    return samples


def longest_stall_s(samples: list[dict[str, float]], name: str) -> float:
    """The longest time in which a counter did not move, as far as samples tell."""
    longest, since, last = 0.0, samples[0]["at_s"], -1.0
    for one in samples:
        if one.get(name, last) != last:
            since, last = one["at_s"], one.get(name, last)
        longest = max(longest, one["at_s"] - since)
    return longest


def stop(run: Run) -> dict[str, float]:
    """Stops the sensor, waits until the job has ended with its streams, and adds up."""
    sent = run.sensor_figures()["sensor_packets_total"]
    run.sensor.send_signal(signal.SIGTERM)
    run.sensor.wait(60)
    run.job.wait(300)
    summary = json.loads((run.options.folder / "summary.json").read_text())
    files = f"{run.output}/**/*.parquet"
    columns = "count(*), sum(fwd_packets + rev_packets), count(DISTINCT (flow_id, record_number))"
    flows, packets, distinct = duckdb.sql(f"SELECT {columns} FROM read_parquet('{files}')").fetchall()[0]
    return {
        "sent_at_least": sent,
        "packets_read": summary["packets_read"],
        "packets_rejected": sum(summary["rejects"].values()),
        "packets_in_files": float(packets),
        "records_in_files": flows,
        "records_repeated": flows - distinct,
    }


def report(samples: list[dict[str, float]]) -> None:
    """Sizes, how they grow, and what happened, from the time on when everything has settled."""
    print("| | median, settled | at the end | slope per minute |\n|---|---|---|---|")
    settled = [one for one in samples if one["at_s"] >= min(SETTLED_S, samples[-1]["at_s"] / 2)]
    names = sorted({name for one in samples for name in one if re.search(r"_mb( |$)|_ms$|blocks_behind$", name)})
    for name in names:
        values = [one[name] for one in settled if name in one]
        slope = slope_per_minute(samples, name)
        if values and slope is not None:
            print(f"| {name} | {np.median(values):,.1f} | {values[-1]:,.1f} | {slope:+,.2f} |")
    happened = rates(settled[-1], settled[0])
    print(json.dumps({name: round(value, 1) for name, value in happened.items()}))
    print(f"longest time without progress {longest_stall_s(settled, 'read_packets_read'):.0f} s")


def main() -> None:
    """Runs and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runner", choices=("prism", "flink"), default="prism")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--open_flows", type=int, default=200_000)
    parser.add_argument("--parallelism", type=int, default=2, help="On Flink")
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/flowbeam/benchmarks/endurance").expanduser())
    parser.add_argument("--job", nargs="*", default=[], help="More options of the job")
    parser.add_argument("--flink", type=json.loads, default={}, help="More settings of Flink, as JSON")
    options = parser.parse_args()
    need("kafka", *(("prism",) if options.runner == "prism" else ("flink", "flink-job-server", "python-worker")))
    options.folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["rm", "-rf", *(options.folder / name for name in ("flows", "kafka", "flink", "buffer"))], check=True
    )
    path = options.folder / f"{options.runner}.jsonl"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with ExitStack() as stack:
        run = Run(options, stack)
        samples = follow(run, options.minutes, path)
        report(samples)
        print(json.dumps(stop(run)))


if __name__ == "__main__":
    main()

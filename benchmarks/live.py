"""The live path: a sensor onto Kafka, Kafka to flows on Prism and on Flink, and how late flows are.

    python benchmarks/live.py [--only PART …] [--capture 10m] [--rate 20000] [--seconds 40] [--folder DIR]

It starts its own Kafka and Flink (`make servers` fetches them) and takes under eight minutes. The capture is the one of
`benchmarks/against_other_tools.py`, in the same folder. Every job writes Parquet with 201 features.

- `sensor`: `pipelines.capture` puts the capture, from the page cache, on a topic of eight partitions: the whole
  command, and what each packet more costs, from this and a fifth of it.
- `bounded`, `prism`, `flink-…`: that topic to flows. Time runs from when the broker sends its first block to when the
  last flow is in the job's journal, where it outlives the process; so it has neither the start of the runner nor its
  end. `bounded` is the whole `--runner=DirectRunner` command on the capture itself. Flink takes checkpoints each 5 s;
  the word after its name is where Python runs (docs/flink.md). Every packet must be in a flow, or there is no figure.
- `latency-prism`, `latency-flink`: the capture is replayed at `--rate` as if captured now, with an idle timeout of 5 s.
  A flow has ended when its sensor has observed the time at which no packet can prolong it: that of the last packet plus
  idle timeout plus bound (--max_out_of_orderness_s, 2). Its latency is from then to when its record is in the journal.
  That of the queue is from each packet's time to the broker's receive time of its block. The first ten seconds after
  the first record are left out.

CPU is that of all processes concerned, the broker included.
"""

import argparse
import atexit
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset
from against_other_tools import WORKLOADS, capture

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from servers.flink import FlinkCluster  # noqa: E402 -- the servers of the tests
from servers.kafka import KafkaServer  # noqa: E402
from servers.prism import prism_arguments  # noqa: E402
from servers.processes import wait_until  # noqa: E402

from transforms import avro  # noqa: E402

PARTITIONS = 8
LIMIT_S = 240
LOOK_S = 0.005
WARM_UP_S = 10
IDLE_S, BOUND_S = 5, 2
IDLE = 1
"""The flow end reason (IPFIX 136) of flows that nothing prolonged."""

WORKERS = {"flink-loopback": ("LOOPBACK", 1), "flink-external": ("EXTERNAL", 2), "flink-process": ("PROCESS", 2)}
"""Where Python runs, and the parallelism."""

JOURNAL = re.compile(r"\..+\.journal-.+-\d{8}T\d{6}-[0-9a-f]{16}")
"""A journal, but no file that is made of one (sinks/journal.py)."""

PARTS = ("sensor", "bounded", "prism", *WORKERS, "latency-prism", "latency-flink")


class Servers(NamedTuple):
    """What runs for the whole of the benchmark."""

    kafka: KafkaServer
    flink: FlinkCluster | None

    def roots(self) -> list[psutil.Process]:
        """The first processes of all of it."""
        names = [(self.kafka, "kafka")]
        if self.flink is not None:
            names += [(self.flink, name) for name in ("task-manager-0", "worker-pool")]
        return [psutil.Process(server.pid(name)) for server, name in names]


class Journals(threading.Thread):
    """Looks at what a job appends to the journals of an output folder, and at what the broker sends.

    Attributes:
        sending_s: When the broker began to send blocks.
        written_s: When a journal grew last.
        octets: What each journal holds, if it is to be kept.
        growth: Of each journal: when it was how long.
    """

    def __init__(self, folder: Path, broker: psutil.Process, keep: bool) -> None:
        super().__init__(daemon=True)
        self.sending_s = self.written_s = 0.0
        self.octets: dict[str, bytearray] = {}
        self.growth: dict[str, list[tuple[float, int]]] = {}
        self._folder, self._broker, self._keep = folder, broker, keep
        self._files: dict[str, Any] = {}
        self._sent = self._sent_by_now()
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks until it is told to end."""
        while not self._ended.wait(LOOK_S):
            self._look()
        self._look()
        for file in self._files.values():
            file.close()

    def end(self) -> None:
        """Ends the looking."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        now_s = time.time()
        if not self.sending_s and self._sent_by_now() > self._sent + (128 << 10):
            self.sending_s = now_s
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                if JOURNAL.fullmatch(name) and name not in self._files:
                    self._files[name] = open(self._folder / name, "rb")  # noqa: SIM115
                    self.octets[name], self.growth[name] = bytearray(), []
        for name, file in self._files.items():
            length = os.fstat(file.fileno()).st_size
            before = self.growth[name][-1][1] if self.growth[name] else 0
            if length > before:
                self.growth[name].append((now_s, length))
                self.written_s = now_s
                if self._keep:
                    self.octets[name] += file.read(length - before)

    def _sent_by_now(self) -> int:
        return int(self._broker.io_counters().write_chars)


class Job:
    """A run of `pipelines.flows`, with what it writes and takes."""

    def __init__(self, servers: Servers, folder: Path, words: Sequence[object], keep: bool = False) -> None:
        shutil.rmtree(folder / "live", ignore_errors=True)
        shutil.rmtree(folder / "rejects", ignore_errors=True)
        self._servers, self._folder = servers, folder
        self.load = os.getloadavg()[0]
        self._cpu_s = cpu_seconds(servers.roots())
        self.journals = Journals(folder / "live", psutil.Process(servers.kafka.pid("kafka")), keep)
        self.journals.start()
        self._started_s = time.time()
        self.process = started(folder, "pipelines.flows", *words, "--output=parquet:live", "--quiet")

    def end(self) -> None:
        """Waits until it has ended."""
        own = psutil.Process(self.process.pid)
        used = 0.0
        while self.process.poll() is None:
            if time.time() - self._started_s > LIMIT_S:
                raise SystemExit(f"{self.process.args}: not within {LIMIT_S} s")
            with contextlib.suppress(psutil.NoSuchProcess):
                used = max(used, cpu_seconds([own]))
            time.sleep(0.1)
        finished(self.process, self._folder)
        self.seconds = time.time() - self._started_s
        self.cpu_s = used + cpu_seconds(self._servers.roots()) - self._cpu_s
        self.journals.end()

    def wait_for(self, packets: int) -> None:
        """Waits until all packets are in flows of whole files: workers may end after the job."""
        end_s = time.time() + 30
        while (found := packets_in(self._folder / "live")) != packets:
            if time.time() > end_s:
                raise SystemExit(f"{found:,} of {packets:,} packets are in flows; see {self._folder}")
            time.sleep(0.2)


def cpu_seconds(roots: Sequence[psutil.Process]) -> float:
    """Time that processes and all their children have used, those included that have ended."""
    total = 0.0
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def packets_in(folder: Path) -> int:
    """How many packets the flows in a folder of Parquet files count."""
    names = ("fwd_packets", "rev_packets")
    table = pa.dataset.dataset(folder, format="parquet", exclude_invalid_files=True).to_table(columns=list(names))
    return sum(pa.compute.sum(table[name]).as_py() or 0 for name in names)


def started(folder: Path, module: str, *words: object) -> "subprocess.Popen[bytes]":
    """Starts a command of ours; what it says goes to a file."""
    with open(folder / f"{module}.log", "wb") as output:
        command = [sys.executable, "-m", module, *map(str, words)]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    atexit.register(ended, process)
    return process


def ended(process: "subprocess.Popen[bytes]") -> None:
    """Ends a command that still runs, with all that it started."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for child in (psutil.Process(process.pid), *children) if process.poll() is None else children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def finished(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Waits for a command; fails if it does."""
    if process.wait(LIMIT_S):
        raise SystemExit(f"{process.args}: status {process.returncode}; see {folder}/*.log")


def measure_sensor(servers: Servers, folder: Path, name: str) -> dict[str, float]:
    """Puts the capture on the topic of its name, and a smaller one on another."""
    figures: dict[str, float] = {"load": os.getloadavg()[0]}
    taken: dict[str, float] = {}
    for one in ("2m", name):
        if one in taken:
            continue
        path = capture(one, folder)
        servers.kafka.create_topic(one, PARTITIONS)
        read_once(path)
        cpu_s = cpu_seconds(servers.roots()) + sum(os.times()[2:4])
        begin_s = time.perf_counter()
        sensor = started(folder, "pipelines.capture", f"--input={path}", f"--queue={url_of(servers, one)}", "--quiet")
        finished(sensor, folder)
        taken[one] = time.perf_counter() - begin_s
        figures["cpu_s"] = cpu_seconds(servers.roots()) + sum(os.times()[2:4]) - cpu_s
    figures |= {"seconds": taken[name], "packets_per_s": WORKLOADS[name].packets / taken[name]}
    if name != "2m":
        figures["more_per_s"] = (WORKLOADS[name].packets - WORKLOADS["2m"].packets) / (taken[name] - taken["2m"])
    return figures


def read_once(path: Path) -> None:
    """Brings a file into the page cache: how fast the disk is, is not what is measured."""
    with open(path, "rb", buffering=0) as file:
        room = bytearray(16 << 20)
        while file.readinto(room):
            continue


def url_of(servers: Servers, topic: str) -> str:
    """A topic's URL."""
    return f"kafka://{servers.kafka.bootstrap}/{topic}"


def measure_bounded(folder: Path, name: str) -> dict[str, float]:
    """The bounded job on the capture."""
    load, cpu_s, begin_s = os.getloadavg()[0], sum(os.times()[2:4]), time.perf_counter()
    shutil.rmtree(folder / "live", ignore_errors=True)
    words = ("--runner=DirectRunner", f"--input={capture(name, folder)}", "--output=parquet:live", "--quiet")
    finished(started(folder, "pipelines.flows", *words), folder)
    seconds = time.perf_counter() - begin_s
    cpu_s = sum(os.times()[2:4]) - cpu_s
    return {"load": load, "seconds": seconds, "packets_per_s": WORKLOADS[name].packets / seconds, "cpu_s": cpu_s}


def runner_of(servers: Servers, part: str) -> list[str]:
    """The options of a part's runner."""
    if "prism" in part:
        return prism_arguments()
    environment, parallelism = WORKERS.get(part, WORKERS["flink-loopback"])
    assert servers.flink is not None
    rest = servers.flink.rest_url.removeprefix("http://")
    return [*servers.flink.pipeline_args(environment, parallelism, checkpoint_ms=5000), f"--flink_master={rest}"]


def measure_backlog(servers: Servers, folder: Path, part: str, name: str, words: Sequence[str]) -> dict[str, float]:
    """The topic to flows, on one runner."""
    queue = (f"--input={url_of(servers, name)}", "--stop_at_end")
    job = Job(servers, folder, [*runner_of(servers, part), *queue, *words])
    job.end()
    job.wait_for(WORKLOADS[name].packets)
    rate = WORKLOADS[name].packets / (job.journals.written_s - job.journals.sending_s)
    return {"load": job.load, "seconds": job.seconds, "packets_per_s": rate, "cpu_s": job.cpu_s}


def measure_latency(servers: Servers, folder: Path, part: str, rate: int, seconds: int) -> dict[str, float]:
    """Replayed traffic to flows, on one runner."""
    servers.kafka.create_topic(topic := part, PARTITIONS)
    words = (f"--input={url_of(servers, topic)}", "--stop_at_end", f"--idle_timeout_s={IDLE_S}")
    ages = (f"--max_out_of_orderness_s={BOUND_S}", "--file_max_age_s=3600")
    job = Job(servers, folder, [*runner_of(servers, part), *words, *ages], keep=True)
    replay = ("--input", f"replay:{capture('2m', folder)}", f"--rate={rate}", "--shift_times", "--loop")
    buffer = f"--buffer_dir={folder / 'buffer'}"
    sensor = started(folder, "pipelines.capture", *replay, buffer, f"--queue={url_of(servers, topic)}", "--quiet")
    wait_until(lambda: job.journals.written_s, LIMIT_S, "the first flow is written", pause_s=0.1)
    begin_s = time.time()
    time.sleep(WARM_UP_S + seconds)
    sensor.send_signal(signal.SIGTERM)
    finished(sensor, folder)
    job.end()
    since_ns = int((begin_s + WARM_UP_S) * 1e9)
    late_s = np.concatenate([latencies(*kept, since_ns) for kept in kept_of(job.journals)])
    queued_s = queue_latencies(servers, topic, since_ns)
    figures = {"load": job.load, "flows": float(len(late_s)), "cpu_s": job.cpu_s}
    for what, values in (("flow", late_s), ("queue", queued_s)):
        for percent in (50, 99):
            figures[f"{what}_p{percent}_s"] = float(np.percentile(values, percent))
    return figures


def kept_of(journals: Journals) -> Iterator[tuple[bytes, list[tuple[float, int]]]]:
    """What each journal held, and when it was how long."""
    for name, octets in journals.octets.items():
        if octets:
            yield bytes(octets), journals.growth[name]


def latencies(octets: bytes, growth: Sequence[tuple[float, int]], since_ns: int) -> np.ndarray:
    """Seconds from when each flow that ended by its idle timeout had ended to when its record was in the journal."""
    times, lengths = np.array([at for at, _ in growth]), np.array([length for _, length in growth])
    reader = pa.BufferReader(octets)
    found = [np.zeros(0)]
    for batch in pa.ipc.open_stream(reader):
        written_ns = times[np.searchsorted(lengths, reader.tell())] * 1e9
        ended_ns = batch["flow_end_ns"].cast(pa.int64()).to_numpy() + int((IDLE_S + BOUND_S) * 1e9)
        idle = (batch["end_reason"].to_numpy() == IDLE) & (ended_ns > since_ns)
        found.append((written_ns - ended_ns[idle]) / 1e9)
    return np.concatenate(found)


def queue_latencies(servers: Servers, topic: str, since_ns: int) -> np.ndarray:
    """Seconds from each packet's time to when the broker got it."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    where = {"bootstrap.servers": servers.kafka.bootstrap, "group.id": "benchmark"}
    consumer = Consumer({**where, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    found, ends = [np.zeros(0)], 0
    while ends < PARTITIONS:
        message = consumer.poll(30)
        if message is None or message.error():
            if message is None or message.error().code() != KafkaError._PARTITION_EOF:
                raise SystemExit(f"{topic}: cannot be read ({message and message.error()})")
            ends += 1
            continue
        times = avro.decode_block(message.value()).packets["time_ns"]
        found.append((message.timestamp()[1] * 1e6 - times[times > since_ns]) / 1e9)
    consumer.close()
    return np.concatenate(found)


def show(part: str, figures: dict[str, float]) -> None:
    """One row."""
    columns = [f"  {part:<16}"]
    for name, form in (
        ("packets_per_s", "{:>12,.0f} packets/s"),
        ("more_per_s", "{:>12,.0f} without start"),
        ("seconds", "{:>7.1f} s whole command"),
        ("flow_p50_s", "flow p50 {:.2f} s"),
        ("flow_p99_s", "p99 {:.2f} s"),
        ("queue_p50_s", "queue p50 {:.3f} s"),
        ("queue_p99_s", "p99 {:.3f} s"),
        ("cpu_s", "{:>6.1f} s CPU"),
        ("load", "load {:.1f}"),
    ):
        if name in figures:
            columns.append(form.format(figures[name]))
    print("  ".join(columns), flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--capture", choices=("2m", "10m"), default="10m")
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "flowbeam" / "benchmarks")
    arguments, words = parser.parse_known_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    shutil.rmtree(folder / "servers", ignore_errors=True)
    results = {}
    with contextlib.ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer(folder / "servers" / "kafka", quick_start=False))
        flink = None
        if any("flink" in part for part in arguments.only):
            cluster = FlinkCluster(folder / "servers" / "flink", slots=2, task_heap_mb=1024, quick_start=False)
            flink = stack.enter_context(cluster)
        servers = Servers(kafka, flink)
        for part in ("sensor", *(part for part in arguments.only if part != "sensor")):  # it fills the topic
            if part == "sensor":
                results[part] = measure_sensor(servers, folder, arguments.capture)
            elif part == "bounded":
                results[part] = measure_bounded(folder, arguments.capture)
            elif part.startswith("latency"):
                results[part] = measure_latency(servers, folder, part, arguments.rate, arguments.seconds)
            else:
                results[part] = measure_backlog(servers, folder, part, arguments.capture, words)
            show(part, results[part])
    shutil.rmtree(folder / "servers", ignore_errors=True)
    (folder / "live_results.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""Live capture side by side: what flowbeam, tcpdump and NFStream lose of the same traffic at the same rate.

    sudo python benchmarks/live_interface.py [--pps 300000] [--seconds 20] [--runs 3] [--folder DIR] [--nfstream PYTHON]

A capture of an office is generated and replayed by tcpreplay over a veth pair in a network namespace of its own, to
one tool at a time, in turn. What was sent is tcpreplay's count, what was received and dropped each tool's own; a packet
that is neither was lost elsewhere. CPU is the tool's, of one core; tcpreplay and the kernel take theirs on the same
machine. `flowbeam input` is the interface alone, parsed into rows; `flowbeam sensor` is the whole of it, onto a spool.
tcpdump gets as large a ring. It takes root, tcpreplay, tcpdump and iproute2; without NFStream that row is left out.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
RING_MIB = 64
LIMIT_S = 120

INPUT = """
import json, signal
from sources.interface import InterfaceInput, InterfaceSettings
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
captured = InterfaceInput(InterfaceSettings("near"))
received = dropped = 0
while not stopped:
    chunk = captured.read(0.1)
    received += len(chunk.packets) + sum(chunk.rejects.values())
    dropped += chunk.dropped
print(json.dumps([received, dropped]))
"""

COUNT_SPOOL = """
import json, sys
from pathlib import Path
from sources.captures import ReadReport, ReadSettings
from sources.read_queue import queue_inputs, read_packets
report = ReadReport()
received = 0
for one in queue_inputs(sys.argv[1]):
    for batch in read_packets(one, ReadSettings(), report):
        received += len(batch.packets)
print(json.dumps([received + report.rejects.total(), report.interface_drops]))
"""

NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    for flow in NFStreamer(source="near", statistical_analysis=True, n_dissections=0, performance_report=1):
        pass
"""


class Counted(NamedTuple):
    """Packets, as a tool counts them."""

    received: int
    dropped: int


class Run(NamedTuple):
    """One tool while packets were sent."""

    sent: int
    rate: float
    counted: Counted
    cpu_percent: float


class Tool(NamedTuple):
    """How a tool captures.

    Attributes:
        command: What captures from the interface `near` until it is told to stop.
        stop: The signal that ends it.
        count: Finds its figures in all that it wrote.
    """

    command: list[str]
    stop: signal.Signals
    count: Callable[[str], Counted]


@contextlib.contextmanager
def line() -> Iterator[list[str]]:
    """A network namespace with a veth pair, `near` and `far`; gives what runs a command in it."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    path = f"/proc/{holder.pid}/ns/net"
    inside = ["nsenter", f"--net={path}"]
    try:
        wait(lambda: os.readlink(path) != os.readlink("/proc/self/ns/net"), "the namespace")
        for command in (
            "sysctl -q -w net.ipv6.conf.default.disable_ipv6=1",
            "ip link add near mtu 9000 type veth peer name far mtu 9000",
            "ip link set near up",
            "ip link set far up",
        ):
            subprocess.run([*inside, *command.split()], check=True)
        yield inside
    finally:
        holder.kill()
        holder.wait()


def wait(condition: Callable[[], bool], what: str) -> None:
    """Waits for another process; gives up after a while."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {LIMIT_S} s for {what}")
        time.sleep(0.05)


def is_captured(inside: list[str]) -> bool:
    """Whether a tool has opened the interface: all do it in promiscuous mode."""
    shown = subprocess.run([*inside, "ip", "-d", "link", "show", "near"], check=True, capture_output=True, text=True)
    return "promiscuity 0" not in shown.stdout


def tools(folder: Path, nfstream: str) -> dict[str, Tool]:
    """What is installed here."""
    spool = folder / "spool"

    def count_spool(_: str) -> Counted:
        ran = subprocess.run(
            [sys.executable, "-c", COUNT_SPOOL, f"spool:{spool}"],
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
            text=True,
        )
        return Counted(*json.loads(ran.stdout))

    found = {
        "flowbeam input": Tool([sys.executable, "-c", INPUT], signal.SIGTERM, last_line),
        "flowbeam sensor": Tool(
            [sys.executable, "-m", "pipelines.capture", "--input=interface:near", f"--queue=spool:{spool}",
             "--user=root", f"--buffer_dir={folder / 'buffer'}"],
            signal.SIGTERM, count_spool,
        ),
        "tcpdump -w": Tool(
            ["tcpdump", "-i", "near", f"-B{RING_MIB << 10}", "-w", str(folder / "tcpdump.pcap")],
            signal.SIGINT, count_tcpdump,
        ),
    }  # fmt: skip
    if shutil.which(nfstream):
        found["NFStream live"] = Tool([nfstream, "-c", NFSTREAM], signal.SIGINT, count_nfstream)
    else:
        print(f"NFStream: no {nfstream}; left out")
    return found


def last_line(output: str) -> Counted:
    """The figures that our own script ends with."""
    return Counted(*json.loads(output.splitlines()[-1]))


def count_tcpdump(output: str) -> Counted:
    """What tcpdump says when it is stopped."""
    captured, dropped = (int(re.search(rf"(\d+) packets? {what}", output)[1]) for what in ("captured", "dropped by"))
    return Counted(captured, dropped)


def count_nfstream(output: str) -> Counted:
    """The last of the reports that NFStream writes each second."""
    reports = [json.loads(found) for found in re.findall(r"^\{.*\}$", output, re.MULTILINE)]
    last = reports[-1]
    return Counted(last["packets_processed"] + last["packets_ignored"], last["packets_dropped_filtered_by_kernel"])


def cpu_seconds(pid: int) -> float:
    """Time that a process and its children have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == pid or int(fields[1]) == pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(tool: Tool, inside: list[str], capture: Path, pps: int, seconds: int, folder: Path) -> Run:
    """Lets a tool capture what is sent."""
    shutil.rmtree(folder / "spool", ignore_errors=True)
    shutil.rmtree(folder / "buffer", ignore_errors=True)
    path = folder / "last_output"
    with open(path, "w") as output:
        process = subprocess.Popen([*inside, *tool.command], cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait(lambda: is_captured(inside) or process.poll() is not None, f"{tool.command} to capture")
        time.sleep(3)  # what is started behind the socket
        before = cpu_seconds(process.pid)
        replay = [
            *inside, "tcpreplay", "--intf1=far", f"--pps={pps}", "--preload-pcap", "--loop=1000000",
            f"--limit={pps * seconds}", str(capture),
        ]  # fmt: skip
        said = subprocess.run(replay, check=True, capture_output=True, text=True).stdout
        time.sleep(3)  # for a report after the last packet
        used = cpu_seconds(process.pid) - before
        process.send_signal(tool.stop)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    sent = int(re.search(r"Actual: (\d+) packets", said)[1])
    rate = float(re.search(r"([\d.]+) pps", said)[1])
    return Run(sent, rate, tool.count(path.read_text()), 100 * used / (sent / rate))


def capture_of(folder: Path) -> Path:
    """The traffic, made if it is not there."""
    path = folder / "office.pcap"
    if not path.exists():
        command = [sys.executable, "-m", "pipelines.generate", f"--output={path}", "--packets=300000", "--quiet"]
        subprocess.run(command, cwd=CHECKOUT, check=True)
    return path


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pps", type=int, default=300_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "flowbeam-live")
    parser.add_argument("--nfstream", default="python-with-nfstream", help="Interpreter with NFStream 6.6")
    parser.add_argument("--only", nargs="+", help="Names of tools")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    capture = capture_of(options.folder)
    chosen = {name: tool for name, tool in tools(options.folder, options.nfstream).items()
              if options.only is None or name in options.only}  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    for _ in range(options.runs):
        for name, tool in chosen.items():
            with line() as inside:
                runs[name].append(measure(tool, inside, capture, options.pps, options.seconds, options.folder))
            print(f"{name}: {runs[name][-1]}", flush=True)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        "| tool | sent | per second | received | dropped | lost, worst run | CPU of one core |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, done in runs.items():
        lost = max(1 - run.counted.received / run.sent for run in done)
        run = sorted(done, key=lambda run: run.counted.received)[len(done) // 2]
        cpu = statistics.median(run.cpu_percent for run in done)
        print(
            f"| {name} | {run.sent:,} | {run.rate:,.0f} | {run.counted.received:,} | {run.counted.dropped:,} | "
            f"{lost:.2%} | {cpu:.0f} % |"
        )


if __name__ == "__main__":
    main()

"""Whole processes side by side: flowbeam, NFStream, softflowd and capinfos on the same generated captures.

    python benchmarks/against_other_tools.py [--runs 3] [--folder DIR] [--only NAME …] [--verdicts]

Captures are made with `pipelines.generate` and kept in the folder. Each command runs once to warm the caches, then
`--runs` times, the tools in turn; the figures are medians of wall time and the peak memory of the largest process.
flowbeam and NFStream 6.6.0 each run in an environment of their own in the folder, with what they depend on and nothing
else, as `pip install` makes it; softflowd and capinfos are Debian's (`apt-get install softflowd tshark`) and are left
out, with a line that says so, where they are missing. With `--verdicts`, flowbeam runs a second time on each capture:
with a City and an ASN database, 1,000 zones and a model of 100 trees, which is trained on generated traffic.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "benchmarks")]

from enrichment import databases, lists  # noqa: E402

from training.saving import save  # noqa: E402
from training.split import SplitRule  # noqa: E402
from training.train import TrainSettings, train  # noqa: E402
from training.trees import TreeSettings  # noqa: E402

NFSTREAM = """
from nfstream import NFStreamer
import sys
if __name__ == "__main__":
    flows = NFStreamer(source=sys.argv[1], statistical_analysis=True, n_dissections=0, n_meters=1)
    print(sum(1 for _ in flows))
"""


class Workload(NamedTuple):
    """A generated capture."""

    packets: int
    profile: str
    flows: int | None
    doc: str


WORKLOADS = {
    "2m": Workload(2_000_000, "bulk", 100_000, "2 M packets, 100,000 flows, about 1 GB"),
    "10m": Workload(10_000_000, "bulk", 500_000, "10 M packets, 500,000 flows, about 5 GB"),
    "flood": Workload(2_000_000, "syn-flood", None, "SYN flood, 2 M flows of one packet"),
}


class Run(NamedTuple):
    """One process, start to end."""

    seconds: float
    peak_octets: int


def timed(command: Sequence[str], folder: Path) -> Run:
    """Runs a command and waits for it; fails if it does."""
    for made in ("flows", "rejects"):
        shutil.rmtree(folder / made, ignore_errors=True)
    started = time.perf_counter()
    with open(folder / "last_output", "wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}; see {folder / 'last_output'}")
    return Run(seconds, usage.ru_maxrss * 1024)


def python_of(name: str, packages: Sequence[str], folder: Path) -> str:
    """The interpreter of an environment with these packages and what they need, made if it is not there."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into an environment of its own", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


def capture(name: str, folder: Path) -> Path:
    """The capture of a workload, made if it is not there."""
    workload, path = WORKLOADS[name], folder / f"{name}.pcap"
    if not path.exists():
        print(f"generating {workload.doc}", flush=True)
        flows = [f"--flows={workload.flows}"] if workload.flows else []
        subprocess.run(
            [sys.executable, "-m", "pipelines.generate", f"--output={path}", f"--packets={workload.packets}",
             f"--profile={workload.profile}", *flows, "--quiet"],
            cwd=CHECKOUT, check=True,
        )  # fmt: skip
    return path


def commands(folder: Path) -> dict[str, list[str]]:
    """How each tool is run; `FILE` stands for the capture."""
    script = folder / "count_with_nfstream.py"
    script.write_text(NFSTREAM)
    own = python_of("flowbeam", ["-e", str(CHECKOUT)], folder)
    tools = {
        "flowbeam": [own, "-m", "pipelines.flows", "--runner=DirectRunner", "--input=FILE",
                     "--output=parquet:flows", "--quiet"],
        "NFStream 6.6.0": [python_of("nfstream", ["nfstream==6.6.0"], folder), str(script), "FILE"],
    }  # fmt: skip
    for tool, arguments in (("softflowd", ["-r", "FILE", "-n", "127.0.0.1:9"]), ("capinfos", ["-A", "FILE"])):
        found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin")
        if found:
            tools[tool] = [found, *arguments]
        else:
            print(f"{tool} is not installed: left out")
    return tools


def verdicts(folder: Path) -> list[str]:
    """Options of the main job that enrich and score flows; what they name is made if it is not there."""
    made, model = folder / "enrichment", folder / "models" / "hundred-trees"
    if not made.exists():
        made.mkdir()
        databases(made, 17)
        lists(made, 1000, np.random.default_rng(7))
    if not model.exists():
        print("training a model of 100 trees", flush=True)
        train_model(folder / "models", model)
    geoip = [word for name in ("City.mmdb", "ASN.mmdb") for word in ("--geoip", str(made / name))]
    return [*geoip, "--zones", str(made / "zones.csv"), "--model", str(model)]


def train_model(folder: Path, model: Path) -> None:
    """Trains a model of two classes, so that 100 rounds are 100 trees, on an office of 60,000 packets."""
    traffic, truth, flows, labelled = (folder / name for name in ("office.pcap", "office.csv", "flows", "labelled"))
    folder.mkdir(parents=True, exist_ok=True)
    for command in (
        ["generate", "--profile=office", f"--output={traffic}", f"--labels={truth}", "--packets=60000"],
        ["flows", "--runner=DirectRunner", f"--input={traffic}", f"--output=parquet:{flows}"],
        ["label", f"--flows={flows}", f"--attacks={truth}", f"--output={labelled}"],
    ):
        subprocess.run([sys.executable, "-m", f"pipelines.{command[0]}", *command[1:], "--quiet"], check=True)
    settings = TrainSettings(
        flows=(str(labelled),), label="label", features="flowbeam@1", split=SplitRule("time", "0.67"),
        task="binary", max_fpr=0.001, beside=False, trees=TreeSettings(trees=100),
    )  # fmt: skip
    save(train(settings, print), model, keep_rows=0)


def measure(tools: dict[str, list[str]], path: Path, runs: int, folder: Path) -> dict[str, Run]:
    """Medians of each tool on one capture, the tools in turn."""
    taken: dict[str, list[Run]] = {tool: [] for tool in tools}
    for number in range(runs + 1):
        for tool, command in tools.items():
            run = timed([part.replace("FILE", str(path)) for part in command], folder)
            if number:
                taken[tool].append(run)
    return {
        tool: Run(statistics.median(r.seconds for r in all_), max(r.peak_octets for r in all_))
        for tool, all_ in taken.items()
    }


def show(name: str, figures: dict[str, Run]) -> None:
    """One table, ratios to flowbeam."""
    own = figures["flowbeam"]
    print(f"\n{WORKLOADS[name].doc}")
    for tool, run in figures.items():
        ratio = f"{run.seconds / own.seconds:6.2f} × flowbeam's time" if tool != "flowbeam" else ""
        print(f"  {tool:<15}{run.seconds:8.2f} s {run.peak_octets / 2**20:7.0f} MB  {ratio}")
    if "with verdicts" in figures:
        ratio = figures["NFStream 6.6.0"].seconds / figures["with verdicts"].seconds
        print(f"  NFStream takes {ratio:.2f} × flowbeam's time with verdicts")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "flowbeam" / "benchmarks")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--verdicts", action="store_true", help="flowbeam once more, enriching and scoring")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else modules are compiled in each run
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    tools, all_figures = commands(folder), {}
    if arguments.verdicts:
        # A process of its own: what is started here begins with the memory of this one as its most.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            tools["with verdicts"] = [*tools["flowbeam"], *alone.submit(verdicts, folder).result()]
    for name in arguments.only:
        figures = all_figures[name] = measure(tools, capture(name, folder), arguments.runs, folder)
        show(name, figures)
    if {"2m", "10m"} <= all_figures.keys():
        print("\nFor each packet between 2 M and 10 M")
        extra = {
            tool: (all_figures["10m"][tool].seconds - all_figures["2m"][tool].seconds) / 8_000_000 for tool in tools
        }
        for tool, seconds in extra.items():
            print(f"  {tool:<15}{seconds * 1e9:8.0f} ns  {seconds / extra['flowbeam']:6.2f} × flowbeam's")
        memory = [all_figures[name]["flowbeam"].peak_octets for name in ("10m", "2m")]
        print(f"  flowbeam's peak memory at 10 M is {memory[0] / memory[1]:.2f} × that at 2 M")
    empty = folder / "empty.pcap"
    empty.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    own = {"flowbeam": tools["flowbeam"], "import": [tools["flowbeam"][0], "-c", "import apache_beam"]}
    start = measure(own, empty, max(arguments.runs, 5), folder)
    print(
        f"\nAn empty capture: {start['flowbeam'].seconds:.2f} s, "
        f"{start['flowbeam'].seconds / start['import'].seconds:.2f} × `import apache_beam`"
    )
    results = {name: {tool: run._asdict() for tool, run in figures.items()} for name, figures in all_figures.items()}
    (folder / "results.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

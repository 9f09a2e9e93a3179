"""What Beam sends to remote workers with `--setup_file`: it installs where nothing of ours is, and runs the jobs."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers.bigquery_gate import gate as make_gate
from servers.cassandra import PASSWORD, USER

from pipelines import flows
from pipelines.bounded import BoundedJob
from pipelines.endless import EndlessJob

TOP = Path(__file__).parents[2]
ROOMS = ("pipelines", "queues", "sinks", "sources", "training", "transforms")
STEPS = (f"--model={TOP / 'models' / 'demo'}", "--explain=3", "--reverse_dns", "--quiet")
UNPICKLE = f"""
import json, sys
import apache_beam as beam
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

for name in sys.argv[1:]:
    with open(name, "rb") as file:
        graph = beam_runner_api_pb2.Pipeline.FromString(file.read())
    beam.Pipeline.from_runner_api(graph, "DirectRunner", None)  # unpickles every DoFn, coder and window
ours = {{name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in {ROOMS}}}
json.dump(ours, sys.stdout)
"""


def files_of_ours():
    """What git keeps, or would, of the rooms, and what a package is made of."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    wanted = [*ROOMS, "LICENSE", "README.md", "pyproject.toml", "setup.py"]
    said = subprocess.run([*listed, *wanted], cwd=TOP, check=True, capture_output=True, text=True, timeout=60).stdout
    return [name for name in said.splitlines() if (TOP / name).exists()]


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The package as Beam packs it."""
    if shutil.which("git") is None or not (TOP / ".git").exists():
        pytest.skip("needs git and a clone of the project")
    folder = tmp_path_factory.mktemp("package")
    for name in files_of_ours():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, folder / "checkout" / name)
    pack = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(folder)]
    subprocess.run(pack, cwd=folder / "checkout", check=True, capture_output=True, timeout=600)
    shutil.rmtree(folder / "checkout")
    (made,) = folder.glob("flowbeam-*.tar.gz")
    return made


@pytest.fixture(scope="session")
def worker(package, tmp_path_factory):
    """An interpreter that has the package, and what it depends on, but not the checkout."""
    folder = tmp_path_factory.mktemp("worker")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, check=True, capture_output=True, text=True, timeout=600).stdout.strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--target", str(packages)]
    install = [sys.executable, "-m", "pip", "install", *offline, str(package)]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return python


def modules_of(worker, graphs, folder):
    """The modules of ours that the worker came to while it made the graphs again; all are its own."""
    for name, graph in graphs.items():
        (folder / f"{name}.graph").write_bytes(graph.SerializeToString())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(worker), "-W", "ignore", "-c", UNPICKLE, *(f"{name}.graph" for name in graphs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {name: file for name, file in told.items() if not file.startswith(str(worker.parents[1]))} == {}
    return set(told)


def test_the_package_has_every_file_of_ours(package):
    """Modules and data, those of git and no others."""
    with tarfile.open(package) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames() if "." in Path(name).name}
    packed = {name for name in packed if name.partition("/")[0] in ROOMS}
    assert packed == {name for name in files_of_ours() if name.partition("/")[0] in ROOMS}


def test_a_worker_understands_every_step_of_bounded_jobs(worker, traffic, tmp_path, monkeypatch):
    """Scored, with names, into all kinds of files, whichever way flows are put together."""
    monkeypatch.chdir(tmp_path)
    places = ("parquet:flows", "duckdb:flows.duckdb", "csv:flows.csv", "jsonl:flows.jsonl", "blocklist:blocked")
    words = (f"--input={traffic}", *STEPS, *(f"--output={place}" for place in places))
    graphs = {}
    for assembler in ("captures", "flows", "sessions"):
        with ExitStack() as leftovers:
            rules = ["--end_rules=idle"] if assembler == "sessions" else []
            plan = flows.plan_of(flows.parse_options([*words, f"--assembler={assembler}", *rules]))
            graphs[assembler] = BoundedJob(plan, leftovers).pipeline().to_runner_api()
    wanted = {"sinks.parquet", "sinks.duckdb", "sinks.csv", "sinks.jsonl", "sinks.blocklist", "transforms.score"}
    assert wanted <= modules_of(worker, graphs, tmp_path)


@pytest.mark.slow
@pytest.mark.xdist_group("cassandra")
def test_a_worker_understands_every_step_of_an_endless_job(
    worker, kafka, elasticsearch, opensearch, cassandra, monkeypatch, tmp_path
):
    """Scored, with names and drift, into each store there is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)
    name = f"worker{secrets.token_hex(4)}"
    kafka.create_topic(name, 2)
    cassandra.create_keyspace(name)
    places = (
        "parquet:flows",
        "terminal:",
        f"kafka://{kafka.bootstrap}/{name}",
        f"elasticsearch://{elasticsearch.host}/{name}?replicas=0",
        f"opensearch://{opensearch.host}/{name}?replicas=0",
        f"cassandra://{cassandra.address}/{name}?consistency=ONE",
        "bigquery:test.net.flows",
        "blocklist:blocked",
    )
    words = ("--runner=PrismRunner", f"--input=kafka://{kafka.bootstrap}/{name}", *STEPS)
    for gate in make_gate():
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", gate.endpoint)
        plan = flows.plan_of(flows.parse_options([*words, *(f"--output={place}" for place in places)]))
        came_to = modules_of(worker, {"endless": EndlessJob(plan).pipeline().to_runner_api()}, tmp_path)
    stores = ("cassandra", "kafka", "parquet", "terminal")
    assert {"transforms.drift.compare_inputs", "transforms.score", *(f"sinks.{store}" for store in stores)} <= came_to

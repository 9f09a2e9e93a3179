"""Fetches and builds the servers that tests run against, once for each user: `make servers`, `make servers-bigquery`.

They go into `~/.cache/flowbeam/servers`, or the folder FLOWBEAM_SERVERS, a folder for each, named by what it is made
of; it appears there when it is complete. Versions are those of `recipes/` and below, what comes with Beam is of the
version that is installed here.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

RECIPES = Path(__file__).with_name("recipes")
_BEAM = f"v{importlib.metadata.version('apache-beam')}"
_BEAM_IN_GO = "github.com/apache/beam/sdks/v2"
_FLINK = "1.19.3"
_COMPOSE = "1.29.2"
_BIGQUERY_EMULATOR = "github.com/goccy/bigquery-emulator"
_GOOGLE_BINDINGS, _GOOGLE_PROVIDER = "16.12.1", "6.50.0"


class NotInstalled(Exception):
    """A server is not there, or cannot be had; one line that says what to do."""


class Tool(NamedTuple):
    """A program that installing or running a server takes.

    Attributes:
        version: Command that says it; the first number in what it prints is compared.
        oldest: First version that does.
        package: What to install on Debian and Ubuntu.
    """

    version: tuple[str, ...]
    oldest: tuple[int, int]
    package: str


_TOOLS = {
    "java": Tool(("java", "-version"), (17, 0), "openjdk-17-jdk-headless"),
    "mvn": Tool(("mvn", "--version"), (3, 6), "maven"),
    "npm": Tool(("npm", "--version"), (8, 0), "npm"),
    "terraform": Tool(("terraform", "version"), (1, 7), "terraform, of HashiCorp's own package repository"),
    "go": Tool(("go", "version"), (1, 21), "golang-go (golang-1.22-go or later where that is older)"),
    "clang": Tool(("clang", "--version"), (11, 0), "clang"),
}


class Recipe(NamedTuple):
    """How a server is made.

    Attributes:
        made_of: Text or files whose change makes another server of it.
        tools: Programs that it takes.
        build: Makes it in an empty folder; what its commands print goes to the file.
        doing: What takes the time.
        by_itself: Whether it is made only where it is asked for by name.
    """

    made_of: Sequence[str | Path]
    tools: Sequence[str]
    build: Callable[[Path, Path], None]
    doing: str
    by_itself: bool = False


def installed(name: str) -> Path:
    """The folder of a server that is there.

    Raises:
        NotInstalled: It is not.
    """
    folder = _folder_of(name)
    if not folder.exists():
        raise NotInstalled(f"needs {name}: run `make servers{f'-{name}' if _RECIPES[name].by_itself else ''}`")
    return folder


def install(name: str) -> Path:
    """Fetches and builds a server unless it is there; waits where another process is at it.

    Raises:
        NotInstalled: A tool is missing or a command failed.
    """
    folder = _folder_of(name)
    with _alone(_lane_of(name)):
        if folder.exists():
            print(f"== servers: {name} is there", flush=True)
            return folder
        recipe = _RECIPES[name]
        print(f"== servers: {name}: {recipe.doing}", flush=True)
        for tool in recipe.tools:
            _check(name, tool)
        began = time.monotonic()
        log = folder.parent / f"{name}.log"
        log.write_bytes(b"")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as work:
            built = Path(work) / "built"
            built.mkdir()
            recipe.build(built, log)
            built.rename(folder)
        print(f"== servers: {name} is there, after {time.monotonic() - began:.0f} s", flush=True)
    return folder


def _kafka(folder: Path, log: Path) -> None:
    copy = "dependency:copy-dependencies"
    _maven(log, "kafka", copy, f"-DoutputDirectory={folder}", "-DincludeScope=runtime")


def _elasticsearch(folder: Path, log: Path) -> None:
    """Unpacks the distribution; its one folder becomes ours."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
        _maven(log, "elasticsearch", "process-resources", f"-DoutputDirectory={unpacked}")
        (distribution,) = Path(unpacked).glob("elasticsearch-*")
        for path in distribution.iterdir():
            shutil.move(path, folder)


def _opensearch(folder: Path, log: Path) -> None:
    copy = "dependency:copy-dependencies"
    _maven(log, "opensearch", copy, f"-DoutputDirectory={folder}", "-DincludeScope=runtime")


def _cassandra(folder: Path, log: Path) -> None:
    copy = "dependency:copy-dependencies"
    _maven(log, "cassandra", copy, f"-DoutputDirectory={folder}", "-DincludeScope=runtime")


def _flink(folder: Path, log: Path) -> None:
    """Takes Flink's own jars from the package that brings them to Python; its scripts are not needed."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        _run(log, *pip, f"--dest={downloads}", f"apache-flink-libraries=={_FLINK}")
        (archive,) = Path(downloads).iterdir()
        with tarfile.open(archive) as package:
            for member in package:
                name = Path(member.name).name
                if re.search(r"/deps/lib/(flink-dist|log4j-)[^/]*\.jar$", member.name):
                    octets = package.extractfile(member)
                    assert octets is not None
                    with octets, open(folder / name, "wb") as jar:
                        shutil.copyfileobj(octets, jar)


def _flink_job_server(folder: Path, log: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as target:
        _maven(log, "flink_job_server", "package", f"-DbuildDirectory={target}")
        # Beam sends its class path to Flink with each job, but nothing from such a folder; our cluster has it already.
        (folder / "gradle" / "wrapper").mkdir(parents=True)
        shutil.move(Path(target) / "flink-job-server.jar", folder / "gradle" / "wrapper")


def _flink_operator(folder: Path, log: Path) -> None:
    """Takes the definitions of the operator's resources alone."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as jars:
        _maven(log, "flink_operator", "dependency:copy-dependencies", f"-DoutputDirectory={jars}")
        (jar,) = Path(jars).glob("*.jar")
        _unpack(jar, r"META-INF/fabric8/.*-v1\.yml", folder)


def _compose_schema(folder: Path, log: Path) -> None:
    """Takes the schema from the last Compose that was a Python package."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run(log, *pip, f"--dest={downloads}", f"docker-compose=={_COMPOSE}")
        (wheel,) = Path(downloads).iterdir()
        _unpack(wheel, r"compose/config/compose_spec\.json", folder)


def _unpack(archive: Path, pattern: str, folder: Path) -> None:
    """Puts the files of an archive that fit a pattern into a folder, without their folders."""
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if re.fullmatch(pattern, name):
                (folder / Path(name).name).write_bytes(packed.read(name))


def _python_worker(folder: Path, log: Path) -> None:
    _go(folder, log, "install", f"{_BEAM_IN_GO}/python/container@{_BEAM}")


def _prism(folder: Path, log: Path) -> None:
    _go(folder, log, "install", f"{_BEAM_IN_GO}/go/cmd/prism@{_BEAM}")


def _terraform_providers(folder: Path, log: Path) -> None:
    """Builds stand-ins for Google's providers, as a mirror that Terraform installs from."""
    recipe = RECIPES / "terraform_providers"
    system = subprocess.run(["go", "env", "GOOS", "GOARCH"], capture_output=True, text=True, check=True).stdout.split()
    for name in ("google", "google-beta"):
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            package = f"@cdktf/provider-{name}@{_GOOGLE_BINDINGS}"
            _run(log, "npm", "pack", "--silent", package, where=Path(work))
            (archive,) = Path(work).glob("*.tgz")
            _run(log, "tar", "xzf", str(archive), where=Path(work))
            for part in ("main.go", "go.mod", "go.sum"):
                shutil.copy(recipe / part, work)
            address = f"registry.terraform.io/hashicorp/{name}"
            made = [str(Path(work, "package")), address, str(Path(work, "schema.json"))]
            _run(log, sys.executable, str(recipe / "provider_schema.py"), *made)
            to = folder / address / _GOOGLE_PROVIDER / "_".join(system)
            to.mkdir(parents=True)
            binary = to / f"terraform-provider-{name}_v{_GOOGLE_PROVIDER}"
            _go(folder, log, "build", "-o", str(binary), ".", where=Path(work))


def _pubsub(folder: Path, log: Path) -> None:
    _go(folder, log, "build", "-o", str(folder / "pubsub"), ".", where=RECIPES / "pubsub")


def _bigquery(folder: Path, log: Path) -> None:
    """Builds the emulator with Google's own parser of SQL: C++ in packages of gigabytes, so one at a time."""
    build = ("go", "build", "-p=1", "-o", str(folder), f"{_BIGQUERY_EMULATOR}/cmd/bigquery-emulator")
    settings = {"CC": "clang", "CXX": "clang++", "CGO_ENABLED": "1", "GOFLAGS": "-buildvcs=false -ldflags=-s"}
    _run(log, *build, where=RECIPES / "bigquery", **settings)


_RECIPES = {
    "kafka": Recipe([RECIPES / "kafka/pom.xml"], ["java", "mvn"], _kafka, "fetching the broker's jars"),
    "cassandra": Recipe(
        [RECIPES / "cassandra/pom.xml"], ["java", "mvn"], _cassandra, "fetching the node's jars, 67 MB"
    ),
    "prism": Recipe([_BEAM], ["go"], _prism, "building Beam's local runner for streams, a minute or two"),
    "pubsub": Recipe(
        [RECIPES / "pubsub" / name for name in ("go.mod", "go.sum", "main.go")],
        ["go"],
        _pubsub,
        "building the emulator",
    ),
    "bigquery": Recipe(
        [RECIPES / "bigquery" / name for name in ("go.mod", "go.sum")],
        ["go", "clang"],
        _bigquery,
        "building the emulator: a quarter of an hour or more, 5 GB of memory",
        by_itself=True,
    ),
    "elasticsearch": Recipe(
        [RECIPES / "elasticsearch/pom.xml"], ["java", "mvn"], _elasticsearch, "fetching it, 107 MB"
    ),
    "opensearch": Recipe([RECIPES / "opensearch/pom.xml"], ["java", "mvn"], _opensearch, "fetching its jars, 130 MB"),
    "flink": Recipe([_FLINK], ["java"], _flink, "fetching its jars, 230 MB"),
    "flink-job-server": Recipe(
        [RECIPES / "flink_job_server/pom.xml"],
        ["java", "mvn"],
        _flink_job_server,
        "putting Beam's parts together, some minutes",
    ),
    "flink-operator": Recipe(
        [RECIPES / "flink_operator/pom.xml"], ["java", "mvn"], _flink_operator, "fetching its resources' definitions"
    ),
    "compose-schema": Recipe([_COMPOSE], [], _compose_schema, "fetching it"),
    "terraform-providers": Recipe(
        [
            _GOOGLE_BINDINGS,
            *(RECIPES / "terraform_providers" / name for name in ("main.go", "go.mod", "go.sum", "provider_schema.py")),
        ],
        ["go", "npm", "terraform"],
        _terraform_providers,
        "fetching bindings of Google's, 64 MB, and building what knows their schemas",
    ),
    "python-worker": Recipe([_BEAM], ["go"], _python_worker, "building what starts Python workers for Flink"),
}


def _top() -> Path:
    return Path(os.environ.get("FLOWBEAM_SERVERS") or Path.home() / ".cache" / "flowbeam" / "servers").absolute()


def _folder_of(name: str) -> Path:
    digest = hashlib.sha256()
    for part in _RECIPES[name].made_of:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return _top() / f"{name}-{digest.hexdigest()[:12]}"


def _lane_of(name: str) -> str:
    """What must not be done twice at a time: Go takes all cores, and Maven's own folder is for one process."""
    return "go" if "go" in _RECIPES[name].tools else "java"


@contextlib.contextmanager
def _alone(lane: str) -> Iterator[None]:
    """Holds off other processes that install something of this lane."""
    _top().mkdir(parents=True, exist_ok=True)
    with open(_top() / f".{lane}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check(name: str, tool: str) -> None:
    """Raises NotInstalled where a tool is missing or too old."""
    wanted = _TOOLS[tool]
    oldest = ".".join(map(str, wanted.oldest))
    advice = f"on Debian and Ubuntu: apt install {wanted.package}"
    if shutil.which(tool) is None:
        raise NotInstalled(f"{name} needs {tool}, version {oldest} or newer; {advice}")
    said = subprocess.run(wanted.version, capture_output=True, text=True, check=False)
    found = re.search(r"(?<!\[)(\d+)(?:\.(\d+))?", said.stdout + said.stderr)  # not colours
    if found is None or (int(found[1]), int(found[2] or 0)) < wanted.oldest:
        raise NotInstalled(f"{name} needs {tool} {oldest} or newer, this is {found and found[0]}; {advice}")


def _maven(log: Path, recipe: str, *words: str) -> None:
    _run(log, "mvn", "--batch-mode", "--quiet", f"--file={RECIPES / recipe / 'pom.xml'}", *words)


def _go(folder: Path, log: Path, *words: str, where: Path = RECIPES) -> None:
    _run(log, "go", *words, where=where, GOBIN=str(folder), GOFLAGS="-buildvcs=false -ldflags=-s")


def _run(log: Path, *command: str, where: Path | None = None, **environment: str) -> None:
    """Runs a command; raises NotInstalled where it fails. The log bears the server's name."""
    with log.open("ab") as file:
        done = subprocess.run(
            command,
            cwd=where,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise NotInstalled(f"{log.stem}: `{command[0]}` ended with status {done.returncode}; what it said is in {log}")


def main(names: Sequence[str]) -> int:
    """Installs the servers of these names, or all but those by themselves; those of Go beside those of Java."""
    unknown = [name for name in names if name not in _RECIPES]
    if unknown:
        print(f"servers: no server {unknown[0]}; there are {', '.join(_RECIPES)}", file=sys.stderr)
        return 2
    failed = []

    def install_lane(lane: str) -> None:
        for name in names or (name for name, recipe in _RECIPES.items() if not recipe.by_itself):
            if _lane_of(name) == lane:
                try:
                    install(name)
                except NotInstalled as line:
                    failed.append(name)
                    print(f"servers: {line}", file=sys.stderr)

    with ThreadPoolExecutor(max_workers=2) as lanes:
        list(lanes.map(install_lane, ["go", "java"]))
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

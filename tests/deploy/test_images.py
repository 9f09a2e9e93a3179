"""What images are made of: names that stay, files that are there, packages by hash, no root; and that it works."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).parents[2]
IMAGES = TOP / "deploy" / "images"
FILES = sorted(IMAGES.glob("*.Containerfile"))
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    "sensor.lock": ("kafka", "pubsub", "sensor"),
    "worker.lock": ("kafka", "pubsub", "elasticsearch", "bigquery", "cassandra", "gcp"),
}


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_complete_and_not_root(path):
    """Every base has a version, every file that is copied is there, and the last user is a number, and not root's.

    A cluster that lets no root in (`runAsNonRoot`) cannot tell from a name.
    """
    stages, user = set(), "root"
    for word, rest in instructions(path):
        if word == "FROM":
            base, _, stage = rest.partition(" AS ")
            assert base in ("${LAUNCHER}", *stages) or re.search(r":\d+\.\d+\.\d+", base), base
            stages.add(stage)
            user = "root"
        elif word == "COPY":
            words = [one for one in rest.split() if not one.startswith("--")]
            origin = re.search(r"--from=(\S+)", rest)
            assert origin is None or origin[1] in stages
            for name in words[:-1] if origin is None else ():
                assert name == "dist/*.whl" or (TOP / name).is_file(), name
        elif word == "USER":
            user = rest
        else:
            assert word in ("ARG", "RUN", "ENV", "ENTRYPOINT", "VOLUME", "EXPOSE"), word
    assert user == "1000"
    assert "useradd --uid 1000 " in path.read_text(encoding="utf-8")


def test_what_is_copied_is_sent_to_the_builder_and_nothing_else():
    """`.dockerignore` leaves out everything, then lets in the folders that Containerfiles copy from."""
    first, *rest = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()[1:]
    copied = {
        name for path in FILES for word, rest in instructions(path) if word == "COPY" for name in rest.split()[:-1]
    }
    folders = {os.path.dirname(name) for name in copied if not name.startswith(("--", "/"))}
    assert first == "*"
    assert {line.removeprefix("!") for line in rest} == folders


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_every_package_by_hash(name):
    """Those of the project within their ranges; `make lock` after a change of dependencies."""
    locked = {}
    for block in re.split(r"\n(?=\S)", (IMAGES / name).read_text(encoding="utf-8").strip()):
        pinned = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", block)
        assert pinned is not None, block.partition("\n")[0]
        assert "--hash=sha256:" in block
        locked[canonicalize_name(pinned[1])] = pinned[2]
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *(one for extra in EXTRAS[name] for one in extras[extra])):
        needed = Requirement(text)
        assert needed.specifier.contains(locked.get(canonicalize_name(needed.name), "0")), text


def run(*command, **details):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800, **details)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout + done.stderr


def layered(origin, place):
    """A copy as images keep it: whole seconds."""
    place.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        ["tar", "--create", "--format=gnu", "--directory", str(origin), "."], stdout=subprocess.PIPE
    ) as packing:
        run("tar", "--extract", "--directory", str(place), stdin=packing.stdout)
    assert packing.returncode == 0


@pytest.fixture(scope="session")
def debian(tmp_path_factory):
    """A small Debian with its Python where Python's own images have theirs."""
    if shutil.which("debootstrap") is None or os.geteuid():
        pytest.skip("needs debootstrap, and root")
    root = tmp_path_factory.mktemp("debian")
    packages = "--include=ca-certificates,python3,python3-venv"
    run("debootstrap", "--variant=minbase", packages, "bookworm", str(root))
    root.chmod(0o755)  # all may enter
    shutil.copy(root / "usr/bin/python3.11", root / "usr/local/bin/python3.11")
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("python3.11")
    for known in (CERTIFICATES, Path("/etc/resolv.conf"), Path("/etc/hosts")):
        shutil.copy(known, root / known.relative_to("/"))
    return root


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """What `make wheel` makes."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(TOP))
    (made,) = folder.glob("*.whl")
    return made


class Stage:
    """One that is being built: a folder as root, and what ENV and USER said."""

    def __init__(self, root):
        self.root, self.user = root, "0"
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PIP_CERT": str(CERTIFICATES)}

    def run(self, *command, user=None, **details):
        """Runs a command within, as the user."""
        within = ("chroot", f"--userspec={user or self.user}", str(self.root))
        return run(*within, "env", "-i", *(f"{name}={value}" for name, value in self.environment.items()), *command)

    def copy(self, words, stages, wheel):
        """COPY, from the checkout or from another stage."""
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *names, target = (word for word in words if not word.startswith("--"))
        place = self.root / target.lstrip("/")
        if "from" in flags:
            (origin,) = names
            layered(stages[flags["from"]].root / origin.lstrip("/"), place)
        else:
            (place if target.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
            for name in names:
                shutil.copy(wheel if name == "dist/*.whl" else TOP / name, place)
        if "chown" in flags:
            self.run("chown", "--recursive", flags["chown"], target)


def built(path, debian, wheel, folder):
    """The last stage of a Containerfile; images of others are folders with what is copied from them."""
    stages, stage = {}, None
    for word, rest in instructions(path):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(folder / (name or "last"))
            if base.startswith("python:"):
                layered(debian, stage.root)
            else:
                for bought in ("opt/apache/beam", "opt/google/dataflow/python_template_launcher"):
                    (stage.root / bought).mkdir(parents=True)
        elif word == "RUN":
            stage.run("sh", "-c", rest)
        elif word == "ENV":
            for name, value in (one.split("=", 1) for one in rest.split()):
                stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])
        elif word == "COPY":
            stage.copy(rest.split(), stages, wheel)
        elif word == "USER":
            stage.user = rest
    return stage


@pytest.mark.slow
@pytest.mark.xdist_group("images")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_image_works_as_its_user_and_compiles_nothing(path, debian, wheel, tmp_path):
    """Built step by step in a Debian that holds nothing of this machine: the main job, with kernels of the image."""
    image = built(path, debian, wheel, tmp_path)
    assert image.run("id", "-u").strip() == "1000"
    said = image.run("sh", "-c", "cd /var/lib/flowbeam && python -m pipelines.flows --runner=DirectRunner")
    assert "compiling" not in said
    assert "rejects  0\n" in said
    assert image.run("sh", "-c", "cd / && python -c 'import pipelines; print(pipelines.__file__)'").startswith("/opt/")
    if path.stem == "sensor":  # may open packet sockets
        assert os.getxattr(image.root / "usr/local/bin/python3.11", "security.capability")
    shutil.rmtree(tmp_path)

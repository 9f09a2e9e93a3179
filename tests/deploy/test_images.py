"""What images are made of: names that stay, files that are there, packages by hash, no root."""

import re
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

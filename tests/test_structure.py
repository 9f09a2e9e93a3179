"""The house rules that the syntax trees, the folders and the package can prove."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).parents[1]
ROOMS = ("pipelines", "queues", "sinks", "sources", "training", "transforms")
MODULES = sorted(path for room in ROOMS for path in (TOP / room).rglob("*.py"))
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))

MAY_IMPORT = {
    "pipelines": ("pipelines", "queues", "sinks", "sources", "training", "transforms"),
    "queues": ("queues", "transforms.records", "transforms.avro"),
    "sinks": (
        "sinks",
        "queues",
        "transforms.records",
        "transforms.fields",
        "transforms.avro",
        "transforms.avro_columns",
        "transforms.chunks",
        "transforms.features.sets",
        "transforms.kernel",
    ),
    "sources": (
        "sources",
        "queues",
        "transforms.records",
        "transforms.avro",
        "transforms.identity",
        "transforms.addresses",  # the texts of identity's addresses
        "transforms.kernel",
        "transforms.times",
        "transforms.csv_text",
    ),
    "training": ("training", "transforms"),
    "transforms": ("transforms",),
}
"""What the modules of a folder may import of ours; a package stands for all in it."""

MAY_IMPORT_ALONE = {
    "transforms/records.py": (),
    "transforms/fields.py": (),
    "transforms/kernel.py": (),
    "transforms/times.py": (),
    "transforms/csv_text.py": ("transforms.records",),
    "transforms/addresses.py": ("transforms.kernel",),
    "transforms/identity.py": ("transforms.records", "transforms.kernel"),
}
"""The innermost modules: what these may import of ours."""

LONGEST_MODULE = 420

INSTALLED_AS = {
    "cassandra-driver": "cassandra",
    "google-cloud-bigquery": "google",
    "google-cloud-pubsub": "google",
    "grpcio": "grpc",
    "opensearch-py": "opensearchpy",
    "pyyaml": "yaml",
}


def label(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its head or inside functions, by its full name."""
    yield from imported_in(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), path)


def imported_in(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    """The modules that these statements import themselves."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            for name in node.names:
                inner = TOP.joinpath(*node.module.split("."), name.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield f"{node.module}.{name.name}" if is_module else node.module


def allowed(module: str, packages: tuple[str, ...]) -> bool:
    """Whether `module` is one of `packages` or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_imports_point_inward(path):
    """The table of the house style: pipelines → queues, sources, sinks → transforms; sources and sinks never meet."""
    ours = [module for module in imported(path) if allowed(module, (*ROOMS, "tests", "benchmarks", "terraform"))]
    rule = MAY_IMPORT_ALONE.get(label(path), MAY_IMPORT[path.relative_to(TOP).parts[0]])
    assert [module for module in ours if not allowed(module, rule)] == []


def test_the_import_rule_sees_what_it_forbids(tmp_path):
    """A rule that never finds anything holds nothing."""
    module = tmp_path / "wrong.py"
    module.write_text("def late():\n    from sinks import parquet\n    import transforms.fold\n", encoding="utf-8")
    assert list(imported(module)) == ["sinks.parquet", "transforms.fold"]
    assert not allowed("sinks.parquet", MAY_IMPORT["sources"])
    assert not allowed("transforms.records_of_mine", MAY_IMPORT["sources"])
    assert allowed("transforms.records", MAY_IMPORT["sources"])


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_a_module_reads_in_one_sitting(path):
    """Longer ones are split, by what they do."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_modules_are_named_for_what_they_do(path):
    assert re.fullmatch("[a-z][a-z0-9_]*|__init__", path.stem)
    assert path.stem not in ("utils", "util", "helpers", "common", "misc", "base", "core", "main")


def test_beam_sees_the_types():
    """`from __future__ import annotations` would hide them."""
    for path in MODULES:
        modules = set(imported(path))
        if any(allowed(module, ("apache_beam",)) for module in modules):
            assert "__future__" not in modules, label(path)


def test_every_folder_of_code_is_packed():
    """A folder without `__init__.py` would be missing from the wheel."""
    folders = {path.parent.relative_to(TOP).as_posix().replace("/", ".") for path in MODULES}
    find = PROJECT["tool"]["setuptools"]["packages"]["find"]
    assert set(find_packages(str(TOP), include=find["include"])) == folders


def packages_of(lines: list[str]) -> set[str]:
    """What requirements install, by the names that code imports."""
    names = {re.match(r"[\w-]+", line)[0] for line in lines}
    return {INSTALLED_AS.get(name, name.replace("-", "_")) for name in names}


def test_what_the_code_imports_is_what_it_requires():
    """The base install has what our modules import, and nothing more; what an extra brings is imported when needed."""
    required = packages_of(PROJECT["project"]["dependencies"])
    extras = {name for name in PROJECT["project"]["optional-dependencies"] if name != "test"}
    optional = {one for name in extras for one in packages_of(PROJECT["project"]["optional-dependencies"][name])}
    used = {module.partition(".")[0] for path in MODULES for module in imported(path)}
    used -= {*sys.stdlib_module_names, *ROOMS, "__future__"}
    assert required <= used <= required | optional
    for path in MODULES:
        head = ast.parse(path.read_text(encoding="utf-8")).body
        at_head = {module.partition(".")[0] for module in imported_in(head, path)}
        assert not at_head & (optional - required), label(path)


def test_setup_py_packs_all_that_a_worker_needs(tmp_path):
    """Beam's `--setup_file` runs it; a worker has the code, the Avro schemas, and neither tests nor benchmarks."""
    checkout = tmp_path / "checkout"
    for room in ROOMS:
        shutil.copytree(TOP / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(TOP / name, checkout / name)
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path / "dist")]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True, timeout=120)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as packed:
        files = {name.partition("/")[2] for name in packed.getnames()}
        packed.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert files >= {label(path) for path in MODULES}
    assert files >= {label(path) for path in (TOP / "transforms" / "schemas").glob("*.avsc")}
    assert files >= {"setup.py", "pyproject.toml", "LICENSE"}
    assert not [name for name in files if name.startswith(("tests/", "benchmarks/", "docs/"))]
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    program = "from transforms import avro; print(avro.__file__, avro.current_schema()['name'])"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=unpacked, check=True, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() == [str(unpacked / "transforms" / "avro.py"), "PacketBlock"]

"""What importing `pipelines` sets up: commands load faster, and no other process loses its garbage collector."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines

STATUS_OF = "from sinks.command import status_of; status_of(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))"


@pytest.mark.parametrize(
    ("name", "before", "inside"),
    [("-m", "False", "True True"), ("worker.py", "True", "True False")],
    ids=["a-command", "a-worker"],
)
def test_garbage_is_collected_once_a_command_works(name, before, inside):
    program = f"import gc, sys; sys.argv[0] = {name!r}; import pipelines; print(gc.isenabled()); {STATUS_OF}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [before, inside]


@pytest.mark.parametrize(
    ("environment", "pool"),
    [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")],
    ids=["ours", "own"],
)
def test_a_job_that_ends_allocates_where_freed_memory_is_kept(environment, pool, tmp_path):
    (tmp_path / "empty.pcap").write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    program = (
        "import pyarrow; from pipelines.flows import main; status = main(['--input=empty.pcap', '--quiet']);"
        "print(status, pyarrow.default_memory_pool().backend_name)"
    )
    others = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    found = {**others, **environment, "PYTHONPATH": str(Path(pipelines.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=found, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["0", pool]


def test_every_command_turns_it_on_again():
    """But for two that do not stay: one compiles and ends, one is run as a file and becomes another program."""
    modules = {path.stem: path.read_text() for path in Path(pipelines.__file__).parent.glob("*.py")}
    commands = {name for name, text in modules.items() if '\nif __name__ == "__main__":' in text}
    assert {name for name in commands if "status_of(" not in modules[name]} == {"first_run", "companion"}

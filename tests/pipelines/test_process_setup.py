"""What importing `pipelines` sets up: commands load faster, and no other process loses its garbage collector."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines

STATUS_OF = (
    "from sinks.command import status_of; status_of(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0));"
    "print(len(gc.get_objects()) < 1000)"
)


@pytest.mark.parametrize(
    ("name", "before", "inside", "left_alone"),
    [("-m", "False", "True True", "True"), ("worker.py", "True", "True False", "False")],
    ids=["a-command", "a-worker"],
)
def test_garbage_is_collected_while_a_command_works(name, before, inside, left_alone):
    program = f"import gc, sys; sys.argv[0] = {name!r}; import pipelines; print(gc.isenabled()); {STATUS_OF}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [before, inside, left_alone]


@pytest.mark.parametrize(
    ("environment", "pool"),
    [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")],
    ids=["ours", "own"],
)
def test_arrow_allocates_where_freed_memory_is_kept(environment, pool):
    program = "import pipelines, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    others = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env={**others, **environment}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == pool


def test_every_command_turns_it_on_again():
    """But for two that do not stay: one compiles and ends, one is run as a file and becomes another program."""
    modules = {path.stem: path.read_text() for path in Path(pipelines.__file__).parent.glob("*.py")}
    commands = {name for name, text in modules.items() if '\nif __name__ == "__main__":' in text}
    assert {name for name in commands if "status_of(" not in modules[name]} == {"first_run", "companion"}

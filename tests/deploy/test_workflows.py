"""The workflows: of their schema, and about what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_of_its_schema(path):
    """As the forge has it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_python_is_tested():
    """Those that the package says it works with."""
    told = re.findall(r"Python :: (3\.\d+)", (TOP / "pyproject.toml").read_text(encoding="utf-8"))
    (line,) = re.findall(r"python: (\[.*\])", (TOP / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    assert told
    assert re.findall(r"3\.\d+", line) == told

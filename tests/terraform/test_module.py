"""terraform/: formatted, valid, tested with mocks; its schemas are those of the code."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from servers.fixtures import need
from servers.install import installed

from sinks import bigquery, bigquery_schema

MODULE = Path(__file__).parents[2] / "terraform"


@pytest.fixture(scope="module")
def terraform(tmp_path_factory):
    """Runs Terraform on a copy of the module, in one of its folders; Google's providers are stand-ins."""
    need("terraform-providers")
    top = tmp_path_factory.mktemp("terraform")
    shutil.copytree(MODULE, top / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copytree(MODULE.parent / "transforms" / "schemas", top / "transforms" / "schemas")
    mirror = json.dumps(str(installed("terraform-providers")))
    config = top / "terraform.rc"
    config.write_text(f"provider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n")
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "CHECKPOINT_DISABLE": "1"}

    def run(*words, folder="."):
        command = ["terraform", *words, "-no-color"]
        where = top / "terraform" / folder
        done = subprocess.run(
            command, cwd=where, env=environment, check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_is_formatted(terraform):
    assert terraform("fmt", "-check", "-recursive") == ""


def test_its_own_tests_pass(terraform):
    terraform("init", "-input=false")
    terraform("validate")
    told = terraform("test")
    assert "0 failed" in told


@pytest.mark.parametrize("example", sorted(path.name for path in (MODULE / "examples").iterdir()))
def test_the_examples_are_valid(terraform, example):
    folder = f"examples/{example}"
    terraform("init", "-input=false", folder=folder)
    terraform("validate", folder=folder)


def test_the_table_is_that_of_the_code(capsys):
    """After a change of the fields: `python -m sinks.bigquery --schema > terraform/schemas/flows.json`."""
    assert bigquery.main(["--schema"]) == 0
    assert (MODULE / "schemas" / "flows.json").read_text(encoding="utf-8") == capsys.readouterr().out
    view = (MODULE / "schemas" / "flows_latest.sql").read_text(encoding="utf-8")
    assert view == bigquery_schema.latest_query("PROJECT.DATASET.TABLE") + "\n"


def test_readme_names_every_file():
    """And no other."""
    text = (MODULE / "README.md").read_text(encoding="utf-8")
    described = {path.name for path in MODULE.glob("*.tf")} - {"main.tf", "variables.tf", "outputs.tf", "versions.tf"}
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")} == described

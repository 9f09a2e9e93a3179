"""Terraform, with stand-ins for Google's providers."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.fixtures import need
from servers.install import installed

MODULE = Path(__file__).parents[2] / "terraform"


@pytest.fixture(scope="module")
def terraform(tmp_path_factory) -> Callable[..., str]:
    """Runs Terraform on a copy of the module, in one of its folders or beside it, with files that it is given."""
    need("terraform-providers")
    if shutil.which("terraform") is None:  # the stand-ins were built where it was
        lacking = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        lacking("needs terraform (of HashiCorp's own package repository)")
    top = tmp_path_factory.mktemp("terraform")
    shutil.copytree(MODULE, top / "flowbeam" / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copytree(MODULE.parent / "transforms" / "schemas", top / "flowbeam" / "transforms" / "schemas")
    mirror = json.dumps(str(installed("terraform-providers")))
    config = top / "terraform.rc"
    config.write_text(f"provider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n")
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "CHECKPOINT_DISABLE": "1"}

    def run(*words: str, folder: str = "flowbeam/terraform", **files: str) -> str:
        where = top / folder
        where.mkdir(exist_ok=True)
        for name, text in files.items():
            (where / f"{name}.tf").write_text(text, encoding="utf-8")
        command = ["terraform", *words, "-no-color"]
        done = subprocess.run(
            command, cwd=where, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run

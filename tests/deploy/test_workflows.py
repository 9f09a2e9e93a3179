"""The workflows: of their schema, and about what there is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).parents[2]
(VERSION,) = re.findall(r'(?m)^version = "(.+)"', (TOP / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_of_its_schema(path):
    """As the forge has it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_that_is_built_or_tested_may_write(path):
    """Who may release or publish takes what another job made; actions have versions and are no branches."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        steps = job["steps"]
        assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
        if "write" in job.get("permissions", {}).values():
            run = " ".join(step.get("run", "") for step in steps)
            assert not re.search(r"\.ci/|build|pytest|docker|install (?!uv==)", run)


def test_every_python_is_tested():
    """Those that the package says it works with."""
    told = re.findall(r"Python :: (3\.\d+)", (TOP / "pyproject.toml").read_text(encoding="utf-8"))
    (line,) = re.findall(r"python: (\[.*\])", (TOP / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    assert told
    assert re.findall(r"3\.\d+", line) == told


def test_both_ends_of_the_dependencies_are_tested():
    """By the command that a person runs, too; its extras are those that `make test` installs."""
    checks = (TOP / ".github/workflows/checks.yml").read_text(encoding="utf-8")
    assert "resolution: [highest, lowest-direct]" in checks
    assert ".ci/dependencies ${{ matrix.resolution }} ${{ matrix.python }}" in checks
    script = TOP / ".ci" / "dependencies"
    assert os.access(script, os.X_OK)
    (extras,) = re.findall(r"extras=\((.*)\)", script.read_text(encoding="utf-8"))
    (installed,) = re.findall(r"'\.\[(test,.*)\]'", (TOP / "Makefile").read_text(encoding="utf-8"))
    assert extras.split() == installed.split(",")


def test_a_release_verifies_who_signed_its_tag(tmp_path):
    """The step's own commands, on tags of a signer, of a stranger, and of nobody."""
    workflow = yaml.safe_load((TOP / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    (verify,) = [one for one in workflow["jobs"]["package"]["steps"] if one.get("name", "").startswith("the tag is")]
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    names = [f"GIT_{role}_{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **dict.fromkeys(names, "someone@example.org")}

    def run(*command, where=origin, **more):
        done = subprocess.run(
            command, cwd=where, env={**environment, **more}, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode == 0, done.stderr

    origin.mkdir()
    for name in ("signer", "stranger"):
        assert run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))[0]
    assert run("git", "init", "--quiet")[0]
    for name in ("pyproject.toml", "CHANGELOG.md"):
        text = (TOP / name).read_text(encoding="utf-8")
        (origin / name).write_text(re.sub(r"(?m)^(## \[[\d.]+\] - )Unreleased", r"\g<1>2030-01-01", text), "utf-8")
    assert run("git", "add", ".")[0]
    assert run("git", "commit", "--quiet", "--message=all")[0]
    tag = f"v{VERSION}"
    signers = "someone@example.org " + (tmp_path / "signer.pub").read_text(encoding="utf-8")
    for key, how, good in (("signer", "--sign", True), ("stranger", "--sign", False), ("signer", "--no-sign", False)):
        keys = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={tmp_path / key}.pub")
        assert run("git", *keys, "tag", "--force", "--message=it", how, tag) == (True, "")
        shutil.rmtree(clone, ignore_errors=True)
        assert run("git", "clone", "--quiet", str(origin), str(clone), where=tmp_path)[0]
        assert run("git", "update-ref", f"refs/tags/{tag}", "HEAD", where=clone)[0]  # as actions/checkout leaves it
        tagged = {"GITHUB_REF": f"refs/tags/{tag}", "GITHUB_REF_NAME": tag, "RUNNER_TEMP": str(tmp_path)}
        passed, told = run("bash", "-e", "-c", verify["run"], where=clone, SIGNERS=signers, **tagged)
        assert passed is good, (key, how, told)

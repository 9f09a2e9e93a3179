"""terraform/: formatted, valid, tested with mocks; its schemas are those of the code."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from pipelines import capture_options, flows
from sinks import bigquery, rejects, sensors
from sinks.hourly import HourlyCount
from transforms.drift import compare_inputs, judge_answers
from transforms.records import Reject, SensorEvent

MODULE = Path(__file__).parents[2] / "terraform"


def test_it_is_formatted(terraform):
    assert terraform("fmt", "-check", "-recursive") == ""


def test_its_own_tests_pass(terraform):
    terraform("init", "-input=false")
    terraform("validate")
    told = terraform("test")
    assert "0 failed" in told


@pytest.mark.parametrize("example", sorted(path.name for path in (MODULE / "examples").iterdir()))
def test_the_examples_are_valid(terraform, example):
    folder = f"flowbeam/terraform/examples/{example}"
    terraform("init", "-input=false", folder=folder)
    terraform("validate", folder=folder)


def test_the_table_is_that_of_the_code(capsys):
    """After a change: `python -m sinks.bigquery --schema > terraform/schemas/flows.json`, `--views > …/views.json`."""
    for task, name in (("--schema", "flows"), ("--views", "views")):
        assert bigquery.main([task]) == 0
        assert (MODULE / "schemas" / f"{name}.json").read_text(encoding="utf-8") == capsys.readouterr().out


def test_readme_names_every_file():
    """And no other."""
    text = (MODULE / "README.md").read_text(encoding="utf-8")
    described = {path.name for path in MODULE.glob("*.tf")} - {"main.tf", "variables.tf", "outputs.tf", "versions.tf"}
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")} == described


def test_what_machines_are_told_are_options_of_the_sensor():
    """They follow the entry point of the image, which is the command itself."""
    entry = next(
        line
        for line in (MODULE.parent / "deploy/images/sensor.Containerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("ENTRYPOINT")
    )
    unit = (MODULE / "sensor.yaml.tftpl").read_text(encoding="utf-8")
    _, arguments = re.search(r"^ *ExecStart=(.*)\$\{image\} (.*)$", unit, re.MULTILINE).groups()
    shown = (
        arguments.partition("%{ for")[0].replace("${port}", "9464").replace("${queue}", "pubsub://p/t")
        + ' "--filter=tcp port 443"'
    )
    options = capture_options.parse_options([*json.loads(entry.removeprefix("ENTRYPOINT"))[3:], *shlex.split(shown)])
    assert (options.kind, options.names, options.filter) == ("interface", ["eth0"], "tcp port 443")


def test_what_the_job_is_told_are_options_of_the_main_job(tmp_path):
    """As the launcher hands them over: in one parameter, with lists and switches."""
    text = (MODULE / "dataflow.tf").read_text(encoding="utf-8")
    block = text.partition("merge({")[2].partition("}, try(var.pipeline.options")[0]
    values = dict(re.findall(r'^ *(\w+) += "(.*)"$', block, re.MULTILINE))
    assert values.keys() == {"input", "output", "rejects", "sensor_events", "drift"}
    assert "pipeline_parameters = { settings = jsonencode(local.pipeline_options) }" in text
    secret = "FLOWBEAM_ELASTICSEARCH_API_KEY=projects/p/secrets/s/versions/latest"
    asked = {
        "merge_sensors": True,
        "sensors": ["north"],
        "shards": 16,
        "secret": [secret],
        "output": ["terminal:", "csv:-"],
    }
    settings = json.dumps({**values, **asked}, separators=(",", ":"))
    launcher = runpy.run_path(str(MODULE.parent / "deploy" / "images" / "main.py"), run_name="launcher")
    words = launcher["words"](["--runner=DataflowRunner", f"--settings={settings}"], tmp_path)
    options = flows.parse_options(list(words)).get_all_options()
    assert options["input"] == [values["input"]]
    assert (options["rejects"], options["drift"]) == (values["rejects"], values["drift"])
    assert (options["output"], options["secret"], options["runner"]) == (asked["output"], [secret], "DataflowRunner")
    assert (options["merge_sensors"], options["sensors"], options["shards"]) == (True, ["north"], 16)


def told_by_the_code(caplog, monkeypatch) -> dict[str, list[str]]:
    """What a running job writes into its log, by the name of the metric that counts it."""
    told = {}
    monkeypatch.setattr(sensors, "_told", HourlyCount())
    rejects.Allowed(1).takes(Reject("parse", "malformed", "topic", None, b""))
    told["rejects"] = caplog.messages[:]
    for name in sensors._TROUBLES:
        sensors._counted(SensorEvent("north", 1, 0, name, 1))
    told["drops"], told["silent"] = caplog.messages[1:-1], caplog.messages[-1:]
    row = {"window_start_ns": 0, "window_end_ns": 0, "model_id": "m", "psi": 0.5, "features": [{"feature": "f"}]}
    row |= {"wrong": 1, "flows": 2, "usual_error_rate": 0.1}
    told["drift"] = [compare_inputs.described(row), judge_answers.described(row)]
    return told


def test_alerts_are_made_of_what_the_code_says(caplog, monkeypatch):
    """Each line is counted under one name, by the pattern that Terraform has for it."""
    text = (MODULE / "monitoring.tf").read_text(encoding="utf-8").partition("told = {")[2].partition("}")[0]
    patterns = dict(re.findall(r'^ *(\w+) += "(.*)"$', text, re.MULTILINE))
    told = told_by_the_code(caplog, monkeypatch)
    assert patterns.keys() == told.keys()
    for name, lines in told.items():
        assert lines
        for line in lines:
            assert [other for other, pattern in patterns.items() if re.search(pattern, line)] == [name]

"""docs/gcp.md, as an operator follows it: its Terraform is valid, and what its commands name is there."""

import re
import shlex
from pathlib import Path

import duckdb

from sinks import bigquery_views
from transforms import fields, score

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "gcp.md").read_text(encoding="utf-8")
MODULE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((TOP / "terraform").glob("*.tf")))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("text") for line in block.splitlines()]


def test_its_module_is_valid(terraform):
    """First as step 2 has it, then with what later steps add: every argument is one, of its type."""
    first, *more = blocks("hcl")
    assert len(more) == 2
    for text in (first, re.sub(r"(notification_channels = .*\n)", r"\1" + "".join(more).replace("\\", r"\\"), first)):
        terraform("init", "-input=false", folder="infra", main=text)
        terraform("validate", folder="infra", main=text)


def test_what_it_says_of_outputs_and_alerts_is_there():
    outputs = set(re.findall(r'^output "(\w+)"', MODULE, re.MULTILINE))
    told = PAGE.partition("It prints where")[2].partition("(`open_next`)")[0]
    assert {"queue", "input", "output", "aside", "images", "templates"} == set(re.findall(r"`(\w+)`", told)) <= outputs
    title = re.search('policy "flowbeam: ([^"]+)"', PAGE.replace("\n", " "))[1]
    assert f'title  = "{title}"' in MODULE
    variables = set(re.findall(r'^variable "(\w+)"', MODULE, re.MULTILINE))
    later = PAGE.partition("## 8.")[2]
    assert {"deletion_protection", "kms_key", "budget", "elasticsearch_key", "internet_access", "pipeline"} <= (
        set(re.findall(r"`(\w+)", later)) & variables
    )


def test_its_commands_name_files_names_and_patterns_that_are_there():
    """Containerfiles, the model, names that the module gives, the log's lines that alerts are made of."""
    for words in commands():
        if words[:2] == ["docker", "build"]:
            assert "-" in words or (TOP / words[words.index("--file") + 1]).is_file()
    assert (TOP / re.search(r"COPY (\S+) ", PAGE)[1]).is_dir()
    text = "\n".join(blocks("text"))
    for suffix, resource in (("templates", "storage_bucket"), ("aside", "storage_bucket")):
        assert f"$PROJECT-flowbeam-{suffix}" in text
        assert re.search(rf'"google_{resource}" "{suffix}"[^}}]*bucket_prefix}}-{suffix}"', MODULE)
    assert "flowbeam-packets" in text
    assert '"${var.name}-packets"' in MODULE
    pattern = re.search(r'message=~"([^"]+)"', text)[1]
    assert f'rejects = "{pattern}"' in MODULE


def test_its_question_is_about_columns_that_scored_flows_have():
    """Asked of the view, on the columns that the main job writes with a model."""
    (question,) = blocks("sql")
    columns = re.search(r"SELECT (.*)\n", question)[1].split(", ")
    names = {field.name for field in (*fields.COMMON, *score.SCORE)} | {"flow_start"}
    (view,) = (view.on("flowbeam.flows") for view in bigquery_views.VIEWS if view.name == "alerts")
    with duckdb.connect() as database:
        database.sql("CREATE SCHEMA flowbeam")
        given = ", ".join(f'"{name}" INTEGER' for name in sorted(names))
        database.sql(f"CREATE TABLE flowbeam.flows_latest ({given})")
        database.sql(f"CREATE VIEW flowbeam.flows_alerts AS {view.replace('`', '')}")
        assert database.sql(question).columns == columns

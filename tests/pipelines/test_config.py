"""Options from files and the environment."""

import argparse
import json
import re
from pathlib import Path

import pytest

from pipelines import capture, flows, generate, kibana, label, resend, train
from pipelines.config import NO_OPTIONS, expanded
from pipelines.words import comma_separated
from transforms.records import InputError

TOP = Path(__file__).parents[2]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--input", action="append")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--end_rules", type=comma_separated)
    parser.add_argument("--loop", type=int, nargs="?", const=0)
    parser.add_argument("--sensor")
    parser.add_argument("--idle_timeout_s", type=float)
    return parser


@pytest.fixture
def config(tmp_path):
    def written(text: str) -> str:
        path = tmp_path / "flows.yaml"
        path.write_text(text)
        return f"--config={path}"

    return written


def test_the_command_line_then_the_environment_then_the_file(parser, config):
    """Each option comes whole from the first that has it."""
    file = config("input: [a.pcap, 'b c.pcap']\nidle-timeout-s: 7\nquiet: true\nend_rules: [tcp, idle]\n")
    environment = {"FLOWBEAM_INPUT": "c.pcap 'd e.pcap'", "FLOWBEAM_IDLE_TIMEOUT_S": "8", "HOME": "/"}
    options = parser.parse_args(expanded(["--idle_timeout_s", "9", file], parser, environment))
    assert options.input == ["c.pcap", "d e.pcap"]
    assert options.idle_timeout_s == 9
    assert options.quiet
    assert options.end_rules == ["tcp", "idle"]
    assert parser.parse_args(expanded([file], parser, {})).input == ["a.pcap", "b c.pcap"]


def test_a_file_named_by_the_environment(parser, config):
    """As in a container."""
    path = config("quiet: false\nidle_timeout_s: 3\n").partition("=")[2]
    options = parser.parse_args(expanded([], parser, {"FLOWBEAM_CONFIG": path}))
    assert (options.quiet, options.idle_timeout_s) == (False, 3)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("idle_timeouts: 3", "there is no option 'idle_timeouts'; did you mean idle_timeout_s?"),
        ("quiet: perhaps", "quiet is a switch: give true or false, not 'perhaps'"),
        ("input: [[a]]", "input needs a plain value or a list of them"),
        ("idle_timeout_s:", "idle_timeout_s needs a plain value or a list of them"),
        ("- a\n- b", "holds no options; write one `name: value` in a line"),
        ("a: [1", "line 1: is no YAML"),
        ("config: other.yaml", "there is no option 'config'"),
        ("sensor: [north, south]", "sensor takes one value, not a list of them"),
        ("sensor: {north: 1}", "sensor needs a plain value or a list of them"),
        ("end_rules: []", "end_rules needs a plain value or a list of them"),
        ("loop: ever", "loop: invalid int value: 'ever'"),
        ("sensor: \0", "flows.yaml: is no YAML: unacceptable character #x0000: special characters are not allowed"),
        ("webhook_secret: x", "'webhook_secret'; it is read of the environment alone, as FLOWBEAM_WEBHOOK_SECRET"),
        ("kafka_linger_ms: 5", "'kafka_linger_ms'; it is read of the environment alone, as FLOWBEAM_KAFKA_LINGER_MS"),
        ("idle_timeout_s: soon", "idle_timeout_s: invalid float value: 'soon'"),
        ("input: a\nquiet: true\ninput: b", "input is there twice; several values are a list, [A, B]"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text, line, parser, config):
    """It names the file and what is wrong."""
    with pytest.raises(InputError) as caught:
        expanded([config(text)], parser, {})
    assert "flows.yaml" in str(caught.value)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "---", "# idle_timeout_s: 7\n", "input: []"])
def test_a_file_without_options_is_one(text, parser, config):
    """Also one in which all is commented out."""
    assert parser.parse_args(expanded([config(text)], parser, {})).input is None


@pytest.mark.parametrize(("text", "value"), [("loop:", 0), ("loop: 3", 3)])
def test_an_option_that_may_stand_alone(text, value, parser, config):
    """Stands alone in a file, too."""
    assert parser.parse_args(expanded([config(text)], parser, {})).loop == value


def test_an_empty_variable_is_none(parser, config):
    """A container's manifest may name variables that nobody sets: the file counts, as if they were not there."""
    environment = {"FLOWBEAM_INPUT": "", "FLOWBEAM_QUIET": "", "FLOWBEAM_CONFIG": ""}
    options = parser.parse_args(expanded([config("input: a.pcap\nquiet: true")], parser, environment))
    assert (options.input, options.quiet) == (["a.pcap"], True)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FLOWBEAM_IDLE_TIMEOUT", "FLOWBEAM_IDLE_TIMEOUT_S"),
        ("FLOWBEAM_INPTU", "FLOWBEAM_INPUT"),
        ("FLOWBEAM_WEBHOOK_SECRETS", "FLOWBEAM_WEBHOOK_SECRET"),
    ],
)
def test_a_variable_that_is_almost_an_option_is_told(variable, meant, parser, capsys):
    """On one line; the command goes on."""
    assert expanded([], parser, {variable: "x", "HOME": "/"}) == []
    line = f"flowbeam: environment variable {variable}: is ignored, no option has this name; did you mean {meant}?\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "variable",
    [
        "FLOWBEAM_KAFKA_SASL_PASSWORD",
        "FLOWBEAM_KAFKA_INPUT",
        "FLOWBEAM_CASSANDRA_PASSWORD_FILE",
        "FLOWBEAM_ELASTICSEARCH_API_KEY",
        "FLOWBEAM_CORPUS",
        "FLOWBEAM_JOB_SERVER_SERVICE_PORT_HTTP",
        "INPTU",
    ],
)
def test_variables_of_others_are_not_told(variable, parser, capsys):
    """Secrets, and what Kubernetes adds for its services."""
    assert expanded([], parser, {variable: "x"}) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("IDLE_TIMEOUT_S", "soon", "environment variable FLOWBEAM_IDLE_TIMEOUT_S: idle_timeout_s: invalid float"),
        ("INPUT", "'a.pcap", "environment variable FLOWBEAM_INPUT: no closing quotation"),
        ("QUIET", "perhaps", "environment variable FLOWBEAM_QUIET: quiet is a switch"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line(name, text, line, parser):
    """It names the variable."""
    with pytest.raises(InputError, match=line):
        expanded([], parser, {f"FLOWBEAM_{name}": text})


def test_what_yaml_takes_for_something_else_is_text(parser, config):
    """A sensor named `no`, a date, a number with zeros before it."""
    options = parser.parse_args(expanded([config("input: [no, 2026-01-31, 007, 1.10]")], parser, {}))
    assert options.input == ["no", "2026-01-31", "007", "1.10"]


def test_a_file_that_is_not_there(parser):
    """One line names it."""
    with pytest.raises(InputError, match=r"--config nowhere.yaml: cannot be read: No such file"):
        expanded(["--config", "nowhere.yaml"], parser, {})


def test_generated_traffic_as_a_file_says(tmp_path, config, monkeypatch, capsys):
    """The command line before the environment, that before the file."""
    monkeypatch.setenv("FLOWBEAM_SEED", "7")
    file = config(f"output: {tmp_path}/a.pcap\npackets: 300\nseed: 8\n")
    assert generate.main([file, "--quiet"]) == 0
    given = [f"--output={tmp_path}/b.pcap", "--packets=300", "--quiet"]
    assert generate.main([*given, "--seed=7"]) == 0
    assert (tmp_path / "a.pcap").read_bytes() == (tmp_path / "b.pcap").read_bytes()
    assert generate.main([file, "--packets=0"]) == 2
    assert "packets" in capsys.readouterr().err


def test_words_of_a_list_reach_training(tmp_path, config, capsys):
    """Several tables, from a file as on the command line, where the option may be repeated, too."""
    file = config(f"flows: [{tmp_path}/a.csv, {tmp_path}/b.csv]\nevaluate: {tmp_path}/model\nseed: 2")
    for words in ([file], ["--flows", f"{tmp_path}/a.csv", f"--flows={tmp_path}/b.csv", "--evaluate=m"]):
        options = train.parse_options(words)
        assert options.flows == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"]
    assert train.parse_options([file]).seed == 2
    assert train.main([config("flows: a.csv")]) == 2
    assert "--output models/NAME" in capsys.readouterr().err


def test_labels_as_a_file_says(tmp_path, config, capsys):
    """Its options reach the labeller: the mistake is in a value that only the file has."""
    (tmp_path / "flows").mkdir()
    assert label.main([config(f"flows: {tmp_path}/flows\nattacks: [a.csv, b.csv]\noutput: {tmp_path}/out")]) == 2
    assert f"{tmp_path}/flows" in capsys.readouterr().err


def test_saved_objects_as_the_environment_says(tmp_path, monkeypatch):
    """Options with a default, and without."""
    monkeypatch.setenv("FLOWBEAM_OUTPUT", str(tmp_path / "kibana.ndjson"))
    monkeypatch.setenv("FLOWBEAM_INDEX", "lines")
    assert kibana.main([]) == 0
    written = (tmp_path / "kibana.ndjson").read_text(encoding="utf-8").splitlines()
    assert "lines-*" in [json.loads(line)["attributes"]["title"] for line in written]


@pytest.mark.parametrize(
    "main", [capture.main, flows.main, generate.main, kibana.main, label.main, resend.main, train.main]
)
def test_every_command_reads_a_file(main, config, capsys):
    """And refuses what is no option of its own with one line."""
    assert main([config("no_such_thing: 1")]) == 2
    assert "flows.yaml: there is no option 'no_such_thing'" in capsys.readouterr().err


def test_variables_that_are_written_about_are_known():
    """In code and docs: nobody is warned of what a page told them to set."""
    pages = [*TOP.glob("*.md"), *TOP.glob("docs/*.md"), *TOP.glob("[pqst]*/**/*.py"), *TOP.glob("deploy/**/*.y*ml")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if "tests" not in page.parts)
    named = {name.lower() for name in re.findall(r"FLOWBEAM_([A-Z_]*[A-Z])\b", text)} - {"name"}
    assert {"kafka_sasl_password", "webhook_secret", "cassandra_username", "opensearch_api_key"} <= named
    assert {name for name in named if name not in NO_OPTIONS and not name.startswith("kafka_")} == set()


def test_the_main_job_takes_its_options_from_a_file(traffic, tmp_path, config, capsys):
    """And says with --check what it would do, and with --dry_run by which steps, without doing it."""
    file = config(f"input: {traffic}\noutput: ['parquet:{tmp_path}/flows', 'csv:{tmp_path}/f.csv']\nfeatures: cic@1\n")
    assert flows.main([file, "--check"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"input    {traffic}" in told
    assert f"output   csv:{tmp_path}/f.csv" in told
    assert any(line.startswith("flows    cic@1: ") for line in told)
    assert flows.main([file, "--dry_run"]) == 0
    steps = capsys.readouterr().out.splitlines()
    assert steps[0] == "Inputs"
    assert "AssembleCaptures" in steps
    assert f"Write csv:{tmp_path}/f.csv" in steps
    assert not list(tmp_path.glob("flows/*"))
    assert not (tmp_path / "f.csv").exists()


def test_a_check_tells_what_a_run_would_make(traffic, monkeypatch, capsys):
    """Of a server, and makes none of it."""
    from servers.bigquery_gate import BigQueryGate

    with BigQueryGate() as gate:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", gate.endpoint)
        gate.datasets.add("test.net")
        assert flows.main([f"--input={traffic}", "--output=bigquery:test.net.flows", "--check"]) == 0
        makes = "table test.net.flows, view flows_latest"
        assert f"output   bigquery:test.net.flows, where it makes: {makes}" in capsys.readouterr().out
        assert gate.tables == {}


def test_what_runners_are_sent_of_options_has_no_tuples():
    """Protocol buffers before 6 refuse them, and so would every runner that jobs are submitted to."""
    words = ("--end_rules=tcp,idle", "--decapsulate=ip,gre", "--sensors=north", "--threats=a", "--threat_columns=host")
    given = flows.parse_options(words).get_all_options()
    assert given["end_rules"] == ["tcp", "idle"]
    assert [name for name, value in given.items() if isinstance(value, tuple)] == []


def test_a_wrong_output_fails_the_check(config, capsys):
    """With status 2 and the line that the run itself would give."""
    assert flows.main(["--check", "--output", "flows", "--input", "nowhere.pcap"]) == 2
    assert "--output flows: no scheme" in capsys.readouterr().err

"""Options from files and the environment."""

import argparse

import pytest

from pipelines import flows
from pipelines.config import expanded
from transforms.records import InputError


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--input", action="append")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--end_rules")
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
    assert options.end_rules == "tcp,idle"
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
        assert f"output   bigquery:test.net.flows, where it makes: {makes}" in capsys.readouterr().out.splitlines()
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

"""README and docs say what the code does."""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import readme_parts
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from pipelines.options import parse_options
from sinks import outputs

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


def commands(page: str) -> list[list[str]]:
    """The commands in a page's shell blocks and indented lines, comments removed."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL) + re.findall(r"^    (python .*)$", page, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("command", readme_parts.COMMANDS)
def test_the_table_of_options_is_the_code_s(command):
    """After a change of an option: `make docs`."""
    assert readme_parts.part(f"options of {command}", README) == readme_parts.option_table(command)


def test_the_flow_and_the_summary_are_the_demo_s(tmp_path):
    """What README shows of a run comes out of `make demo`, on any machine."""
    flow, summary = readme_parts.demo(tmp_path)
    assert readme_parts.part("a flow", README) == flow
    assert readme_parts.part("a summary", README) == f"```text\n{summary}\n```"


@pytest.mark.parametrize("command", readme_parts.COMMANDS)
def test_help_tells_the_default_there_is(command):
    """The last words of an option's help are its default, if it has one that can be written down."""
    wrong = [
        f"{action.option_strings[-1]}: {told} told, {actual} true"
        for action in readme_parts.options(readme_parts.parser_of(command))
        if (actual := readme_parts.actual_default(action)) is not None
        and (told := readme_parts.told_default(action)) is not None
        and re.split(", | ", told)[0] != actual
    ]
    assert wrong == []


def test_readme_has_the_commands_verbatim():
    lines = README.splitlines()
    assert [line for line in lines if line.startswith("make demo")]
    assert [line for line in lines if line.startswith("make test")]
    assert "python -m pipelines.flows --runner=DirectRunner --input capture.pcap" in lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_there(page):
    """Every `python -m MODULE`, `make TARGET` and `pip install '.[EXTRA]'` of a page exists."""
    targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = (TOP / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", named.partition("\n[")[0], re.MULTILINE))
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "pip":
            assert words[1] == "install"
            assert set(re.findall(r"\w+", words[2])) <= extras
        else:
            assert words[:2] == ["python", "-m"]
            assert importlib.util.find_spec(words[2]) is not None, words[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_commands_are_options(page):
    """What a page tells a person to type is understood."""
    for words in commands(page.read_text(encoding="utf-8")):
        if words[:3] == ["python", "-m", "pipelines.flows"]:
            parse_options(words[3:])
        elif words[0] == "python" and words[2] in readme_parts.COMMANDS:
            readme_parts.parser_of(words[2]).parse_args(words[3:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """A path in backquotes that begins with a folder of ours; words in capitals stand for a name to fill in."""
    folders = "pipelines|queues|sources|sinks|transforms|tests|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./]+)`", page.read_text(encoding="utf-8")):
        if not re.search("[A-Z]{2}", path):
            assert (TOP / path).exists(), path


def test_options_that_docs_name_are_options():
    """In prose, too: `--idle_timeout_s` is an option of one of our commands, or of Beam."""
    parser = _BeamArgumentParser(conflict_handler="resolve")
    for beam_options in PipelineOptions.__subclasses__():
        beam_options._add_argparse_args(parser)
    known = set(parser._option_string_actions)
    for command in readme_parts.COMMANDS:
        known.update(action.option_strings[-1] for action in readme_parts.options(readme_parts.parser_of(command)))
    for module in (TOP / "sinks").glob("*.py"):  # what a store's own command understands
        known.update(re.findall(r'add_argument\(\s*"(--[a-z_]+)"', module.read_text(encoding="utf-8")))
    for page in PAGES:
        named = set(re.findall(r"`[^`\n]*?(--[a-z_]+)", page.read_text(encoding="utf-8")))
        assert named <= known, page.name


def test_make_help_lists_every_target():
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    listed = subprocess.run(["make", "help"], cwd=TOP, check=True, capture_output=True, text=True, timeout=60).stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("make ")] == targets


def test_readme_names_every_output():
    table = README[README.index("| output | what it writes |") :].split("\n\n", 1)[0]
    assert {scheme.partition("+")[0] for scheme in outputs.schemes()} == set(re.findall(r"`(\w+):", table))

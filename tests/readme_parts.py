"""The parts of README.md that the code decides: `python -m tests.readme_parts` writes them.

The tables of options come from the commands themselves, the flow and the summary from a run of the demo.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from argparse import Action, ArgumentParser, HelpFormatter
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from pipelines import capture, flows, generate, label, train
from pipelines.options import add_arguments

README = Path(__file__).parents[1] / "README.md"

COMMANDS = ("pipelines.flows", "pipelines.capture", "pipelines.generate", "pipelines.label", "pipelines.train")

SHOWN = [
    "flow_id", "sensor", "src_ip", "src_port", "dst_ip", "dst_port", "protocol", "community_id",
    "flow_start_ns", "flow_duration_us", "end_reason", "conn_state", "history", "fwd_packets", "rev_packets",
    "fwd_ip_octets", "rev_ip_octets", "fwd_payload_octets_mean", "flow_iat_std_us", "fwd_psh_count",
    "syn_ack_rtt_us", "rev_bulk_octets_per_s", "rev_retransmissions", "active_mean_us", "idle_mean_us",
    "splt_direction", "rev_payload_octets_histogram",
]  # fmt: skip
"""Columns of the flow that is shown."""

_TOLD_DEFAULT = re.compile(r"\s*(?:\bDefault (?P<sentence>.+)\.|\((?:default )?(?P<brackets>[^()]+)\))$")


class _Parser(Exception):
    """Carries the parser that a command has made."""


def parser_of(command: str) -> ArgumentParser:
    """The parser of a command, of its own options only: not those of Beam."""
    if command == "pipelines.flows":
        parser = ArgumentParser()
        add_arguments(parser)
        return parser

    def caught(parser: ArgumentParser, *_: Any) -> None:
        raise _Parser(parser)

    main = {
        "pipelines.capture": capture.main,
        "pipelines.generate": generate.main,
        "pipelines.label": label.main,
        "pipelines.train": train.main,
    }[command]
    with mock.patch.object(ArgumentParser, "parse_args", caught):
        try:
            main([])
        except _Parser as made:
            return made.args[0]
    raise AssertionError(f"{command} has no parser")


def options(parser: ArgumentParser) -> list[Action]:
    """The options, `--help` aside."""
    return [action for action in parser._actions if action.dest != "help"]


def told_default(action: Action) -> str | None:
    """The default that the help tells in its last words; None if it tells none."""
    found = _TOLD_DEFAULT.search(_help(action))
    return found and (found["sentence"] or found["brackets"]).strip("`")


def actual_default(action: Action) -> str | None:
    """The default in the words of the command line; None where nothing but leaving the option out says it."""
    if action.default in (None, [], (), "") or action.nargs == 0:
        return None
    if isinstance(action.default, list):
        return ",".join(action.default)
    return f"{action.default:.12g}" if isinstance(action.default, float) else str(action.default)


def option_table(command: str) -> str:
    """Option, default and meaning, in Markdown."""
    rows = map(_option_row, options(parser_of(command)))
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])


def _help(action: Action) -> str:
    return HelpFormatter("")._expand_help(action)


def _option_row(action: Action) -> str:
    default = told_default(action) or actual_default(action) or ("required" if action.required else "")
    meaning = _TOLD_DEFAULT.sub("", _help(action)).replace("|", "\\|")
    if action.choices and not all(str(choice) in meaning for choice in action.choices):
        meaning += f" One of {', '.join(map(str, action.choices))}."
    return f"| `{action.option_strings[-1]}` | {default} | {meaning[:1].upper()}{meaning[1:]} |"


def demo(folder: Path) -> tuple[str, str]:
    """Runs the demo in `folder`: one of its flows as a table, and the summary less what differs by machine."""
    said, before = io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(said):
            assert flows.main(["--runner=DirectRunner"]) == 0
    finally:
        os.chdir(before)
    lines = [line for line in said.getvalue().splitlines() if not line.startswith("speed")]
    return _flow_table(_shown_flow(folder / "flows")), "\n".join(lines).replace(sys.executable, "python")


def _shown_flow(folder: Path) -> dict[str, Any]:
    """The first ordinary connection to a web server over IPv4 that closed in good order."""
    flows_there = pq.read_table(folder, columns=["ip_version", *SHOWN]).to_pylist()
    ordinary = [
        flow
        for flow in flows_there
        if (flow["ip_version"], flow["dst_port"], flow["conn_state"]) == (4, 443, "SF")
        and flow["rev_bulk_octets_per_s"] is not None
    ]
    return min(ordinary, key=lambda flow: (flow["flow_start_ns"], flow["flow_id"]))


def _flow_table(flow: dict[str, Any]) -> str:
    rows = (f"| `{name}` | {_cell(flow[name])} |" for name in SHOWN)
    return "\n".join(["| column | value |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"`{value.hex()}`" if isinstance(value, bytes) else json.dumps(value).strip('"')


def part(name: str, page: str) -> str:
    """The part called `name` of a page."""
    return re.search(_marked(name), page, re.DOTALL)[1]


def with_part(name: str, page: str, new: str) -> str:
    """The page with the part called `name` replaced."""
    start, stop = re.search(_marked(name), page, re.DOTALL).span(1)
    return page[:start] + new + page[stop:]


def _marked(name: str) -> str:
    return rf"<!-- {re.escape(name)} -->\n(.*?)\n<!-- end -->"


def _write() -> None:
    page = README.read_text(encoding="utf-8")
    for command in COMMANDS:
        page = with_part(f"options of {command}", page, option_table(command))
    with tempfile.TemporaryDirectory() as folder:
        flow, summary = demo(Path(folder))
    page = with_part("a flow", page, flow)
    page = with_part("a summary", page, f"```text\n{summary}\n```")
    README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    _write()

"""The options of the main job, in the words of its users."""

import argparse
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import config
from pipelines.drift_options import DriftOptions
from pipelines.enrich_options import EnrichOptions
from pipelines.score_options import ScoreOptions
from pipelines.sink_options import SinkOptions
from pipelines.stream_options import StreamOptions
from pipelines.summary import check_path
from pipelines.words import comma_separated
from sinks.command import OneLineParser
from transforms.records import InputError

T = TypeVar("T", bound=PipelineOptions)

_AND_BEAMS = """\
Beam's own options are understood, too, such as --runner (default DirectRunner:
this machine) and --setup_file: https://beam.apache.org/documentation/
"""


_DRY_RUN = "--dry_run"
"""Beam has an option of this name, with a value: it must not see ours."""


class FlowOptions(PipelineOptions):
    """What `pipelines.flows` understands beside Beam's own options."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        def text(name: str, about: str, **details: Any) -> None:
            parser.add_argument(name, help=about, **details)

        def several(name: str, metavar: str, about: str) -> None:
            text(name, f"{about}; repeatable.", metavar=metavar, action="append", default=[])

        def switch(name: str, about: str) -> None:
            parser.add_argument(name, help=about, action="store_true")

        def seconds(name: str, default: float, about: str) -> None:
            text(name, about, metavar="S", type=float, default=default)

        def number(name: str, default: int, about: str) -> None:
            text(name, about, metavar="N", type=int, default=default)

        parser.add_argument(
            "--input",
            metavar="URL",
            action="append",
            default=[],
            help="Capture file, folder, glob, `-` for standard input, or a queue: spool:DIR, kafka://BROKER/TOPIC,"
            " pubsub://PROJECT/SUBSCRIPTION; repeatable. Without it, demo traffic is made and read.",
        )
        parser.add_argument(
            "--output",
            metavar="URL",
            action="append",
            default=[],
            help="Where flows go: parquet:DIR, duckdb:FILE, csv:FILE, jsonl:FILE, csv:- or jsonl:- for standard output,"
            " terminal: for people, or the URL of a store, a broker or a receiver of alerts; repeatable. Default"
            " parquet:flows.",
        )
        several("--features", "SET", "Feature set: flowbeam@1 (default), cic@1, flowtbag@1, nfstream@1")
        several("--feature_module", "MODULE", "Python module with a family of features of your own")
        text("--sensor", "Name of the sensor that the captures come from. Default local.", default="local")
        text(
            "--sensor_from",
            "One sensor for all files, or one for each file or folder. Default all.",
            choices=("all", "file", "folder"),
            default="all",
        )
        switch("--merge_sensors", "All sensors see one line: the sensor is no part of a flow's key.")
        text(
            "--end_rules",
            "Which rules end flows. Default tcp,idle,active,reuse.",
            metavar="RULES",
            type=comma_separated,
            default=["tcp", "idle", "active", "reuse"],
        )
        seconds("--idle_timeout_s", 120.0, "A flow ends when nothing came for so long. Default 120.")
        seconds("--active_timeout_s", 1800.0, "A flow is split after so long. Default 1800.")
        seconds("--tcp_linger_s", 5.0, "A closed TCP connection keeps what trails the close for so long. Default 5.")
        seconds("--activity_timeout_s", 5.0, "Longer gaps part active periods (features active_*, idle_*). Default 5.")
        seconds("--interim_interval_s", 0.0, "Reports open flows at multiples of this. Default 0, never.")
        text(
            "--icmp_key",
            "`type` puts ICMP type and code into the ports, `none` makes them 0. Default type.",
            metavar="KEY",
            default="type",
        )
        switch("--ignore_vni", "Leaves the VXLAN or Geneve network out of a flow's key.")
        text("--decapsulate", "Tunnels to open, or `none`. Default all of them.", metavar="KINDS", type=comma_separated)
        headers_seen = "Rejects packets with headers seen at most so long before. Default 0, none."
        seconds("--drop_duplicates_s", 0.0, headers_seen)
        number("--community_id_seed", 0, "Seed of the Community ID. Default 0.")
        number(
            "--max_open_flows", 4_000_000, "Open flows of one table; those idle longest end beyond. Default 4000000."
        )
        number("--payload_octets", 0, "Octets of each packet's payload to look at (payload entropy). Default 0.")
        text(
            "--assembler",
            "captures: no shuffle, memory flat; flows: in shards, as on a cluster; sessions: Beam's session windows,"
            " the slow reference. Default captures.",
            choices=("captures", "flows", "sessions"),
            default="captures",
        )
        number("--shards", 8, "Tables for each sensor with --assembler=flows, and of endless input. Default 8.")
        seconds("--max_out_of_orderness_s", 2.0, "How far back in time packets of a queue may reach. Default 2.")
        text(
            "--rejects",
            "Folder of rejected input, or gs:// one. Default `rejects` beside the first output.",
            metavar="DIR",
        )
        rejects_written = "Rejects written of each reason, an hour where input is endless; all are counted."
        number("--max_rejects", 10_000, f"{rejects_written} Default 10000.")
        text("--temp_dir", "Folder for what must be sorted on disk. Default the system's.", metavar="DIR")
        text("--summary", "Writes the summary as JSON to this file.", metavar="FILE")
        switch("--quiet", "No progress bar, no summary.")
        config.add_option(parser)
        checks = "Checks settings, inputs and outputs, says what would be done, and ends."
        text("--check", checks, action="store_true", dest="only_check")
        switch("--show_steps", "Shows the steps of the pipeline, and ends; also as --dry_run.")

    def check(self) -> None:
        """Refuses values that nothing further down would refuse with a line of its own.

        Raises:
            InputError: It names the option and the value.
        """
        if self.shards < 1:
            raise InputError(f"--shards: {self.shards}; give 1 or more")
        if not 0 <= self.max_out_of_orderness_s < 1e9:
            raise InputError(f"--max_out_of_orderness_s: {self.max_out_of_orderness_s:g} s; give 0 or more")
        if not self.sensor:
            raise InputError("--sensor: is empty; give the sensor a name")
        if "" in self.input:
            raise InputError("--input: is empty; name a capture file, a folder, a pattern or a queue")
        if self.temp_dir is not None and not os.access(self.temp_dir, os.W_OK | os.X_OK):
            raise InputError(f"--temp_dir {self.temp_dir}: is no folder that can be written; name another")
        if self.summary is not None:
            check_path(self.summary)


class _KeptViews(PipelineOptions):
    """Keeps the views of its options: Beam asks for one a hundred times and would build a parser for each."""

    def view_as(self, cls: type[T]) -> T:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


OURS: tuple[Any, ...] = (FlowOptions, StreamOptions, SinkOptions, EnrichOptions, ScoreOptions, DriftOptions)
"""The options of the main job; all others are Beam's."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds our options alone."""
    for ours in OURS:
        ours._add_argparse_args(parser)


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Our options and Beam's own; a word that is neither is refused, where Beam would drop it with a warning.

    Raises:
        InputError: An option is unknown or its value is wrong.
    """
    parser = OneLineParser(
        prog="python -m pipelines.flows",
        usage="%(prog)s [--input URL] [--output URL] [option ...]",
        description="Captures in, flows with features out.",
        epilog=_AND_BEAMS,
        formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=30),
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    for options in PipelineOptions.__subclasses__():
        if options not in OURS:
            options._add_argparse_args(parser)
    for action in parser._actions:
        if action.dest != "help":
            action.help = argparse.SUPPRESS
    add_arguments(parser)
    parser.add_argument(_DRY_RUN, action="store_true", help=argparse.SUPPRESS)
    words = ["--show_steps" if word == _DRY_RUN else word for word in config.expanded(arguments, parser)]
    parser.parse_args(words)
    kept = _KeptViews(words)
    for ours in OURS:
        kept.view_as(ours).check()
    return kept

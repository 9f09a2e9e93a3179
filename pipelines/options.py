"""The options of the main job, in the words of its users."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.terminal import OneLineParser

T = TypeVar("T", bound=PipelineOptions)


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of `a,b,c`; none of an empty text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class FlowOptions(PipelineOptions):
    """What `pipelines.flows` understands beside Beam's own options."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add = parser.add_argument

        def several(name: str, **details: Any) -> None:
            add(name, action="append", default=[], **details)

        several("--input", help="Capture file, folder, glob, `-` for standard input, or a queue such as spool:DIR; repeatable. Without it, demo traffic is made and read.")
        several("--output", help="Where flows go: parquet:DIR, duckdb:FILE, csv:FILE, jsonl:FILE; repeatable. Default parquet:flows.")
        several("--features", help="Feature set: flowbeam@1 (default), cic@1, flowtbag@1, nfstream@1; repeatable.")
        several("--feature_module", help="Python module with a family of features of your own; repeatable.")
        add("--sensor", default="local", help="Name of the sensor that the captures come from. Default local.")
        add("--sensor_from", choices=("all", "file", "folder"), default="all", help="One sensor for all files, or one for each file or folder. Default all.")
        add("--merge_sensors", action="store_true", help="All sensors see one line: the sensor is no part of a flow's key.")
        add("--end_rules", type=comma_separated, default=("tcp", "idle", "active", "reuse"), help="Which rules end flows. Default tcp,idle,active,reuse.")
        add("--idle_timeout_s", type=float, default=120.0, help="A flow ends when nothing came for so long. Default 120.")
        add("--active_timeout_s", type=float, default=1800.0, help="A flow is split after so long. Default 1800.")
        add("--tcp_linger_s", type=float, default=5.0, help="A closed TCP connection keeps what trails the close for so long. Default 5.")
        add("--activity_timeout_s", type=float, default=5.0, help="Longer gaps part active periods (features active_*, idle_*). Default 5.")
        add("--interim_interval_s", type=float, default=0.0, help="Reports open flows at multiples of this. Default 0, never.")
        add("--icmp_key", default="type", help="`type` puts ICMP type and code into the ports, `none` makes them 0. Default type.")
        add("--ignore_vni", action="store_true", help="Leaves the VXLAN or Geneve network out of a flow's key.")
        add("--decapsulate", type=comma_separated, default=None, help="Tunnels to open, or `none`. Default all of them.")
        add("--drop_duplicates_s", type=float, default=0.0, help="Rejects packets with headers seen at most so long before. Default 0, none.")
        add("--community_id_seed", type=int, default=0, help="Seed of the Community ID. Default 0.")
        add("--max_open_flows", type=int, default=4_000_000, help="Open flows of one table; those idle longest end beyond. Default 4000000.")
        add("--payload_octets", type=int, default=0, help="Octets of each packet's payload to look at (payload entropy). Default 0.")
        add("--assembler", choices=("captures", "flows", "sessions"), default="captures", help="captures: no shuffle, memory flat; flows: in shards, as on a cluster; sessions: Beam's session windows, the slow reference. Default captures.")
        add("--shards", type=int, default=8, help="Tables for each sensor with --assembler=flows. Default 8.")
        add("--max_out_of_orderness_s", type=float, default=2.0, help="How far back in time packets of a queue may reach. Default 2.")
        add("--rejects", default=None, help="Folder of rejected input. Default `rejects` beside the first output.")
        add("--max_rejects", type=int, default=10_000, help="Rejects written of each reason; all are counted. Default 10000.")
        add("--temp_dir", default=None, help="Folder for what must be sorted on disk. Default the system's.")
        add("--summary", default=None, help="Writes the summary as JSON to this file.")
        add("--quiet", action="store_true", help="No progress bar, no summary.")


class _KeptViews(PipelineOptions):
    """Beam asks a pipeline's options for a view a hundred times and builds an argument parser for each: they are kept."""

    def view_as(self, cls: type[T]) -> T:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Our options and Beam's own; a word that is neither is refused, where Beam would drop it with a warning.

    Raises:
        InputError: An option is unknown or its value is wrong.
    """
    parser = OneLineParser(prog="python -m pipelines.flows", allow_abbrev=False, conflict_handler="resolve")
    for options in (*PipelineOptions.__subclasses__(), FlowOptions):
        options._add_argparse_args(parser)
    parser.parse_args(list(arguments))
    return _KeptViews(list(arguments))

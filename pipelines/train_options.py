"""The options of `pipelines.train`, in the words of its users."""

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import parsed
from pipelines.words import comma_separated
from sinks.command import OneLineParser
from transforms.records import InputError

if TYPE_CHECKING:
    from training.continuing import NewData
    from training.train import TrainSettings


def parse_options(arguments: Sequence[str] | None) -> Namespace:
    """Reads the command line.

    Raises:
        InputError: An option is unknown, missing, or does not go with another.
    """
    options = parsed(_parser(), arguments)
    older = options.evaluate or getattr(options, "continue")
    if options.evaluate and getattr(options, "continue"):
        raise InputError("--evaluate and --continue: do one after the other")
    if not options.output and not older:
        raise InputError("say where the model goes, with --output models/NAME; see --help")
    if not options.flows and not (options.export_savedmodel and options.output):
        raise InputError("say which rows, with --flows DIR or FILE.csv; see --help")
    if options.export_savedmodel and older:
        raise InputError("--export_savedmodel: goes with --output, trained by --flows or there already")
    if options.evaluate and options.output:
        raise InputError("--evaluate writes no model; leave --output out, or train one with --flows")
    if options.metrics and not options.evaluate:
        raise InputError("--metrics: goes with --evaluate; a model folder has its own, metrics.json")
    if options.keep_rows < 0:
        raise InputError(f"--keep_rows {options.keep_rows}: cannot be; write a number of rows, or 0 for none")
    return options


def train_settings(options: Namespace) -> "TrainSettings":
    """What is asked of training.

    Raises:
        InputError: A value is wrong.
    """
    from training.split import SplitRule
    from training.train import TrainSettings

    return TrainSettings(
        flows=tuple(options.flows),
        label=options.label_column,
        features=options.features,
        split=SplitRule.parse(options.split),
        name=model_place(options).name,
        task=options.task or "",
        benign=options.benign,
        max_fpr=options.max_fpr,
        selection=options.selection,
        max_features=options.max_features,
        trials=options.tune,
        allow_leaks=tuple(options.allow_leaks),
        max_rows=options.max_rows,
        header=not options.no_header,
        seed=options.seed,
        beside=not options.brief,
    )


def new_data(options: Namespace) -> "NewData":
    """The rows that a model is judged on or trained further with."""
    from training.continuing import NewData

    return NewData(tuple(options.flows), options.label_column, options.max_rows, not options.no_header, options.seed)


def model_place(options: Namespace) -> Path:
    """Where the model goes.

    Raises:
        InputError: The place has no name.
    """
    place = Path(options.output).expanduser()
    if place.name in ("", ".."):
        raise InputError(f"--output {options.output}: has no name; write models/NAME")
    return place


def _parser() -> argparse.ArgumentParser:
    from training.selection import NONE, SELECTIONS

    parser = OneLineParser(
        prog="python -m pipelines.train",
        description="Trains a model on labelled flows, judges one on others, or trains one further.",
        epilog="docs/training.md tells what each step does.",
        allow_abbrev=False,
    )

    def text(name: str, about: str, **details: Any) -> None:
        parser.add_argument(name, help=about, **details)

    def number(name: str, default: float, about: str) -> None:
        parser.add_argument(name, help=about, metavar="N", type=type(default), default=default)

    flows = "Folders of Parquet flows, CSV files of CICFlowMeter's columns in any spelling, or other tables."
    text("--flows", flows, metavar="PLACE", nargs="+", action="extend", default=[])
    text("--label_column", "The column with labels. Default label.", metavar="NAME", default="label")
    text(
        "--features",
        "What to learn from: cic@1, flowtbag@1, nfstream@1, flowbeam@1, or all columns of a table. Default flowbeam@1.",
        metavar="SET",
        default="flowbeam@1",
    )
    text(
        "--split",
        "time:PART to learn from what came first, order:PART for the order of rows, random:PART to hold back,"
        " group:COLUMN. Default time:0.67.",
        metavar="RULE",
        default="time:0.67",
    )
    text("--output", "The model folder, models/NAME.", metavar="DIR", default="")
    text("--task", "binary or multiclass; else what the labels are.", choices=("binary", "multiclass"))
    text("--benign", "The label that is no attack, where its name does not tell.", metavar="LABEL", default="")
    number("--max_fpr", 0.0, "The part of benign flows that may raise an alert sets the threshold; else it is 0.5.")
    text("--selection", "How features are chosen. Default none.", choices=SELECTIONS, default=NONE)
    number("--max_features", 0, "How many features stay.")
    number("--tune", 0, "Settings of trees to try, by cross-validation on training rows. Default 0.")
    text(
        "--allow_leaks",
        "Columns that the leak guard lets pass, or all.",
        metavar="A,B",
        type=comma_separated,
        default=[],
    )
    number("--seed", 1, "Of all that is drawn. Default 1.")
    number("--max_rows", 200_000, "Rows used of larger tables, chosen by a hash of their place. Default 200000.")
    number("--keep_rows", 20_000, "Rows that stay in the model folder for --continue. Default 20000.")
    parser.add_argument("--no_header", help="CSV files begin with a row; columns are 1, 2, …", action="store_true")
    parser.add_argument("--brief", help="No comparison with another split, no learning curve.", action="store_true")
    text("--evaluate", "Judges this model on --flows.", metavar="DIR", default="")
    text("--metrics", "Where --evaluate writes figures; the page goes beside it.", metavar="FILE", default="")
    text("--continue", "Trains this model further with --flows.", metavar="DIR", default="")
    text("--export_savedmodel", "Writes the model as a TensorFlow SavedModel, too.", metavar="DIR", default="")
    parser.add_argument("--quiet", help="Nothing but errors.", action="store_true")
    return parser

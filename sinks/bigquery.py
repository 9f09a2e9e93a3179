"""`bigquery:PROJECT.DATASET.TABLE`: one row for each record of a flow, in a table partitioned by the day it starts.

The table is made where it is missing, clustered by source, destination and class, and gets the columns that it lacks;
nothing is taken away from it. The view `TABLE_latest` has of each flow the record with the highest number: a record
that was sent twice is there once; `sinks.bigquery_views` has others. Parameter: `?calls=N`, calls under way at a time
(4). Credentials are those that Google's tools find. On the command line:

    python -m sinks.bigquery --schema > schema.json
    python -m sinks.bigquery --views > views.json
    python -m sinks.bigquery --setup --table PROJECT.DATASET.TABLE
    python -m sinks.bigquery --load flows --table PROJECT.DATASET.TABLE
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import apache_beam as beam
import pyarrow as pa

from sinks import bigquery_client, bigquery_schema, bigquery_views
from sinks.blocks import WriteBlocks
from sinks.command import OneLineParser, status_of
from sinks.outputs import SinkContext, SinkUrl
from transforms import fields
from transforms.features import sets
from transforms.records import InputError

CALLS, CALLS_MOST = 4, 64


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `bigquery:PROJECT.DATASET.TABLE`; the table is ready when this returns.

    Raises:
        InputError: The table cannot be made or does not fit, credentials are missing, or a parameter is wrong.
    """
    url.check_parameters("calls")
    calls = url.parameters.get("calls", str(CALLS))
    if not calls.isdecimal() or not 1 <= int(calls) <= CALLS_MOST:
        raise InputError(f"{url}: calls={calls}; give 1 to {CALLS_MOST}")
    place = bigquery_client.place_of(str(url), url.path)
    makes = bigquery_client.prepare(place, context.schema, context.only_check)
    open_writer = partial(bigquery_client.RowWriter, place, int(calls))
    return WriteBlocks(url, context, open_writer, threads=int(calls), makes=makes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = OneLineParser(
        prog="python -m sinks.bigquery",
        description="The table of flows: its schema and views for Terraform, made, or loaded with Parquet files.",
        allow_abbrev=False,
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--schema", action="store_true", help="Writes the columns as JSON to standard output.")
    task.add_argument("--views", action="store_true", help="Writes its views as JSON to standard output.")
    task.add_argument("--setup", action="store_true", help="Makes --table and its views, as a job would.")
    task.add_argument("--load", metavar="DIR", help="Loads the files of an output parquet:DIR into --table.")
    parser.add_argument(
        "--features",
        metavar="SET",
        action="append",
        default=[],
        help="With --schema and --setup: a feature set that the flows have; repeatable. Default flowbeam@1.",
    )
    parser.add_argument("--like", metavar="DIR", help="The same: the columns of an output parquet:DIR.")
    parser.add_argument(
        "--table", metavar="PROJECT.DATASET.TABLE", help="The table of --setup and --load; made if it is missing."
    )
    options = parser.parse_args(arguments)
    if options.load is not None:
        _load(options.load, _place(options.table, "--load"))
        return
    if options.views:
        views = {view.name: {"description": view.description, "query": view.query} for view in bigquery_views.VIEWS}
        print(json.dumps(views, indent=2))
        return
    schema = _schema_in(options.like) if options.like else _schema_of(options.features or [sets.FLOWBEAM])
    if options.setup:
        made = bigquery_client.prepare(_place(options.table, "--setup"), schema)
        print(f"made: {', '.join(made)}" if made else "all is there already")
    else:
        print(json.dumps(bigquery_schema.table_fields(schema), indent=2, ensure_ascii=False))


def _place(table: str | None, task: str) -> bigquery_client.Place:
    if table is None:
        raise InputError(f"{task}: say where to, with --table PROJECT.DATASET.TABLE")
    return bigquery_client.place_of("--table", table)


def _load(folder: str, place: bigquery_client.Place) -> None:
    from sinks import bigquery_load

    bigquery_client.prepare(place, _schema_in(folder))
    done = bigquery_load.load(place, Path(folder))
    print(f"{done.records:,} records of {done.files:,} files loaded; {done.before:,} files had been loaded before")


def _schema_of(feature_sets: Sequence[str]) -> pa.Schema:
    names = sets.features_for(map(sets.get, feature_sets))
    return fields.arrow_schema([*fields.COMMON, *(sets.CANONICAL[name] for name in names)])


def _schema_in(folder: str) -> pa.Schema:
    """The columns of all files of a folder together."""
    from sinks import bigquery_load

    return bigquery_load.schema_in(Path(folder))


if __name__ == "__main__":
    sys.exit(main())

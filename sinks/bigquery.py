"""`bigquery:PROJECT.DATASET.TABLE`: one row for each record of a flow, in a table partitioned by the day it starts.

The table is made where it is missing, clustered by source, destination and class, and gets the columns that it lacks;
nothing is taken away from it. The view `TABLE_latest` has of each flow the record with the highest number: a record
that was sent twice is there once. Parameter: `?calls=N`, calls under way at a time (4). Credentials are those that
Google's tools find. On the command line:

    python -m sinks.bigquery --schema > schema.json
    python -m sinks.bigquery --load flows --table PROJECT.DATASET.TABLE
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import apache_beam as beam
import pyarrow as pa

from sinks import bigquery_client, bigquery_schema
from sinks.blocks import WriteBlocks
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
    parser = argparse.ArgumentParser(
        prog="python -m sinks.bigquery",
        description="The table of flows: its schema for Terraform, and Parquet files loaded into it.",
        allow_abbrev=False,
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--schema", action="store_true", help="Writes the columns as JSON to standard output.")
    task.add_argument("--load", metavar="DIR", help="Loads the files of an output parquet:DIR into --table.")
    parser.add_argument(
        "--features",
        metavar="SET",
        action="append",
        default=[],
        help="With --schema: a feature set that the flows have; repeatable. Default flowbeam@1.",
    )
    parser.add_argument("--like", metavar="DIR", help="With --schema: the columns of an output parquet:DIR.")
    parser.add_argument("--table", metavar="PROJECT.DATASET.TABLE", help="Where --load writes; made if it is missing.")
    options = parser.parse_args(arguments)
    try:
        if options.load is not None:
            _load(options.load, options.table)
        else:
            schema = _schema_in(options.like) if options.like else _schema_of(options.features or [sets.FLOWBEAM])
            print(json.dumps(bigquery_schema.table_fields(schema), indent=2, ensure_ascii=False))
    except InputError as error:
        print(f"flowbeam: {error}", file=sys.stderr)
        return 2
    return 0


def _load(folder: str, table: str | None) -> None:
    from sinks import bigquery_load

    if table is None:
        raise InputError("--load: say where to, with --table PROJECT.DATASET.TABLE")
    place = bigquery_client.place_of("--table", table)
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

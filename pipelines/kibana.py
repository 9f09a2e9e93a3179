"""Writes what Kibana imports (Stack Management, Saved Objects): data views, panels and dashboards.

    python -m pipelines.kibana --index flows --output deploy/kibana/flowbeam.ndjson

The names of fields, and what Kibana says about them, come from the description of the columns: all that assembly,
enrichment and scoring may give.
"""

import json
from collections.abc import Sequence

import pyarrow as pa

from pipelines.config import parsed
from pipelines.terminal import leave
from sinks import drift, kibana, sensors
from sinks.command import OneLineParser, status_of
from sinks.search_client import INDEX_NAME
from transforms import fields, score
from transforms.drift import rows
from transforms.enrich import enrichment, geoip, host_names, services, threats, zones
from transforms.features import sets
from transforms.records import InputError


def every_column() -> pa.Schema:
    """All columns that flows may have."""
    places = (field for kind in geoip.KINDS for field in geoip.fields_of(kind))
    enriched = (*places, *zones.FIELDS, services.FIELD, *threats.FIELDS, *host_names.FIELDS, enrichment.PROBLEM)
    columns = (*sets.CANONICAL.values(), *enriched, *score.SCORE, score.EXPLANATION)
    return fields.arrow_schema({field.name: field for field in columns}.values())


def schemas() -> dict[str, pa.Schema]:
    """The columns of each kind of documents."""
    return {"flows": every_column(), drift.NAME: rows.SCHEMA, sensors.NAME: sensors.SensorFiles.schema}


def bundle(index: str) -> str:
    """The saved objects, one a line."""
    lines = (json.dumps(one, ensure_ascii=False) for one in kibana.saved_objects(schemas(), index))
    return "".join(f"{line}\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = OneLineParser(prog="python -m pipelines.kibana", description="Writes Kibana's saved objects.")
    parser.add_argument("--index", default="flows", help="What the names of the indices begin with. Default flows.")
    parser.add_argument("--output", required=True, metavar="FILE", help="The file to write.")
    options = parsed(parser, arguments)
    if not INDEX_NAME.fullmatch(options.index):
        raise InputError(f"--index {options.index}: is no name of an index: small letters, digits, - and _")
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(bundle(options.index))
    except OSError as error:
        raise InputError(f"--output {options.output}: cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    leave(main())

"""The BigQuery table that an Arrow schema of flows asks for.

Names are those of the flows, and so are the columns: what Arrow nests is nested, all else stays flat, since BigQuery
clusters only by columns at the top and reads only the columns that a query names, nested or not. Types:

| Arrow | BigQuery |
|---|---|
| int8 … int64, uint8 … uint32 | INT64 |
| uint64 | NUMERIC |
| float, double | FLOAT64 |
| bool | BOOL |
| string | STRING |
| binary | BYTES |
| timestamp | TIMESTAMP, µs |
| list | REPEATED; null becomes empty |
| struct | STRUCT |

Times keep their nanoseconds as INT64; beside them stand `flow_start` and `flow_end`, TIMESTAMPs rounded down to µs.
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.records import InputError

PARTITIONED_BY = "flow_start"

TIMES = {"flow_start": "flow_start_ns", "flow_end": "flow_end_ns"}
"""The columns that are added, and what they are made of."""

VERDICT = tuple(
    {"name": name, "type": kind, "mode": "NULLABLE", "description": f"{text}; null without a model."}
    for name, kind, text in (
        ("predicted_class", "STRING", "Class that the model gives the flow"),
        ("score", "FLOAT64", "Probability that the flow is not benign, by the model"),
        ("is_alert", "BOOL", "Whether the score reaches the model's threshold"),
    )
)
"""Columns of every table: it is clustered by the first, and views ask for them."""

CLUSTERED_BY = ("src_ip", "dst_ip", "predicted_class")
"""What rows of a day are sorted by."""

REQUIRED = ("flow_id", "record_number", "record_kind", "flow_start_ns", PARTITIONED_BY)
"""What no record lacks. All other columns may be null, so that a table can get more of them."""

_DESCRIPTION_OCTETS = 1024

_ALIASES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""Two names for one type: BigQuery answers with the old one."""


def table_fields(schema: pa.Schema) -> list[dict[str, Any]]:
    """The columns of the table as BigQuery's API, `bq` and Terraform take them, in the order of `schema`.

    Raises:
        InputError: BigQuery has no such type; the message names the column.
    """
    fields = []
    for field in schema:
        for added in (name for name, source in TIMES.items() if source == field.name):
            text = f"{_text_of(field, 'doc').rstrip('.')}; `{field.name}` rounded down to microseconds."
            fields.append(_described({"name": added, "type": "TIMESTAMP"}, text))
        fields.append(_table_field(field))
    fields += (dict(column) for column in VERDICT if column["name"] not in schema.names)
    for described in fields:
        described["mode"] = "REQUIRED" if described["name"] in REQUIRED else described.get("mode", "NULLABLE")
    return fields


def missing_fields(there: Iterable[dict[str, Any]], wanted: Iterable[dict[str, Any]], at: str = "") -> list[str]:
    """The names of wanted columns that a table lacks, nested ones with dots.

    Raises:
        InputError: A column is there with another type, or with a mode that the wanted rows do not fit.
    """
    known = {field["name"].lower(): field for field in there}
    missing = []
    for field in wanted:
        name = at + field["name"]
        found = known.pop(field["name"].lower(), None)
        if found is None:
            missing.append(name)
            continue
        kinds = [f"{_kind(one)}{' REPEATED' if one.get('mode') == 'REPEATED' else ''}" for one in (found, field)]
        if kinds[0] != kinds[1]:
            raise InputError(f"the column {name} is {kinds[0]}, not {kinds[1]}")
        missing += missing_fields(found.get("fields", ()), field.get("fields", ()), f"{name}.")
    for field in known.values():
        if field.get("mode") == "REQUIRED":
            raise InputError(f"the column {at}{field['name']} is REQUIRED, and these flows have none")
    return missing


def merged_fields(there: Iterable[dict[str, Any]], wanted: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of a table and, behind them, those that it lacks: these may be null, as BigQuery asks."""
    by_name = {field["name"].lower(): field for field in wanted}
    merged = []
    for field in there:
        more = by_name.pop(field["name"].lower(), None)
        nested = merged_fields(field["fields"], (more or {}).get("fields", ())) if field.get("fields") else None
        merged.append({**field, **({"fields": nested} if nested else {})})
    optional = ({**field, "mode": "NULLABLE"} if field["mode"] == "REQUIRED" else field for field in by_name.values())
    return [*merged, *optional]


def table_batch(flows: pa.RecordBatch) -> pa.RecordBatch:
    """The flows in the columns and types of the table, still in Arrow: for load jobs."""
    names, arrays = [], []
    for field, column in zip(flows.schema, flows.columns, strict=True):
        for added in (name for name, source in TIMES.items() if source == field.name):
            names.append(added)
            arrays.append(microseconds(column))
        names.append(field.name)
        arrays.append(column.cast(_stored(field.type)))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def microseconds(nanoseconds: pa.Array) -> pa.Array:
    """The times, rounded down to µs, since 1970 in UTC."""
    cut = pc.divide(nanoseconds, 1000)  # towards zero
    down = pc.subtract(cut, pc.greater(pc.multiply(cut, 1000), nanoseconds).cast(pa.int64()))
    return down.cast(pa.timestamp("us", "UTC"))


def bigquery_type(kind: pa.DataType) -> str | None:
    """The type of a value, or of the elements of a list; None where BigQuery has none."""
    if pa.types.is_uint64(kind):
        return "NUMERIC"
    named: tuple[tuple[Any, str], ...] = (
        (pa.types.is_integer, "INT64"),
        (pa.types.is_floating, "FLOAT64"),
        (pa.types.is_boolean, "BOOL"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_binary, "BYTES"),
        (pa.types.is_fixed_size_binary, "BYTES"),
        (pa.types.is_timestamp, "TIMESTAMP"),
        (pa.types.is_struct, "STRUCT"),
    )
    return next((name for is_kind, name in named if is_kind(kind)), None)


def _table_field(field: pa.Field) -> dict[str, Any]:
    described: dict[str, Any] = {"name": field.name, "type": "", "mode": "NULLABLE"}
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind):
        described["mode"] = "REPEATED"
        kind = kind.value_type
    name = bigquery_type(kind)
    if name is None:
        raise InputError(f"the column {field.name} is {field.type}, for which BigQuery has no type")
    described["type"] = name
    if name == "STRUCT":
        described["fields"] = [_table_field(inner) for inner in kind]
    unit = _text_of(field, "unit")
    return _described(described, _text_of(field, "doc") + (f" [{unit}]" if unit else ""))


def _described(field: dict[str, Any], text: str) -> dict[str, Any]:
    text = text.encode()[:_DESCRIPTION_OCTETS].decode(errors="ignore")
    return {**field, **({"description": text} if text else {})}


def _text_of(field: pa.Field, key: str) -> str:
    return (field.metadata or {}).get(key.encode(), b"").decode()


def _kind(field: dict[str, Any]) -> str:
    return _ALIASES.get(field["type"], field["type"])


def _stored(kind: pa.DataType) -> pa.DataType:
    """What Parquet brings to BigQuery as the wanted type."""
    if pa.types.is_dictionary(kind):
        return _stored(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(_stored(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _stored(field.type)) for field in kind])
    stored = {"NUMERIC": pa.decimal128(20), "INT64": pa.int64(), "FLOAT64": pa.float64(), "BYTES": pa.binary()}
    stored["TIMESTAMP"] = pa.timestamp("us", "UTC")
    return stored.get(bigquery_type(kind) or "", kind)

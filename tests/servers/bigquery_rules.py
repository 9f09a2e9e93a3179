"""What BigQuery refuses: rows, layouts of tables, changes of their columns, Parquet files."""

import base64
import binascii
import decimal
import io
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DAYS_BACK, DAYS_AHEAD = 3650, 366
_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Refused(Exception):
    """A call fails: HTTP status, reason and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class BadValue(Exception):
    """A value that is none of its type."""


def _int64(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise BadValue
    number = int(value) if isinstance(value, str) or abs(value) < 1 << 53 else int(float(value))
    if not -(1 << 63) <= number < 1 << 63:
        raise BadValue
    return number


def _float64(value: Any) -> float:
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value):
            raise BadValue
    elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue
    return float(value)


def _timestamp(value: Any) -> int:
    text = str(value)
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z| ?UTC|[+-]\d\d:\d\d)", text):
        raise BadValue
    seconds, _, fraction = re.sub(r"(Z| ?UTC)$", "", text).partition(".")
    since = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc) - _EPOCH
    return since // timedelta(microseconds=1) + int(fraction.ljust(6, "0") or 0)


def _of(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise BadValue
        return value

    return check


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError) as error:
        raise BadValue from error


def _numeric(value: Any) -> decimal.Decimal:
    try:
        return decimal.Decimal(str(value))
    except decimal.InvalidOperation as error:
        raise BadValue from error


_READ: dict[str, Callable[[Any], Any]] = {
    "INT64": _int64,
    "FLOAT64": _float64,
    "BOOL": _of(bool),
    "STRING": _of(str),
    "BYTES": _bytes,
    "TIMESTAMP": _timestamp,
    "NUMERIC": _numeric,
}

_IN_PARQUET: dict[str, Callable[[pa.DataType], bool]] = {
    "INT64": pa.types.is_signed_integer,
    "FLOAT64": pa.types.is_float64,
    "BOOL": pa.types.is_boolean,
    "STRING": pa.types.is_string,
    "BYTES": pa.types.is_binary,
    "TIMESTAMP": lambda kind: pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz is not None,
    "NUMERIC": pa.types.is_decimal,
    "STRUCT": pa.types.is_struct,
}


def kind_of(field: dict[str, Any]) -> str:
    """A field's type by its newer name."""
    return _NAMES.get(field["type"], field["type"])


def read_row(row: dict[str, Any], fields: list[dict[str, Any]], errors: list[dict[str, str]], at: str = "") -> dict:
    """The row's values as their types; what is wrong with it is added to `errors`."""

    def wrong(name: str, message: str) -> None:
        errors.append({"reason": "invalid", "location": at + name, "debugInfo": "", "message": message})

    known = {field["name"].lower(): field for field in fields}
    values = {field["name"]: [] if field.get("mode") == "REPEATED" else None for field in fields}
    for name, value in row.items():
        field = known.get(name.lower())
        if field is None:
            wrong(name, f"no such field: {at}{name}.")
            continue
        repeated = field.get("mode") == "REPEATED"
        if value is None or repeated != isinstance(value, list):
            if value is not None:
                wrong(name, "Array specified for non-repeated field." if not repeated else "This field is repeated.")
            continue
        read = []
        for one in value if repeated else [value]:
            if one is None:
                wrong(name, f"Only optional fields can be set to NULL. Field: {at}{name}; Value: NULL")
            elif kind_of(field) == "STRUCT":
                if isinstance(one, dict):
                    read.append(read_row(one, field["fields"], errors, f"{at}{name}."))
                else:
                    wrong(name, f"This field: {name} is a record.")
            else:
                try:
                    read.append(_READ[kind_of(field)](one))
                except (BadValue, ValueError, OverflowError):
                    wrong(name, f"Cannot convert value to {kind_of(field).lower()} (bad value): {one}")
        if read:
            values[field["name"]] = read if repeated else read[0]
    for field in fields:
        if field.get("mode") == "REQUIRED" and values[field["name"]] is None:
            wrong(field["name"], f"Missing required field: {at}{field['name']}.")
    return values


def check_layout(table: dict[str, Any]) -> None:
    """What partitioning and clustering ask for."""
    top = {field["name"]: field for field in table["schema"]["fields"]}
    by = table.get("timePartitioning", {}).get("field")
    if by is not None and kind_of(top.get(by, {"type": ""})) not in ("TIMESTAMP", "DATE", "DATETIME"):
        raise Refused(400, "invalid", f"The field specified for partitioning cannot be found in the schema: {by}")
    clustered = table.get("clustering", {}).get("fields", [])
    for name in clustered:
        if (
            name not in top
            or top[name].get("mode") == "REPEATED"
            or kind_of(top[name]) in ("STRUCT", "FLOAT64", "BYTES")
        ):
            raise Refused(400, "invalid", f"Clustering is not possible on {name}")
    if len(clustered) > 4:
        raise Refused(400, "invalid", "Entity has too many clustering fields")


def check_change(path: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    """A schema may get columns at its end, and REQUIRED may become NULLABLE."""

    def bad(message: str) -> Refused:
        return Refused(400, "invalid", f"Provided Schema does not match Table {path}. {message}")

    by_name = {field["name"]: field for field in new}
    for field in old:
        if field["name"] not in by_name:
            raise bad(f"Field {field['name']} is missing in new schema")
        other = by_name.pop(field["name"])
        if kind_of(field) != kind_of(other):
            raise bad(f"Field {field['name']} has changed type from {kind_of(field)} to {kind_of(other)}")
        modes = (field.get("mode", "NULLABLE"), other.get("mode", "NULLABLE"))
        if modes[0] != modes[1] and modes != ("REQUIRED", "NULLABLE"):
            raise bad(f"Field {field['name']} has changed mode from {modes[0]} to {modes[1]}")
        if kind_of(field) == "STRUCT":
            check_change(path, field["fields"], other["fields"])
    for field in by_name.values():
        if field.get("mode") == "REQUIRED":
            raise bad(f"Cannot add required fields to an existing schema. (field: {field['name']})")


def outside(table: dict[str, Any], values: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong with the time of a row that is to be streamed."""
    by = table.get("timePartitioning", {}).get("field")
    if by is None or values.get(by) is None:
        return []
    day = values[by] // 86_400_000_000
    today = int(time.time() // 86_400)
    if today - DAYS_BACK <= day <= today + DAYS_AHEAD:
        return []
    told = (
        f"The value {values[by]} for field {by} of the destination table is outside the allowed bounds. You can only"
        f" stream to date range within {DAYS_BACK} days in the past and {DAYS_AHEAD} days in the future relative to the"
        " current date."
    )
    return [{"reason": "invalid", "location": by, "debugInfo": "", "message": told}]


def loaded(fields: list[dict[str, Any]], config: dict[str, Any], octets: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file that fits the table."""
    if config.get("sourceFormat") != "PARQUET" or config.get("writeDisposition") != "WRITE_APPEND":
        raise Refused(400, "invalid", "only Parquet, and only appended")
    try:
        read = pq.read_table(io.BytesIO(octets))
    except pa.ArrowException as error:
        raise Refused(400, "invalid", f"Error while reading data: {error}") from error
    _check_parquet(read.schema, fields, config.get("parquetOptions", {}).get("enableListInference", False))
    for index, field in enumerate(read.schema):
        if pa.types.is_timestamp(field.type):
            read = read.set_column(index, field.name, read[field.name].cast(pa.int64()))
    empty = {field["name"]: [] if field.get("mode") == "REPEATED" else None for field in fields}
    repeated = [name for name, value in empty.items() if value == []]
    rows = [{**empty, **row} for row in read.to_pylist()]
    for row in rows:
        row.update({name: [] for name in repeated if row[name] is None})
    return rows


def _check_parquet(schema: pa.Schema, fields: list[dict[str, Any]], lists: bool) -> None:
    known = {field["name"]: field for field in fields}
    for column in schema:
        field = known.pop(column.name, None)
        if field is None:
            raise Refused(
                400, "invalid", f"Provided Schema does not match Table. Cannot add fields (field: {column.name})"
            )
        kind = column.type
        if field.get("mode") == "REPEATED":
            if not (pa.types.is_list(kind) and lists):
                raise Refused(400, "invalid", f"Field {column.name} has changed type from REPEATED")
            kind = kind.value_type
        if not _IN_PARQUET[kind_of(field)](kind):
            raise Refused(400, "invalid", f"Field {column.name} has changed type from {kind_of(field)} to {kind}")
        if field.get("mode") == "REQUIRED" and column.nullable:
            raise Refused(400, "invalid", f"Field {column.name} has changed mode from REQUIRED to NULLABLE")
    for field in known.values():
        if field.get("mode") == "REQUIRED":
            raise Refused(400, "invalid", f"Required field {field['name']} is missing")

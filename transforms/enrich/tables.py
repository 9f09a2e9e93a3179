"""Tables that people or feeds write, read as columns: CSV with a header, or JSON lines; each row with its line."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.records import InputError

JSON_LINES = (".jsonl", ".ndjson", ".json")


class Rows(NamedTuple):
    """The rows of a table.

    Attributes:
        lines: The line of each row, from 1.
        columns: The columns that were asked for, null where a row or the table has no value; texts have no space
            around them.
    """

    lines: list[int]
    columns: dict[str, pa.Array]


def read_text(option: str, path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: It cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror or error}; name a file that can be read") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{option} {path}: octet {error.start} is no UTF-8; save it as UTF-8") from error


def read_table(option: str, path: Path, types: dict[str, pa.DataType]) -> Rows:
    """The columns named in `types`; others are passed over, and so are empty lines and CSV lines that begin with `#`.

    Raises:
        InputError: The file cannot be read, has none of the columns, or a line is no row; the message names it.
    """
    lines = read_text(option, path).split("\n")
    if path.suffix in JSON_LINES:
        kept = [number for number, line in enumerate(lines, 1) if line.strip()]
        columns = _json_columns(f"{option} {path}", [lines[number - 1] for number in kept], types)
    else:
        kept = [number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
        columns = _csv_columns(f"{option} {path}", [lines[number - 1] for number in kept], types)
        kept = kept[1:]
    for name, column in columns.items():
        if pa.types.is_string(types[name]):
            trimmed = pc.utf8_trim_whitespace(column)
            columns[name] = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    for name, type_ in types.items():
        if not pa.types.is_string(type_):
            columns[name] = _numbers(f"{option} {path}", name, columns[name], type_, kept)
    return Rows(kept, columns)


def _json_columns(named: str, lines: list[str], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    from pyarrow import json

    if not lines:
        return {name: pa.nulls(0, type_) for name, type_ in types.items()}
    body = "\n".join(lines).encode()
    parse = json.ParseOptions(explicit_schema=pa.schema(types.items()), unexpected_field_behavior="ignore")
    try:
        table = json.read_json(io.BytesIO(body), json.ReadOptions(block_size=len(body) + 1), parse)
    except pa.ArrowInvalid as error:
        raise InputError(f"{named}: {error}; give one JSON object a line") from error
    if len(table) != len(lines):
        raise InputError(f"{named}: {len(table)} objects in {len(lines)} lines; give one JSON object a line")
    return {name: table[name].combine_chunks() for name in types}


def _csv_columns(named: str, lines: list[str], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    from pyarrow import csv as arrow_csv

    header = [name.strip().lower() for name in next(csv.reader(lines[:1]), [])]
    if not set(types) & set(header):
        raise InputError(f"{named}: has no column {' or '.join(types)}; begin with a header such as {','.join(types)}")
    if len(lines) == 1:
        return {name: pa.nulls(0, pa.string()) for name in types}
    body = "\n".join(lines[1:]).encode()
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(types, pa.string()),
        include_columns=list(types),
        include_missing_columns=True,
        strings_can_be_null=True,
        null_values=[""],
    )
    read = arrow_csv.ReadOptions(column_names=header, use_threads=False, block_size=len(body) + 1)
    try:
        table = arrow_csv.read_csv(io.BytesIO(body), read, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise InputError(f"{named}: {error}; quote values with commas") from error
    return {name: table[name].combine_chunks().cast(pa.string()) for name in types}


def _numbers(named: str, name: str, column: pa.Array, type_: pa.DataType, lines: list[int]) -> pa.Array:
    try:
        return pc.cast(column, type_)
    except pa.ArrowInvalid as error:
        for line, text in zip(lines, column.to_pylist(), strict=True):
            if text is not None and not _is_number(text):
                raise InputError(f"{named}, line {line}: {name} {text!r} is no number") from error
        raise InputError(f"{named}: {name}: {error}") from error


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False

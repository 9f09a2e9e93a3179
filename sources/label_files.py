"""Labels that come back for flows: Parquet, CSV and JSON lines with a flow id and a label in each row."""

import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from transforms.csv_text import Utf8File, column_names
from transforms.records import InputError, Reject

FLOW_ID = "flow_id"

LABEL, CLASS = "label", "class"
"""The usual name of the label's column; `pipelines.generate`'s, which is taken where the usual one is absent."""

LABELS = pa.schema([(FLOW_ID, pa.binary(16)), (LABEL, pa.string())])
"""What is read."""

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}

BLOCK_OCTETS = 4 << 20
BLOCK_ROWS = 65_536

REJECT_FLOW_ID, REJECT_ROW = "bad_flow_id", "unreadable_label"

_HEX = "^[0-9a-f]{32}$"


class LabelsRead(NamedTuple):
    """A piece of a file.

    Attributes:
        labels: Its rows that have a label, `LABELS`.
        rejects: What is no flow id or no row.
    """

    labels: pa.RecordBatch
    rejects: list[Reject]


def find_label_files(place: str) -> list[Path]:
    """The files that `--returned_labels` names, in order: one, those of a folder, or those that a pattern fits.

    Raises:
        InputError: There is nothing, or nothing of a known format.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return label_files_in(path)
    found = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not found:
        raise InputError(
            f"--returned_labels {place}: no such file or folder; name Parquet, CSV or JSON lines of flow_id, label"
        )
    for one in found:
        _format_of(one)
    return found


def label_files_in(folder: Path) -> list[Path]:
    """The files of a folder that are label files by their names, in order; hidden ones are still being written."""
    names = sorted(name for name in os.listdir(folder) if name[0] not in "._")
    return [folder / name for name in names if Path(name).suffix in FORMATS]


def read_labels(path: Path, column: str = LABEL) -> Iterator[LabelsRead]:
    """Reads a file, piece by piece.

    Args:
        path: The file.
        column: Name of the column that has the label; `class` stands for a `label` that is not there.

    Raises:
        InputError: It cannot be read, or a column is missing.
    """
    try:
        rows = 0
        for block, refused in _READERS[_format_of(path)](path, column):
            ids, wrong = _flow_ids(block.column(0))
            labels = block.column(1).cast(pa.string())
            for at in pc.indices_nonzero(wrong).to_pylist():
                payload = str(block.column(0)[at].as_py()).encode()
                refused.append(Reject("labels", REJECT_FLOW_ID, str(path), rows + at, payload))
            kept = pc.and_(ids.is_valid(), labels.is_valid())
            batch = pa.RecordBatch.from_arrays([ids, labels], schema=LABELS).filter(kept)
            rows += len(block)
            yield LabelsRead(batch, refused)
    except (OSError, pa.ArrowException, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: labels cannot be read: {what}") from error


def _format_of(path: Path) -> str:
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: is no label file by its name; known are {', '.join(FORMATS)}")
    return FORMATS[path.suffix]


Blocks = Iterator[tuple[pa.RecordBatch, list[Reject]]]
"""Columns of flow id and label, and what could not be read before them."""


def _parquet(path: Path, column: str) -> Blocks:
    import pyarrow.parquet as pq  # heavy: not for a job without labels

    with pq.ParquetFile(path) as file:
        column = _label_column(path, column, file.schema_arrow.names)
        for batch in file.iter_batches(BLOCK_ROWS, columns=[FLOW_ID, column]):
            yield batch.select([FLOW_ID, column]), []


def _csv(path: Path, column: str) -> Blocks:
    from pyarrow import csv

    column = _label_column(path, column, column_names(str(path)))
    refused: list[Reject] = []

    def refuse(row: Any) -> str:
        refused.append(Reject("labels", REJECT_ROW, str(path), row.number, row.text.encode()))
        return "skip"

    wanted = {FLOW_ID: pa.string(), column: pa.string()}
    convert = csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), strings_can_be_null=True)
    parse = csv.ParseOptions(invalid_row_handler=refuse)
    reading = csv.ReadOptions(block_size=BLOCK_OCTETS, use_threads=False)
    with csv.open_csv(Utf8File(str(path)), reading, parse, convert) as reader:
        for batch in reader:
            told, refused[:] = list(refused), []
            yield batch, told
    if refused:
        yield pa.RecordBatch.from_pylist([], pa.schema(list(wanted.items()))), list(refused)


def _jsonl(path: Path, column: str) -> Blocks:
    number = 0
    other = CLASS if column == LABEL else column
    schema = pa.schema([(FLOW_ID, pa.string()), (column, pa.string())])
    with open(path, "rb") as file:
        while lines := file.readlines(BLOCK_OCTETS):
            rows, refused = [], []
            for line in lines:
                try:
                    said = json.loads(line) if line.strip() else {}
                    rows.append({FLOW_ID: _text(said.get(FLOW_ID)), column: _text(said.get(column, said.get(other)))})
                except (ValueError, AttributeError, RecursionError):
                    refused.append(Reject("labels", REJECT_ROW, str(path), number, line))
                number += 1
            yield pa.RecordBatch.from_pylist(rows, schema), refused


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _label_column(path: Path, column: str, names: list[str]) -> str:
    chosen = CLASS if column == LABEL and LABEL not in names and CLASS in names else column
    for name in (FLOW_ID, chosen):
        if name not in names:
            raise InputError(f"{path}: has no column {name}; labels need {FLOW_ID} and {column}, see --label_column")
    return chosen


_READERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}


def _flow_ids(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Flow ids, 16 octets or 32 hexadecimal digits, null where there is none; and which values are something else."""
    if pa.types.is_fixed_size_binary(values.type) or pa.types.is_binary(values.type):
        texts = values.cast(pa.binary())
        good = pc.equal(pc.binary_length(texts), 16)
        octets = b"".join(texts.filter(pc.fill_null(good, False)).to_pylist())
    else:
        texts = pc.replace_substring(pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string()))), "-", "")
        good = pc.match_substring_regex(texts, _HEX)
        octets = bytes.fromhex("".join(texts.filter(pc.fill_null(good, False)).to_pylist()))
    filled = pc.fill_null(good, False)
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(octets) // 16, [None, pa.py_buffer(octets)])
    if len(ids) < len(values):
        places = pc.subtract(pc.cumulative_sum(filled.cast(pa.int64())), 1)
        ids = ids.take(pc.if_else(filled, places, None))
    return ids, pc.and_(pc.invert(filled), values.is_valid())

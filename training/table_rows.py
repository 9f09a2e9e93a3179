"""Rows of any other table, CSV or Parquet: every column of numbers or of a few texts."""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from training.rows import (
    Block,
    Found,
    Wanted,
    batches_of,
    first_line,
    group_column,
    groups_of,
    labels_of,
    named,
    opened,
)
from transforms.csv_text import Utf8File, column_names, lines_of
from transforms.features import sets
from transforms.records import InputError

MOST_WORDS = 1000
"""Different texts of one column that are told apart; further ones are missing values."""

MOST_COLUMNS = 2000
"""Columns of a table that may be learned from."""

_EMPTY = pa.array(["", "null", "none", "na", "n/a", "?", None])
_BLOCK_OCTETS = 4 << 20
_NUMBER = r"(?i)^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$"
_NOT_FINITE = r"(?i)^[+-]?(inf|infinity|nan)$"
_TIME_NAME = re.compile(
    "(date_?)?time(_?stamp)?|date|date_first_seen|ts|stime|(flow_?)?start(_?(time|ns|ms))?|start_?time"
)
_NO_TIME = -(1 << 63)
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M")


def of_parquet(path: str, wanted: Wanted, found: Found) -> Iterator[Block]:
    """Rows of a Parquet file.

    Raises:
        InputError: The file cannot be read, or lacks what is wanted.
    """
    with opened(path) as file:
        schema = file.schema_arrow
        label = named(path, wanted.label, schema.names, "--label_column")
        group = group_column(path, wanted, schema.names, None)
        usable = [
            one.name
            for one in schema
            if _is_number(one.type) or pa.types.is_string(one.type) or pa.types.is_dictionary(one.type)
        ]
        found.ignored.update(set(schema.names) - {*usable, label})
        names = _chosen(path, [name for name in usable if name != label], wanted)
        time = found.time_column = _time_column(schema.names)
        ours = sets.get(sets.FLOWBEAM).columns
        found.identities.update(column.name for column in ours if column.kind == "identity" and column.name in names)
        for batch in batches_of(path, file, list(dict.fromkeys([*names, label, *filter(None, (group, time))]))):
            yield Block(
                {name: _values(name, batch.column(name), wanted, found) for name in names},
                labels_of(batch.column(label)),
                _times(batch.column(time)) if time else None,
                groups_of(path, wanted, batch.column(group) if group else None, len(batch)),
            )


def of_csv(path: str, wanted: Wanted, found: Found) -> Iterator[Block]:
    """Rows of a CSV file, plain or compressed (`.gz`, `.bz2`, `.zst`).

    Raises:
        InputError: The file cannot be read, or lacks what is wanted.
    """
    header = _header(path, wanted.header)
    firsts: dict[str, int] = {}
    for place, name in enumerate(header):
        firsts.setdefault(name, place)
    found.duplicates.update(name for place, name in enumerate(header) if firsts[name] != place)
    label = named(path, wanted.label, list(firsts), "--label_column")
    group = group_column(path, wanted, list(firsts), None)
    names = _chosen(path, [name for name in firsts if name != label], wanted)
    time = found.time_column = _time_column(list(firsts))
    read = {name: str(firsts[name]) for name in dict.fromkeys([*names, label, *filter(None, (group, time))])}

    def skip(row: arrow_csv.InvalidRow) -> str:
        found.dropped["with another number of columns"] += lines_of(row.text)
        return "skip"

    try:
        blocks = arrow_csv.open_csv(
            Utf8File(path),
            arrow_csv.ReadOptions(
                skip_rows=1 if wanted.header else 0,
                column_names=[str(place) for place in range(len(header))],
                block_size=_BLOCK_OCTETS,
                use_threads=False,
            ),
            arrow_csv.ParseOptions(invalid_row_handler=skip),
            arrow_csv.ConvertOptions(
                include_columns=list(read.values()),
                column_types=dict.fromkeys(read.values(), pa.string()),
                strings_can_be_null=False,
            ),
        )
        for block in blocks:
            columns = {name: pc.utf8_trim_whitespace(block.column(at)) for name, at in read.items()}
            again = pc.equal(columns[label], label)
            if wanted.header and again.true_count:
                found.dropped["that are the header again"] += again.true_count
                columns = {name: values.filter(pc.invert(again)) for name, values in columns.items()}
            yield Block(
                {name: _values(name, columns[name], wanted, found) for name in names},
                labels_of(columns[label]),
                _times(columns[time]) if time else None,
                groups_of(path, wanted, columns[group] if group else None, len(columns[label])),
            )
    except (pa.ArrowInvalid, OSError) as error:
        if re.match("Empty CSV file|Could not skip initial 1 rows", str(error)):  # a header and nothing else
            return
        raise InputError(f"{path}: cannot be read as CSV: {first_line(error)}") from error


def _chosen(path: str, names: list[str], wanted: Wanted) -> list[str]:
    if wanted.columns is None:
        if len(names) > MOST_COLUMNS:
            raise InputError(
                f"{path}: has {len(names):,} columns, and at most {MOST_COLUMNS:,} can be learned from; leave some out"
            )
        return names
    absent = [name for name in wanted.columns if name not in names]
    if absent:
        raise InputError(f"{path}: has no columns that the model needs: {sets.some(absent)}")
    return list(wanted.columns)


def _header(path: str, is_there: bool) -> list[str]:
    """Names of the columns; their numbers for those that have none."""
    names = column_names(path)
    return [name if is_there and name else f"{'unnamed_' * is_there}{place + 1}" for place, name in enumerate(names)]


def _time_column(names: list[str]) -> str:
    return next((name for name in names if _TIME_NAME.fullmatch(name.lower().replace(" ", "_"))), "")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _float32(values: pa.Array) -> np.ndarray:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    wide = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.abs(wide) <= np.finfo(np.float32).max, wide, np.nan).astype(np.float32)


def _values(name: str, values: pa.Array, wanted: Wanted, found: Found) -> np.ndarray:
    """A column as numbers; one whose values are mostly texts in the first block stays a column of texts."""
    if _is_number(values.type):
        return _float32(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if name not in wanted.words:
        numbers, missing = _read_numbers(values)
        given = len(values) - missing["empty"]
        if wanted.columns is not None or name in wanted.numbers or missing["unreadable"] * 2 <= given:
            wanted.numbers.add(name)
            found.nulls.update({why: count for why, count in missing.items() if count})
            return numbers
        wanted.words[name] = []
    return _codes(name, values, wanted, found)


def _read_numbers(texts: pa.Array) -> tuple[np.ndarray, dict[str, int]]:
    """The numbers that the texts write, NaN for others, and how many of those there are, by why."""
    missing = dict.fromkeys(("not finite", "empty", "unreadable"), 0)
    try:
        numbers = texts.cast(pa.float64())
        missing["not finite"] = len(texts) - pc.is_finite(numbers).true_count
    except pa.ArrowInvalid:
        readable = pc.match_substring_regex(texts, _NUMBER).fill_null(False)
        numbers = pc.if_else(readable, texts, pa.scalar(None, pa.string())).cast(pa.float64())
        missing["not finite"] = pc.match_substring_regex(texts, _NOT_FINITE).true_count
        missing["empty"] = pc.is_in(pc.utf8_lower(texts), _EMPTY).true_count
        missing["unreadable"] = len(texts) - readable.true_count - missing["not finite"] - missing["empty"]
    return _float32(numbers), missing


def _codes(name: str, texts: pa.Array, wanted: Wanted, found: Found) -> np.ndarray:
    """Numbers of texts, in the order in which they first come; NaN beyond `MOST_WORDS` and for what is missing."""
    words = wanted.words[name]
    encoded = texts.dictionary_encode()
    known = {word: code for code, word in enumerate(words)}
    codes = np.full(len(encoded.dictionary) + 1, np.nan, np.float32)
    for place, word in enumerate(encoded.dictionary.to_pylist()):
        if word not in known and wanted.columns is None and len(words) < MOST_WORDS:
            known[word] = len(words)
            words.append(word)
        codes[place] = known.get(word, np.nan)
    if wanted.columns is None and len(words) == MOST_WORDS:
        found.identities.add(name)
    return codes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _times(values: pa.Array) -> np.ndarray:
    """What orders the rows: ns, seconds, or numbers of the column's own; the least there is where a text is no time."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("ns")).cast(pa.int64())
    elif not _is_number(values.type):
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            values = _seconds(values)
    if pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False) * 1e6
        inside = np.abs(numbers) < 2**62
        return np.where(inside, np.where(inside, numbers, 0), _NO_TIME).astype(np.int64)
    return values.cast(pa.int64()).fill_null(_NO_TIME).to_numpy()


def _seconds(texts: pa.Array) -> pa.Array:
    whole = pc.replace_substring_regex(texts, r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d).*$", r"\1 \2")
    formats = (pc.strptime(whole, form, "s", error_is_null=True).cast(pa.int64()) for form in _TIME_FORMATS)
    return pc.coalesce(*formats)

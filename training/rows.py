"""Labelled rows as training reads them, and what is the same for every kind of file that has some."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from transforms.features import sets
from transforms.records import InputError

GROUP_BY_FILE = "file"
"""A column that every table has: which file a row is from."""

_ROWS_AT_ONCE = 1 << 15
_NO_LABEL = pa.array(["", "nan", "null", "none", "na", "n/a", "?"])


class Block(NamedTuple):
    """Rows of a table, as they were read.

    Attributes:
        columns: What may be learned from, float32, NaN where there is no value.
        labels: Texts; null where there is none.
        times: When each flow began, or what orders rows like that; None where nothing tells.
        groups: What `--split=group:…` goes by; None unless asked for.
    """

    columns: dict[str, np.ndarray]
    labels: pa.Array
    times: np.ndarray | None
    groups: pa.Array | None


@dataclass
class Wanted:
    """What is asked of each file.

    Attributes:
        features: Name of a feature set, or `all`.
        label: Header of the label; upper and lower case are the same.
        group: Column of groups, `file`, or empty.
        columns: The columns that a model needs; None for all that there are.
        words: What the numbers of text columns stand for, by column; grows while tables are read for training.
        numbers: Columns that were found to be numbers.
        header: Whether tables have one; columns are named by their number without.
    """

    features: str
    label: str
    group: str = ""
    columns: tuple[str, ...] | None = None
    words: dict[str, list[str]] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set)
    header: bool = True


@dataclass
class Found:
    """What was found in the files; the counts grow while they are read.

    Attributes:
        files: Rows of each file, in order.
        rows: Rows that were read, with and without label.
        unlabelled: Rows without a label; they are left out.
        dropped: Rows left out, by why: `header again`, `empty`, `number of columns`.
        nulls: Values that are missing, by why.
        duplicates: Columns that say again what another says; they are left out.
        ignored: Columns that mean nothing here.
        time_column: What orders the rows; empty where nothing does.
        identities: Columns that name a flow, its ends or its time.
        sampled: Rows that were kept, where there were more than could be; 0 where all were.
    """

    files: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    unlabelled: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)
    duplicates: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    time_column: str = ""
    identities: set[str] = field(default_factory=set)
    sampled: int = 0

    @property
    def sampling(self) -> str:
        """A sentence on how rows of a larger table were chosen."""
        return f"{self.sampled:,} of {self.rows:,} rows are used, chosen by a hash of their place; see --max_rows"

    def counts(self) -> dict[str, int]:
        """What was wrong with rows and values, and how often."""
        unlabelled = {"rows without a label": self.unlabelled} if self.unlabelled else {}
        dropped = {f"rows {why}": count for why, count in sorted(self.dropped.items())}
        return unlabelled | dropped | {f"values that are {why}": count for why, count in sorted(self.nulls.items())}

    def lines(self) -> Iterator[str]:
        """What a person should know of it; nothing where all is as it should be."""
        if self.sampled:
            yield self.sampling
        if counts := self.counts():
            yield "left out: " + ", ".join(f"{count:,} {what}" for what, count in counts.items())
        if self.duplicates:
            yield f"columns that repeat another one are left out: {sets.some(sorted(self.duplicates))}"
        if self.ignored:
            yield f"columns that cannot be learned from are left out: {sets.some(sorted(self.ignored))}"


def files_of(places: Iterable[str]) -> list[str]:
    """The tables at `places`, files or folders of Parquet files; names that begin with `_` or `.` are passed over.

    Raises:
        InputError: A place is not there, or has no table.
    """
    files: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            within = sorted(
                file
                for file in path.rglob("*.parquet")
                if not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
            )
            if not within:
                raise InputError(f"--flows {place}: no Parquet files in this folder; name one that has, or CSV files")
            files.extend(map(str, within))
        elif path.exists():
            files.append(str(path))
        else:
            raise InputError(f"--flows {place}: no such file or folder")
    return files


def opened(path: str) -> parquet.ParquetFile:
    """A Parquet file.

    Raises:
        InputError: It is none.
    """
    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {first_line(error)}") from error


def batches_of(path: str, file: parquet.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, some rows at a time.

    Raises:
        InputError: It is damaged.
    """
    try:
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a library said, less what it added below."""
    return str(error).partition("\n")[0]


def named(path: str, name: str, names: list[str], option: str) -> str:
    """The column called `name`, in upper or lower case.

    Raises:
        InputError: There is none.
    """
    same = [one for one in names if one == name] or [one for one in names if one.lower() == name.lower()]
    if not same:
        raise InputError(f"{path}: no column {name!r} ({option}); it has {sets.some(names)}")
    return same[0]


def group_column(path: str, wanted: Wanted, names: list[str], feature_set: sets.FeatureSet | None = None) -> str:
    """The file's column of groups, by its own or its published name; empty if a file is a group, or nothing is.

    Raises:
        InputError: There is none.
    """
    if wanted.group in ("", GROUP_BY_FILE):
        return ""
    published = {} if feature_set is None else {column.name: column.canonical[0] for column in feature_set.columns}
    return named(path, published.get(wanted.group, wanted.group), names, "--split=group:…")


def groups_of(path: str, wanted: Wanted, values: pa.Array | None, rows: int) -> pa.Array | None:
    """Which group each row belongs to, as texts."""
    if wanted.group == GROUP_BY_FILE:
        return pa.repeat(path, rows)
    return None if values is None else values.cast(pa.string())


def labels_of(values: pa.Array) -> pa.Array:
    """Labels as texts; null where there is none."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
    texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    missing = pc.is_in(pc.utf8_lower(texts), _NO_LABEL)
    return pc.if_else(missing, pa.scalar(None, pa.string()), texts)

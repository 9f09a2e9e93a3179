"""Labelled tables in memory: columns of float32 and classes, at most so many rows of files of any size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xxhash

from training.flow_rows import of_cic_table, of_flows
from training.rows import GROUP_BY_FILE, Block, Found, Wanted, files_of
from training.table_rows import of_csv, of_parquet
from transforms.features import sets
from transforms.records import InputError

ALL = "all"
"""In place of a feature set: every column of a table that is like no set's."""

MOST_CLASSES = 200

_SLACK = 1.25  # rows are dropped when there are this many times the most; a few large drops cost less than many


@dataclass
class Table:
    """Rows with labels, in the order of their files.

    Attributes:
        columns: What may be learned from: float32, NaN where there is no value.
        labels: `int32[n]`, indices of `classes`.
        classes: Names of the classes, sorted.
        times: `int64[n]`, what orders rows in time; None where nothing does.
        groups: `uint64[n]`, equal for rows of a group; None unless asked for.
        found: What was found in the files.
        words: What the numbers of text columns stand for, by column.
    """

    columns: dict[str, np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    times: np.ndarray | None = None
    groups: np.ndarray | None = None
    found: Found = field(default_factory=Found)
    words: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def with_columns(self, names: Iterable[str]) -> "Table":
        """The table with these columns, in this order."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def rows(self, chosen: np.ndarray) -> "Table":
        """The rows at these places, or where a mask is true."""
        return replace(
            self,
            columns={name: values[chosen] for name, values in self.columns.items()},
            labels=self.labels[chosen],
            times=None if self.times is None else self.times[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    def with_labels(self, names: Sequence[str], of_class: Sequence[int] | np.ndarray) -> "Table":
        """The table with other classes; class *i* becomes `names[of_class[i]]`."""
        return replace(self, labels=np.asarray(of_class, np.int32)[self.labels], classes=tuple(names))

    def joined(self, other: "Table") -> "Table":
        """The rows of both tables of the same columns and classes, these first; without times and groups."""
        assert self.classes == other.classes
        columns = {name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()}
        labels = np.concatenate([self.labels, other.labels])
        return replace(self, columns=columns, labels=labels, times=None, groups=None)

    def at_most_each(self, rows: int, seed: int) -> "Table":
        """The table, or about so many of its rows in their order, of every class an equal part if it has so many."""
        if len(self) <= rows:
            return self
        shuffled = np.random.default_rng(seed).permutation(len(self))
        by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        sizes = np.bincount(self.labels)
        rank = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        floor = rows // (
            2 * max(1, int(np.count_nonzero(sizes)))
        )  # half of the sample is for classes, half for their parts
        first = rank < floor
        rest = by_class[~first]
        drawn = np.random.default_rng(seed + 1).choice(rest, rows - int(first.sum()), replace=False)
        return self.rows(np.sort(np.concatenate([by_class[first], drawn])))

    def at_most(self, rows: int, seed: int) -> "Table":
        """The table, or about so many of its rows, in their order."""
        if len(self) <= rows:
            return self
        return self.rows(np.sort(np.random.default_rng(seed).choice(len(self), rows, replace=False)))


def with_rows_only(table: Table) -> tuple[Table, np.ndarray]:
    """The table with those of its classes only that have rows, and which those are: trees cannot learn others."""
    there = np.flatnonzero(np.bincount(table.labels, minlength=len(table.classes)))
    place = np.full(len(table.classes), -1)
    place[there] = np.arange(len(there))
    return table.with_labels([table.classes[i] for i in there], place), there


def read_table(places: Sequence[str], wanted: Wanted, most_rows: int, seed: int = 0) -> Table:
    """Reads the labelled rows of all files.

    Of more than `most_rows` those stay whose place in the files has the smallest hash: a sample that does not depend
    on how files are read, in memory that does not depend on their size.

    Raises:
        InputError: A file cannot be read or lacks a column, or there are no labels.
    """
    found = Found()
    files = files_of(places)
    first = files[0]
    sample = _Sample(most_rows)
    labels = _Labels(wanted.label)
    names: list[str] | None = None
    for number, path in enumerate(files):
        row = 0
        for block in blocks_of(path, wanted, found):
            if names is None:
                names = list(block.columns)
            absent = [name for name in names if name not in block.columns]
            if absent:
                raise InputError(
                    f"{path}: has no columns {sets.some(absent)} as {first} has; give tables that are alike"
                )
            rows = len(block.labels)
            hashes = _hashes(np.uint64((number << 40) + row) + np.arange(rows, dtype=np.uint64), seed)
            known = block.labels.is_valid().to_numpy(zero_copy_only=False)
            found.rows += rows
            found.unlabelled += int(rows - known.sum())
            row += rows
            found.files[path] += rows
            sample.add(hashes, known, {name: block.columns[name] for name in names}, labels.codes(block), block)
    if not found.rows:
        raise InputError(f"{first}: has no rows")
    if sample.labelled == 0:
        raise InputError(f"{first}: no row has a label in {wanted.label!r}; see --label_column")
    order = np.argsort(np.array(labels.names), kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    columns, codes, times, groups = sample.taken()
    found.sampled = len(codes) if sample.dropped else 0
    if times is not None and (times == times[0]).all():  # none could be read
        times, found.time_column = None, ""
    return Table(
        columns,
        place[codes],
        tuple(labels.names[i] for i in order),
        times,
        groups,
        found,
        wanted.words,
    )


def blocks_of(path: str, wanted: Wanted, found: Found) -> Iterator[Block]:
    """The rows of one file, a block at a time.

    Raises:
        InputError: The file cannot be read, or lacks what is wanted.
    """
    found.files.setdefault(path, 0)
    is_parquet = path.endswith(".parquet")
    if wanted.features == ALL:
        return of_parquet(path, wanted, found) if is_parquet else of_csv(path, wanted, found)
    feature_set = sets.get(wanted.features)
    if is_parquet:
        return of_flows(path, feature_set, wanted, found)
    if feature_set.name != "cic@1":
        raise InputError(f"{path}: tables are read as cic@1 or {ALL}; flows with {feature_set.name} come as Parquet")
    return of_cic_table(path, feature_set, wanted, found)


class _Labels:
    """The classes that were seen, in the order in which they came."""

    def __init__(self, column: str) -> None:
        self.names: list[str] = []
        self._column = column

    def codes(self, block: Block) -> np.ndarray:
        """Their numbers; -1 where there is none."""
        encoded = block.labels.dictionary_encode()
        known = {name: code for code, name in enumerate(self.names)}
        codes = np.full(len(encoded.dictionary) + 1, -1, np.int32)
        for place, name in enumerate(encoded.dictionary.to_pylist()):
            if name not in known:
                if len(self.names) == MOST_CLASSES:
                    raise InputError(
                        f"--label_column {self._column}: more than {MOST_CLASSES} different values; is it the label?"
                    )
                known[name] = len(self.names)
                self.names.append(name)
            codes[place] = known[name]
        return codes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


class _Sample:
    """The rows with the smallest hashes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = np.uint64(2**64 - 1)
        self._kept: list[dict[str, np.ndarray]] = []
        self._rows = 0
        self.labelled = 0
        self.dropped = 0

    def add(
        self, hashes: np.ndarray, known: np.ndarray, columns: dict[str, np.ndarray], codes: np.ndarray, block: Block
    ) -> None:
        """Takes the labelled rows of a block."""
        chosen = known & (hashes <= self._limit)
        self.labelled += int(known.sum())
        self.dropped += int(known.sum() - chosen.sum())
        held = {f"={name}": values for name, values in columns.items()} | {"hash": hashes, "label": codes}
        if block.times is not None:
            held["time"] = block.times
        if block.groups is not None:
            held["group"] = _group_hashes(block)
        self._kept.append({name: values[chosen] for name, values in held.items()})
        self._rows += int(chosen.sum())
        if self._rows > self._most * _SLACK:
            self._shrink()

    def _shrink(self) -> None:
        hashes = np.concatenate([part["hash"] for part in self._kept])
        self._limit = np.partition(hashes, self._most - 1)[self._most - 1]
        for i, part in enumerate(self._kept):
            stays = part["hash"] <= self._limit
            if not stays.all():
                self._kept[i] = {name: values[stays] for name, values in part.items()}
        rows = sum(len(part["hash"]) for part in self._kept)
        self.dropped += self._rows - rows
        self._rows = rows

    def taken(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Columns, codes of labels, times and groups of the rows that stay; the sample is empty then."""
        if self._rows > self._most:
            self._shrink()
        names = [name for name in self._kept[0] if all(name in part for part in self._kept)]
        whole = {name: np.concatenate([part.pop(name) for part in self._kept]) for name in names}
        columns = {name[1:]: values for name, values in whole.items() if name.startswith("=")}
        return columns, whole["label"], whole.get("time"), whole.get("group")


def _hashes(places: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of the rows' places: Steele, Lea, Flood, OOPSLA 2014."""
    mixed = places * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _group_hashes(block: Block) -> np.ndarray:
    assert block.groups is not None
    encoded = block.groups.dictionary_encode()
    texts = [*encoded.dictionary.to_pylist(), None]
    hashes = np.array([xxhash.xxh3_64_intdigest((text or "").encode()) for text in texts], np.uint64)
    return hashes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


__all__ = ["ALL", "GROUP_BY_FILE", "Found", "Table", "Wanted", "blocks_of", "read_table"]

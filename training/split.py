"""Which rows a model learns from, and which it is judged on."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.tables import Table
from transforms.records import InputError

KINDS = ("time", "order", "random", "group")

GROUP_TEST_PART = 0.2
"""The part of the rows, at least, whose groups are held back."""


class Split(NamedTuple):
    """Two parts of a table's rows.

    Attributes:
        rule: As it was asked for, `time:0.67`.
        train: Places of the rows to learn from, in order of time where that is known.
        test: Places of the others, likewise.
        warnings: What a person should know.
    """

    rule: str
    train: np.ndarray
    test: np.ndarray
    warnings: tuple[str, ...] = ()


@dataclass
class SplitRule:
    """`time:0.67`: the first part in time to learn from; `order:0.1`: the first part of the rows as they stand in the
    files; `random:0.2`: that part, of each class, held back; `group:COLUMN`: whole groups held back.
    """

    kind: str
    value: str

    def __post_init__(self) -> None:
        if self.kind == "group":
            if not self.value:
                raise InputError("--split group: names no column; write group:COLUMN, or group:file for whole files")
        elif not 0 < self.part < 1:
            raise InputError(f"--split {self}: {self.value!r} is no part of the rows; write a number between 0 and 1")

    @classmethod
    def parse(cls, text: str) -> "SplitRule":
        """Takes a `--split` apart.

        Raises:
            InputError: It is none.
        """
        kind, _, value = text.partition(":")
        if kind not in KINDS:
            raise InputError(f"--split {text}: write time:0.67, order:0.67, random:0.2 or group:COLUMN")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def part(self) -> float:
        """The number behind the colon; 0 if it is none."""
        try:
            return float(self.value)
        except ValueError:
            return 0.0

    @property
    def group(self) -> str:
        """The column of groups, or empty."""
        return self.value if self.kind == "group" else ""

    def apply(self, table: Table, seed: int) -> Split:
        """Splits the rows.

        Raises:
            InputError: One of the parts would be empty.
        """
        split = getattr(self, f"_{self.kind}")(table, np.random.default_rng(seed))
        for name, part in (("learn from", split.train), ("judge by", split.test)):
            if not len(part):
                raise InputError(f"--split {self}: leaves none of the {len(table)} rows to {name}")
        return split

    def _time(self, table: Table, _: np.random.Generator) -> Split:
        order, warnings = np.arange(len(table)), list[str]()
        if table.times is None:
            warnings = ["the data has no times: the order of the rows in the files is taken for it"]
        else:
            order = np.argsort(table.times, kind="stable")
        cut = round(self.part * len(order))
        return Split(str(self), order[:cut], order[cut:], tuple(warnings))

    def _order(self, table: Table, _: np.random.Generator) -> Split:
        cut = round(self.part * len(table))
        return Split(str(self), np.arange(cut), np.arange(cut, len(table)))

    def _random(self, table: Table, random: np.random.Generator) -> Split:
        held = stratified(table.labels, self.part, random)
        flatters = "a random split of data that has times flatters: flows of one attack are on both sides"
        warnings = () if table.times is None else (f"--split {self}: {flatters}; time:0.67 is the honest one",)
        return Split(str(self), np.flatnonzero(~held), np.flatnonzero(held), warnings)

    def _group(self, table: Table, random: np.random.Generator) -> Split:
        assert table.groups is not None
        groups, which, sizes = np.unique(table.groups, return_inverse=True, return_counts=True)
        if len(groups) < 2:
            raise InputError(f"--split {self}: all rows are of one group; name another column")
        order = random.permutation(len(groups))
        before = np.cumsum(sizes[order]) - sizes[order]
        held = np.zeros(len(groups), bool)
        held[order[before < GROUP_TEST_PART * len(table)]] = True
        if held.all():  # the last group drawn is larger than what should be learned from
            held[order[-1]] = False
        return Split(str(self), np.flatnonzero(~held[which]), np.flatnonzero(held[which]))


def stratified(labels: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """A mask of about this part of each class, at random; a class of a single row is never in it."""
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    quota = np.minimum(np.round(sizes * part), np.maximum(sizes - 1, 0))
    held = np.zeros(len(labels), bool)
    held[by_class] = rank < np.repeat(quota, sizes)
    return held

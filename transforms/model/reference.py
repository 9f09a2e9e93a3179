"""What a model's data looked like: a histogram of each feature and of the score, and how often the model was wrong.

Bins are bounded by tenths of the data's own distribution. A value at an edge lies below it; what is smaller than
anything seen, where many share the smallest value, has a bin of its own, and so has what is larger than the largest;
missing values have the last one.
"""

import itertools
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from transforms.kernel import kernel
from transforms.records import InputError

FORMAT = 1
"""Version of `reference.json`."""

BINS = 10
"""Bins of values that all differ."""

MOST_ROWS_FOR_EDGES = 200_000
"""Edges are those of at most about so many rows, evenly taken."""


class Histogram(NamedTuple):
    """Counts of one column.

    Attributes:
        edges: What bounds the bins: values of float32, ascending. Bin *i* holds what is above `edges[i - 1]` and not
            above `edges[i]`.
        counts: Rows of each bin, one more than edges; then rows without a value.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.counts)

    @property
    def missing_share(self) -> float:
        """The part of the rows without a value."""
        return self.counts[-1] / max(1, self.rows)

    @classmethod
    def of(cls, values: np.ndarray, bins: int = BINS) -> "Histogram":
        """The histogram of `float32[n]`, NaN where there is no value."""
        edges = _edges(values, bins)
        counts = np.bincount(bins_of(values, edges), minlength=len(edges) + 2)
        return cls(tuple(edges.tolist()), tuple(counts.tolist()))


class Reference(NamedTuple):
    """What flows are compared with.

    Attributes:
        features: The model's features by name, in the model's order.
        score: The scores that it gave to rows that it had not learned from.
        judged: Rows on which its answers were judged, none of them learned from.
        wrong: Wrong answers among them.
    """

    features: dict[str, Histogram]
    score: Histogram
    judged: int
    wrong: int

    @classmethod
    def of(
        cls,
        columns: Mapping[str, np.ndarray],
        scores: np.ndarray,
        wrong: np.ndarray | None = None,
        bins: int = BINS,
    ) -> "Reference":
        """Describes training data and what the model made of held-out data.

        Args:
            columns: The model's features, `float32[n]`, in its order; NaN where there is no value.
            scores: Of held-out rows, `float32[m]`: those of rows that it learned from are more certain than any to
                come.
            wrong: Whether the answer to each held-out row was wrong, `bool[m]`; None if nobody looked.
            bins: Bins of a column whose values all differ.
        """
        features = {name: Histogram.of(values, bins) for name, values in columns.items()}
        looked = np.zeros(0, bool) if wrong is None else np.asarray(wrong, bool)
        return cls(features, Histogram.of(scores, bins), len(looked), int(looked.sum()))

    def to_json(self) -> str:
        """The text of `reference.json`."""
        described = {
            "format": FORMAT,
            "judged": self.judged,
            "wrong": self.wrong,
            "score": self.score._asdict(),
            "features": {name: histogram._asdict() for name, histogram in self.features.items()},
        }
        return json.dumps(described) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "reference.json") -> "Reference":
        """Reads what `to_json` wrote.

        Raises:
            InputError: It is something else; the line begins with `source`.
        """
        try:
            said = json.loads(text)
            if said["format"] != FORMAT:
                raise InputError(f"{source}: format {said['format']!r} is not {FORMAT}; train the model again")
            features = {name: _histogram(described) for name, described in said["features"].items()}
            return cls(features, _histogram(said["score"]), int(said["judged"]), int(said["wrong"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{source}: is damaged; copy the model's whole folder again") from None


class Binning:
    """How many rows fall into each bin, for all columns of a reference at once.

    Args:
        reference: Whose bins.

    Attributes:
        starts: Where each column's bins begin in a row of counts: the features in order, then the score, then the end.
        reference_counts: The reference's own counts, laid out in the same way.
    """

    def __init__(self, reference: Reference) -> None:
        self._names = tuple(reference.features)
        histograms = (*reference.features.values(), reference.score)
        self._edges = [np.array(histogram.edges, np.float32) for histogram in histograms]
        self.starts = np.cumsum([0, *(len(histogram.counts) for histogram in histograms)])
        self.reference_counts = np.array([count for each in histograms for count in each.counts], np.int64)

    @cached_property
    def width(self) -> int:
        """Bins of all columns together."""
        return int(self.starts[-1])

    def counts(self, columns: Mapping[str, np.ndarray], scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """The counts of each group of rows.

        Args:
            columns: The features, `float32[n]`.
            scores: `float32[n]`.
            groups: The number of each row's group, from 0; `int[n]`.

        Returns:
            `int64[groups, width]`.
        """
        amount = int(groups.max()) + 1 if len(groups) else 0
        counted = np.zeros((amount, self.width), np.int64)
        groups = np.array(groups, np.int64)
        given = (*(columns[name] for name in self._names), np.array(scores, np.float32))
        for edges, start, values in zip(self._edges, self.starts[:-1].tolist(), given, strict=True):
            _count(values, edges, groups, start, counted)
        return counted


@kernel
def _count(values, edges, groups, start, counted):
    """Adds a column's values to the counts of their groups; the bins are those of `bins_of`."""
    bins = np.zeros(len(values), np.int32)
    for edge in edges:  # rows within edges: so several are compared at once
        for row in range(len(values)):
            bins[row] += edge < values[row]
    missing = len(edges) + 1
    for row in range(len(values)):
        bin_ = missing if values[row] != values[row] else bins[row]
        counted[groups[row], start + bin_] += 1


def bins_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value: `int64[n]`."""
    values = np.asarray(values, np.float32)
    below = np.searchsorted(edges, values)  # NaN sorts behind everything
    return below + np.isnan(values)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    values = np.asarray(values, np.float32)
    step = max(1, len(values) // MOST_ROWS_FOR_EDGES)
    known = values[::step]
    known = np.sort(known[np.isfinite(known)])
    if not len(known):
        return np.zeros(0, np.float32)
    places = np.arange(1, bins) * len(known) // bins
    edges = np.unique(known[places])
    if edges[0] == known[0] and edges[0] > np.finfo(np.float32).min:
        edges = np.insert(edges, 0, np.nextafter(edges[0], np.float32(-math.inf)))
    return edges


def _histogram(described: Any) -> Histogram:
    edges = tuple(float(edge) for edge in described["edges"])
    counts = tuple(int(count) for count in described["counts"])
    ascending = all(low < high for low, high in itertools.pairwise(edges))
    if not ascending or not all(map(math.isfinite, edges)) or len(counts) != len(edges) + 2 or min(counts) < 0:
        raise ValueError(described)
    return Histogram(edges, counts)

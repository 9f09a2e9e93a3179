import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from transforms.model.reference import Binning, Histogram, Reference, bins_of
from transforms.records import InputError

COLUMNS = {
    "spread": np.arange(1000, dtype=np.float32),
    "flag": np.repeat(np.float32([0, 1]), 500),
    "constant": np.full(1000, 5, np.float32),
    "absent": np.full(1000, np.nan, np.float32),
}


def reference():
    scores = np.linspace(0, 1, 300, dtype=np.float32)
    return Reference.of(COLUMNS, scores, scores > 0.99)


@pytest.mark.parametrize(
    ("values", "edges", "counts"),
    [
        (COLUMNS["spread"], 9, [101] + [100] * 8 + [99, 0]),
        (COLUMNS["flag"], 3, [0, 500, 500, 0, 0]),
        (COLUMNS["constant"], 2, [0, 1000, 0, 0]),
        (COLUMNS["absent"], 0, [0, 1000]),
        (np.float32([]), 0, [0, 0]),
        (np.float32([1, 2, np.nan, np.inf, -np.inf]), 3, [1, 1, 1, 1, 1]),
    ],
    ids=["spread", "flag", "constant", "all-missing", "no-rows", "infinite"],
)
def test_bins_are_tenths_of_what_was_seen(values, edges, counts):
    """With bins for what is below or above all of it, where many share the smallest or the largest value."""
    histogram = Histogram.of(values)
    assert len(histogram.edges) == edges
    assert list(histogram.counts) == counts


@given(arrays.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)))
@settings(max_examples=50)
def test_every_row_is_in_one_bin(values):
    histogram = Histogram.of(values)
    assert histogram.rows == len(values)
    assert histogram.counts[-1] == np.isnan(values).sum()
    assert list(histogram.edges) == sorted(set(histogram.edges))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.randoms())
@settings(max_examples=30)
def test_counts_of_groups_are_counts_of_their_rows(groups, random):
    """However a batch is divided among windows."""
    seen = reference()
    binning = Binning(seen)
    rows = np.array([random.randrange(1000) for _ in groups])
    columns = {name: values[rows] for name, values in COLUMNS.items()}
    scores = (rows / 1000).astype(np.float32)
    counted = binning.counts(columns, scores, np.array(groups))
    for group, counts in enumerate(counted):
        of_it = np.flatnonzero(np.array(groups) == group)
        alone = [
            np.bincount(bins_of(values[of_it], np.float32(histogram.edges)), minlength=len(histogram.counts))
            for values, histogram in zip(
                (*columns.values(), scores), (*seen.features.values(), seen.score), strict=True
            )
        ]
        assert counts.tolist() == np.concatenate(alone).tolist()


def test_the_reference_in_its_own_bins_is_its_counts():
    seen = Reference.of(COLUMNS, COLUMNS["spread"] / 1000)
    counted = Binning(seen).counts(COLUMNS, COLUMNS["spread"] / 1000, np.zeros(1000, np.int64))
    assert counted[0].tolist() == Binning(seen).reference_counts.tolist()


def test_json_gives_it_back():
    seen = reference()
    assert Reference.from_json(seen.to_json()) == seen
    assert (seen.judged, seen.wrong) == (300, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "m: format 2 is not 1; train the model again"),
        ({"score": {"edges": [1, 0], "counts": [0, 0, 0, 0]}}, "m: is damaged"),
        ({"score": {"edges": [1], "counts": [0, 0]}}, "m: is damaged"),
        ({"features": [1]}, "m: is damaged"),
        ({"judged": None}, "m: is damaged"),
    ],
    ids=["version", "edges", "counts", "features", "judged"],
)
def test_something_else_is_refused(change, message):
    text = json.dumps(json.loads(reference().to_json()) | change)
    with pytest.raises(InputError, match=message):
        Reference.from_json(text, "m")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000], ids=["empty", "list", "cut", "deep"])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(InputError, match=r"reference\.json: is damaged"):
        Reference.from_json(text)

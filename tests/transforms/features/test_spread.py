"""Spread of whole numbers whose count and sum are known."""

import itertools

import numpy as np
from flow_testing import described, nearly
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.features import spread

NANOSECONDS = st.integers(0, 10**17)


def columns(values, finished_with=None):
    """`values` added one by one; the last of them, `finished_with`, to the finished row."""
    rows = np.zeros(1, spread.SPREAD)
    for count, total in enumerate(itertools.accumulate(values), 1):
        spread.add(rows[0], values[count - 1], count, total)
    if finished_with is not None:
        values = [*values, finished_with]
        rows = spread.added(rows, np.array([finished_with]), np.array([len(values)]), np.array([sum(values)]))
    found = spread.columns_us(rows, np.array([len(values)]), np.array([sum(values)]))
    return dict(zip(("min", "max", "mean", "std"), (column.tolist()[0] for column in found), strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(NANOSECONDS, max_size=20))
def test_spread_equals_plain_statistics(values):
    """Minimum, maximum, mean and std of ns, in µs; null without values."""
    expected = described(values, divisor=1e3)
    del expected["variance"], expected["total"]
    assert columns(values) == nearly(expected, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(NANOSECONDS, max_size=20), NANOSECONDS)
def test_value_added_to_a_finished_row_counts_like_the_others(values, last):
    """What `added` makes of a finished row is what `add` would have made."""
    assert columns(values, finished_with=last) == columns([*values, last])

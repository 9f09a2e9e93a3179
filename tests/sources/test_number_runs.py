"""Runs of numbers are the set of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sources import number_runs


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40)))
def test_runs_are_the_set(numbers):
    """In whatever order; and as few as there are gaps."""
    runs: number_runs.Runs = []
    known: set[int] = set()
    for number in numbers:
        assert number_runs.add(runs, number) == (number not in known)
        known.add(number)
    assert [number for number in range(42) if number_runs.holds(runs, number)] == sorted(known)
    assert len(runs) == len([number for number in known if number - 1 not in known])


def test_a_long_stream_takes_no_memory():
    """A month of heartbeats is one run."""
    runs: number_runs.Runs = []
    for number in range(100_000):
        number_runs.add(runs, number)
    assert runs == [[0, 100_000]]

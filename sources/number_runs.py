"""Numbers as runs: which blocks of a stream have come, in memory that follows its gaps and not its length."""

from bisect import bisect_right
from operator import itemgetter
from typing import TypeAlias

Runs: TypeAlias = list[list[int]]
"""Of each run the first number and the one behind the last, ascending and apart."""


def holds(runs: Runs, number: int) -> bool:
    """Whether a number is in one of the runs."""
    at = bisect_right(runs, number, key=itemgetter(0))
    return at > 0 and number < runs[at - 1][1]


def add(runs: Runs, number: int) -> bool:
    """Adds a number; whether it was not there."""
    at = bisect_right(runs, number, key=itemgetter(0))
    if at and number < runs[at - 1][1]:
        return False
    if at and number == runs[at - 1][1]:
        runs[at - 1][1] += 1
    else:
        runs.insert(at, [number, number + 1])
        at += 1
    if at < len(runs) and runs[at - 1][1] == runs[at][0]:
        runs[at - 1 : at + 1] = [[runs[at - 1][0], runs[at][1]]]
    return True

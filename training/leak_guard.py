"""Columns that give the class away without describing traffic: who, where, when, row numbers, copies of the label."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from training.report import Leak
from training.tables import Table
from transforms.features import sets
from transforms.records import InputError

NEAR_PERFECT = 0.999
"""Mean recall of all classes with a single column, from which on it is refused."""

EVERY_LEAK = "all"
"""In place of names: all that the guard finds is allowed."""

_BINS = 256
_MOST_ROWS = 200_000
_FEWEST_ROWS_OF_A_CLASS = 10
_ENDS = "(src|dst|source|destination|orig|resp|client|server|local|remote|outer_src|outer_dst|id_orig|id_resp|s|d)"
_NAMES = (
    ("an address", rf"{_ENDS}?_?(ip|ips|addr|address|mac|host|h|hostname|ip_address|mac_address|ip_addr)"),
    ("a port", rf"{_ENDS}?_?(port|p|l4_port)"),
    (
        "a time",
        r"(date_?)?time(_?stamp)?|date|date_first_seen|ts|[sl]time|(flow_?)?(first|last|start|end)(_?(time|seen|ns|ms|us))?"
        r"|(start|end)_?time|(first|last)_seen(_\w+)?|.*_(first|last)_seen_ms|day|hour|weekday",
    ),
    (
        "an identifier",
        r"|unnamed_\d*|index|u?id|(flow|row|record|session|conn|connection|event|stream|packet|community|expiration)"
        r"_?(id|uid|index|key|no|number|nr|hash)|sensor|src_as|dst_as|vlan_id|no|row",
    ),
    (
        "another label",
        r"label\w*|class|target|cat|sub_?cat|(sub_?)?category|attack|attack_?(cat|type|category|name|class)|difficulty"
        r"|difficulty_level|is_(attack|alert|anomaly)|predicted_class|score|is_malicious|malicious",
    ),
)


def guard(table: Table, allowed: Iterable[str]) -> list[Leak]:
    """The leaking columns of a table; what is near-perfect is judged by the rows that are given.

    Args:
        table: What a model would learn from.
        allowed: Columns that stay all the same, or `all`.

    Raises:
        InputError: A name of `allowed` is no column, or nothing is left.
    """
    asked = set(allowed)
    unknown = sorted(asked - {*table.columns, *table.found.identities, EVERY_LEAK})
    if unknown:
        raise InputError(
            f"--allow_leaks: no columns {sets.some(unknown)}; there are {sets.some(list(table.columns), 10)}"
        )
    texts = sorted(asked & table.found.identities - table.columns.keys())
    if texts:
        raise InputError(f"--allow_leaks: {sets.some(texts)} is no column of numbers; a model cannot learn from it")
    leaks = [
        Leak(name, reason, bool(asked & {name, EVERY_LEAK}))
        for name in table.columns
        if (reason := next(_reasons(name, table), ""))
    ]
    if left(table, leaks):
        return leaks
    refused = [leak.column for leak in leaks]
    why = f"the leak guard refused {sets.some(refused)}" if refused else "the table has none beside its label"
    raise InputError(f"no column is left to learn from; {why}")


def left(table: Table, leaks: Iterable[Leak]) -> list[str]:
    """The columns that are not refused."""
    refused = {leak.column for leak in leaks if not leak.allowed}
    return [name for name in table.columns if name not in refused]


def lines(leaks: Iterable[Leak]) -> Iterator[str]:
    """What a person should know of it."""
    refused: dict[str, list[str]] = {}
    for leak in leaks:
        if leak.allowed:
            yield f"{leak.column} is learned from, as --allow_leaks says, though it is {leak.reason}"
        else:
            refused.setdefault(leak.reason, []).append(leak.column)
    for reason, columns in refused.items():
        yield f"refused: {sets.some(columns)} ({reason}); --allow_leaks would keep it"


def _reasons(name: str, table: Table) -> Iterator[str]:
    plain = re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
    yield from (reason for reason, pattern in _NAMES if re.fullmatch(pattern, plain))
    if name in table.found.identities:
        yield "an identifier"
    values = table.columns[name]
    if _counts_rows(values):
        yield "a number of the row"
    recall = recall_alone(values, table.labels, len(table.classes))
    if recall >= NEAR_PERFECT:
        yield f"alone tells the classes apart, with a recall of {recall:.4f}"


def _counts_rows(values: np.ndarray) -> bool:
    """Whether each row has one more than the one before: a counter, of which a time split makes a clock."""
    return len(values) > 2 and bool((np.diff(values.astype(np.float64)) == 1).all())


def recall_alone(values: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean recall of the classes by nothing but this column: bins of half of the rows, judged on the others.

    Bins are quantiles, and one for missing values; each answers the class that has the greatest part of its rows
    there. Classes of few rows do not count; 0 where there are not two others.
    """
    step = max(1, len(values) // _MOST_ROWS)
    values, labels = values[::step], labels[::step]
    learned = np.random.default_rng(0).random(len(values)) < 0.5
    judged = ~learned
    rows, rows_judged = (np.bincount(labels[part], minlength=classes) for part in (learned, judged))
    there = np.minimum(rows, rows_judged) >= _FEWEST_ROWS_OF_A_CLASS
    if there.sum() < 2:
        return 0.0
    known = values[learned][np.isfinite(values[learned])]
    if not len(known):
        return 0.0
    distinct = np.unique(known)
    edges = distinct if len(distinct) <= _BINS else np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)))
    bins = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, "left"))
    counts = np.bincount(bins[learned] * classes + labels[learned], minlength=(len(edges) + 2) * classes)
    shares = counts.reshape(-1, classes) / np.maximum(rows, 1)
    answers = shares.argmax(1)[bins[judged]]
    right = np.bincount(labels[judged][answers == labels[judged]], minlength=classes)
    return float((right[there] / rows_judged[there]).mean())

"""Which records are alerts, rows that a model called so; and how settings of their sinks are read."""

from collections.abc import Iterable

import pyarrow as pa

from sinks.outputs import SinkUrl
from transforms.records import InputError

IS_ALERT = "is_alert"
SCORED = ("score", "predicted_class", IS_ALERT)
"""What scoring appends, as far as sinks of alerts rest on it."""


def check_columns(url: SinkUrl, schema: pa.Schema, names: Iterable[str] = SCORED) -> None:
    """Refuses flows that nobody scored.

    Raises:
        InputError: One of `names` is no column.
    """
    if not set(names) <= set(schema.names):
        raise InputError(f"{url}: there are alerts only where flows are scored; add --model DIR")


def chosen(flows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that are alerts."""
    return flows.filter(flows[IS_ALERT], null_selection_behavior="drop")


def number(url: SinkUrl, name: str, default: float, least: float, most: float) -> float:
    """A setting that is a number, of the default's type.

    Raises:
        InputError: It is none, or out of range.
    """
    text = url.parameters.get(name)
    if text is None:
        return default
    try:
        value = type(default)(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise InputError(f"{url}: {name}={text} is no number from {least:g} to {most:g}")
    return value

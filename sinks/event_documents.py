"""What is told beside flows, as documents: events of sensors, and what was noticed about a model.

An output whose module has `open_events` gets them, too. Their documents lie in indices of their own,
`INDEX.sensors-2026.11.21` and `INDEX.drift-2026.11.21`, by the UTC day of their time. Columns are `sensors.NAME` and
`drift.NAME`; `event` is `event.action` and `sensor` is `observer.name`, as ECS has them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks import documents, drift, sensors
from sinks.document_lines import Lines
from sinks.documents import Documents, Leaf

_TIMES = {sensors.NAME: ("time_ns", "received_ns", "epoch"), drift.NAME: ("window_end_ns",)}
"""Columns with times; the first that is known is when it was."""

_NAMES = {"event": "event.action", "sensor": "observer.name"}
_DATASET = b"flowbeam.dataset"


def described(schema: pa.Schema, dataset: str) -> pa.Schema:
    """The schema of events, which says that they are."""
    return schema.with_metadata({**(schema.metadata or {}), _DATASET: dataset.encode()})


def documents_of(schema: pa.Schema, index: str) -> Documents:
    """How records of a schema become documents, whether flows or events."""
    if _DATASET not in (schema.metadata or {}):
        return Documents(schema, index)
    return EventDocuments(schema, index)


class EventDocuments(Documents):
    """How events become documents. A document's id is a digest of what it holds: a repeated one changes nothing.

    Args:
        schema: The columns, `described`.
        index: What the names of the indices begin with.
    """

    def __init__(self, schema: pa.Schema, index: str) -> None:
        dataset = schema.metadata[_DATASET].decode()
        self._times = _TIMES[dataset]
        super().__init__(schema, index, tuple(_leaves(schema, dataset, self._times)))

    def bulk(self, flows: pa.RecordBatch) -> Iterator[Lines]:
        """As for flows."""
        lines = self.lines(flows)
        pieces = []
        for row, day in enumerate(documents.days(_when(flows, self._times)).to_pylist()):
            line = lines.line(row)
            digest = hashlib.blake2b(line, digest_size=16).hexdigest()
            action = (
                f'{{"index":{{"_index":"{self.index}-{day}","_id":"{digest}","version":1,"version_type":"external"}}}}'
            )
            pieces.append(action.encode() + b"\n" + line)
        bounds = np.cumsum([0, *map(len, pieces)])
        yield Lines(np.frombuffer(b"".join(pieces), np.uint8), bounds)


def _leaves(schema: pa.Schema, dataset: str, times: Sequence[str]) -> Iterator[Leaf]:
    keyword = documents.KEYWORD
    yield Leaf(("@timestamp",), {"type": "date_nanos"}, lambda rows: documents.times(_when(rows, times)), True)
    yield Leaf(("ecs", "version"), keyword, documents.constant(documents.ECS_VERSION), True)
    yield Leaf(("event", "kind"), keyword, documents.constant("event"), True)
    yield Leaf(("event", "module"), keyword, documents.constant("flowbeam"), True)
    yield Leaf(("event", "dataset"), keyword, documents.constant(f"flowbeam.{dataset}"), True)
    for field in schema:
        leaf = documents.leaf_of(field, _NAMES.get(field.name, f"{dataset}.{field.name}"))
        if field.name in times:
            leaf = leaf._replace(mapping={"type": "date_nanos"}, values=partial(_time, field.name), is_quoted=True)
        yield leaf._replace(column=field.name)


def _time(name: str, rows: pa.RecordBatch) -> pa.StringArray:
    return documents.times(rows[name])


def _when(rows: pa.RecordBatch, times: Sequence[str]) -> pa.Array:
    return pc.fill_null(pc.coalesce(*(rows[name] for name in times)), 0)

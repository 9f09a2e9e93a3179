"""A store in this process that a `BlockWriter` writes to: it can be away, slow, and refuse what it does not like."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from sinks.blocks import Counted, Unavailable, WriteBlocks
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import InputError, Reject


class Store:
    """What was written, by flow id, the highest record alone.

    Attributes:
        down: How many of the next calls fail; a negative number: all of them.
        refuses: Source addresses of records that it refuses.
        chokes_on: Source addresses of records whose block it will never take.
        records: Record number by flow id.
        writes: Rows of each block that was accepted.
        most_at_a_time: Calls that overlapped.
        delay_s: How long a call takes.
        together: So many calls wait for each other, the first time.
    """

    def __init__(self) -> None:
        self.down = 0
        self.refuses: set[str] = set()
        self.chokes_on: set[str] = set()
        self.records: dict[bytes, int] = {}
        self.writes: list[int] = []
        self.opened = self.closed = self.calls = 0
        self.at_a_time = self.most_at_a_time = 0
        self.delay_s = 0.0
        self.together = 0
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)


STORES: dict[str, Store] = {}
"""By the path of their URL: a runner pickles the step, and finds them here again."""


class StoreWriter:
    def __init__(self, path: str) -> None:
        self._path = path
        self._store = STORES[path]
        self._store.opened += 1

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        store = self._store
        with store.lock:
            store.calls += 1
            store.at_a_time += 1
            store.most_at_a_time = max(store.most_at_a_time, store.at_a_time)
            store.changed.notify_all()
            store.changed.wait_for(lambda: store.most_at_a_time >= store.together, 60)
            is_down = store.down != 0
            store.down -= is_down
        try:
            time.sleep(store.delay_s)
            if is_down:
                raise Unavailable("away")
            yield from self._put(flows)
        finally:
            with store.lock:
                store.at_a_time -= 1

    def _put(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        rows = flows.select(["flow_id", "record_number", "src_ip"]).to_pylist()
        if any(row["src_ip"] in self._store.chokes_on for row in rows):
            raise InputError("store: no such table")
        repeated = 0
        for row in rows:
            if row["src_ip"] in self._store.refuses:
                yield Reject("store", "not wanted", self._path, None, row["flow_id"])
            elif self._store.records.get(row["flow_id"], -1) < row["record_number"]:
                self._store.records[row["flow_id"]] = row["record_number"]
            else:
                repeated += 1
        if repeated:
            yield Counted("records_repeated", repeated)
        self._store.writes.append(len(flows))

    def close(self) -> None:
        self._store.closed += 1


def write_to(path: str, context: SinkContext, **settings: int) -> WriteBlocks:
    """The step that writes to the store of this path."""
    return WriteBlocks(SinkUrl("store", path, {}), context, partial(StoreWriter, path), **settings)

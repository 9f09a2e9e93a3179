"""What no flow counts, as Parquet files in a folder of its own: step, reason, source, position, payload.

`SELECT reason, count(*) FROM 'rejects/*.parquet' GROUP BY ALL`. What merely carries no IP is counted, not written,
and of each other reason at most `max_rejects` are written. Without any, there is no folder.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import VarIntCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from sinks import places
from transforms.records import REJECT_NOT_IP, InputError, Reject

SCHEMA = pa.schema(
    [
        pa.field("step", pa.string(), metadata={"doc": "Where it was refused."}),
        pa.field("reason", pa.string(), metadata={"doc": "Why, in a word: what it is counted under."}),
        pa.field("source", pa.string(), metadata={"doc": "File, topic or address it came from."}),
        pa.field("position", pa.int64(), metadata={"doc": "Octet offset or record number there; null if it has none."}),
        pa.field("payload", pa.binary(), metadata={"doc": "The octets themselves."}),
    ]
)

GATHERED_OCTETS = 16 << 20
"""Payload of one row group."""


class RejectsSink(beam.PTransform):
    """Counts rejects by reason and writes those that tell something.

    Input: `Reject`s from any step, bounded or not. Every one is counted in the namespace `rejects` under its reason.
    Files have hidden names until their bundle is finished, then names made of what is in them: a repeated bundle
    replaces its own.

    Args:
        folder: Where files go; it is made with the first of them.
        max_rejects: How many of each reason are written, over all bundles.
        job: As in `SinkContext`.

    Raises:
        InputError: The folder cannot be made or written, or the number is negative.
    """

    def __init__(self, folder: str | os.PathLike[str], max_rejects: int = 10_000, job: str = "job") -> None:
        super().__init__()
        if max_rejects < 0:
            raise InputError(f"--max_rejects {max_rejects}: must be 0 or more")
        self.folder = Path(folder)
        self.max_rejects = max_rejects
        self.job = job
        places.check_folder("rejects", self.folder)

    def expand(self, rejects: beam.PCollection[Reject]) -> beam.PCollection[None]:
        """Adds the steps that count, choose and write."""
        return (
            rejects
            | "Count" >> beam.ParDo(_Count(self.max_rejects))
            | "Limit" >> beam.ParDo(_Limit(self.max_rejects))
            | "WriteFiles" >> beam.ParDo(_WriteFiles(self.folder, self.job))
        )


class _Count(beam.DoFn):
    """Counts everything and lets pass what might be written, under its reason."""

    def __init__(self, max_rejects: int) -> None:
        self._max_rejects = max_rejects

    def start_bundle(self) -> None:
        self._seen: Counter[str] = Counter()

    def process(self, reject: Reject) -> Iterator[tuple[str, Reject]]:
        Metrics.counter("rejects", reject.reason).inc()
        self._seen[reject.reason] += 1
        if reject.reason != REJECT_NOT_IP and self._seen[reject.reason] <= self._max_rejects:
            yield reject.reason, reject


class _Limit(beam.DoFn):
    """Lets the first `max_rejects` of a reason pass, however many bundles there are: its state is in one place."""

    PASSED = ReadModifyWriteStateSpec("passed", VarIntCoder())

    def __init__(self, max_rejects: int) -> None:
        self._max_rejects = max_rejects

    def process(
        self,
        keyed: tuple[str, Reject],
        passed: Any = beam.DoFn.StateParam(PASSED),  # noqa: B008 - how Beam finds the state
    ) -> Iterator[Reject]:
        number = passed.read() or 0
        if number < self._max_rejects:
            passed.write(number + 1)
            yield keyed[1]


class _WriteFiles(beam.DoFn):
    def __init__(self, folder: Path, job: str) -> None:
        self._folder = folder
        self._job = job
        self._hidden: Path | None = None
        self._writer: Any = None
        self._written = Metrics.counter("rejects", "rejects_written")

    def start_bundle(self) -> None:
        self._abandon()
        self._gathered: list[Reject] = []
        self._octets = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = 0

    def process(self, reject: Reject) -> None:
        self._gathered.append(reject)
        self._octets += len(reject.payload)
        self._rows += 1
        self._digest.update(repr((*reject[:4], len(reject.payload))).encode() + reject.payload)
        if self._octets >= GATHERED_OCTETS:
            with places.one_line("rejects", self._folder):
                self._flush()

    def finish_bundle(self) -> None:
        if not self._rows:
            return
        name = f"{self._digest.hexdigest()}.parquet"
        with places.one_line("rejects", self._folder):
            hidden = self._flush()
            self._writer.close()
            os.replace(hidden, self._folder / name)
        self._writer = self._hidden = None
        self._written.inc(self._rows)

    def teardown(self) -> None:
        self._abandon()

    def _flush(self) -> Path:
        """Writes what is gathered as a row group and returns the file that has it."""
        import pyarrow.parquet as pq  # heavy: not for a job without rejects

        if self._hidden is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._hidden = places.partial_in(self._folder, self._job)
            self._writer = pq.ParquetWriter(self._hidden, SCHEMA, compression="zstd")
        if self._gathered:
            rows = [reject._asdict() for reject in self._gathered]
            self._writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            self._gathered, self._octets = [], 0
        return self._hidden

    def _abandon(self) -> None:
        self._writer = None
        if self._hidden is not None:
            places.remove(self._hidden)
            self._hidden = None

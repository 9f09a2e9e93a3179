"""What no flow counts, as Parquet files in a folder of its own: step, reason, source, position, payload.

`SELECT reason, count(*) FROM 'rejects/**/*.parquet' GROUP BY ALL`. What merely carries no IP is counted, not written,
and of each other reason at most `max_rejects` are written; in a streaming job so many each hour by each worker process,
in folders by day. Without any, there is no folder.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import VarIntCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.utils.shared import Shared

from sinks.hourly import HourlyCount
from sinks.row_files import AppendRows, RowFiles, UploadRows, write_rows
from transforms.records import REJECT_NOT_IP, InputError, Reject

_log = logging.getLogger(__name__)


class RejectFiles(RowFiles):
    """Rejects as rows."""

    counter = "rejects_written"
    schema = pa.schema(
        [
            pa.field("step", pa.string(), metadata={"doc": "Where it was refused."}),
            pa.field("reason", pa.string(), metadata={"doc": "Why, in a word: what it is counted under."}),
            pa.field("source", pa.string(), metadata={"doc": "File, topic or address it came from."}),
            pa.field("position", pa.int64(), metadata={"doc": "Octet offset or record number there; null if none."}),
            pa.field("payload", pa.binary(), metadata={"doc": "The octets themselves."}),
        ]
    )

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__("rejects", folder)

    def row(self, reject: Reject) -> dict[str, Any]:
        """The fields as they are."""
        return reject._asdict()

    def octets(self, reject: Reject) -> int:
        """What counts is the payload."""
        return len(reject.payload)


class RejectsSink(beam.PTransform):
    """Counts rejects by reason and writes those that tell something.

    Input: `Reject`s from any step, bounded or not. Every one is counted in the namespace `rejects` under its reason.
    In a bounded job a repeated bundle replaces its file; in a streaming job a finished bundle is in a journal, and in
    a file within `file_max_age_s`; in a remote folder it is a file at once.

    Args:
        folder: Where files go, also as a URL of Beam's file systems (gs://BUCKET/FOLDER); it is made with the first of
            them.
        max_rejects: How many of each reason are written, over all bundles of a bounded job, or in an hour by each
            process of a streaming job.
        job: As in `SinkContext`, like the rest.
        streaming: Whether the input does not end.
        file_max_age_s: When files of a streaming job appear.

    Raises:
        InputError: The folder cannot be made or written, or the number is negative.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_rejects: int = 10_000,
        job: str = "job",
        streaming: bool = False,
        file_max_age_s: float = 60.0,
    ) -> None:
        super().__init__()
        if max_rejects < 0:
            raise InputError(f"--max_rejects {max_rejects}: must be 0 or more")
        self.files = RejectFiles(folder)
        self.max_rejects = max_rejects
        self.job = job
        self.streaming = streaming
        self.file_max_age_s = file_max_age_s
        self.files.check()

    def expand(self, rejects: beam.PCollection[Reject]) -> beam.PCollection[None]:
        """Adds the steps that count, choose and write."""
        if self.streaming and self.files.url is None:
            append = AppendRejects(self.files, self.max_rejects, self.job, self.file_max_age_s)
            return rejects | "AppendRejects" >> beam.ParDo(append)
        if self.streaming:
            allowed = rejects | "Allow" >> beam.ParDo(_Allow(self.max_rejects))
            return allowed | "Upload" >> beam.ParDo(UploadRows(self.files))
        return (
            rejects
            | "Count" >> beam.ParDo(_Count(self.max_rejects))
            | "Limit" >> beam.ParDo(_Limit(self.max_rejects))
            | "WriteFiles" >> beam.ParDo(write_rows(self.files, self.job, False, self.file_max_age_s))
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
        passed: Any = beam.DoFn.StateParam(PASSED),
    ) -> Iterator[Reject]:
        number = passed.read() or 0
        if number < self._max_rejects:
            passed.write(number + 1)
            yield keyed[1]


class AppendRejects(AppendRows):
    """Counts the rejects of a streaming job and appends so many of each reason in an hour."""

    def __init__(self, files: RejectFiles, max_rejects: int, job: str, max_age_s: float) -> None:
        super().__init__(files, job, max_age_s)
        self._allowed = Allowed(max_rejects)

    def process(self, reject: Reject) -> None:
        """Takes one reject."""
        if self._allowed.takes(reject):
            super().process(reject)


class _Allow(beam.DoFn):
    """Counts the rejects of a streaming job and lets so many of each reason pass in an hour."""

    def __init__(self, max_rejects: int) -> None:
        self._allowed = Allowed(max_rejects)

    def process(self, reject: Reject) -> Iterator[Reject]:
        if self._allowed.takes(reject):
            yield reject


class Allowed:
    """Which rejects of a process may be written within the hour; the first of each reason is told, too.

    Args:
        most: So many of each reason.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shared = Shared()
        self._count: HourlyCount | None = None

    def takes(self, reject: Reject) -> bool:
        """Counts a reject; whether it may be written."""
        Metrics.counter("rejects", reject.reason).inc()
        if reject.reason == REJECT_NOT_IP:
            return False
        self._count = self._count or self._shared.acquire(HourlyCount)
        number = self._count.add(reject.reason)
        if number == 1:
            _log.warning("rejects: %s, told by %s: the first of this hour", reject.reason, reject.step)
        return number <= self._most

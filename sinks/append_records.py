"""The step that writes records of a job that does not end."""

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from sinks import journals
from sinks.journals import Journals
from sinks.record_files import RecordFiles

BUNDLE_OCTETS = 16 << 20
"""What is held of a bundle. One that is larger is appended in pieces: if it fails, those appear again."""


class AppendRecords(beam.DoFn):
    """Appends what a bundle brings to the journal of the folder, before the runner takes the bundle for finished.

    A step of its own kind has `process`, which hands record batches of one schema to `gather`.

    Args:
        files: How files are made.
        job: As in `SinkContext`.
        max_age_s: Records are in a file this long after they came.
        step: Namespace of the counters.
    """

    def __init__(self, files: RecordFiles, job: str, max_age_s: float, step: str) -> None:
        self._files = files
        self._job = job
        self._max_age_s = max_age_s
        self._journals: Journals | None = None
        self._files_written = Metrics.counter(step, "files_written")
        self._octets_written = Metrics.counter(step, "octets_written")

    def setup(self) -> None:
        """Opens, or joins, what this process keeps of the folder."""
        self._journals = journals.keep(self._files, self._job, self._max_age_s)

    def start_bundle(self) -> None:
        """Forgets what a failed bundle brought."""
        self._gathered: list[pa.RecordBatch] = []
        self._octets = 0

    def gather(self, records: pa.RecordBatch) -> None:
        """Takes records; they are in the journal when the bundle is finished."""
        self._gathered.append(records)
        self._octets += records.get_total_buffer_size()
        if self._octets >= BUNDLE_OCTETS:
            self._append()

    def finish_bundle(self) -> None:
        """Appends what the bundle brought; then it outlives this process."""
        self._append()
        assert self._journals is not None
        completed = self._journals.completed()
        if completed:
            self._files_written.inc(completed["files_written"])
            self._octets_written.inc(completed["octets_written"])

    def teardown(self) -> None:
        """Leaves the folder; the last step of this process to leave completes the files."""
        if self._journals is not None:
            journals.give_back(self._journals)
            self._journals = None

    def _append(self) -> None:
        assert self._journals is not None
        self._journals.append(self._gathered)
        self._gathered, self._octets = [], 0

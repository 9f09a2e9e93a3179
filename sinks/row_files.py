"""Parquet files of what is told one by one, beside the flows: rejects, events of sensors.

A folder is one of this machine, or one that Beam's file systems know, as `gs://BUCKET/FOLDER`: workers of a cluster
share that, and their own disks go with them.
"""

import abc
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from sinks import places
from sinks.append_records import AppendRecords
from sinks.record_files import RecordFiles, Written
from transforms.records import InputError

GATHERED_OCTETS = 16 << 20
"""What lies in memory until it is a row group."""

GATHERED_ROWS = 4096

_ROW_OCTETS = 64


class RowFiles(RecordFiles):
    """How elements of one kind become rows of a folder's files.

    Attributes:
        schema: The columns.
        counter: Counts the rows, in the namespace that the output's name is.
        url: The folder where it is remote; else None.
    """

    schema: pa.Schema
    counter: str

    def __init__(self, named: str, folder: str | os.PathLike[str]) -> None:
        super().__init__(named, Path(folder))
        self.url = os.fspath(folder).rstrip("/") if places.is_remote(folder) else None

    @property
    def place(self) -> str:
        """The folder, as people read it."""
        return self.url or str(self.folder)

    def check(self) -> None:
        """Refuses a folder that cannot be written.

        Raises:
            InputError: One line with the reason.
        """
        if self.url is None:
            places.check_folder(self.named, self.folder)
            return
        try:
            FileSystems.get_filesystem(self.url)
        except ValueError as error:
            advice = "write gs://BUCKET/FOLDER, with the extra gcp installed, or a folder of this machine"
            raise InputError(f"{self.named}: {self.url} is of no file system that Beam has here; {advice}") from error

    @abc.abstractmethod
    def row(self, element: Any) -> dict[str, Any]:
        """The element's columns by name."""

    def octets(self, element: Any) -> int:
        """About how much memory the element's row takes."""
        return _ROW_OCTETS

    def batch(self, elements: list[Any]) -> pa.RecordBatch:
        """The rows of the elements."""
        return pa.RecordBatch.from_pylist([self.row(element) for element in elements], self.schema)

    def write(self, batches: Iterator[pa.RecordBatch], stem: str, hidden: Path) -> Iterator[Written]:
        """Writes one file for each journal, in folders by day: `day=2026-11-21/20261121T130501-9e10….parquet`."""
        writer: Any = None
        file = hidden.with_name(f"{hidden.name}1")
        rows = 0
        try:
            for gathered in _row_groups(batches):
                writer = writer or _parquet_writer(file, gathered.schema)
                writer.write_table(gathered, row_group_size=len(gathered))
                rows += len(gathered)
        finally:
            if writer is not None:
                writer.close()
        if writer is not None:
            day = f"day={stem[:4]}-{stem[4:6]}-{stem[6:8]}"
            yield Written(file, Path(day, f"{stem}.parquet"), rows, file.stat().st_size)


def write_rows(files: RowFiles, job: str, streaming: bool, max_age_s: float) -> beam.DoFn:
    """The step that writes elements, to wherever the folder is.

    Args:
        files: How they become files.
        job: As in `SinkContext`.
        streaming: Whether the input does not end.
        max_age_s: When files of a streaming job appear in a folder of this machine.
    """
    if files.url is not None:
        return UploadRows(files)
    return AppendRows(files, job, max_age_s) if streaming else WriteRows(files, job)


class UploadRows(beam.DoFn):
    """Writes the elements of a bundle to one file, or several of some size, of a remote folder.

    A file's name is made of what is in it, and it appears whole: a repeated bundle replaces its own. What the folder's
    service refuses fails the bundle, which the runner repeats.
    """

    def __init__(self, files: RowFiles) -> None:
        self._files = files
        self._written = Metrics.counter(files.named, files.counter)
        self._files_written = Metrics.counter(files.named, "files_written")

    def start_bundle(self) -> None:
        """Forgets what a failed bundle brought."""
        self._elements: list[Any] = []
        self._octets = 0

    def process(self, element: Any) -> None:
        """Takes one element."""
        self._elements.append(element)
        self._octets += self._files.octets(element)
        if self._octets >= GATHERED_OCTETS:
            self._upload()

    def finish_bundle(self) -> None:
        """Writes the file."""
        if self._elements:
            self._upload()

    def _upload(self) -> None:
        assert self._files.url is not None
        whole = io.BytesIO()
        with _parquet_writer(whole, self._files.schema) as writer:
            writer.write_batch(self._files.batch(self._elements))
        name = f"{hashlib.blake2b(repr(self._elements).encode(), digest_size=16).hexdigest()}.parquet"
        path = f"{self._files.url}/{name}"
        with FileSystems.create(path, "application/vnd.apache.parquet", CompressionTypes.UNCOMPRESSED) as file:
            file.write(whole.getvalue())
        self._written.inc(len(self._elements))
        self._files_written.inc()
        self.start_bundle()


class WriteRows(beam.DoFn):
    """Writes the elements of a bundle of a bounded job to one file.

    The file has a hidden name until the bundle is finished, then one made of what is in it: a repeated bundle replaces
    its own.
    """

    def __init__(self, files: RowFiles, job: str) -> None:
        self._files = files
        self._job = job
        self._hidden: Path | None = None
        self._writer: Any = None
        self._written = Metrics.counter(files.named, files.counter)

    def start_bundle(self) -> None:
        """Removes what a failed bundle left."""
        self._abandon()
        self._gathered: list[Any] = []
        self._octets = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = 0

    def process(self, element: Any) -> None:
        """Takes one element."""
        self._gathered.append(element)
        self._octets += self._files.octets(element)
        self._rows += 1
        self._digest.update(repr(element).encode())
        if self._octets >= GATHERED_OCTETS:
            with places.one_line(self._files.named, self._files.folder):
                self._flush()

    def finish_bundle(self) -> None:
        """Gives the file its name."""
        if not self._rows:
            return
        name = f"{self._digest.hexdigest()}.parquet"
        with places.one_line(self._files.named, self._files.folder):
            hidden = self._flush()
            self._writer.close()
            os.replace(hidden, self._files.folder / name)
        self._writer = self._hidden = None
        self._written.inc(self._rows)

    def teardown(self) -> None:
        """Removes what a failed bundle left."""
        self._abandon()

    def _flush(self) -> Path:
        """Writes what is gathered as a row group and returns the file that has it."""
        if self._hidden is None:
            self._files.folder.mkdir(parents=True, exist_ok=True)
            self._hidden = places.partial_in(self._files.folder, self._job)
            self._writer = _parquet_writer(self._hidden, self._files.schema)
        if self._gathered:
            self._writer.write_table(pa.Table.from_batches([self._files.batch(self._gathered)]))
            self._gathered, self._octets = [], 0
        return self._hidden

    def _abandon(self) -> None:
        self._writer = None
        if self._hidden is not None:
            places.remove(self._hidden)
            self._hidden = None


class AppendRows(AppendRecords):
    """Appends the elements of a bundle of a streaming job to the folder's journal."""

    def __init__(self, files: RowFiles, job: str, max_age_s: float) -> None:
        super().__init__(files, job, max_age_s, files.named)
        self._kind = files
        self._written = Metrics.counter(files.named, files.counter)

    def start_bundle(self) -> None:
        """Forgets what a failed bundle brought."""
        super().start_bundle()
        self._elements: list[Any] = []
        self._elements_octets = 0

    def process(self, element: Any) -> None:
        """Takes one element."""
        self._elements.append(element)
        self._elements_octets += self._kind.octets(element)
        if len(self._elements) == GATHERED_ROWS or self._elements_octets >= GATHERED_OCTETS:
            self._gather_elements()

    def finish_bundle(self) -> None:
        """Appends what the bundle brought; then it outlives this process."""
        self._gather_elements()
        super().finish_bundle()

    def _gather_elements(self) -> None:
        if self._elements:
            self.gather(self._kind.batch(self._elements))
            self._written.inc(len(self._elements))
            self._elements, self._elements_octets = [], 0


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    gathered: list[pa.RecordBatch] = []
    octets = 0
    for batch in batches:
        gathered.append(batch)
        octets += batch.nbytes
        if octets >= GATHERED_OCTETS:
            yield pa.Table.from_batches(gathered)
            gathered, octets = [], 0
    if gathered:
        yield pa.Table.from_batches(gathered)


def _parquet_writer(file: Path | io.BytesIO, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq  # heavy: not for a job that has nothing to tell

    return pq.ParquetWriter(file, schema, compression="zstd")

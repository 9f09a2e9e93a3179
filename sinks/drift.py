"""What was noticed about a model, as Parquet files in a folder of its own: one row for each window or alarm.

`SELECT event, window_end_ns, psi, error_rate FROM 'drift/**/*.parquet' ORDER BY window_end_ns`. In a streaming job
files are in folders by day. Without any row, there is no folder.
"""

import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa

from sinks.row_files import RowFiles, write_rows

NAME = "drift"


class DriftFiles(RowFiles):
    """Rows as they are.

    Args:
        folder: Where files go.
        schema: The columns.
    """

    counter = "rows_written"

    def __init__(self, folder: str | os.PathLike[str], schema: pa.Schema) -> None:
        super().__init__(NAME, folder)
        self.schema = schema

    def row(self, element: dict[str, Any]) -> dict[str, Any]:
        """The columns by name."""
        return element


class WriteDrift(beam.PTransform):
    """Writes what was noticed about a model.

    Input: record batches of rows, bounded or not. In a bounded job a repeated bundle replaces its file; in a streaming
    job a finished bundle is in a journal, and in a file within `file_max_age_s`.

    Args:
        folder: Where files go; it is made with the first of them.
        schema: The columns of the rows.
        job: As in `SinkContext`, like the rest.
        streaming: Whether the input does not end.
        file_max_age_s: When files of a streaming job appear.

    Raises:
        InputError: The folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        schema: pa.Schema,
        job: str = "job",
        streaming: bool = False,
        file_max_age_s: float = 60.0,
    ) -> None:
        super().__init__()
        self.files = DriftFiles(folder, schema)
        self.job = job
        self.streaming = streaming
        self.file_max_age_s = file_max_age_s
        self.files.check()

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[None]:
        """Adds the step that writes."""
        rows = batches | "Rows" >> beam.FlatMap(_rows).with_output_types(dict[str, Any])
        write = write_rows(self.files, self.job, self.streaming, self.file_max_age_s)
        return rows | ("AppendRows" if self.streaming else "WriteFiles") >> beam.ParDo(write)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    yield from batch.to_pylist()

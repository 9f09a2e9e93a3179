"""Flows on standard output, `csv:-` and `jsonl:-`: each bundle's lines as it is finished, final records alone.

For one machine and for pipes: on a cluster it is the output of whichever worker. A repeated bundle repeats its lines.
"""

import os
import sys
import threading
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from sinks import text
from sinks.outputs import SinkContext, SinkUrl
from transforms.features import sets
from transforms.records import InputError, Reject

HELD_OCTETS = 1 << 20
"""Lines of a bundle that wait for its end; of a longer one, they are written before."""

_writing = threading.Lock()

_headed: set[str] = set()
"""Jobs whose header is written: bundles are many."""


def open_lines(url: SinkUrl, context: SinkContext, lines: text.Lines) -> beam.PTransform:
    """The sink for lines of text, in a file or, for `SCHEME:-`, on standard output.

    Raises:
        InputError: The file cannot be written, or would have no end, or it is not clear which feature set is meant.
    """
    if not url.on_standard_output:
        return text.WriteText(url, context, lines)
    return WriteStandardOutput(url.scheme, context.job, text.chosen_set(url, context), lines)


class WriteStandardOutput(beam.PTransform):
    """Writes flows as lines on standard output.

    Input: record batches of one schema, bounded or not. Output: no rejects.
    """

    def __init__(self, scheme: str, job: str, feature_set: str, lines: text.Lines) -> None:
        super().__init__()
        self.step = _WriteLines(scheme, job, feature_set, lines)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that writes."""
        return flows | "WriteLines" >> beam.ParDo(self.step)


class _WriteLines(beam.DoFn):
    def __init__(self, scheme: str, job: str, feature_set: str, lines: text.Lines) -> None:
        self._job = job
        self._feature_set = feature_set
        self._lines = lines
        self._flows_written = Metrics.counter(scheme, "flows_written")

    def start_bundle(self) -> None:
        self._held: list[memoryview] = []

    def process(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        final = flows.filter(pc.equal(flows["record_kind"], "final"))
        if len(final):
            self._held.extend(self._lines.blocks(sets.get(self._feature_set).published(final)))
            self._flows_written.inc(len(final))
            if sum(map(len, self._held)) >= HELD_OCTETS:
                self._write()
        return iter(())

    def finish_bundle(self) -> None:
        self._write()

    def _write(self) -> None:
        if self._held:
            schema = sets.get(self._feature_set).schema
            write(b"".join(self._held), self._lines.header(schema), self._job)
            self._held = []


def write(octets: bytes, header: bytes = b"", job: str = "") -> None:
    """Writes whole lines to standard output, past Python's buffer: nothing is left to be tried at the exit.

    Args:
        octets: The lines.
        header: What stands before the job's first lines.
        job: The job.

    Raises:
        InputError: Standard output cannot be written.
    """
    with _writing:
        try:
            sys.stdout.flush()
            rest = memoryview(octets if job in _headed else header + octets)
            while rest:
                rest = rest[os.write(sys.stdout.fileno(), rest) :]
        except BrokenPipeError as error:
            raise InputError("standard output: its reader is gone") from error
        except OSError as error:
            raise InputError(f"standard output: cannot be written: {error.strerror or error}") from error
        _headed.add(job)

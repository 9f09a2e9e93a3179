"""`parquet:DIR`: a folder of Parquet files that DuckDB, pyarrow, Spark and pandas read as one table.

    DIR/hour=2026-11-21T13/20261121T130501.123456789-5f0c….parquet    final records, by the hour (UTC) they start in
    DIR/_interim/hour=2026-11-21T13/….parquet                         cumulative records of open flows, if asked for

`SELECT … FROM 'DIR/*/*.parquet'` gives each flow once, and so do readers that take the folder itself, since they pass
over names that begin with `_`; every file has the column `record_kind` besides. Files are compressed with zstd, or with
`?compression=lz4`; rows stand in order of `flow_start_ns`, then `flow_id`; field metadata has unit and definition. A
file's name is made of its flows: the same job run again replaces its files.

A streaming job writes the same folders. Its files appear whole within `--file_max_age_s`, their names are time and a
token, and rows are in order within each row group. Until then flows are in hidden journals there (`sinks/journal.py`):
where a process is killed, another one, the job's end or the next job makes files of what it left. After a failure a
record may be there twice: docs/parquet.md has the query `flows_latest`, which gives each flow once. Small files become
large ones, at any time (`sinks/compaction.py`):

    python -m sinks.parquet --compact flows
"""

import glob
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from sinks import compaction, flow_files, places
from sinks.append_records import AppendRecords
from sinks.background import Background
from sinks.command import OneLineParser, status_of
from sinks.flow_files import COMPRESSIONS, INTERIM, FileWriter, FlowFiles, gathered_batches
from sinks.outputs import TOP_TALKERS, SinkContext, SinkUrl
from sinks.record_files import Written
from transforms.records import InputError, Reject

ENCODERS = 2
"""Blocks encoded at a time: when the last flows have come, both cores have something to do."""


def local_path(url: SinkUrl) -> Path:
    """The folder that the output names."""
    return places.local_path(str(url), url.path)


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `parquet:DIR`.

    Raises:
        InputError: The folder cannot be made or written, or a parameter is unknown.
    """
    url.check_parameters("compression")
    compression = files(url).compression
    if compression not in COMPRESSIONS:
        raise InputError(f"{url}: compression={compression} is not one of {', '.join(COMPRESSIONS)}")
    folder = local_path(url)
    places.check_folder(str(url), folder)
    return WriteParquet(files(url), context)


def files(url: SinkUrl) -> FlowFiles:
    """How journals become files of the folder that the output names."""
    return FlowFiles(str(url), local_path(url), url.parameters.get("compression", COMPRESSIONS[0]))


def query(url: SinkUrl, context: SinkContext) -> str:
    """The top talkers, as an expression of DuckDB's Python module."""
    files = os.path.join(glob.escape(os.path.expanduser(url.path)), "*", "*.parquet")
    return f"duckdb.read_parquet({files!r}){TOP_TALKERS}"


class WriteParquet(beam.PTransform):
    """Writes flows to a folder of Parquet files, in a thread beside the pipeline.

    Input: record batches of one schema, in any order. In a bounded job files have hidden names until their bundle is
    finished: a failed bundle leaves none, a repeated one replaces its files if it holds the same flows. In a streaming
    job a finished bundle is in a journal, and within `file_max_age_s` in files; a repeated bundle repeats its records.
    Output: no rejects.
    """

    def __init__(self, files: FlowFiles, context: SinkContext) -> None:
        super().__init__()
        self.files = files
        self.context = context

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that writes."""
        if self.context.streaming:
            return flows | "AppendFlows" >> beam.ParDo(_AppendFlows(self.files, self.context))
        return flows | "WriteFiles" >> beam.ParDo(_WriteFiles(self.files, self.context.job))


class _AppendFlows(AppendRecords):
    def __init__(self, files: FlowFiles, context: SinkContext) -> None:
        super().__init__(files, context.job, context.file_max_age_s, "parquet")
        self._flows_written = Metrics.counter("parquet", "flows_written")
        self._interim_written = Metrics.counter("parquet", "interim_records_written")

    def process(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        self.gather(flows)
        interim = pc.sum(pc.equal(flows["record_kind"], "interim")).as_py() or 0
        self._flows_written.inc(len(flows) - interim)
        self._interim_written.inc(interim)
        return iter(())


class _WriteFiles(beam.DoFn):
    def __init__(self, files: FlowFiles, job: str) -> None:
        self._named = files.named
        self._folder = files.folder
        self._compression = files.compression
        self._job = job
        self._hidden: Path | None = None
        self._background: Background[list[Written]] | None = None
        self._flows_written = Metrics.counter("parquet", "flows_written")
        self._interim_written = Metrics.counter("parquet", "interim_records_written")
        self._octets_written = Metrics.counter("parquet", "octets_written")
        self._block_ms = Metrics.distribution("parquet", "block_ms")

    def start_bundle(self) -> None:
        self._abandon()

    def process(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        with places.one_line(self._named, self._folder):
            if self._background is None:
                self._hidden = hidden = places.partial_in(self._folder, self._job)
                self._milliseconds: list[int] = []
                self._background = Background(lambda batches: self._write(hidden, batches))
            self._background.put(flows)
        return iter(())

    def finish_bundle(self) -> None:
        if self._background is None:
            return
        with places.one_line(self._named, self._folder):
            for file in self._background.finish():
                whole = self._folder / file.name
                whole.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file.hidden, whole)
                (self._interim_written if INTERIM in file.name.parts else self._flows_written).inc(file.rows)
                self._octets_written.inc(file.octets)
        for milliseconds in self._milliseconds:
            self._block_ms.update(milliseconds)
        self._background = None
        self._abandon()

    def teardown(self) -> None:
        self._abandon()

    def _abandon(self) -> None:
        if self._background is not None:
            self._background.abandon()
            self._background = None
        if self._hidden is not None:
            places.remove(self._hidden)
            self._hidden = None

    def _write(self, hidden: Path, batches: Iterable[pa.RecordBatch]) -> list[Written]:
        hidden.mkdir(parents=True)
        writer = FileWriter(hidden, self._compression)
        written: dict[Path, Written] = {}  # equal names are equal flows
        under_way: deque[Future[list[Written]]] = deque()
        with ThreadPoolExecutor(ENCODERS, "parquet") as encoders:
            for gathered in gathered_batches(batches, flow_files.FLUSH_OCTETS):
                if len(under_way) == ENCODERS:
                    written.update((file.name, file) for file in under_way.popleft().result())
                under_way.append(encoders.submit(self._encode, writer, gathered))
            for files in under_way:
                written.update((file.name, file) for file in files.result())
        return list(written.values())

    def _encode(self, writer: FileWriter, gathered: list[pa.RecordBatch]) -> list[Written]:
        start = time.perf_counter()
        files = list(writer.write(gathered))
        self._milliseconds.append(round((time.perf_counter() - start) * 1000))
        return files


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = OneLineParser(
        prog="python -m sinks.parquet",
        description="Looks after the files of an output parquet:DIR.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--compact",
        metavar="DIR",
        required=True,
        help="Makes large files of the small ones, while jobs write there and others read.",
    )
    parser.add_argument(
        "--file_rows",
        metavar="N",
        type=int,
        default=compaction.FILE_ROWS,
        help=f"Records of a file, at most; 2 KB of memory each. Default {compaction.FILE_ROWS}.",
    )
    options = parser.parse_args(arguments)
    if options.file_rows < 1:
        raise InputError(f"--file_rows: {options.file_rows}; give 1 or more")
    done = compaction.compact(places.local_path("--compact", options.compact), options.file_rows)
    print(f"{done.merged:,} files became {done.made:,}; {done.repeated:,} records were there twice")


if __name__ == "__main__":
    sys.exit(main())

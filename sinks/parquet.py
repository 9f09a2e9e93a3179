"""`parquet:DIR`: a folder of Parquet files that DuckDB, pyarrow, Spark and pandas read as one table.

    DIR/hour=2026-11-21T13/20261121T130501.123456789-5f0c….parquet    final records, by the hour (UTC) they start in
    DIR/_interim/hour=2026-11-21T13/….parquet                         cumulative records of open flows, if asked for

`SELECT … FROM 'DIR/*/*.parquet'` gives each flow once, and so do readers that take the folder itself, since they pass
over names that begin with `_`; every file has the column `record_kind` besides. Files are compressed with zstd; rows
stand in order of `flow_start_ns`, then `flow_id`; field metadata has unit and definition. A file's name is made of
its flows: the same job run again replaces its files.
"""

import glob
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from sinks import places
from sinks.background import Background
from sinks.outputs import TOP_TALKERS, SinkContext, SinkUrl
from transforms.records import Reject

INTERIM = "_interim"
"""Folder of interim records. Hive-style readers pass over names that begin with an underscore."""

FLUSH_OCTETS = 24 << 20
"""Arrow data that is sorted and written at a time."""

ENCODERS = 2
"""Blocks encoded at a time: when the last flows have come, both cores have something to do."""

_NS_PER_HOUR = 3_600_000_000_000
_SAMPLED_ROWS = 1024
_SEARCHED = ("flow_start_ns", "flow_end_ns", "src_ip", "dst_ip", "src_port", "dst_port", "protocol")
"""Columns that people filter by. Statistics of all others cost a sixth of the writing and prune nothing."""


def local_path(url: SinkUrl) -> Path:
    """The folder that the output names."""
    return places.local_path(str(url), url.path)


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `parquet:DIR`.

    Raises:
        InputError: The folder cannot be made or written, or a parameter is unknown.
    """
    url.check_parameters()
    folder = local_path(url)
    places.check_folder(str(url), folder)
    return WriteParquet(str(url), folder, context.job)


def query(url: SinkUrl, context: SinkContext) -> str:
    """The top talkers, as an expression of DuckDB's Python module."""
    files = os.path.join(glob.escape(os.path.expanduser(url.path)), "*", "*.parquet")
    return f"duckdb.read_parquet({files!r}){TOP_TALKERS}"


class WriteParquet(beam.PTransform):
    """Writes flows to a folder of Parquet files, in a thread beside the pipeline.

    Input: record batches of one schema, in any order. Files have hidden names until their bundle is finished: a failed
    bundle leaves none. A repeated bundle replaces its files if it holds the same flows. Output: no rejects.
    """

    def __init__(self, named: str, folder: Path, job: str) -> None:
        super().__init__()
        self.named = named
        self.folder = folder
        self.job = job

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that writes."""
        return flows | "WriteFiles" >> beam.ParDo(_WriteFiles(self.named, self.folder, self.job))


class Written(NamedTuple):
    """A file under its hidden name.

    Attributes:
        hidden: Where it is.
        name: Its path in the folder once it is whole.
        rows: Records in it.
        octets: Its size.
    """

    hidden: Path
    name: Path
    rows: int
    octets: int


class _WriteFiles(beam.DoFn):
    def __init__(self, named: str, folder: Path, job: str) -> None:
        self._named = named
        self._folder = folder
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
        writer = FileWriter(hidden)
        written: dict[Path, Written] = {}  # equal names are equal flows
        under_way: deque[Future[list[Written]]] = deque()
        with ThreadPoolExecutor(ENCODERS, "parquet") as encoders:
            for gathered in _gathered(batches):
                if len(under_way) == ENCODERS:
                    written.update((file.name, file) for file in under_way.popleft().result())
                under_way.append(encoders.submit(self._encode, writer, gathered))
            for files in under_way:
                written.update((file.name, file) for file in files.result())
        return list(written.values())

    def _encode(self, writer: "FileWriter", gathered: list[pa.RecordBatch]) -> list[Written]:
        start = time.perf_counter()
        files = list(writer.write(gathered))
        self._milliseconds.append(round((time.perf_counter() - start) * 1000))
        return files


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches together as long as they are less than `FLUSH_OCTETS`; the lists are the receiver's to empty."""
    gathered: list[pa.RecordBatch] = []
    octets = 0
    for batch in batches:
        gathered.append(batch)
        octets += batch.get_total_buffer_size()  # what is shared counts once; 70 times as fast as `nbytes`
        if octets >= FLUSH_OCTETS:
            yield gathered
            gathered, octets = [], 0
    if gathered:
        yield gathered


class FileWriter:
    """Writes gathered flows as files, one for each hour and kind of record, into a folder of hidden files."""

    def __init__(self, hidden: Path) -> None:
        self._hidden = hidden
        self._options: dict[str, Any] = {}

    def write(self, gathered: list[pa.RecordBatch]) -> Iterator[Written]:
        """Writes the flows of `gathered`, which is emptied on the way, so that memory is needed once."""
        if not self._options:
            self._options = _options(gathered[0])
        order, runs = _order(gathered)
        table = _taken(gathered, order)
        for run in runs:
            yield self._file(table.slice(run.first, run.rows), run)

    def _file(self, flows: pa.Table, run: "Run") -> Written:
        import pyarrow.parquet as pq  # heavy: not before there is a flow

        hidden = self._hidden / run.name.name.removesuffix(".parquet")
        with pq.ParquetWriter(hidden, flows.schema, **self._options) as writer:
            writer.write_table(flows, row_group_size=len(flows))
        return Written(hidden, run.name, run.rows, hidden.stat().st_size)


class Run(NamedTuple):
    """Sorted rows that go to one file."""

    first: int
    rows: int
    name: Path


def _order(gathered: Sequence[pa.RecordBatch]) -> tuple[np.ndarray, list[Run]]:
    """The order of all rows by kind, start, flow id and record number, and the files they make."""
    start = _joined(gathered, "flow_start_ns")
    number = _joined(gathered, "record_number")
    interim = np.concatenate([pc.equal(batch["record_kind"], "interim").to_numpy(False) for batch in gathered])
    ids = np.concatenate([_octets16(batch["flow_id"]) for batch in gathered])
    order = np.argsort(start, kind="stable")
    equal = np.diff(start[order]) == 0
    tied = np.concatenate((equal, [False])) | np.concatenate(([False], equal))
    rows = order[tied]  # few: only these are compared by all keys
    high, low = (ids[name][rows].byteswap() for name in ("high", "low"))  # big-endian: numbers compare as octets do
    order[tied] = rows[np.lexsort((number[rows], low, high, start[rows]))]
    if interim.any():
        order = order[np.argsort(interim[order], kind="stable")]
    start, number, interim, ids = start[order], number[order], interim[order], ids[order]
    partition = start // _NS_PER_HOUR * 2 + interim
    firsts = np.flatnonzero(np.diff(partition, prepend=partition[0] - 1))
    runs = []
    for first, end in zip(firsts, [*firsts[1:], len(order)], strict=True):
        digest = hashlib.blake2b(ids[first:end].tobytes() + number[first:end].tobytes(), digest_size=16).hexdigest()
        runs.append(Run(int(first), int(end - first), _name(int(start[first]), bool(interim[first]), digest)))
    return order, runs


def _joined(gathered: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    return np.concatenate([batch[name].to_numpy() for batch in gathered])


def _octets16(ids: pa.FixedSizeBinaryArray) -> np.ndarray:
    return np.frombuffer(ids.buffers()[1], [("high", "u8"), ("low", "u8")])[ids.offset : ids.offset + len(ids)]


def _name(start_ns: int, interim: bool, digest: str) -> Path:
    seconds, nanoseconds = divmod(start_ns, 1_000_000_000)
    start = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    hour = Path(f"hour={start:%Y-%m-%dT%H}") / f"{start:%Y%m%dT%H%M%S}.{nanoseconds:09}-{digest}.parquet"
    return INTERIM / hour if interim else hour


def _taken(gathered: list[pa.RecordBatch], order: np.ndarray) -> pa.Table:
    """The rows in `order`. Columns are taken one by one and the old ones let go."""
    schema = gathered[0].schema
    columns = [[batch.column(i) for batch in gathered] for i in range(len(schema))]
    gathered.clear()
    in_order = bool((np.diff(order) == 1).all())
    indices = pa.array(order)
    for i, field in enumerate(schema):
        chunks = columns[i]
        if in_order or _is_constant(chunks):
            columns[i] = pa.chunked_array(chunks, field.type)
        else:  # joined first: taking from lists in chunks is slow
            columns[i] = pa.concat_arrays(chunks).take(indices)
    return pa.Table.from_arrays(columns, schema=schema)


def _is_constant(chunks: Sequence[pa.Array]) -> bool:
    """Whether any order of the values is the same: as in most columns of a flood of one-packet flows."""
    nulls = sum(chunk.null_count for chunk in chunks)
    if nulls or not pa.types.is_primitive(chunks[0].type):
        return nulls == sum(map(len, chunks))
    first = chunks[0][0]
    if any(chunk[0] != first or chunk[-1] != first for chunk in chunks):
        return False
    # Constant columns often share their memory: then one chunk speaks for all.
    different = {(chunk.buffers()[1].address, chunk.offset, len(chunk)): chunk for chunk in chunks}
    return all(pc.all(pc.equal(chunk, first)).as_py() for chunk in different.values())


def _options(sample: pa.RecordBatch) -> dict[str, Any]:
    """How to encode: a dictionary where values repeat (15 ns a value), none where they do not (40 instead of 80 ns)."""
    sample = sample.slice(0, _SAMPLED_ROWS)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [field.name for field in sample.schema if _repeats(sample[field.name])],
        "write_statistics": [name for name in _SEARCHED if name in sample.schema.names],
    }


def _repeats(column: pa.Array) -> bool:
    if pa.types.is_nested(column.type):  # 1.1 to 1.5 times as fast without a dictionary, and mostly smaller
        return False
    return bool(4 * pc.count_distinct(column, mode="only_valid").as_py() <= len(column))

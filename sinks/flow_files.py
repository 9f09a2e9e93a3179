"""How flows lie in Parquet files: sorted, by the hour they start in, final and interim records apart."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.record_files import RecordFiles, Written

INTERIM = "_interim"
"""Folder of interim records. Hive-style readers pass over names that begin with an underscore."""

FLUSH_OCTETS = 24 << 20
"""Arrow data that is sorted and written at a time."""

ROW_GROUP_OCTETS = 64 << 20
"""The same of a journal, where it makes no pipeline wait: a value of 30,000 rows is encoded in 0.8 of the time."""

OPEN_FILES = 32
"""Files of one journal that are open at a time; with flows of more hours, an hour may get several files."""

COMPRESSIONS = ("zstd", "lz4")
"""The first is the default: files are a fifth smaller, and what reads Parquet at all reads them."""

_SMALL_ROWS = 2048
_NS_PER_HOUR = 3_600_000_000_000
_SAMPLED_ROWS = 1024
_SEARCHED = ("flow_start_ns", "flow_end_ns", "src_ip", "dst_ip", "src_port", "dst_port", "protocol")
"""Columns that people filter by. Statistics of all others cost a sixth of the writing and prune nothing."""


def gathered_batches(batches: Iterable[pa.RecordBatch], most_octets: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches together as long as they are less than `most_octets`; the lists are the receiver's to empty."""
    gathered: list[pa.RecordBatch] = []
    octets = 0
    for batch in batches:
        gathered.append(batch)
        octets += batch.get_total_buffer_size()  # what is shared counts once; 70 times as fast as `nbytes`
        if octets >= most_octets:
            yield gathered
            gathered, octets = [], 0
    if gathered:
        yield gathered


class FileWriter:
    """Writes gathered flows as files, one for each hour and kind of record, into a folder of hidden files."""

    def __init__(self, hidden: Path, compression: str = COMPRESSIONS[0]) -> None:
        self._hidden = hidden
        self._compression = compression
        self._options: dict[str, Any] = {}

    def write(self, gathered: list[pa.RecordBatch]) -> Iterator[Written]:
        """Writes the flows of `gathered`, which is emptied on the way, so that memory is needed once."""
        if not self._options:
            self._options = _options(gathered[0], self._compression)
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


class FlowFiles(RecordFiles):
    """Files of an endless job, named after their journal: `hour=…/20261121T130501-9e10….parquet`.

    Each holds what a journal has of its hour, in row groups sorted as above.

    Attributes:
        compression: One of `COMPRESSIONS`.
    """

    def __init__(self, named: str, folder: Path, compression: str = COMPRESSIONS[0]) -> None:
        super().__init__(named, folder)
        self.compression = compression

    def write(self, batches: Iterator[pa.RecordBatch], stem: str, hidden: Path) -> Iterator[Written]:
        """Writes one file for each hour and kind of record; more where flows lie in very many hours."""
        writers: dict[Path, _HourFile] = {}
        counts: dict[Path, int] = {}
        options: dict[str, Any] = {}
        with ExitStack() as stack:
            for gathered in gathered_batches(batches, ROW_GROUP_OCTETS):
                if sum(map(len, gathered)) < _SMALL_ROWS * len(gathered):  # many small pieces are slow to sort
                    gathered = pa.Table.from_batches(gathered).combine_chunks().to_batches()
                options = options or _options(gathered[0], self.compression)
                schema = gathered[0].schema
                order, runs = _order(gathered)
                table = _taken(gathered, order)
                for run in runs:
                    hour = run.name.parent
                    if hour not in writers:
                        if len(writers) == OPEN_FILES:
                            yield writers.pop(next(iter(writers))).closed()
                        number = counts[hour] = counts.get(hour, 0) + 1
                        name = hour / (f"{stem}.parquet" if number == 1 else f"{stem}-{number}.parquet")
                        unique = hidden.with_name(f"{hidden.name}{sum(counts.values())}")
                        writers[hour] = stack.enter_context(_HourFile(unique, name, schema, options))
                    writers[hour].write(table.slice(run.first, run.rows))
            for writer in writers.values():
                yield writer.closed()


class _HourFile:
    """A Parquet file to which row groups are added."""

    def __init__(self, hidden: Path, name: Path, schema: pa.Schema, options: dict[str, Any]) -> None:
        import pyarrow.parquet as pq  # heavy: not before there is a flow

        self._hidden = hidden
        self._name = name
        self._rows = 0
        self._writer = pq.ParquetWriter(hidden, schema, **options)

    def write(self, flows: pa.Table) -> None:
        """Adds a row group."""
        self._writer.write_table(flows, row_group_size=len(flows))
        self._rows += len(flows)

    def closed(self) -> Written:
        """Ends the file."""
        self._writer.close()
        return Written(self._hidden, self._name, self._rows, self._hidden.stat().st_size)

    def __enter__(self) -> "_HourFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


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
            columns[i] = (chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)).take(indices)
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


def _options(sample: pa.RecordBatch, compression: str) -> dict[str, Any]:
    """How to encode.

    Whole numbers are differences in as few bits as these need (10 ns a value); of the rest there is a dictionary where
    values repeat (15 ns), none where they do not (40 instead of 80 ns). Octets of floats by their place take half the
    time and are smaller, but Spark's vectorized reader has no such encoding: so with lz4 alone, which is for speed.
    """
    sample = sample.slice(0, _SAMPLED_ROWS)
    repeating, encodings = [], {}
    for field in sample.schema:
        if field.type in (pa.int64(), pa.int32()):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif _repeats(sample[field.name]):
            repeating.append(field.name)
        elif compression == "lz4" and field.type == pa.float64():
            encodings[field.name] = "BYTE_STREAM_SPLIT"
    return {
        "compression": compression,
        "use_dictionary": repeating,
        "column_encoding": encodings,
        "write_statistics": [name for name in _SEARCHED if name in sample.schema.names],
    }


def _repeats(column: pa.Array) -> bool:
    if pa.types.is_nested(column.type):  # 1.1 to 1.5 times as fast without a dictionary, and mostly smaller
        return False
    return bool(4 * pc.count_distinct(column, mode="only_valid").as_py() <= len(column))

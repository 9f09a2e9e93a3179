"""Labels folders of Parquet flows, batch by batch: memory follows the batch, not the folder."""

import contextlib
import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from training.labels.labeller import Labeller, labelled_schema
from transforms.records import InputError

MATCHES = "_matches.csv"
"""What matched what, in the folder of labelled flows. Readers of folders pass over names with an underscore."""

OVERLAPS = "_overlaps.csv"

ROWS_AT_ONCE = 1 << 15

COLUMN_OCTETS = 1 << 16
"""So much of a column is read at a time: whole row groups, as others write them, may be larger than memory."""


def flow_files(flows: Path) -> list[tuple[Path, Path]]:
    """Parquet files and where they lie in their folder; interim records and hidden files are left out.

    Raises:
        InputError: There are none.
    """
    if flows.is_file():
        return [(flows, Path(flows.name))]
    if not flows.is_dir():
        raise InputError(f"--flows {flows}: there is no such folder or file")
    inner = (path.relative_to(flows) for path in sorted(flows.rglob("*.parquet")) if path.is_file())
    found = [path for path in inner if not any(part.startswith((".", "_")) for part in path.parts)]
    if not found:
        raise InputError(
            f"--flows {flows}: has no Parquet files; pipelines.flows writes them with --output parquet:DIR"
        )
    return [(flows / path, path) for path in found]


def check_output(output: Path, flows: Path) -> None:
    """Refuses a folder that labelling must not replace.

    Raises:
        InputError: It has other things in it, or is that of the flows.
    """
    inside = [output.resolve(), *output.resolve().parents]
    if flows.resolve() in inside or output.resolve() in flows.resolve().parents:
        raise InputError(f"--output {output}: is where the flows are; choose another folder")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is no folder; choose another")
    if output.is_dir() and any(output.iterdir()) and not (output / MATCHES).is_file():
        raise InputError(f"--output {output}: has something else in it; choose another folder")


def label_files(flows: Path, output: Path, labeller: Labeller, on_progress: Callable[[int], None] | None = None) -> int:
    """Writes labelled flows under the names of the flows' files; the folder is there whole or not at all.

    Args:
        flows: Folder or file.
        output: Folder; one that labelling wrote is replaced.
        labeller: What labels them.
        on_progress: Told the rows of each batch.

    Returns:
        How many flows there are.

    Raises:
        InputError: A file cannot be read, lacks columns, or the output cannot be written.
    """
    files = flow_files(flows)
    check_output(output, flows)
    output = output.absolute()
    hidden = output.with_name(f".{output.name}.{os.getpid()}")
    rows = 0
    try:
        with _one_line(output):
            hidden.mkdir(parents=True)
            for path, inner in files:
                rows += _label_file(path, hidden / inner, labeller, on_progress)
            _write_tables(hidden, labeller)
            replaced = hidden.with_name(f"{hidden.name}.old")
            if output.exists():
                output.rename(replaced)
            hidden.rename(output)
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return rows


def _label_file(path: Path, written: Path, labeller: Labeller, on_progress: Callable[[int], None] | None) -> int:
    written.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with _readable(path):
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=COLUMN_OCTETS)
        schema = file.schema_arrow
    labeller.check(schema.names, str(path))
    writer = parquet.ParquetWriter(written, labelled_schema(schema), **_encoding(file))
    with contextlib.closing(file), writer:
        for batch in _batches(path, file):
            writer.write_batch(labeller.label(batch))
            rows += len(batch)
            if on_progress:
                on_progress(len(batch))
    return rows


def _batches(path: Path, file: parquet.ParquetFile) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(ROWS_AT_ONCE)
    while True:
        with _readable(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _encoding(file: parquet.ParquetFile) -> dict[str, object]:
    """Compressed, and with dictionaries where the file has them: they pay where values repeat."""
    schema, metadata = file.schema, file.metadata
    if not metadata.num_row_groups:
        return {"compression": "zstd"}
    columns = [metadata.row_group(0).column(i) for i in range(len(schema))]
    repeating = [one.path_in_schema for one in columns if one.has_dictionary_page]
    return {"compression": "zstd", "compression_level": 1,
            "use_dictionary": [*repeating, "label", "attack_category", "label_source"]}  # fmt: skip


def _write_tables(folder: Path, labeller: Labeller) -> None:
    with open(folder / MATCHES, "w", encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ("attack", "category", "source", "needs", "events", "matched", "labelled", "attempted", "lost_to_others",
             "unmatched_events")
        )  # fmt: skip
        for one in labeller.table():
            rows.writerow((one.attack.name, one.attack.category, one.attack.source, one.attack.needs, one.attack.events,
                           *one[1:]))  # fmt: skip
    with open(folder / OVERLAPS, "w", encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("attack", "source", "also", "also_source", "flows"))
        for overlap in labeller.overlaps():
            first, second = overlap.first, overlap.second
            rows.writerow((first.name, first.source, second.name, second.source, overlap.flows))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is no Parquet file that can be read: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def _one_line(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror or error}") from error

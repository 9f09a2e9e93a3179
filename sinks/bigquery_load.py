"""Parquet files of flows into a BigQuery table: one load job a file, each file once however often this runs.

A job's id is made of table, name and size of its file, and BigQuery runs no id twice.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from sinks import bigquery_schema, places
from sinks.bigquery_client import CALL_S, Place, asked, client_of, one_line
from transforms.records import InputError

_FILES = "hour=*/*.parquet"
_ATTEMPTS = 20
"""A job that failed is tried again under another id, whenever this runs again; but not for ever."""

_ROWS = 8192


class Loaded(NamedTuple):
    """What was loaded.

    Attributes:
        files: Files loaded now.
        records: Their records.
        before: Files that had been loaded earlier.
    """

    files: int
    records: int
    before: int


def files_in(folder: Path) -> list[Path]:
    """The files of final records, in the order of their time.

    Raises:
        InputError: There are none.
    """
    files = sorted(folder.glob(_FILES))
    if not files:
        raise InputError(f"{folder}: holds no files hour=…/….parquet; name the folder of an output parquet:DIR")
    return files


def schema_in(folder: Path) -> pa.Schema:
    """The columns of all files of the folder together, with their descriptions.

    Raises:
        InputError: There are no files, or they do not fit each other.
    """
    import pyarrow.parquet as pq

    schemas: list[pa.Schema] = []
    for file in files_in(folder):
        try:
            schema = pq.read_schema(file).remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: cannot be read: {str(error).partition(chr(10))[0]}") from error
        if schema not in schemas:
            schemas.append(schema)
    try:
        return pa.unify_schemas(schemas)
    except pa.ArrowException as error:
        raise InputError(f"{folder}: its files do not fit one table: {str(error).partition(chr(10))[0]}") from error


def load(place: Place, folder: Path) -> Loaded:
    """Loads what was not loaded before.

    Args:
        place: The table, which `prepare` has made.
        folder: Of an output `parquet:DIR`.

    Raises:
        InputError: A file cannot be read, or BigQuery refuses it. Those before it are loaded.
    """
    client = client_of(place)
    done = Loaded(0, 0, 0)
    for file in files_in(folder):
        with one_line(place):
            job = _job_of(place, client, file)
        if job is None:
            done = done._replace(before=done.before + 1)
        else:
            done = done._replace(files=done.files + 1, records=done.records + (job.output_rows or 0))
    return done


def _job_of(place: Place, client: Any, file: Path) -> Any:
    """The load job of a file, finished; None where it was finished before."""
    from google.api_core import exceptions

    token = hashlib.blake2b(f"{place.path} {file.name} {file.stat().st_size}".encode(), digest_size=16).hexdigest()
    for attempt in range(_ATTEMPTS):
        name = f"flowbeam-load-{token}-{attempt}"
        try:
            job = client.get_job(name, **asked())
        except exceptions.NotFound:
            return _loaded(place, client, file, name)
        if not _failure(job):
            return None
    raise InputError(f"{place.named}: {file} was refused {_ATTEMPTS} times: {_failure(job)}")


def _loaded(place: Place, client: Any, file: Path, name: str) -> Any:
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(
        source_format="PARQUET",
        write_disposition="WRITE_APPEND",
        create_disposition="CREATE_NEVER",
    )
    lists = bigquery.ParquetOptions()
    lists.enable_list_inference = True
    config.parquet_options = lists
    with tempfile.TemporaryFile() as converted:
        with places.one_line(place.named, Path(tempfile.gettempdir())):
            _convert(file, converted)
        converted.seek(0)
        job = client.load_table_from_file(converted, place.path, job_id=name, job_config=config, timeout=CALL_S)
    failure = _failure(job)
    if failure:
        raise InputError(f"{place.named}: {file} is refused: {failure}")
    return job


def _failure(job: Any) -> str:
    """Waits for the job; what is wrong with it, nothing if all is well."""
    from google.api_core import exceptions

    try:
        job.result()
    except exceptions.GoogleAPICallError as error:
        if not job.error_result:
            raise
        return str(error.message).partition("\n")[0]
    return ""


def _convert(file: Path, converted: Any) -> None:
    """Writes the flows of a file in the columns and types of the table."""
    import pyarrow.parquet as pq

    writer = None
    try:
        for batch in _batches(file):
            table = bigquery_schema.table_batch(batch)
            if writer is None:
                schema = pa.schema(
                    [field.with_nullable(field.name not in bigquery_schema.REQUIRED) for field in table.schema]
                )
                writer = pq.ParquetWriter(converted, schema, compression="zstd")
            writer.write_batch(table.cast(schema))
    finally:
        if writer is not None:
            writer.close()


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        try:
            yield from opened.iter_batches(_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: cannot be read: {str(error).partition(chr(10))[0]}") from error

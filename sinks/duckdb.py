"""`duckdb:FILE`: a table `flows` with one typed row for each flow; definition and unit are comments of the columns.

A record replaces one of the same `flow_id` with a lower or equal `record_number`: a final record its interim ones, a
job run again its own. So the column `record_kind` says `interim` only of flows that had not ended when the job did,
and no query counts a flow twice; the view `flows_latest` is the table by the name that other stores have for that. A
new file appears whole; an existing one, which may hold flows of other jobs and other tables, changes in one
transaction.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa

from sinks import places
from sinks.outputs import TOP_TALKERS, SinkContext, SinkUrl
from sinks.whole_file import WholeFile, WriteWholeFile, check_ends
from transforms.records import InputError

_SETTINGS = {"threads": 1, "memory_limit": "512MB"}
"""The pipeline needs the other cores; what DuckDB would keep in memory it does not need twice."""

_MAGIC = slice(8, 12)

_HAS_REPEATED = "SELECT count(*) > count(DISTINCT flow_id) FROM flows"

_DELETE_OLDER = """
    DELETE FROM flows WHERE rowid IN (
        SELECT rowid FROM flows QUALIFY row_number() OVER (PARTITION BY flow_id ORDER BY record_number DESC, rowid) > 1
    )"""

_DELETE_REPLACED = """
    DELETE FROM flows USING {part}.flows AS new
    WHERE flows.flow_id = new.flow_id AND flows.record_number <= new.record_number"""

_INSERT_NEW = """
    INSERT INTO flows BY NAME
    SELECT * FROM {part}.flows AS new
    WHERE NOT EXISTS (SELECT 1 FROM flows AS old WHERE old.flow_id = new.flow_id)"""

_LATEST_IS_OURS = """
    SELECT count(*) = 0 FROM duckdb_tables WHERE table_name = 'flows_latest' AND database_name = current_database()"""

_COLUMNS = "SELECT column_name, data_type, comment FROM duckdb_columns WHERE database_name = ? AND table_name = 'flows'"


def local_path(url: SinkUrl) -> Path:
    """The file that the output names."""
    return places.local_path(str(url), url.path)


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `duckdb:FILE`.

    Raises:
        InputError: The file cannot be written or would have no end, is something else than a DuckDB database, or a
            parameter is unknown.
    """
    url.check_parameters()
    place = local_path(url)
    places.check_file(str(url), place)
    check_ends(str(url), context.streaming)
    with places.one_line(str(url), place):
        if _is_there(place):
            with open(place, "r+b") as file:
                if file.read(_MAGIC.stop)[_MAGIC] != b"DUCK":
                    raise InputError(f"{url}: {place} is no DuckDB database; choose another --output")
    return WriteWholeFile(Database(str(url), place, context.schema), context.job)


def query(url: SinkUrl, context: SinkContext) -> str:
    """The top talkers, as an expression of DuckDB's Python module."""
    file = os.path.expanduser(url.path).replace("'", "''")
    attached = f"ATTACH '{file}' AS flows (READ_ONLY)"  # relations of older DuckDB do not keep a connection open
    return f"duckdb.execute({attached!r}).sql('FROM flows.flows'){TOP_TALKERS}"


class Database(WholeFile):
    """A DuckDB database; a part is one, too."""

    def __init__(self, named: str, place: Path, schema: pa.Schema) -> None:
        super().__init__(named, place)
        self.schema = schema

    def write_part(self, part: Path, batches: Iterator[pa.RecordBatch]) -> None:
        """Loads the batches into a database of their own, the highest record of each flow alone."""
        first = next(batches)
        with self._connected(part) as database:
            _create(database, first.schema, chain((first,), batches))
            if database.execute(_HAS_REPEATED).fetchone() == (True,):
                database.execute(_DELETE_OLDER)

    def join(self, parts: list[Path], fresh: Path) -> None:
        """Merges the parts into the database that is there, else into the first of them, which becomes it."""
        if _is_there(self.place):
            self._merge(self.place, parts)
            return
        if parts:
            os.replace(parts[0], fresh)
            self._merge(fresh, parts[1:])
        else:
            with self._connected(fresh) as database:
                _create(database, self.schema, ())
        os.replace(fresh, self.place)

    def _merge(self, whole: Path, parts: list[Path]) -> None:
        with self._connected(whole) as database:
            names = [f"part_{number}" for number in range(len(parts))]
            for name, part in zip(names, parts, strict=True):
                database.execute(f"ATTACH {_text(str(part))} AS {name} (READ_ONLY)")
            database.begin()
            for name in names:
                self._fit_table(database, whole, name)
                database.execute(_DELETE_REPLACED.format(part=name))
                database.execute(_INSERT_NEW.format(part=name))
            _create_view(database)
            database.commit()

    def _fit_table(self, database: Any, whole: Path, part: str) -> None:
        """Gives the table the columns of `part` that it lacks: it may be of a job with other feature sets."""
        there = _columns(database, database.execute("SELECT current_database()").fetchone()[0])
        wanted = _columns(database, part)
        if not there:
            database.execute(f"CREATE TABLE flows AS FROM {part}.flows LIMIT 0")
            _describe(database, {name: comment for name, (_, comment) in wanted.items()})
            return
        for name, (kind, comment) in wanted.items():
            if name not in there and name not in ("flow_id", "record_number"):
                database.execute(f"ALTER TABLE flows ADD COLUMN {_name(name)} {kind}")
                _describe(database, {name: comment})
            elif there.get(name, ("", None))[0] != kind:
                found = there[name][0] if name in there else "missing"
                raise InputError(
                    f"{self.named}: in the table flows of {whole} the column {name} is {found}, not {kind}; "
                    "choose another --output"
                )

    @contextmanager
    def _connected(self, file: Path) -> Iterator[Any]:
        """A connection to the database `file`, made if it is missing; what DuckDB cannot write becomes one line."""
        import duckdb  # heavy: not before there is something to write

        try:
            with duckdb.connect(str(file), config=_SETTINGS) as database:
                yield database
        except duckdb.Error as error:  # a full disk comes as IOException, TransactionException or FatalException
            if not isinstance(error, duckdb.IOException) and places.known_reason(str(error)) is None:
                raise
            if "Conflicting lock" in str(error):
                raise InputError(f"{self.named}: {file} is open in another program; close it there") from error
            raise places.unwritable(self.named, self.place, str(error)) from error


def _is_there(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _create(database: Any, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    database.register("batches", pa.RecordBatchReader.from_batches(schema, batches))
    database.execute("CREATE TABLE flows AS FROM batches")
    database.unregister("batches")
    _describe(database, {field.name: _definition(field) for field in schema})


def _create_view(database: Any) -> None:
    """Makes the view anew, since the table may have got columns; not in the stead of a table of somebody else."""
    if database.execute(_LATEST_IS_OURS).fetchone() == (True,):
        database.execute("CREATE OR REPLACE VIEW flows_latest AS FROM flows")


def _definition(field: pa.Field) -> str | None:
    known = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    unit = f" [{known['unit']}]" if "unit" in known else ""
    return known.get("doc", "") + unit or None


def _describe(database: Any, definitions: dict[str, str | None]) -> None:
    for name, definition in definitions.items():
        if definition:
            database.execute(f"COMMENT ON COLUMN flows.{_name(name)} IS {_text(definition)}")


def _columns(database: Any, catalog: str) -> dict[str, tuple[str, str | None]]:
    """Type and comment of each column of the table `flows`; none without such a table."""
    return {name: (kind, comment) for name, kind, comment in database.execute(_COLUMNS, [catalog]).fetchall()}


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

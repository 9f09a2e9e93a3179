"""`cassandra://HOST[,HOST][:PORT]/KEYSPACE`: tables for the questions that people ask of flows.

| table | a query names | it has |
|---|---|---|
| `flows_by_source` | `src_ip`, `day` | every column |
| `flows_by_destination` | `dst_ip`, `day` | all but features |
| `alerts_by_hour` | `hour` | all but features, of alerts; where flows are scored |

Rows of a partition are in order of `flow_start_ns`, the last first. Settings after `?`: `ttl_days` (0: for ever),
`window_days` of compaction (1), `consistency` (`LOCAL_QUORUM`), `datacenter`, `concurrency` (32 statements under way),
`security` (`plaintext` or `tls`), `ca` (a PEM file; TLS follows from it), `verify` (`host`, or `ca` where certificates
do not name the nodes). Credentials are in the environment: FLOWBEAM_CASSANDRA_USERNAME and
FLOWBEAM_CASSANDRA_PASSWORD, or where `queues.server_secrets` says.

Every job makes tables and adds columns that are missing; the keyspace must be there, or is made with

    python -m sinks.cassandra --setup cassandra://HOST/KEYSPACE --replication 3

A row's time of writing is the flow's start plus the record's number in microseconds: a higher record replaces a lower
one whichever comes first, the same one again changes nothing, and time windows are those of the traffic.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from sinks import alerts, cassandra_cells, cassandra_client
from sinks.blocks import Unavailable, WriteBlocks
from sinks.cassandra_cells import Cell
from sinks.cassandra_client import Place, connected, place_of, plain_errors, raise_plain
from sinks.cassandra_tables import DAY, Table, tables_of
from sinks.command import OneLineParser, status_of
from sinks.jsonl import JsonObjects
from sinks.outputs import SinkContext, SinkUrl, parse_url
from transforms import fields
from transforms.records import InputError, Reject

BATCH_ROWS, BATCH_OCTETS = 30, 32_768
"""Rows of one partition travel together, up to so many and about so large: the node applies them as one."""

BLOCK_ROWS = 2048
"""Records of a block: what is tried again where a node goes away."""


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `cassandra://HOST/KEYSPACE`; its tables are there and may be written.

    Raises:
        InputError: A setting is wrong, the cluster does not answer, or the keyspace cannot be used.
    """
    place = place_of(url)
    tables = tables_of(context.schema)
    makes = prepare(place, tables, context.only_check)
    return WriteBlocks(url, context, functools.partial(CassandraWriter, place, tables), BLOCK_ROWS, makes=makes)


def prepare(place: Place, tables: Sequence[Table], only_check: bool = False) -> list[str]:
    """Makes the tables and columns that are missing, and sees that they may be written.

    Args:
        place: Where to.
        tables: The tables there.
        only_check: Nothing is made.

    Returns:
        What is made, or would be.

    Raises:
        InputError: That is not possible.
    """
    try:
        session = connected(place)
        try:
            with plain_errors(place):
                makes = []
                for table in tables:
                    lacks, statement = _lack(session, place, table)
                    if lacks:
                        makes.append(lacks)
                        if only_check:
                            continue
                        session.execute(statement)
                    session.execute(_of_nobody(table))
                return makes
        finally:
            session.cluster.shutdown()
    except Unavailable as error:
        raise InputError(f"{error}; see that it is up and the address right") from error


def _lack(session: Any, place: Place, table: Table) -> tuple[str, str]:
    """What of a table is not there, and the statement that makes it; empty if nothing is missing."""
    wanted = table.cql_columns()
    rows = session.execute(
        "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s",
        (place.keyspace, table.name),
    )
    found = {row.column_name: row.type for row in rows}
    if not found:
        return f"table {table.name}", table.create(place.ttl_s, place.window_days)
    for name in wanted.keys() & found.keys():
        if found[name].replace(" ", "") != wanted[name].replace(" ", ""):
            line = f"{place.named}: column {name} of {table.name} is {found[name]}, not {wanted[name]}"
            raise InputError(f"{line}; use another keyspace, or drop the table")
    missing = [f'"{name}" {kind}' for name, kind in wanted.items() if name not in found]
    if not missing:
        return "", ""
    return f"{len(missing)} columns of {table.name}", f"ALTER TABLE {table.name} ADD ({', '.join(missing)})"


def _of_nobody(table: Table) -> str:
    """A statement that changes no row, and that only those may execute who may write."""
    values = {"src_ip": "'::'", "dst_ip": "'::'", "day": "'1970-01-01'", "hour": "0"}
    where = " AND ".join(f"{name} = {values[name]}" for name in table.partition)
    return f"DELETE FROM {table.name} USING TIMESTAMP 1 WHERE {where} AND flow_start_ns = 0 AND flow_id = 0x00"


class CassandraWriter:
    """Writes blocks with prepared statements, so many at a time.

    Args:
        place: Where to.
        tables: The tables there.
    """

    def __init__(self, place: Place, tables: Sequence[Table]) -> None:
        self._place = place
        self._session: Any = connected(place)
        try:
            with plain_errors(place):
                self._tables = [_Prepared(self._session, place, table) for table in tables]
        except BaseException:
            self.close()
            raise

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        """As `BlockWriter` says; a record that one table refuses may be in another."""
        refused: dict[int, str] = {}
        with plain_errors(self._place):
            for table in self._tables:
                refused.update(self._executed(table.statements(flows)))
        for row, reason in sorted(refused.items()):
            (line,) = JsonObjects().lines(flows.slice(row, 1)).to_pylist()
            yield Reject("cassandra", reason, self._place.named, None, line.encode())

    def close(self) -> None:
        """Gives the connections up."""
        self._session.cluster.shutdown()

    def _executed(self, statements: "list[_Statement]") -> dict[int, str]:
        """Executes all; reasons for the rows that were refused.

        A batch that is refused is tried row by row. What a node that is busy did not do in time is tried again with
        half as many under way, as long as it does some of them.
        """
        import cassandra
        from cassandra.concurrent import execute_concurrent

        refused: dict[int, str] = {}
        concurrency = self._place.concurrency
        while statements:
            ready = [(statement.ready, None) for statement in statements]
            answers = execute_concurrent(self._session, ready, concurrency, raise_on_first_error=False)
            again: list[_Statement] = []
            late: list[_Statement] = []
            for statement, (done, error) in zip(statements, answers, strict=True):
                if done:
                    continue
                if isinstance(error, _busy()):
                    late.append(statement)
                    cause = error
                elif not isinstance(error, cassandra.InvalidRequest):
                    raise_plain(self._place, error)
                elif len(statement.rows) > 1:
                    again += statement.alone()
                else:
                    refused[statement.rows[0]] = cassandra_client.text_of(error)
            if len(late) == len(statements) and concurrency == 1:
                raise_plain(self._place, cause)
            if late:
                concurrency = max(1, concurrency // 2)
            statements = [*late, *again]
        return refused


def _busy() -> tuple[type[Exception], ...]:
    """What nodes that have too much to do, or the driver for them, answer."""
    from cassandra import OperationTimedOut, WriteFailure, WriteTimeout
    from cassandra.protocol import OverloadedErrorMessage

    return (OperationTimedOut, OverloadedErrorMessage, WriteFailure, WriteTimeout)


class _Statement:
    """One statement or several of one partition, with the rows of the block that they are for."""

    def __init__(self, rows: Sequence[int], bound: Sequence[Any]) -> None:
        self.rows, self._bound = rows, bound

    @property
    def ready(self) -> Any:
        """What the driver executes."""
        from cassandra.query import BatchStatement, BatchType

        if len(self._bound) == 1:
            return self._bound[0]
        batch = BatchStatement(BatchType.UNLOGGED, consistency_level=self._bound[0].consistency_level)
        batch.is_idempotent = True
        for bound in self._bound:
            batch.add(bound)
        return batch

    def alone(self) -> "list[_Statement]":
        """Each row by itself."""
        return [_Statement([row], [bound]) for row, bound in zip(self.rows, self._bound, strict=True)]


class _Prepared:
    """A table's statements."""

    def __init__(self, session: Any, place: Place, table: Table) -> None:
        self._table = table
        self._insert, self._delete = session.prepare(table.insert(place.ttl_s)), session.prepare(table.delete())
        self._insert.is_idempotent = self._delete.is_idempotent = True

    def statements(self, flows: pa.RecordBatch) -> list[_Statement]:
        """What writes the rows of a block; alerts that a later record took back are removed."""
        if self._table.period == DAY:
            return self._grouped(flows, np.arange(len(flows)), self._inserts(flows))
        is_alert = flows[alerts.IS_ALERT].fill_null(False).to_numpy(zero_copy_only=False)
        again = flows["record_number"].to_numpy() > 0
        written, removed = np.flatnonzero(is_alert), np.flatnonzero(again & ~is_alert)
        return [
            *self._grouped(flows, written, self._inserts(flows.take(written))),
            *self._grouped(flows, removed, self._deletes(flows.take(removed))),
        ]

    def _inserts(self, flows: pa.RecordBatch) -> list[Any]:
        """A bound statement for each row. What a record has not is not written where it is the flow's first."""
        from cassandra.query import UNSET_VALUE

        starts = flows["flow_start_ns"].to_numpy()
        columns = [self._period(starts)]
        columns += [cassandra_cells.cells(flows[field.name], field) for field in self._table.columns]
        columns.append(_times_of_writing(flows))
        first = (flows["record_number"].to_numpy() == 0).tolist()
        rows = zip(*columns, strict=True)
        return [
            _bound(self._insert, [UNSET_VALUE if cell is None else cell for cell in row] if alone else list(row))
            for alone, row in zip(first, rows, strict=True)
        ]

    def _deletes(self, flows: pa.RecordBatch) -> list[Any]:
        starts = flows["flow_start_ns"].to_numpy()
        columns = [_times_of_writing(flows), self._period(starts), cassandra_cells.longs(starts)]
        columns.append(flows["flow_id"].cast(pa.binary()).to_pylist())
        return [_bound(self._delete, list(row)) for row in zip(*columns, strict=True)]

    def _period(self, starts: np.ndarray) -> list[Cell]:
        return (cassandra_cells.days if self._table.period == DAY else cassandra_cells.hours)(starts)

    def _grouped(self, flows: pa.RecordBatch, rows: np.ndarray, bound: list[Any]) -> list[_Statement]:
        """Statements of one partition together, as many as go into a batch."""
        octets = sum(len(cell) for cell in bound[0].values if isinstance(cell, bytes)) if bound else 0
        most = max(1, min(BATCH_ROWS, BATCH_OCTETS // max(1, octets)))
        groups: dict[Any, list[int]] = {}
        for place, statement in enumerate(bound):
            groups.setdefault(statement.routing_key, []).append(place)
        return [
            _Statement([int(rows[place]) for place in part], [bound[place] for place in part])
            for places in groups.values()
            for first in range(0, len(places), most)
            if (part := places[first : first + most])
        ]


def _bound(prepared: Any, values: list[Any]) -> Any:
    """A statement with values that are octets already."""
    from cassandra.query import BoundStatement

    bound = BoundStatement(prepared)
    bound.values = values
    return bound


def _times_of_writing(flows: pa.RecordBatch) -> list[Cell]:
    starts_us = flows["flow_start_ns"].to_numpy() // 1000
    return cassandra_cells.longs(starts_us + flows["record_number"].to_numpy())


def main(arguments: Sequence[str] | None = None) -> int:
    """`--setup`: makes the keyspace, and the tables with the columns that every flow has."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = OneLineParser(prog="python -m sinks.cassandra", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--setup", metavar="URL", required=True, help="cassandra://HOST/KEYSPACE, made if missing.")
    parser.add_argument("--replication", metavar="N", type=int, default=1, help="Copies of each row. Default 1.")
    options = parser.parse_args(arguments)
    place = place_of(parse_url(options.setup))
    setup(place, options.replication)
    print(f"{place.named}: ready")


def setup(place: Place, replication: int) -> None:
    """Makes keyspace and tables; what is there stays.

    Raises:
        InputError: That is not possible.
    """
    if replication < 1:
        raise InputError(f"--replication {replication}: give 1 or more")
    copies = f"'{place.datacenter}': {replication}" if place.datacenter else f"'replication_factor': {replication}"
    try:
        session = connected(place, with_keyspace=False)
        try:
            with plain_errors(place):
                session.execute(
                    f"CREATE KEYSPACE IF NOT EXISTS {place.keyspace}"
                    f" WITH replication = {{'class': 'NetworkTopologyStrategy', {copies}}}"
                )
        finally:
            session.cluster.shutdown()
    except Unavailable as error:
        raise InputError(f"{error}; see that it is up and the address right") from error
    prepare(place, tables_of(fields.arrow_schema(fields.COMMON)))


if __name__ == "__main__":
    sys.exit(main())

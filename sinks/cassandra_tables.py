"""The tables of `cassandra:`: which there are, what their columns are called in CQL, and statements for them."""

from typing import NamedTuple

import pyarrow as pa

from sinks.alerts import IS_ALERT
from transforms import fields
from transforms.features import sets
from transforms.records import InputError

DAY, HOUR = "day", "hour"
"""Columns that only the tables have: when a flow began, in UTC."""

_COMMON = frozenset(field.name for field in fields.COMMON)


class Table(NamedTuple):
    """A table for a question.

    Attributes:
        name: Its name.
        partition: Columns that say where rows lie together; a query names them all.
        columns: The columns of flows that it has.
    """

    name: str
    partition: tuple[str, ...]
    columns: pa.Schema

    @property
    def period(self) -> str:
        """`DAY` or `HOUR`, whichever the table has."""
        return self.partition[-1]

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key; rows of a partition are in order of time, the last first."""
        return (*self.partition, "flow_start_ns", "flow_id")

    def cql_columns(self) -> dict[str, str]:
        """Name and type in CQL of each column."""
        described = {field.name: cql_type(field) for field in self.columns}
        return {self.period: "date" if self.period == DAY else "timestamp", **described}

    def create(self, ttl_s: int, window_days: int) -> str:
        """The statement that makes the table."""
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.cql_columns().items())
        compaction = (
            "{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS',"
            f" 'compaction_window_size': '{window_days}'}}"
        )
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name} ({columns},"
            f" PRIMARY KEY (({', '.join(self.partition)}), flow_start_ns, flow_id))"
            f" WITH CLUSTERING ORDER BY (flow_start_ns DESC, flow_id ASC) AND compaction = {compaction}"
            f" AND default_time_to_live = {ttl_s}"
        )

    def insert(self, ttl_s: int) -> str:
        """The statement that writes a row; its last value is the time of writing, in microseconds."""
        names = list(self.cql_columns())
        columns = ", ".join(f'"{name}"' for name in names)
        living = f"TTL {ttl_s} AND " if ttl_s else ""
        values = ", ".join("?" * len(names))
        return f"INSERT INTO {self.name} ({columns}) VALUES ({values}) USING {living}TIMESTAMP ?"

    def delete(self) -> str:
        """The statement that removes a row; its first value is the time of writing."""
        return f"DELETE FROM {self.name} USING TIMESTAMP ? WHERE " + " AND ".join(f"{name} = ?" for name in self.key)


def tables_of(schema: pa.Schema) -> tuple[Table, ...]:
    """The tables for flows of a schema; that of alerts where flows are scored."""
    plain = pa.schema([field for field in schema if field.name in _COMMON or field.name not in sets.CANONICAL])
    tables = [
        Table("flows_by_source", ("src_ip", DAY), schema),
        Table("flows_by_destination", ("dst_ip", DAY), plain),
    ]
    if IS_ALERT in schema.names:
        tables.append(Table("alerts_by_hour", (HOUR,), plain))
    return tuple(tables)


def cql_type(field: pa.Field) -> str:
    """The type in CQL for a column; texts that are addresses by their name are `inet`.

    Raises:
        InputError: There is none.
    """
    kind, types = field.type, pa.types
    if types.is_dictionary(kind):
        return cql_type(field.with_type(kind.value_type))
    if types.is_boolean(kind):
        return "boolean"
    if types.is_uint64(kind):
        return "varint"
    if types.is_integer(kind):
        return "bigint" if kind.bit_width == 64 or types.is_uint32(kind) else "int"
    if types.is_float32(kind) or types.is_float64(kind):
        return "float" if types.is_float32(kind) else "double"
    if types.is_string(kind):
        return "inet" if is_address(field) else "text"
    if types.is_binary(kind) or types.is_fixed_size_binary(kind):
        return "blob"
    if types.is_struct(kind):
        members = ", ".join(cql_type(member.with_name("")) for member in kind)
        return f"frozen<tuple<{members}>>"
    if types.is_list(kind):
        return f"frozen<list<{cql_type(kind.value_field.with_name(''))}>>"
    raise InputError(f"cassandra: column {field.name}: CQL has no {kind}")


def is_address(field: pa.Field) -> bool:
    """Whether a column's texts are IP addresses."""
    return field.name.endswith("_ip") and pa.types.is_string(field.type)

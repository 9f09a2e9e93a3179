"""Flows as documents of the Elastic Common Schema: field names, types and JSON, from the description of the columns.

A column with an ECS name (`transforms.fields`) has its place there, every other one is `flow.NAME`. What ECS wants
beside that follows from columns: `@timestamp`, `network.bytes`, `network.transport`, `event.kind`, `related.ip`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks import text
from sinks.document_lines import Lines, Piece, assembled, is_written
from sinks.json_values import is_quoted, values

ECS_VERSION = "8.17.0"

LINES_ROWS = 4096
"""Rows whose lines are made at a time: enough that calls cost little, few enough that memory does."""

KEYWORD_CHARACTERS = 8191
"""Longer texts are kept and not indexed: a server refuses what is longer than 32,766 octets."""

_NS_PER_DAY = 86_400_000_000_000

_TRANSPORTS = {
    1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp",
    88: "eigrp", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip
"""IANA protocol names in lower case, as `network.transport` has them."""

_NAMES = pa.array([_TRANSPORTS.get(number) for number in range(256)], pa.string())

_KEYWORDS = {"network.iana_number", "network.vlan.id"}
"""Numbers that ECS has as names."""


class Leaf(NamedTuple):
    """A field of the documents that holds values.

    Attributes:
        path: Its name, in parts.
        mapping: Its entry in an index's mapping.
        values: Makes its values, as texts or numbers; null where the field is left out.
        is_quoted: Whether they are strings.
        column: The column that they are; empty where they follow from several.
    """

    path: tuple[str, ...]
    mapping: dict[str, Any]
    values: Callable[[pa.RecordBatch], pa.Array]
    is_quoted: bool = False
    column: str = ""

    @property
    def name(self) -> str:
        """The name with dots."""
        return ".".join(self.path)


class Documents:
    """How flows of one schema become documents.

    Args:
        schema: The columns, described by their metadata.
        index: What the names of the indices begin with.
        leaves: The fields, if they are not those of flows.

    Attributes:
        leaves: The fields.
        index: What the names of the indices begin with.
    """

    def __init__(self, schema: pa.Schema, index: str, leaves: tuple[Leaf, ...] | None = None) -> None:
        self.leaves = tuple(_leaves(schema)) if leaves is None else leaves
        self.index = index
        self._order = list(_members(self.leaves))

    def mapping(self) -> dict[str, Any]:
        """The properties of the indices' mapping."""
        properties: dict[str, Any] = {}
        for leaf in self.leaves:
            *objects, name = leaf.path
            inner = properties
            for part in objects:
                inner = inner.setdefault(part, {"properties": {}})["properties"]
            inner[name] = leaf.mapping
        return properties

    def bulk(self, flows: pa.RecordBatch) -> Iterator[Lines]:
        """What the bulk API takes: for each record, the line of the action and that of the document, as one.

        The document's id is the flow's, its version follows from the record's number, its index from the UTC day on
        which the flow starts.
        """
        for first in range(0, len(flows), LINES_ROWS):
            part = flows.slice(first, LINES_ROWS)
            versions = pc.add(part["record_number"].cast(pa.int64()), 1)
            action = [
                Piece(b'{"index":{"_index":"%s-' % self.index.encode(), days(part["flow_start_ns"])),
                Piece(b'","_id":"', text.cells(part["flow_id"])),
                Piece(b'","version":', versions, b',"version_type":"external"}}\n'),
            ]
            yield assembled([*action, *self._pieces(part), Piece(b"\n")], len(part))

    def lines(self, flows: pa.RecordBatch) -> Lines:
        """The documents alone."""
        return assembled([*self._pieces(flows), Piece(b"\n")], len(flows))

    def _pieces(self, flows: pa.RecordBatch) -> Iterator[Piece]:
        constant = b""
        for before, leaf, is_first in self._order:
            if leaf is None:
                constant += before
                continue
            found = leaf.values(flows)
            if found.null_count == len(found) and not is_first:
                continue
            if constant:
                yield Piece(constant)
                constant = b""
            if is_first and found.null_count:  # an object begins with it, so it is there
                texts = _joined('"', found, '"') if leaf.is_quoted else text.cells(found)
                yield Piece(before, texts.fill_null("null"))
            elif leaf.is_quoted:
                yield Piece(before + b'"', found, b'"')
            else:
                yield Piece(before, found)
        yield Piece(constant)


def days(times_ns: pa.Array) -> pa.StringArray:
    """The UTC day of each time, as `2026.11.21`."""
    number = np.floor_divide(times_ns.to_numpy(), _NS_PER_DAY).astype(np.int32)
    known, places = np.unique(number, return_inverse=True)
    names = pc.replace_substring(pa.array(known, pa.date32()).cast(pa.string()), "-", ".")
    return names.take(pa.array(places))


def _leaves(schema: pa.Schema) -> Iterator[Leaf]:
    taken: set[str] = set()

    def free(leaf: Leaf) -> bool:
        """Whether the name is no object's, nor within another field."""
        parts = [".".join(leaf.path[:length]) for length in range(1, len(leaf.path) + 1)]
        if leaf.name in inner or not taken.isdisjoint(parts):
            return False
        taken.add(leaf.name)
        inner.update(parts[:-1])
        return True

    inner: set[str] = set()
    derived = list(_derived(schema))
    for leaf in derived:
        free(leaf)
    yield from derived
    for field in schema:
        ecs = (field.metadata or {}).get(b"ecs", b"").decode()
        if ecs.endswith((".location.lat", ".location.lon")):
            continue
        leaf = leaf_of(field, ecs or f"flow.{field.name}")._replace(column=field.name)
        if not free(leaf):
            leaf = leaf._replace(path=("flow", field.name))
            free(leaf)
        yield leaf


def leaf_of(field: pa.Field, name: str) -> Leaf:
    """The field of a column, by its name in the documents."""
    path, column = tuple(name.split(".")), field.name
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    if name == "network.type":
        return Leaf(path, KEYWORD, lambda flows: _joined("ipv", flows[column].cast(pa.string())), True)
    if path[-1] == "mac":
        return Leaf(path, KEYWORD, lambda flows: pc.replace_substring(pc.utf8_upper(flows[column]), ":", "-"), True)
    if path[-1] == "ip" or column.endswith("_ip"):
        return Leaf(path, {"type": "ip"}, lambda flows: text.cells(flows[column]), True)
    if unit == "ns" or pa.types.is_timestamp(field.type):
        return Leaf(path, {"type": "date_nanos"}, lambda flows: times(flows[column]), True)
    if name in _KEYWORDS:
        return Leaf(path, KEYWORD, lambda flows: text.cells(flows[column]), True)
    mapping = _mapping_of(field.type)
    if unit and "properties" not in mapping:
        mapping = {**mapping, "meta": {"unit": unit}}
    if is_written(field.type) or pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
        return Leaf(path, mapping, lambda flows: flows[column])
    return Leaf(path, mapping, lambda flows: values(flows[column]), is_quoted(field.type))


def _derived(schema: pa.Schema) -> Iterator[Leaf]:
    """Fields that follow from columns."""
    yield Leaf(("@timestamp",), {"type": "date_nanos"}, lambda flows: times(flows["flow_start_ns"]), True)
    yield Leaf(("ecs", "version"), KEYWORD, constant(ECS_VERSION), True)
    yield Leaf(("event", "kind"), KEYWORD, _kinds, True)
    yield Leaf(("event", "module"), KEYWORD, constant("flowbeam"), True)
    yield Leaf(("event", "category"), KEYWORD, constant('["network"]'))
    yield Leaf(("event", "type"), KEYWORD, constant('["connection"]'))
    length = {"type": "long", "meta": {"unit": "ns"}}
    yield Leaf(("event", "duration"), length, partial(_number, pc.subtract, "flow_end_ns", "flow_start_ns"))
    for name, column in {"bytes": "ip_octets", "packets": "packets"}.items():
        yield Leaf(("network", name), _LONG, partial(_number, pc.add, f"fwd_{column}", f"rev_{column}"))
    yield Leaf(("network", "transport"), KEYWORD, lambda flows: _NAMES.take(flows["protocol"]), True)
    yield Leaf(("related", "ip"), {"type": "ip"}, _both_addresses)
    for lat in schema:
        ecs = (lat.metadata or {}).get(b"ecs", b"").decode()
        lon = ecs.removesuffix("lat") + "lon"
        if ecs.endswith(".location.lat"):
            for other in schema:
                if (other.metadata or {}).get(b"ecs", b"").decode() == lon:
                    point = partial(_points, lat.name, other.name)
                    yield Leaf(tuple(ecs.split("."))[:-1], {"type": "geo_point"}, point)


KEYWORD = {"type": "keyword", "ignore_above": KEYWORD_CHARACTERS}
_LONG = {"type": "long"}


def _points(latitude: str, longitude: str, flows: pa.RecordBatch) -> pa.StringArray:
    """Places on the globe, where both numbers are known."""
    return _joined('{"lat":', text.cells(flows[latitude]), ',"lon":', text.cells(flows[longitude]), "}")


def constant(value: str) -> Callable[[pa.RecordBatch], pa.StringArray]:
    """Makes the same value for each row."""
    return lambda flows: pa.repeat(pa.scalar(value, pa.string()), len(flows))


def _kinds(flows: pa.RecordBatch) -> pa.StringArray:
    if "is_alert" not in flows.schema.names:
        return constant("event")(flows)
    return pc.if_else(flows["is_alert"].fill_null(False), "alert", "event")


def _both_addresses(flows: pa.RecordBatch) -> pa.StringArray:
    src, dst = flows["src_ip"], flows["dst_ip"]
    both = _joined('["', src, '","', dst, '"]')
    return pc.if_else(pc.equal(src, dst), _joined('["', src, '"]'), both)


def _number(compute: Callable[..., pa.Array], one: str, other: str, flows: pa.RecordBatch) -> pa.Array:
    return compute(flows[one], flows[other])


def _joined(*pieces: Any) -> pa.StringArray:
    """The pieces end to end; null where one of them is."""
    return pc.binary_join_element_wise(*pieces, "")


def times(column: pa.Array) -> pa.StringArray:
    """Times as `2026-11-21T13:00:00.123456789Z`; integers are nanoseconds since the Unix epoch."""
    texts = column.cast(pa.timestamp("ns")).cast(pa.string())
    return _joined(pc.replace_substring(texts, " ", "T"), "Z")


def _mapping_of(kind: pa.DataType) -> dict[str, Any]:
    types = pa.types
    if types.is_dictionary(kind) or types.is_list(kind):
        return _mapping_of(kind.value_type)
    if types.is_struct(kind):
        return {"properties": {member.name: _mapping_of(member.type) for member in kind}}
    if types.is_boolean(kind):
        return {"type": "boolean"}
    if types.is_uint64(kind):
        return {"type": "unsigned_long"}
    if types.is_integer(kind):
        return _LONG
    if types.is_floating(kind):
        return {"type": "double" if types.is_float64(kind) else "float"}
    return KEYWORD


def _members(leaves: Iterable[Leaf]) -> Iterator[tuple[bytes, Leaf | None, bool]]:
    """The order in which documents are written: constants, and values with what stands before them."""
    tree: dict[str, Any] = {}
    for leaf in leaves:
        *objects, name = leaf.path
        inner = tree
        for part in objects:
            inner = inner.setdefault(part, {})
        inner[name] = leaf

    def written(inner: dict[str, Any]) -> Iterator[tuple[bytes, Leaf | None, bool]]:
        yield b"{", None, False
        ordered = sorted(inner.items(), key=lambda item: isinstance(item[1], dict))  # values before objects
        for number, (name, member) in enumerate(ordered):
            before = (b"," if number else b"") + json.dumps(name).encode() + b":"
            if isinstance(member, dict):
                yield before, None, False
                yield from written(member)
            else:
                yield before, member, not number
        yield b"}", None, False

    yield from written(tree)

"""What the tests of Elasticsearch and OpenSearch share: documents as columns of flows again."""

from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from sinks.documents import Documents


def as_flows(documents: list[dict[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows that the documents were made of, by the names and types of the columns."""
    names = {leaf.column: leaf.path for leaf in Documents(schema, "flows").leaves if leaf.column}
    return [{field.name: _value(_at(document, names[field.name]), field) for field in schema} for document in documents]


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        document = document.get(part) if document else None
    return document


def _value(value: Any, field: pa.Field) -> Any:
    if value is None:
        return None
    about = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    if about.get("ecs") == "network.type":
        return int(value.removeprefix("ipv"))
    if field.name.endswith("_mac"):
        return value.replace("-", ":").lower()
    if about.get("unit") == "ns":
        whole = datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        return int(whole.timestamp()) * 1_000_000_000 + int(value[20:29])
    if pa.types.is_fixed_size_binary(field.type):
        return bytes.fromhex(value)
    return int(value) if isinstance(value, str) and pa.types.is_integer(field.type) else value

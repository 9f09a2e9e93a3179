"""Columns as JSON values (RFC 8259), nested ones included."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sinks import text

_CONTROL = bytes(range(0x20))


def escaped(texts: pa.StringArray) -> pa.StringArray:
    """Texts as they stand between the quotes of a JSON string."""
    if text.holds(texts, _CONTROL + b'"\\'):
        texts = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
        for code in _CONTROL:
            if text.holds(texts, bytes([code])):
                texts = pc.replace_substring(texts, chr(code), f"\\u{code:04x}")
    return texts


def values(column: pa.Array) -> pa.StringArray:
    """Values as JSON, except that strings lack their quotes; what is not finite is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return values(column.cast(kind.value_type))
    if pa.types.is_struct(kind):
        members: list[Any] = []
        for number, member in enumerate(kind):
            members += [f"{',' if number else ''}{json.dumps(member.name)}:", quoted(column.field(number))]
        inner = pc.binary_join_element_wise("{", *members, "}", "", null_handling="replace", null_replacement="null")
        return pc.if_else(column.is_valid(), inner, pa.scalar(None, pa.string()))
    if is_nested(kind):
        return text.bracketed(column, quoted(column.flatten()))
    cells = text.cells(column)
    return escaped(cells) if pa.types.is_string(kind) else cells


def is_nested(kind: pa.DataType) -> bool:
    """Whether values are objects, or lists of what is no number."""
    if pa.types.is_list(kind):
        return not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    return pa.types.is_struct(kind)


def quoted(column: pa.Array) -> pa.StringArray:
    """Values as JSON; null where there is none."""
    texts = values(column)
    return _joined('"', texts, '"') if is_quoted(column.type) else texts


def is_quoted(kind: pa.DataType) -> bool:
    """Whether values of the type are JSON strings."""
    return text.is_text(kind) and not pa.types.is_struct(kind)


def _joined(*pieces: Any) -> pa.StringArray:
    """The pieces end to end; null where one of them is."""
    return pc.binary_join_element_wise(*pieces, "")

"""`csv:FILE`, or `csv:-` for standard output: comma separated values (RFC 4180) under a header line.

Lines end in line feeds, only values that need quotes have them, null is empty. Values that hold several are JSON:
`"[1,2]"`.
"""

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from sinks import json_values, standard_output, text
from sinks.outputs import SinkContext, SinkUrl
from sinks.text import local_path

__all__ = ["local_path", "open_sink", "query"]

_SPECIAL = b',"\r\n'


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `csv:FILE` and `csv:-` or, where there are several feature sets, `csv:FILE?features=cic@1`.

    Raises:
        InputError: The file cannot be written, or would have no end, or it is not clear which feature set is meant.
    """
    return standard_output.open_lines(url, context, CommaSeparated())


def query(url: SinkUrl, context: SinkContext) -> str:
    """How many flows each address began, as an expression of DuckDB's Python module."""
    return text.query("read_csv", url, context)


class CommaSeparated(text.Lines):
    """Lines of comma separated values."""

    headed = True

    def header(self, schema: pa.Schema) -> bytes:
        names = _quoted(pa.array(schema.names, pa.string()))
        return (",".join(names.to_pylist()) + "\n").encode()

    def lines(self, records: pa.RecordBatch) -> pa.StringArray:
        *most, last = (_quoted(_cells(column)) for column in records.columns)
        last = pc.binary_join_element_wise(last, "\n", "", null_handling="replace", null_replacement="")
        return pc.binary_join_element_wise(*most, last, ",", null_handling="replace", null_replacement="")


def _cells(column: pa.Array) -> pa.Array:
    """What is nested, such as reasons of an alert, is JSON."""
    return json_values.values(column) if json_values.is_nested(column.type) else text.cells(column)


def _quoted(cells: pa.Array) -> pa.Array:
    if not text.holds(cells, _SPECIAL):
        return cells
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(cells, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(cells, '[,"\r\n]'), quoted, cells)

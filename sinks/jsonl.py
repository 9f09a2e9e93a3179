"""`jsonl:FILE`, or `jsonl:-` for standard output: one JSON object (RFC 8259) on each line.

All columns stand in order, null where there is no value.
"""

import json

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from sinks import standard_output, text
from sinks.json_values import quoted
from sinks.outputs import SinkContext, SinkUrl
from sinks.text import local_path

__all__ = ["local_path", "open_sink", "query"]


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `jsonl:FILE` and `jsonl:-` or, where there are several feature sets, `jsonl:FILE?features=cic@1`.

    Raises:
        InputError: The file cannot be written, or would have no end, or it is not clear which feature set is meant.
    """
    return standard_output.open_lines(url, context, JsonObjects())


def query(url: SinkUrl, context: SinkContext) -> str:
    """How many flows each address began, as an expression of DuckDB's Python module."""
    return text.query("read_json", url, context)


class JsonObjects(text.Lines):
    """Lines of JSON objects."""

    headed = False

    def header(self, schema: pa.Schema) -> bytes:
        return b""

    def lines(self, records: pa.RecordBatch) -> pa.StringArray:
        pieces: list[pa.Array | pa.Scalar] = []
        for index, (field, column) in enumerate(zip(records.schema, records.columns, strict=True)):
            name = json.dumps(field.name, ensure_ascii=False)
            pieces += [pa.scalar(f"{',' if index else '{'}{name}:"), quoted(column)]
        return pc.binary_join_element_wise(
            *pieces, pa.scalar("}\n"), pa.scalar(""), null_handling="replace", null_replacement="null"
        )

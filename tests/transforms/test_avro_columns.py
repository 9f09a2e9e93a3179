"""Rows of record batches as Avro messages, octet by octet as fastavro writes them."""

import io

import numpy as np
import pyarrow as pa
import pytest
import sink_testing
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import avro, avro_columns

ALL = pa.schema(
    [
        pa.field("flag", pa.bool_()),
        pa.field("small", pa.int8()),
        pa.field("port", pa.uint16(), nullable=False),
        pa.field("number", pa.uint32()),
        pa.field("long", pa.int64()),
        pa.field("share", pa.float32()),
        pa.field("mean", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("place", pa.dictionary(pa.int32(), pa.string())),
        pa.field("octets", pa.binary()),
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("lengths", pa.list_(pa.int32())),
        pa.field("reasons", pa.list_(pa.struct([("name", pa.string()), ("by", pa.float32())]))),
        pa.field("range", pa.struct([("from", pa.int64()), ("to", pa.int64())])),
    ]
)
"""A column of each type that a flow may have."""


def written(schema, row):
    """What fastavro makes of a row."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), row)
    return out.getvalue()


def bounded(width, least=None):
    return st.integers(-(2 ** (width - 1)) if least is None else least, 2 ** (width - 1) - 1)


def singles():
    return st.floats(width=32, allow_nan=False)


ROWS = st.fixed_dictionaries(
    {
        "flag": st.none() | st.booleans(),
        "small": st.none() | bounded(8),
        "port": st.integers(0, 65_535),
        "number": st.none() | st.integers(0, 2**32 - 1),
        "long": st.none() | bounded(64),
        "share": st.none() | singles(),
        "mean": st.none() | st.floats(allow_nan=False),
        "text": st.none() | st.text(),
        "place": st.none() | st.sampled_from(["Zürich", "", "Ōsaka"]),
        "octets": st.none() | st.binary(),
        "id": st.binary(min_size=16, max_size=16),
        "lengths": st.none() | st.lists(st.none() | bounded(32), max_size=4),
        "reasons": st.none()
        | st.lists(st.none() | st.fixed_dictionaries({"name": st.none() | st.text(), "by": singles()}), max_size=3),
        "range": st.none() | st.fixed_dictionaries({"from": st.none() | bounded(64), "to": bounded(64)}),
    }
)


@settings(max_examples=50)
@given(st.lists(ROWS, max_size=6), st.data())
def test_messages_are_fastavro_s(rows, data):
    """Nulls, the ends of ranges, empty and nested values, of a batch or a part of one."""
    records = pa.RecordBatch.from_pylist(rows, ALL)
    first = data.draw(st.integers(0, len(rows)))
    encoder = avro.row_encoder(ALL)
    header = avro.MARKER + avro.fingerprint_of(encoder.schema)
    expected = [header + written(encoder.schema, row) for row in rows[first:]]
    assert encoder.messages(records.slice(first)) == expected


def test_flows_are_read_back_as_they_are():
    """Every column of our own flows, over several turns of the cache."""
    rng = np.random.default_rng(7)
    rows = avro_columns.CACHED_ROWS * 2 + 3
    made = sink_testing.flows(range(rows), ["flowbeam@1"], sensor="Gerät 1", src_ip="2001:db8::1")
    columns = [
        pa.array(rng.random(rows), pa.float64(), mask=rng.random(rows) < 0.3) if pa.types.is_float64(kind) else column
        for column, kind in zip(made.columns, made.schema.types, strict=True)
    ]
    flows = pa.RecordBatch.from_arrays(columns, schema=made.schema)
    encoder = avro.row_encoder(flows.schema)
    schema = parse_schema(encoder.schema)
    read = [schemaless_reader(io.BytesIO(message[10:]), schema, None) for message in encoder.messages(flows)]
    assert read == flows.to_pylist()
    assert [field["doc"] for field in encoder.schema["fields"]] == [
        field.metadata[b"doc"].decode() for field in flows.schema
    ]


def test_a_schema_with_more_columns_reads_less():
    """What was written before a column was added has null there."""
    before, after = pa.schema([("a", pa.int64())]), pa.schema([("a", pa.int64()), ("b", pa.string())])
    (message,) = avro.row_encoder(before).messages(pa.RecordBatch.from_pylist([{"a": 5}], before))
    schemas = [parse_schema(avro.row_encoder(schema).schema) for schema in (before, after)]
    assert schemaless_reader(io.BytesIO(message[10:]), *schemas) == {"a": 5, "b": None}


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (pa.field("fwd.packets", pa.int64()), "fwd.packets is no name of Avro"),
        (pa.field("since", pa.uint64()), "Flow_since: Avro has no uint64"),
    ],
    ids=["name", "type"],
)
def test_what_avro_has_not_is_refused(field, line):
    with pytest.raises(ValueError, match=line):
        avro.row_encoder(pa.schema([field]))

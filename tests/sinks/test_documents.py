"""Every value of a flow stands in its document, under the name and type that the description of its column gives."""

import json
import math
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_testing import HOUR_NS, START_NS, flow_id, flows, schema_of

from sinks import documents
from sinks.document_lines import Piece, assembled
from sinks.documents import Documents
from transforms.fields import Field, arrow_schema

ENRICHED = arrow_schema(
    [
        Field("src_latitude", pa.float64(), "degrees", "", "", "source.geo.location.lat"),
        Field("src_longitude", pa.float64(), "degrees", "", "", "source.geo.location.lon"),
        Field("src_city", pa.string(), "", "", "", "source.geo.city_name"),
        Field("threat_list", pa.string(), "", "", "", "source"),  # taken: an object is of this name
        Field("score", pa.float32(), "", ""),
        Field("is_alert", pa.bool_(), "", ""),
        Field("large", pa.uint64(), "", ""),
        Field("explanation", pa.list_(pa.struct([("feature", pa.string()), ("contribution", pa.float64())])), "", ""),
    ]
)


def with_columns(batch, schema, **columns):
    """The batch with more columns, null where they are not given."""
    for field in schema:
        batch = batch.append_column(field, pa.array(columns.get(field.name, [None] * len(batch)), field.type))
    return batch


def made(batch, index="flows"):
    """The documents of a batch."""
    lines = Documents(batch.schema, index).lines(batch)
    return [json.loads(lines.line(row)) for row in range(len(lines))]


def at(document, name):
    """The field of this dotted name."""
    for part in name.split("."):
        document = document[part]
    return document


def test_a_document_is_in_the_common_schema():
    batch = flows(
        [1],
        feature_sets=["flowbeam@1"],
        ip_version=4,
        protocol=6,
        src_port=1234,
        fwd_ip_octets=1 << 62,
        rev_ip_octets=5,
        fwd_packets=3,
        rev_packets=2,
        src_mac="02:00:5e:10:00:d6",
        flow_end_ns=START_NS + 2_500_000_001,
    )
    (document,) = made(batch)
    assert document["@timestamp"] == document["event"]["start"] == "2026-11-21T13:00:01.000000000Z"
    assert document["event"] == {
        "kind": "event",
        "module": "flowbeam",
        "category": ["network"],
        "type": ["connection"],
        "duration": 1_500_000_001,
        "id": flow_id(1).hex(),
        "start": "2026-11-21T13:00:01.000000000Z",
        "end": "2026-11-21T13:00:02.500000001Z",
    }
    assert document["source"]["mac"] == "02-00-5E-10-00-D6"
    assert document["source"]["port"] == 1234
    assert document["source"]["bytes"] == 1 << 62
    assert document["network"]["bytes"] == (1 << 62) + 5
    assert document["network"]["packets"] == 5
    assert document["network"]["transport"] == "tcp"
    assert document["network"]["type"] == "ipv4"
    assert document["related"]["ip"] == ["10.0.0.1", "10.0.0.2"]
    assert "community_id" not in document["network"]


@pytest.mark.parametrize("number", [0, 41, 255], ids=["not-known", "known", "last"])
def test_a_protocol_without_a_name_has_none(number):
    (document,) = made(flows([1], protocol=number))
    assert document["network"]["iana_number"] == str(number)
    assert document["network"].get("transport") == {41: "ipv6"}.get(number)


def test_columns_of_later_steps_have_their_places():
    batch = with_columns(
        flows([1, 2]),
        ENRICHED,
        src_latitude=[52.5, None],
        src_longitude=[13.25, 1.0],
        src_city=['Zürich "x" \\ \u0001 日本', None],
        threat_list=["a", None],
        score=[0.1, math.nan],
        is_alert=[True, None],
        large=[(1 << 64) - 1, None],
        explanation=[[{"feature": 'a"b', "contribution": 1.5}, {"feature": None, "contribution": -2}], None],
    )
    alert, other = made(batch)
    assert alert["source"]["geo"]["location"] == {"lat": 52.5, "lon": 13.25}
    assert alert["source"]["geo"]["city_name"] == 'Zürich "x" \\ \u0001 日本'
    assert alert["flow"]["threat_list"] == "a"
    assert alert["event"]["kind"] == "alert"
    assert alert["flow"]["large"] == (1 << 64) - 1
    assert np.float32(alert["flow"]["score"]) == np.float32(0.1)
    assert alert["flow"]["explanation"] == [
        {"feature": 'a"b', "contribution": 1.5},
        {"feature": None, "contribution": -2},
    ]
    assert other["event"]["kind"] == "event"
    assert not {"score", "is_alert", "large", "explanation"} & set(other["flow"])
    assert other["source"]["geo"]["location"] is None


def test_the_mapping_follows_from_the_types():
    mapping = Documents(pa.schema([*schema_of(["flowbeam@1"]), *ENRICHED]), "flows").mapping()

    def of(name):
        properties = {"properties": mapping}
        for part in name.split("."):
            properties = properties["properties"][part]
        return properties

    assert of("source.ip") == of("related.ip") == of("flow.outer_dst_ip") == {"type": "ip"}
    assert of("event.start") == of("flow.fwd_start_ns") == {"type": "date_nanos"}
    assert of("source.geo.location") == {"type": "geo_point"}
    assert of("source.bytes") == {"type": "long", "meta": {"unit": "octets"}}
    assert of("flow.fwd_iat_mean_us") == {"type": "double", "meta": {"unit": "us"}}
    assert of("flow.score") == {"type": "float"}
    assert of("flow.large") == {"type": "unsigned_long"}
    assert of("flow.is_alert") == {"type": "boolean"}
    assert of("network.iana_number")["type"] == of("flow.history")["type"] == "keyword"
    assert of("flow.splt_ip_octets")["type"] == "long"
    assert of("flow.explanation")["properties"]["contribution"] == {"type": "double"}


def test_every_document_fits_the_mapping():
    """A strict mapping takes no other field."""
    batch = with_columns(flows([1], feature_sets=["flowbeam@1"]), ENRICHED)
    schema = Documents(batch.schema, "flows")
    known = {leaf.name for leaf in schema.leaves}
    assert len(known) == len(schema.leaves)

    def names(value, within=""):
        for name, member in value.items():
            if isinstance(member, dict) and f"{within}{name}" not in known:
                yield from names(member, f"{within}{name}.")
            else:
                yield f"{within}{name}"

    (document,) = made(batch)
    assert set(names(document)) <= known
    columns = {column.split(".")[-1] for column in known}
    assert {"flow_part", "record_number", "fwd_iat_mean_us", "explanation"} <= columns


@pytest.mark.parametrize(
    ("start_ns", "day"),
    [
        (0, "1970.01.01"),
        (-1, "1969.12.31"),
        (START_NS + 11 * HOUR_NS - 1, "2026.11.21"),
        (START_NS + 11 * HOUR_NS, "2026.11.22"),
    ],
    ids=["epoch", "before", "last-of-day", "midnight"],
)
def test_the_index_is_the_utc_day_of_the_start(start_ns, day):
    batch = flows([1, 2], flow_start_ns=[start_ns, START_NS], record_number=[7, 0])
    (lines,) = Documents(batch.schema, "flows").bulk(batch)
    action, document = lines.line(0).splitlines()
    assert json.loads(action) == {
        "index": {"_index": f"flows-{day}", "_id": flow_id(1).hex(), "version": 8, "version_type": "external"}
    }
    assert json.loads(document)["event"]["id"] == flow_id(1).hex()
    assert lines.line(1).startswith(b'{"index":{"_index":"flows-2026.11.21"')


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_times_keep_their_nanoseconds(time_ns):
    (text,) = documents.times(pa.array([time_ns])).to_pylist()
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    whole = datetime.strptime(text[:-11], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    assert text[-11:] == f".{nanoseconds:09d}Z"
    assert int(whole.timestamp()) == seconds


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(1 << 53), 1 << 53).map(float)), min_size=1))
def test_numbers_come_back_as_they_were(numbers):
    """Each double is written so that reading gives the same one; what JSON has no words for is left out."""
    batch = flows(range(len(numbers)), flow_iat_mean_us=numbers)
    found = [document["flow"].get("flow_iat_mean_us") for document in made(batch)]
    assert found == [number if number is not None and math.isfinite(number) else None for number in numbers]


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1, max_size=5))
def test_texts_come_back_as_they_were(texts):
    texts = [text if text is None else text.encode("utf-8", "replace").decode() for text in texts]
    batch = flows(range(len(texts)), sensor=texts)
    assert [document["observer"]["name"] for document in made(batch)] == texts


@given(
    st.lists(
        st.tuples(st.binary(max_size=9), st.binary(max_size=3), st.lists(st.one_of(st.none(), st.text()), min_size=4)),
        max_size=6,
    ),
    st.integers(0, 4),
)
def test_lines_are_their_pieces_end_to_end(given_pieces, rows):
    """Whatever is null, constant or a slice of something longer."""
    pieces, expected = [Piece(b"<")], [b"<"] * rows
    for before, after, texts in given_pieces:
        texts = [text and text.encode("utf-8", "replace").decode() for text in texts]
        pieces.append(Piece(before, pa.array([None, "x", *texts], pa.string()).slice(2, rows), after))
        for row in range(rows):
            if texts[row] is not None:
                expected[row] += before + texts[row].encode() + after
    lines = assembled(pieces, rows)
    assert [lines.line(row) for row in range(rows)] == expected
    assert bytes(lines.between(0, rows)) == b"".join(expected)


LISTS = st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1)))))


@given(LISTS, st.integers(0, 2))
def test_lists_are_written_as_they_are(lists, first):
    """Whatever is null, in them too, and where they are a slice of something longer."""
    column = pa.array(lists, pa.list_(pa.int64())).slice(first)
    lines = assembled([Piece(b"<", column, b">")], len(column))
    expected = [b"" if one is None else b"<%s>" % json.dumps(one, separators=(",", ":")).encode() for one in lists]
    assert [lines.line(row) for row in range(len(column))] == expected[first:]


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=5))
@settings(max_examples=10)
def test_lines_may_be_long(lengths):
    lines = assembled([Piece(b"<", pa.array(["x" * length for length in lengths]), b">")], len(lengths))
    assert [len(lines.line(row)) - 2 for row in range(len(lengths))] == lengths
    assert all(lines.line(row).startswith(b"<") and lines.line(row).endswith(b">") for row in range(len(lengths)))


@given(st.lists(st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=9))
def test_integers_are_written_as_they_are(numbers):
    lines = assembled([Piece(b"<", pa.array(numbers, pa.int64()), b">")], len(numbers))
    expected = [b"" if number is None else b"<%d>" % number for number in numbers]
    assert [lines.line(row) for row in range(len(numbers))] == expected

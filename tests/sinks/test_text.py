import csv
import errno
import io
import json
import math
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_testing import bundle, flow_id, flows, write

from sinks import places, whole_file
from sinks.csv import CommaSeparated
from sinks.jsonl import JsonObjects
from sinks.text import TextFile
from transforms.features import sets
from transforms.records import InputError

ALL = ("flowbeam@1",)

ODD = ('"', ",", "\n", "\r", "\\", "\x00", "\x1f\t", '{"a":1}', "")

TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(ODD)

NUL = "\N{SYMBOL FOR NULL}"
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            'a "name", odd': TEXTS,
            "number": st.none() | st.integers(-(2**63), 2**63 - 1),
            "real": st.none() | st.floats(),
            "truth": st.none() | st.booleans(),
            "octets": st.none() | st.binary(min_size=3, max_size=3),
            "free": st.none() | st.binary(max_size=3),
            "list": st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
        }
    ),
    min_size=1,
)

SCHEMA = pa.schema(
    {
        'a "name", odd': pa.string(),
        "number": pa.int64(),
        "real": pa.float64(),
        "truth": pa.bool_(),
        "octets": pa.binary(3),
        "free": pa.binary(),
        "list": pa.list_(pa.int32()),
    }
)


def batch(records, skip):
    """The records as a slice of a longer batch: offsets of Arrow arrays are not 0."""
    whole = pa.RecordBatch.from_pylist(records[:1] * skip + records, SCHEMA)
    return whole.slice(skip)


def as_json(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


@given(RECORDS, st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_json_lines_say_what_went_in(records, skip):
    """Whatever characters: any JSON reader gives the values back, exact to the last bit of a number."""
    lines = JsonObjects().lines(batch(records, skip)).to_pylist()
    expected = [{name: as_json(value) for name, value in record.items()} for record in records]
    assert [json.loads(line) for line in lines] == expected
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)


@given(RECORDS, st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_csv_lines_say_what_went_in(records, skip):
    """Python's CSV reader gives the values back; null is empty, a list is JSON. NUL is replaced: 3.10 refuses it."""
    lines = CommaSeparated().lines(batch(records, skip)).to_pylist()
    text = (CommaSeparated().header(SCHEMA).decode() + "".join(lines)).replace("\0", NUL)
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == SCHEMA.names
    for row, record in zip(rows, records, strict=True):
        name, number, real, truth, octets, free, values = (as_json(record[column]) for column in SCHEMA.names)
        assert row[0] == (name or "").replace("\0", NUL)
        assert (int(row[1]) if row[1] else None) == number
        assert (float(row[2]) if row[2] else None) == real
        assert row[3] == {None: "", True: "true", False: "false"}[truth]
        assert row[4:6] == [octets or "", (free or "").replace("\0", NUL)]
        assert (json.loads(row[6]) if row[6] else None) == values


def test_csv_quotes_only_what_needs_it():
    records = pa.RecordBatch.from_pydict({"a": ["plain", "a,b", 'a"b'], "l": [[1], [1, 2], None]})
    assert CommaSeparated().lines(records).to_pylist() == ["plain,[1]\n", '"a,b","[1,2]"\n', '"a""b",\n']


def read(path, output):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if output == "csv" else [json.loads(line) for line in file]


@pytest.mark.parametrize("output", ["csv", "jsonl"])
def test_a_set_is_written_under_its_published_names_in_order(output, tmp_path):
    write(f"{output}:{tmp_path}/x", [flows([1, 2], fwd_packets=7)])
    rows = read(tmp_path / "x", output)
    assert list(rows[0]) == sets.get("cic@1").schema.names
    assert [row["Timestamp"] for row in rows] == ["2026-11-21 13:00:01.000000", "2026-11-21 13:00:02.000000"]
    assert [str(row["Total Fwd Packet"]) for row in rows] == ["7", "7"]


@pytest.mark.parametrize("output", ["csv", "jsonl"])
def test_all_of_ours_carry_canonical_names_and_hexadecimal_ids(output, tmp_path):
    counters = write(f"{output}:{tmp_path}/x", [flows([1], ALL, splt_iat_us=[[0, 12]])], ALL)
    (row,) = read(tmp_path / "x", output)
    assert list(row) == flows([1], ALL).schema.names
    assert row["flow_id"] == flow_id(1).hex()
    assert row["splt_iat_us"] == ("[0,12]" if output == "csv" else [0, 12])
    assert row["vni"] == ("0" if output == "csv" else 0)
    assert row["tunnel"] == ("" if output == "csv" else None)
    assert counters == {"flows_written": 1, "octets_written": os.path.getsize(tmp_path / "x")}


@pytest.mark.parametrize("output", ["csv", "jsonl"])
def test_interim_records_have_a_file_of_their_own(output, tmp_path):
    place = f"{output}:{tmp_path}/x.{output}"
    batch = flows([1, 1, 2], record_kind=["interim", "final", "final"], fwd_packets=[1, 2, 3])
    counters = write(place, [batch])
    assert [str(row["Total Fwd Packet"]) for row in read(tmp_path / f"x.{output}", output)] == ["2", "3"]
    assert [str(row["Total Fwd Packet"]) for row in read(tmp_path / f"x.interim.{output}", output)] == ["1"]
    assert (counters["flows_written"], counters["interim_records_written"]) == (2, 1)
    write(place, [flows([1])])
    assert os.listdir(tmp_path) == [f"x.{output}"]


def test_without_flows_csv_has_its_header(tmp_path):
    write(f"csv:{tmp_path}/x.csv", [])
    write(f"jsonl:{tmp_path}/x.jsonl", [])
    assert (tmp_path / "x.csv").read_text() == ",".join(sets.get("cic@1").schema.names) + "\n"
    assert (tmp_path / "x.jsonl").read_text() == ""


@pytest.mark.parametrize("lines", [CommaSeparated(), JsonObjects()], ids=["csv", "jsonl"])
def test_any_bundles_give_the_same_records(lines, tmp_path):
    """The file of three bundles, the last of which was run twice, is the file of one."""
    batches = [flows([1, 2]), flows([3]), flows([4, 5])]
    texts = []
    for bundles in ([batches], [batches[:1], batches[1:2], batches[2:]]):
        file = TextFile("csv:x", tmp_path / "x", "cic@1", lines, "final")
        parts = [part for each in bundles for part in bundle(whole_file._WritePart(file, "test"), each)]
        bundle(whole_file._WritePart(file, "test"), bundles[-1])  # its result was lost
        assert not (tmp_path / "x").exists()
        list(whole_file._JoinParts(file, "test").process(b"", parts[::-1]))
        texts.append((tmp_path / "x").read_bytes())
        assert os.listdir(tmp_path) == ["x"]
        (tmp_path / "x").unlink()
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") == 5 + lines.headed


def test_a_failed_bundle_leaves_nothing_and_the_old_file_stays(tmp_path):
    (tmp_path / "x").write_text("old")
    file = TextFile("csv:x", tmp_path / "x", "cic@1", CommaSeparated(), "final")
    failing = whole_file._WritePart(file, "test")
    failing.start_bundle()
    failing.process(flows([1]))
    failing.teardown()
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "partial", lambda *_: Path("/dev/full"))
    monkeypatch.setattr(places, "remove", lambda *_: None)
    with pytest.raises(InputError, match=r"csv:.*cannot write .*x: No space left on device; free room"):
        write(f"csv:{tmp_path}/x", [flows(range(5000))])


def test_a_folder_that_vanished_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "check_file", lambda *_: None)
    with pytest.raises(InputError, match=os.strerror(errno.ENOENT)):
        write(f"csv:{tmp_path}/gone/x", [flows([1])])


def test_what_is_nested_is_json():
    """Reasons of alerts, in a column of their own; nothing where there are none."""
    rows = [{"reasons": [{"feature": 'a "b"', "by": 0.5}, {"feature": None, "by": None}]}, {"reasons": None}]
    kind = pa.list_(pa.struct([("feature", pa.string()), ("by", pa.float32())]))
    records = pa.RecordBatch.from_pylist(rows, pa.schema([("reasons", kind)]))
    assert [json.loads(line) for line in JsonObjects().lines(records).to_pylist()] == rows
    one, none = CommaSeparated().lines(records).to_pylist()
    assert json.loads(next(csv.reader([one]))[0]) == rows[0]["reasons"]
    assert none == "\n"

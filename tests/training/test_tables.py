import gzip

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from training import table_rows, tables
from training.rows import Wanted
from training.tables import ALL, Table, read_table, with_rows_only
from transforms.features import sets
from transforms.records import InputError

ENDS = "Src IP,Src Port,Dst IP,Dst Port,Protocol"
SPELLINGS = {
    "cic": f"Flow ID,{ENDS},Timestamp,Flow Duration,Total Fwd Packet,Flow Bytes/s,Label",
    "cse2018": f"Flow ID,{ENDS},Timestamp,Flow Duration,Tot Fwd Pkts,Flow Byts/s,Label",
    "ids2017": "Flow ID, Source IP, Source Port, Destination IP, Destination Port, Protocol, Timestamp, Flow Duration,"
    " Total Fwd Packets,Flow Bytes/s, Label",
    "python": "flow_id,src_ip,src_port,dst_ip,dst_port,protocol,timestamp,flow_duration,tot_fwd_pkts,flow_byts_s,label",
}
ROWS = [
    "a,10.0.0.1,1,10.0.0.2,80,6,2017-07-07 08:00:00,100,3,2.5,BENIGN",
    "b,10.0.0.1,2,10.0.0.2,80,6,2017-07-07 08:00:01,200,4,Infinity,DDoS",
]


def written(path, *lines):
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n")
    return str(path)


def read(path, features=ALL, label="label", rows=10_000, **wanted):
    return read_table([str(path)], Wanted(features, label, **wanted), rows)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_cic_tables_of_every_spelling_are_the_same_columns(tmp_path, spelling):
    """Names are those of `cic@1`; what cannot be a number is missing, 0 as the set says, and counted."""
    table = read(written(tmp_path / "a.csv", SPELLINGS[spelling], *ROWS), "cic@1", "LABEL")
    assert list(table.columns) == [
        "Src Port", "Dst Port", "Protocol", "Flow Duration", "Total Fwd Packet", "Flow Bytes/s",
    ]  # fmt: skip
    duration = 1e6 if spelling == "python" else 1.0
    assert table.columns["Flow Duration"].tolist() == [100 * duration, 200 * duration]
    assert table.columns["Flow Bytes/s"].tolist() == [2.5, 0]
    assert table.classes == ("BENIGN", "DDoS")
    assert table.labels.tolist() == [0, 1]
    assert (table.times[1] - table.times[0]) == 1_000_000_000
    assert table.found.nulls == {"not finite": 1}
    assert table.found.identities >= {"Flow ID", "Src IP", "Dst IP", "Timestamp", "Src Port", "Protocol"}


def test_what_is_wrong_in_a_cic_table_is_left_out_and_counted(tmp_path):
    header = SPELLINGS["cse2018"]
    lines = [header, ROWS[0], header, "," * 10, "too,short", ROWS[1], ROWS[1].replace("DDoS", "nan")]
    table = read(written(tmp_path / "a.csv", *lines), "cic@1", "Label")
    assert len(table) == 2
    assert table.found.counts() == {
        "rows without a label": 1,
        "rows that are empty": 1,
        "rows that are the header again": 1,
        "rows with another number of columns": 1,
        "values that are not finite": 2,
    }
    assert len(list(table.found.lines())) == 1


def test_damaged_rows_that_are_no_utf8_are_left_out_and_the_rest_is_read(tmp_path):
    table = read(written(tmp_path / "a.csv", "x,label", "1,a", "2,b,\xff", "\x96", "3,a\x96b", "4,a"))
    assert (len(table), table.classes) == (3, ("a", "a–b"))
    assert table.found.counts() == {"rows with another number of columns": 2}


@pytest.mark.parametrize(("features", "names"), [(ALL, "x,label"), ("cic@1", "Flow Duration,Label")])
def test_a_quote_that_nobody_closes_is_counted_as_all_the_lines_that_it_takes(tmp_path, features, names):
    table = read(written(tmp_path / "a.csv", names, "1,a", '"2,b', "3,a", "4,a"), features, "label")
    assert len(table) == 1
    assert table.found.counts() == {"rows with another number of columns": 3}


def test_columns_without_a_name_have_their_number(tmp_path):
    """An index has none, as pandas writes it; two of them are two columns."""
    table = read(written(tmp_path / "a.csv", ",x,,label", "0,1,5,a", "1,2,6,b"))
    assert list(table.columns) == ["unnamed_1", "x", "unnamed_3"]
    assert not table.found.duplicates


def test_a_column_that_is_another_under_a_second_name_is_left_out(tmp_path):
    path = written(
        tmp_path / "a.csv", "Flow Duration,Packet Length Mean,Average Packet Size,Label", "1,2,3,a", "2,3,4,b"
    )
    table = read(path, "cic@1", "Label")
    assert list(table.columns) == ["Flow Duration", "Packet Length Mean"]
    assert "Average Packet Size" in table.found.duplicates


def test_any_table_is_read_as_it_is(tmp_path):
    """Texts become numbers in the order in which they come; mixed types and twice-named columns are counted."""
    lines = [
        "proto,len,len, Time ,label",
        "tcp,1,9,5,x",
        "udp,?,9,4,y",
        "tcp,1e3,9,6,x",
        "icmp,many,9,7,",
        "tcp,inf,9,8,y",
    ]
    table = read(written(tmp_path / "a.csv", *lines))
    assert table.columns["proto"].tolist() == [0, 1, 0, 0]
    assert table.words == {"proto": ["tcp", "udp", "icmp"]}
    np.testing.assert_array_equal(table.columns["len"], np.array([1, np.nan, 1000, np.nan], np.float32))
    assert table.times.tolist() == [5_000_000, 4_000_000, 6_000_000, 8_000_000]
    assert table.found.duplicates == {"len"}
    assert table.found.nulls == {"empty": 1, "unreadable": 1, "not finite": 1}
    assert table.found.unlabelled == 1


def test_a_column_stays_what_its_first_block_says(tmp_path, monkeypatch):
    monkeypatch.setattr(table_rows, "_BLOCK_OCTETS", 64)
    numbers = [f"{i},{'a' if i < 40 else i},{i % 2}" for i in range(80)]
    table = read(written(tmp_path / "a.csv", "x,y,label", *numbers))
    assert table.columns["x"].tolist() == list(range(80))
    assert set(table.words) == {"y"}
    more = read_table([str(tmp_path / "a.csv")], Wanted(ALL, "label", columns=("y", "x"), words=table.words), 1000)
    assert list(more.columns) == ["y", "x"]
    np.testing.assert_array_equal(more.columns["y"], table.columns["y"])


def test_a_column_of_too_many_texts_names_rows(tmp_path):
    rows = [f"host{i},{i % 2}" for i in range(table_rows.MOST_WORDS + 5)]
    table = read(written(tmp_path / "a.csv", "who,label", *rows))
    assert table.found.identities == {"who"}
    assert np.isnan(table.columns["who"]).sum() == 5


def test_a_table_without_header_has_numbered_columns(tmp_path):
    table = read(written(tmp_path / "a.txt", "0,tcp,normal", "3,udp,neptune"), label="3", header=False)
    assert list(table.columns) == ["1", "2"]
    assert table.classes == ("neptune", "normal")


def test_compressed_and_parquet_tables_are_the_same(tmp_path):
    lines = "a,b,label\n1,2.5,x\n3,,y\n"
    (tmp_path / "a.csv").write_text(lines)
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(lines)
    parquet.write_table(
        pa.table({"a": [1, 3], "b": [2.5, None], "label": ["x", "y"], "list": [[1], [2]]}), tmp_path / "a.parquet"
    )
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        table = read(tmp_path / name)
        assert table.columns["a"].tolist() == [1, 3]
        np.testing.assert_array_equal(table.columns["b"], np.array([2.5, np.nan], np.float32))
    assert table.found.ignored == {"list"}


def flows_of(rows, **columns):
    feature_set = sets.get("cic@1")
    schema = pa.schema([sets.fields.arrow_schema([sets.CANONICAL[name]]).field(0) for name in needed(feature_set)])
    values = {one.name: columns.get(one.name, pa.nulls(rows, one.type)) for one in schema}
    return pa.table({**values, "label": columns.get("label", ["benign"] * rows)})


def needed(feature_set):
    return list(dict.fromkeys(name for column in feature_set.columns for name in column.canonical if name != "label"))


def test_our_flows_are_read_from_their_folder(tmp_path):
    """Folders whose names begin with `_` hold interim records."""
    for folder in ("hour=1", "_interim/hour=1"):
        (tmp_path / folder).mkdir(parents=True)
        flows = flows_of(2, flow_start_ns=[7, 5], fwd_packets=[1, 2], label=["benign", "scan"], src_ip=["a", "b"])
        parquet.write_table(flows, tmp_path / folder / "a.parquet")
    table = read_table([str(tmp_path)], Wanted("cic@1", "Label", "Src IP"), 100)
    assert len(table) == 2
    assert table.columns["Total Fwd Packet"].tolist() == [1, 2]
    assert table.times.tolist() == [7, 5]
    assert table.groups[0] != table.groups[1]
    assert table.found.time_column == "flow_start_ns"


@pytest.mark.parametrize("block", [64, 1 << 20], ids=["many-blocks", "one"])
def test_a_sample_does_not_depend_on_how_files_are_read(tmp_path, monkeypatch, block):
    """Rows with the smallest hashes of their place stay, as many as may, in their order."""
    path = written(tmp_path / "a.csv", "x,label", *(f"{i},{i % 3}" for i in range(3000)))
    monkeypatch.setattr(table_rows, "_BLOCK_OCTETS", block)
    table = read(path, rows=500)
    places = table.columns["x"].astype(np.int64)
    smallest = np.sort(np.argsort(tables._hashes(np.arange(3000, dtype=np.uint64), 0))[:500])
    assert places.tolist() == smallest.tolist()
    assert table.labels.tolist() == (places % 3).tolist()
    assert (table.found.rows, table.found.sampled) == (3000, 500)
    assert "500 of 3,000 rows" in next(table.found.lines())


@pytest.mark.parametrize(
    ("lines", "features", "message"),
    [
        ([], ALL, "is empty, or its first line is"),
        (["", "1,2"], "cic@1", "is empty, or its first line is"),
        (["a,label"], ALL, "has no rows"),
        (["a,label", "1,", "2,nan"], ALL, "no row has a label in 'label'"),
        (["a,b", "1,2"], ALL, "no column 'label' (--label_column); it has a, b"),
        (["a,label", "1,x"], "cic@1", "not a table of CICFlowMeter's columns"),
        (["a,label", "1,x"], "flowbeam@1", "tables are read as cic@1 or all"),
        (["a,label", *(f"1,{i}" for i in range(300))], ALL, "more than 200 different values; is it the label?"),
        ([",".join(map(str, range(2001))) + ",label"], ALL, "has 2,001 columns, and at most 2,000 can be learned from"),
        (["," * (1 << 20) + "a"], ALL, "no line end in its first 1,048,576 octets"),
    ],
    ids=[
        "empty",
        "empty-line",
        "header-only",
        "no-labels",
        "no-label-column",
        "not-cic",
        "csv-of-flows",
        "not-the-label",
        "thousands",
        "millions",
    ],
)
def test_a_table_that_cannot_be_learned_from_is_one_line(tmp_path, lines, features, message):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as error:
        read(path, features)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_places_without_tables_are_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no Parquet files in this folder"):
        read(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


def test_tables_must_be_alike(tmp_path):
    first = written(tmp_path / "a.csv", "a,b,label", "1,2,x")
    second = written(tmp_path / "b.csv", "a,label", "1,x")
    with pytest.raises(InputError, match=r"b\.csv: has no columns b as .*a\.csv has"):
        read_table([first, second], Wanted(ALL, "label"), 100)


def test_classes_without_rows_go():
    table = Table({"a": np.zeros(2, np.float32)}, np.array([0, 2], np.int32), ("x", "y", "z"))
    left, there = with_rows_only(table)
    assert left.classes == ("x", "z")
    assert left.labels.tolist() == [0, 1]
    assert there.tolist() == [0, 2]

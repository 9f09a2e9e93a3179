import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from sources import label_files
from sources.label_files import find_label_files, label_files_in, read_labels
from transforms.drift.answers import LABELS
from transforms.records import InputError


def flow_id(number):
    return hashlib.md5(str(number).encode()).digest()


def read(path, column="label"):
    pieces = list(read_labels(path, column))
    rows = [tuple(row.values()) for piece in pieces for row in piece.labels.to_pylist()]
    return rows, [reject for piece in pieces for reject in piece.rejects]


def test_the_columns_are_those_that_answers_are_matched_with():
    assert label_files.LABELS == LABELS


GOOD = [(flow_id(1), "benign"), (flow_id(2), "syn_flood"), (flow_id(3), "7")]


def as_csv(path):
    lines = [
        "note,label,flow_id",
        f"x,benign,{flow_id(1).hex()}",
        f"x,syn_flood,{flow_id(2).hex().upper()}",
        f'"a, b",7,{flow_id(3).hex()}',
        f"x,,{flow_id(4).hex()}",
        "x,benign,none",
        "\xff,benign",
    ]
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n")


def as_jsonl(path):
    lines = [
        f'{{"flow_id": "{flow_id(1).hex()}", "label": "benign", "note": 1}}',
        f'{{"label": "syn_flood", "flow_id": "{flow_id(2).hex()}"}}',
        "",
        f'{{"label": 7, "flow_id": "{flow_id(3).hex()}"}}',
        f'{{"flow_id": "{flow_id(4).hex()}", "label": null}}',
        '{"flow_id": "none", "label": "benign"}',
        '{"flow_id": ',
    ]
    path.write_text("\n".join(lines))


def as_parquet(path):
    ids = [*(flow_id(number) for number in range(1, 5)), b"none"]
    table = {"x": [1] * 5, "label": ["benign", "syn_flood", "7", None, "benign"], "flow_id": ids}
    pq.write_table(pa.table(table), path)


@pytest.mark.parametrize(
    ("write", "name", "reasons"),
    [
        (as_csv, "a.csv", ["bad_flow_id", "unreadable_label"]),
        (as_jsonl, "a.jsonl", ["bad_flow_id", "unreadable_label"]),
        (as_parquet, "a.parquet", ["bad_flow_id"]),
    ],
    ids=["csv", "jsonl", "parquet"],
)
def test_every_format_gives_the_same_labels(write, name, reasons, tmp_path):
    """An empty label is none; what is no flow id or no row is rejected, with what it is."""
    write(tmp_path / name)
    rows, rejects = read(tmp_path / name)
    assert rows == GOOD
    assert sorted(reject.reason for reject in rejects) == reasons
    assert {reject.payload for reject in rejects if reject.reason == "bad_flow_id"} <= {b"none", b"b'none'"}
    assert {(reject.step, reject.source) for reject in rejects} == {("labels", str(tmp_path / name))}


def test_flow_ids_as_they_lie_in_flows(tmp_path):
    """Fixed to 16 octets; and a label that is a dictionary's."""
    table = pa.table(
        {
            "flow_id": pa.array([flow_id(1), None], pa.binary(16)),
            "class": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "class") == ([(flow_id(1), "x")], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "flow_id,kind\n", r"a\.csv: has no column label; labels need flow_id and label, see --label_column"),
        ("a.csv", "", "is empty, or its first line is"),
        ("a.parquet", "no parquet", "labels cannot be read: "),
    ],
    ids=["column", "empty", "damaged"],
)
def test_files_that_are_none_are_refused_in_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_places_are_files_folders_and_patterns(tmp_path):
    for name in ("b.csv", "a.parquet", "_c.csv", ".d.csv", "e.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_label_files(str(tmp_path))] == ["a.parquet", "b.csv"]
    assert label_files_in(tmp_path) == find_label_files(str(tmp_path))
    assert find_label_files(str(tmp_path / "*.csv"))[-1].name == "b.csv"
    with pytest.raises(InputError, match=r"--returned_labels .*none: no such file or folder"):
        find_label_files(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"e\.txt: is no label file by its name; known are \.parquet"):
        find_label_files(str(tmp_path / "e.txt"))


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.parquet"])
def test_the_generators_class_stands_for_a_label_that_is_not_there(tmp_path, name):
    """The one other name; a `label` beside it counts, and a column that was asked for by name alone does."""
    hexes = [flow_id(1).hex(), flow_id(2).hex()]

    def read_of(column="label", **columns):
        table = pa.table({"flow_id": hexes, **columns})
        if name.endswith(".parquet"):
            pq.write_table(table, tmp_path / name)
        elif name.endswith(".csv"):
            csv.write_csv(table, tmp_path / name)
        else:
            (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
        rows, rejects = read(tmp_path / name, column)
        assert rejects == []
        return [label for _, label in rows]

    both = {"class": ["scan", "dos"], "label": ["benign", "attack"]}
    assert read_of(**{"class": ["scan", "dos"]}) == ["scan", "dos"]
    assert read_of(**both) == ["benign", "attack"]
    assert read_of("class", **both) == ["scan", "dos"]

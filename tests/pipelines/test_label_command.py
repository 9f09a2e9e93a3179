import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from label_testing import flow, written
from pyarrow import parquet

from pipelines import flows as flows_command
from pipelines import generate
from pipelines.label import main
from sources.generate.sessions import NAMES

ATTACKS = (
    'name,category,start,end,addresses,ports,comment\nDoS,dos,2026-01-05T08:00Z,2026-01-05T08:01Z,10.0.0.1,80,"a, b"\n'
)
ALERT = {"timestamp": "2026-01-05T08:00:00.5Z", "event_type": "alert", "src_ip": "10.0.0.2", "src_port": 40_000,
         "dest_ip": "192.168.0.9", "dest_port": 80, "proto": "TCP", "alert": {"signature": "ET x"}}  # fmt: skip


def label(folder: Path, *arguments: object) -> int:
    return main(["--flows", str(folder / "flows"), "--output", str(folder / "labelled"), *map(str, arguments)])


def read(folder: Path, what: str = "label") -> list[tuple[Any, ...]]:
    return duckdb.sql(f"SELECT {what} FROM '{folder}/labelled/*/*.parquet' ORDER BY flow_id").fetchall()


def attacks(folder: Path, text: str = ATTACKS, name: str = "attacks.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_labels_flows_and_says_what_matched(tmp_path, capsys):
    silent = {"fwd_payload_octets": 0, "rev_payload_octets": 0}
    written(tmp_path / "flows", flow(1), flow(2, src_ip="10.0.0.2"), flow(3, **silent))
    eve = tmp_path / "eve.json"
    eve.write_text(json.dumps(ALERT) + "\n")
    assert label(tmp_path, "--attacks", attacks(tmp_path), "--attacks", eve) == 0
    assert read(tmp_path, "label, attack_category, label_source") == [
        ("DoS", "dos", "attacks.csv:2 DoS"), ("ET x", None, "eve.json ET x"), ("attempted", "dos", "attacks.csv:2 DoS"),
    ]  # fmt: skip
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (
        "attack  category  from           matched  labelled  attempted  lost      unmatched\n"
        "DoS     dos       attacks.csv:2        2         1          1     0\n"
        "ET x              eve.json             1         1          0     0  0 of 1 events\n"
        f"{tmp_path}/labelled: 3 flows: DoS 1, ET x 1, attempted 1\n"
    )
    rows = list(csv.DictReader((tmp_path / "labelled" / "_matches.csv").read_text().splitlines()))
    assert [(row["attack"], row["matched"], row["attempted"]) for row in rows] == [
        ("DoS", "2", "1"),
        ("ET x", "1", "0"),
    ]


def test_files_keep_their_places_and_columns(tmp_path):
    """Interim records and hidden files are no flows; a folder read as a data set has the labels."""
    folder = tmp_path / "flows"
    for name in ("hour=1/a.parquet", "hour=2/a.parquet", "_interim/hour=1/b.parquet", ".hidden/c.parquet"):
        written(folder, flow(1), flow(2), name=name)
    assert label(tmp_path, "--attacks", attacks(tmp_path), "--quiet") == 0
    there = sorted(str(path.relative_to(tmp_path / "labelled")) for path in (tmp_path / "labelled").rglob("*.*"))
    assert there == ["_matches.csv", "_overlaps.csv", "hour=1/a.parquet", "hour=2/a.parquet"]
    before = parquet.read_table(folder / "hour=1/a.parquet", partitioning=None)
    after = parquet.read_table(tmp_path / "labelled/hour=1/a.parquet", partitioning=None)
    assert after.select(before.schema.names).equals(before, check_metadata=True)
    assert parquet.read_table(tmp_path / "labelled")["label"].to_pylist() == ["DoS"] * 4


def test_generated_traffic_and_its_truth(tmp_path):
    """Every flow of the generator is what the generator says, from whatever sensor it is."""
    capture, truth = tmp_path / "a.pcap", tmp_path / "truth.csv"
    assert generate.main(["--output", str(capture), "--packets", "20000", "--labels", str(truth), "--quiet"]) == 0
    arguments = ["--runner=DirectRunner", "--input", str(capture), "--output", f"parquet:{tmp_path}/flows", "--quiet"]
    assert flows_command.main([*arguments, "--sensor", "north"]) == 0
    assert label(tmp_path, "--attacks", truth, "--quiet") == 0
    expected = {
        row["flow_first_ns"] + row["src_ip"] + row["src_port"]: row["class"]
        for row in csv.DictReader(truth.read_text().splitlines())
    }
    found = read(tmp_path, "flow_first_ns, src_ip, src_port, label")
    assert [label for *_, label in found] == [expected[f"{first}{ip}{port}"] for first, ip, port, _ in found]
    assert {label for *_, label in found} <= {name.label for name in NAMES}
    assert len({label for *_, label in found}) > 3


def test_truth_by_flow_id_alone(tmp_path):
    written(tmp_path / "flows", flow(1), flow(2), flow(3))
    ids = [number.to_bytes(16, "little").hex() for number in (1, 2, 9)]
    truth = attacks(tmp_path, f"flow_id,label\n{ids[0]},bot\n{ids[1]},Benign\n{ids[2]},bot\n", "truth.csv")
    assert label(tmp_path, "--attacks", truth, "--quiet") == 0
    assert read(tmp_path) == [("bot",), ("Benign",), (None,)]


@pytest.mark.parametrize("compressed", [False, True])
def test_the_kind_of_a_file_is_seen(tmp_path, compressed):
    """Byte order mark, gzip and a cut last line are no hindrance."""
    written(tmp_path / "flows", flow(1), flow(2, src_ip="10.0.0.2"))
    zeek = "#separator \\x09\n#fields\tts\tnote\tsrc\n1767600000\tScan::X\t10.0.0.1\n"
    files = {"eve.log": json.dumps(ALERT) + '\n{"alert": {', "notice.log": zeek, "a.csv": "\ufeff" + ATTACKS}
    arguments = []
    for name, text in files.items():
        path = tmp_path / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
        arguments += ["--attacks", path]
    assert label(tmp_path, *arguments, "--quiet") == 0
    assert read(tmp_path) == [("Scan::X",), ("ET x",)]


def test_a_folder_of_labels_is_replaced_and_no_other(tmp_path, capsys):
    written(tmp_path / "flows", flow(1))
    assert label(tmp_path, "--attacks", attacks(tmp_path), "--quiet") == 0
    assert label(tmp_path, "--attacks", attacks(tmp_path, "name,ports\nweb,80\n"), "--quiet") == 0
    assert read(tmp_path) == [("web",)]
    (tmp_path / "labelled" / "_matches.csv").unlink()
    assert label(tmp_path, "--attacks", attacks(tmp_path)) == 2
    message = f"flowbeam: --output {tmp_path}/labelled: has something else in it; choose another folder\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("output", ["flows", "flows/labelled", "."])
def test_flows_are_not_overwritten(tmp_path, capsys, output):
    folder = written(tmp_path / "flows", flow(1))
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--flows", str(folder), "--attacks", str(attacks(tmp_path)), "--output", str(tmp_path / output)]
    assert main(arguments) == 2
    assert "choose another folder\n" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "attacks.csv"])


def test_a_damaged_file_leaves_nothing(tmp_path, capsys):
    folder = written(tmp_path / "flows", flow(1), name="a/a.parquet")
    (folder / "b.parquet").write_bytes((folder / "a/a.parquet").read_bytes()[:-100])
    assert label(tmp_path, "--attacks", attacks(tmp_path)) == 2
    assert capsys.readouterr().err.startswith(f"flowbeam: {folder}/b.parquet: is no Parquet file that can be read: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attacks.csv", "flows"]


def test_other_tables_are_refused(tmp_path, capsys):
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "flows")
    assert label(tmp_path, "--attacks", attacks(tmp_path)) == 2
    assert capsys.readouterr().err.startswith(f"flowbeam: {tmp_path}/flows: has no column src_ip, dst_ip, src_port")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attacks", "none.csv"], "none.csv: cannot be read: No such file or directory"),
        (["--attacks", "a.bin"], "a.bin: is neither a table of attacks (.csv, .yaml, .json) nor a log of Suricata"
                                  " or Zeek"),
        (["--attacks", "latin.csv"], "latin.csv:2: is no UTF-8; save the table as UTF-8"),
        (["--attacks", "truth.csv"], "truth.csv: has flow_id, but no column class or label"),
        (["--attacks", "ids.csv"], "ids.csv: flow_id: some are no flow ids of 32 hex digits"),
        (["--attacks", "attacks.csv", "--zone", "Mars/Olympus"], "--zone Mars/Olympus: is no time zone such as UTC or"
                                                                 " Europe/Berlin"),
        (["--attacks", "attacks.csv", "--slack_s", "-1"], "--slack_s: -1 s; give 0 or more"),
        (["--attacks", "attacks.csv", "--slack_s", "nan"], "--slack_s: nan s; give 0 or more"),
        (["--attacks", "attacks.csv", "--benign", ""], "--benign: is empty; name the label of flows that are no"
                                                        " attack"),
        (["--attacks", "attacks.csv", "--flows", "nowhere"], "--flows nowhere: there is no such folder or file"),
        (["--attacks", "attacks.csv", "--flows", "empty"], "--flows empty: has no Parquet files; pipelines.flows writes"
                                                           " them with --output parquet:DIR"),
        ([], "the following arguments are required: --attacks; see --help"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "flows", flow(1))
    attacks(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.bin").write_bytes(b"\x7fELF")
    (tmp_path / "latin.csv").write_bytes("name,ports\né,1\n".encode("latin-1"))
    (tmp_path / "truth.csv").write_text("flow_id,kind\nab,x\n")
    (tmp_path / "ids.csv").write_text("flow_id,label\nab,x\n")
    assert main(["--flows", "flows", "--output", "labelled", *arguments]) == 2
    assert capsys.readouterr() == ("", f"flowbeam: {message}\n")
    assert not (tmp_path / "labelled").exists()


def test_names_cannot_steer_the_terminal(tmp_path, capsys):
    written(tmp_path / "flows", flow(1))
    hostile = attacks(tmp_path, f"name,ports\n[red]\x1b[2J{'x' * 500},80\n")
    assert label(tmp_path, "--attacks", hostile) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[red]\ufffd[2Jxxx" in said
    assert max(map(len, said.splitlines())) < 500


def test_starts_without_beam():
    code = "import sys, pipelines.label; print('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

"""The main job as a user meets it, where all goes well: inputs, outputs, options, the summary."""

import csv
import gzip
import json
import lzma
import os
import re
import subprocess
from argparse import ArgumentParser

import duckdb
import pyarrow as pa
import pytest
import zstandard
from capture_files import frame, pcap, pcap_header, pcap_record
from command_testing import assembled, files_of, records_of, run, summary_of, table

from pipelines import bounded, capture, flows
from pipelines.options import add_arguments
from transforms.features import sets

SECOND = 1_000_000_000
BROKEN_FRAME = frame(1)[:14] + b"\x31" + frame(1)[15:]
ARP_FRAME = b"\xff" * 12 + b"\x08\x06" + bytes(28)


def counted(flows: pa.Table) -> list[dict]:
    """What ties in time cannot change."""
    names = ["flow_id", "src_ip", "dst_ip", "flow_start_ns", "flow_end_ns", "fwd_packets", "rev_packets"]
    return flows.select(names).to_pylist()


def tried(out: str) -> str:
    """The query that a summary shows."""
    return next(line for line in out.splitlines() if line.startswith("try")).removeprefix("try").strip()


def test_the_first_run_of_a_new_user(traffic, tmp_path):
    """Flows lie in `flows/`, there are no rejects, the summary adds up, and its query works as it is printed."""
    ended = run("--runner=DirectRunner", "--input", traffic, folder=tmp_path)
    assert ended.status == 0
    assert ended.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["flows"]
    shown = dict(re.findall(r"^(\w+) +(.*)$", ended.out, re.MULTILINE))
    assert list(shown) == ["packets", "flows", "rejects", "capture", "speed", "output", "try"]
    assert shown["packets"] == "3,000 read, 3,000 in flows"
    assert shown["output"] == "parquet:flows"
    assert len({len(line) - len(line.split(None, 1)[1]) for line in ended.out.splitlines()}) == 1
    answer = subprocess.run(shown["try"], shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    octets = "SELECT sum(fwd_ip_octets + rev_ip_octets) AS n FROM 'flows/*/*.parquet' GROUP BY src_ip, dst_ip"
    top = duckdb.sql(f"SELECT max(n) FROM ({octets.replace('flows/', f'{tmp_path}/flows/')})").fetchall()[0][0]
    assert str(top) in answer
    assert "octets" in answer


@pytest.mark.parametrize("feature_set", ["flowbeam@1", "cic@1", "flowtbag@1"])
@pytest.mark.parametrize("scheme", ["duckdb", "csv", "jsonl"])
def test_the_query_of_each_output_works_as_it_is_printed(traffic, tmp_path, capsys, scheme, feature_set):
    """In whatever words a feature set has, and with an odd file name."""
    output = f"{scheme}:{tmp_path}/it's [1] $x"
    assert flows.main(["--input", str(traffic), "--output", output, "--features", feature_set]) == 0
    answer = subprocess.run(tried(capsys.readouterr().out), shell=True, capture_output=True, text=True, check=True)
    assert "flows" in answer.stdout
    assert len(re.findall(r"^│ +(?:\d+\.\d+\.\d+\.\d+|[\da-f:]+) +│", answer.stdout, re.MULTILINE)) == 10


def test_without_input_there_is_demo_traffic(compiled, tmp_path):
    """A line says so, and its capture is gone in the end."""
    ended = run(folder=tmp_path, environment={"TMPDIR": str(tmp_path)})
    assert ended.status == 0
    assert ended.err == "flowbeam: no --input: this run is on generated demo traffic\n"
    assert f"{bounded.DEMO_PACKETS:,} read, {bounded.DEMO_PACKETS:,} in flows" in ended.out
    assert [path.name for path in tmp_path.iterdir()] == ["flows"]


@pytest.mark.parametrize(("runner", "is_started"), [("DirectRunner", False), ("SwitchingDirectRunner", True)])
def test_prism_is_never_started(traffic, tmp_path, runner, is_started):
    """Beam's own DirectRunner, which has another name in the registry, would start it: so the test can fail."""
    prism = tmp_path / "prism"
    prism.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    prism.chmod(0o755)
    arguments = (f"--runner={runner}", f"--prism_location={prism}", "--input", traffic, "--quiet")
    ended = run(*arguments, folder=tmp_path, environment={"HOME": str(tmp_path), "XDG_CACHE_HOME": _cache_home()})
    assert (tmp_path / "started").exists() == is_started
    assert not (tmp_path / ".apache_beam").exists()
    assert is_started or ended == (0, "", "")


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def test_help_is_readable(capsys, monkeypatch):
    """It lists our options, each in a line that fits a terminal, and leaves Beam's hundreds to Beam's pages."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        flows.main(["--help"])
    text = capsys.readouterr().out
    parser = ArgumentParser(add_help=False)
    add_arguments(parser)
    assert re.findall(r"^  (--\w+)", text, re.MULTILINE) == [action.option_strings[0] for action in parser._actions]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("zst", zstandard.compress), ("xz", lzma.compress)],
)
def test_compressed_captures_give_the_same_flows(traffic, tmp_path, suffix, compress):
    packed = tmp_path / f"traffic.pcap.{suffix}"
    packed.write_bytes(compress(traffic.read_bytes()))
    expected = assembled("--input", traffic, folder=tmp_path, name="plain")
    assert assembled("--input", packed, folder=tmp_path, name="packed").equals(expected)


def test_a_pipe_gives_the_same_flows(traffic, tmp_path):
    """`-` is standard input."""
    ended = run("--input", "-", "--quiet", folder=tmp_path, input=traffic.read_bytes())
    assert ended == (0, "", "")
    assert table(tmp_path / "flows").equals(assembled("--input", traffic, folder=tmp_path, name="file"))


def test_twice_the_same_files(traffic, tmp_path):
    """The same job again leaves the same files with the same octets, and the same rows in the database."""
    outputs = [f"parquet:{tmp_path}/out/flows", f"csv:{tmp_path}/out/f.csv", f"jsonl:{tmp_path}/out/f.jsonl"]
    (tmp_path / "out").mkdir()
    arguments = ["--input", traffic, *(word for output in outputs for word in ("--output", output))]
    summary_of(*arguments, folder=tmp_path)
    first = files_of(tmp_path / "out")
    summary_of(*arguments, folder=tmp_path)
    assert files_of(tmp_path / "out") == first
    database = ("--input", traffic, "--output", f"duckdb:{tmp_path}/f.duckdb")
    counts = [summary_of(*database, folder=tmp_path)["flows"] for _ in range(2)]
    with duckdb.connect(str(tmp_path / "f.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT count(*), count(DISTINCT flow_id) FROM flows").fetchall() == [(counts[0],) * 2]


def test_several_outputs_and_feature_sets(traffic, tmp_path):
    """Each output has every flow, text outputs the set that they name."""
    chosen = ("--features=cic@1", "--features=nfstream@1")
    text = (f"--output=csv:{tmp_path}/cic.csv?features=cic@1", f"--output=jsonl:{tmp_path}/n.jsonl?features=nfstream@1")
    arguments = ("--input", traffic, *chosen, f"--output=parquet:{tmp_path}/p", *text)
    summary = summary_of(*arguments, folder=tmp_path)
    with open(tmp_path / "cic.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert len(rows) == len(objects) == len(table(tmp_path / "p")) == summary["flows"]
    assert list(rows[0]) == sets.get("cic@1").schema.names
    assert list(objects[0]) == sets.get("nfstream@1").schema.names
    assert sum(int(row["Total Fwd Packet"]) + int(row["Total Bwd packets"]) for row in rows) == 3000


def test_the_summary_as_json(tmp_path):
    """Its keys, and figures that were counted by hand."""
    records = (frame(5), ARP_FRAME, BROKEN_FRAME, frame(5), frame(7))
    content = b"".join(pcap_record(50 + i, 0, data) for i, data in enumerate(records))
    (tmp_path / "a.pcap").write_bytes(pcap_header() + content)
    summary = summary_of("--input", tmp_path / "a.pcap", "--output", f"parquet:{tmp_path}/flows", folder=tmp_path)
    assert summary.pop("seconds") > 0
    assert summary == {
        "packets_read": 5,
        "packets_in_flows": 3,
        "rejects": {"malformed": 1, "not_ip": 1},
        "flows": 2,
        "end_reasons": {"forced": 2},
        "first_packet_ns": 50 * SECOND,
        "last_packet_ns": 54 * SECOND,
        "notes": {},
        "damage": [],
        "caveat": None,
        "known": True,
    }


def test_rejects_lie_beside_the_output(tmp_path):
    """At most `--max_rejects` of each reason, with file and octets; what carries no IP is counted alone."""
    content = b"".join(pcap_record(i, 0, data) for i, data in enumerate([ARP_FRAME, *[BROKEN_FRAME] * 5, frame(1)]))
    (tmp_path / "a.pcap").write_bytes(pcap_header() + content)
    arguments = ("--input", tmp_path / "a.pcap", "--output", f"parquet:{tmp_path}/flows", "--max_rejects", 3)
    assert summary_of(*arguments, folder=tmp_path)["rejects"] == {"malformed": 5, "not_ip": 1}
    rejects = duckdb.sql(f"FROM '{tmp_path}/rejects/*.parquet'").to_arrow_table().to_pylist()
    assert {(row["reason"], row["source"], row["payload"]) for row in rejects} == {
        ("malformed", str(tmp_path / "a.pcap"), BROKEN_FRAME)
    }
    assert len(rejects) == 3
    assert not [path for path in files_of(tmp_path / "flows") if not path.startswith("hour=")]


def test_a_capture_without_packets_is_no_mistake(tmp_path, capsys):
    """There is nothing to say but that; times are null."""
    (tmp_path / "a.pcap").write_bytes(pcap_header())
    summary = summary_of("--input", tmp_path / "a.pcap", "--output", f"csv:{tmp_path}/flows.csv", folder=tmp_path)
    assert (summary["packets_read"], summary["flows"]) == (0, 0)
    assert summary["first_packet_ns"] is None is summary["last_packet_ns"]
    assert (tmp_path / "flows.csv").read_text().count("\n") == 1
    assert capsys.readouterr() == ("", "")


def test_labels_name_the_flows_of_the_job(traffic, tmp_path):
    """Every label has its flow, and every flow its label."""
    found = assembled("--input", traffic, folder=tmp_path)
    with open(traffic.with_suffix(".csv"), newline="") as file:
        labelled = sorted(row["flow_id"] for row in csv.DictReader(file))
    assert labelled == sorted(flow_id.hex() for flow_id in found["flow_id"].to_pylist())


def test_every_assembler_gives_the_same_flows(traffic, tmp_path):
    """Without a shuffle and in shards alike, all columns; and Beam's session windows by the idle rule."""
    expected = assembled("--input", traffic, folder=tmp_path, name="captures")
    assert assembled("--input", traffic, "--assembler=flows", folder=tmp_path, name="flows").equals(expected)
    idle = ("--input", traffic, "--end_rules=idle", "--idle_timeout_s=2")
    expected = assembled(*idle, f"--output=csv:{tmp_path}/idle.csv", folder=tmp_path, name="idle")
    sessions = ("--assembler=sessions", f"--output=csv:{tmp_path}/sessions.csv")
    assert assembled(*idle, *sessions, folder=tmp_path, name="sessions").equals(expected)
    written = [sorted((tmp_path / f"{name}.csv").read_text().splitlines()) for name in ("idle", "sessions")]
    assert written[0] == written[1]


def test_sensors_by_file_and_merged(traffic, tmp_path):
    """Two taps of one line are two sensors, or together give the flows of the line, from files and from a queue."""
    content = traffic.read_bytes()
    for number in (0, 1):
        taken = content[:24] + b"".join(records_of(content)[number::2])
        (tmp_path / f"tap{number}.pcap").write_bytes(taken)
    taps = ("--input", tmp_path / "tap0.pcap", "--input", tmp_path / "tap1.pcap", "--sensor_from=file")
    apart = assembled(*taps, folder=tmp_path, name="apart")
    assert set(apart["sensor"].to_pylist()) == {"tap0.pcap", "tap1.pcap"}
    whole = assembled("--input", traffic, "--merge_sensors", folder=tmp_path, name="whole")
    merged = assembled(*taps, "--merge_sensors", folder=tmp_path, name="merged")
    assert counted(merged) == counted(whole)
    assert len(apart) > len(whole)
    sharded = assembled(*taps, "--merge_sensors", "--assembler=flows", folder=tmp_path, name="sharded")
    assert sharded.equals(merged)
    assert capture.main([*map(str, taps), "--queue", f"spool:{tmp_path}/blocks", "--quiet"]) == 0
    queue = ("--input", f"spool:{tmp_path}/blocks", "--merge_sensors")
    assert assembled(*queue, folder=tmp_path, name="queue").equals(merged)


def test_packets_captured_twice_can_be_dropped(tmp_path):
    """They are rejects then, with a reason of their own."""
    content = b"".join(pcap_record(i, us, frame(7)) for i in range(4) for us in (0, 5))
    (tmp_path / "a.pcap").write_bytes(pcap_header() + content)
    arguments = ("--input", tmp_path / "a.pcap", "--output", f"parquet:{tmp_path}/flows")
    assert summary_of(*arguments, folder=tmp_path)["rejects"] == {}
    summary = summary_of(*arguments, "--drop_duplicates_s=0.5", folder=tmp_path)
    assert (summary["packets_in_flows"], summary["rejects"]) == (4, {"duplicate": 4})


def test_interim_records_stand_apart(tmp_path):
    """One flow of packets at 0 to 9 s, reported each 4 s: two interim records and one final, which alone is counted."""
    content = b"".join(pcap_record(i, 0, frame(7)) for i in range(10))
    (tmp_path / "a.pcap").write_bytes(pcap_header() + content)
    arguments = ("--input", tmp_path / "a.pcap", "--interim_interval_s=4", "--output", f"parquet:{tmp_path}/flows")
    assert summary_of(*arguments, folder=tmp_path)["flows"] == 1
    interim = table(tmp_path / "flows", "_interim/*/*.parquet")
    assert interim["fwd_packets"].to_pylist() == [4, 8]
    assert table(tmp_path / "flows")["fwd_packets"].to_pylist() == [10]


def test_payload_octets_are_looked_at_if_asked(tmp_path):
    """The entropy of `abab` is 1 bit per octet; without payload it is null."""
    (tmp_path / "a.pcap").write_bytes(pcap_header() + pcap_record(1, 0, frame(7, b"abab")))
    found = assembled("--input", tmp_path / "a.pcap", folder=tmp_path)
    assert found["fwd_payload_entropy"].to_pylist() == [None]
    found = assembled("--input", tmp_path / "a.pcap", "--payload_octets=8", folder=tmp_path)
    assert found["fwd_payload_entropy"].to_pylist() == [1.0]


def test_a_folder_and_a_pattern(tmp_path):
    """Captures of a folder, whatever they are called, are those that begin as one."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.pcap", "deep/b.bin")):
        (tmp_path / "in" / name).write_bytes(pcap([number * SECOND], first=number))
    (tmp_path / "in" / "notes.txt").write_text("no capture")
    output = ("--output", f"parquet:{tmp_path}/flows")
    assert summary_of("--input", tmp_path / "in", *output, folder=tmp_path)["packets_read"] == 2
    assert summary_of("--input", tmp_path / "in" / "*.pcap", *output, folder=tmp_path)["packets_read"] == 1

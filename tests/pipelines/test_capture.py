"""The whole command: captures onto a spool, and all that can be wrong with what a person says."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import fastavro
import pytest
from capture_files import frame, pcap, pcap_header, pcap_record

import queues
from pipelines import capture
from sources.captures import ReadReport, ReadSettings, read_packets, sensor_inputs
from sources.headers import HeaderSettings
from sources.read_queue import queue_inputs
from sources.read_queue import read_packets as read_queue_packets
from transforms.records import PACKET

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """No test meets the epochs and buffers of another, or of the machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def captures(tmp_path):
    """Two files that overlap; the second holds a packet with payload, one that is not IP and a malformed one."""
    (tmp_path / "captures").mkdir()
    (tmp_path / "captures" / "a.pcap").write_bytes(pcap([i * SECOND for i in range(100)]))
    broken = frame(1)[:14] + b"\x31" + frame(1)[15:]
    records = (frame(5, b"GET / HTTP/1.1"), b"\xff" * 12 + b"\x08\x06" + bytes(28), broken, frame(7))
    content = b"".join(pcap_record(50 + i, 0, data) for i, data in enumerate(records))
    (tmp_path / "captures" / "b.pcap").write_bytes(pcap_header() + content)
    return tmp_path / "captures"


def run(*arguments, quiet=True):
    return capture.main([*map(str, arguments), *(["--quiet"] if quiet else [])])


def blocks_of(queue_input):
    reader = queues.open_reader(queue_input.url)
    return [message.octets for part in queue_input.parts for message in reader.read(part)]


def all_rows(batches):
    """Every column of every packet, with its payload prefix; not what is not carried."""
    rows = []
    for batch in batches:
        for row in batch.packets:
            payload = batch.payloads[row["payload_at"] :][: row["payload_captured"]]
            rows.append(
                (payload, *(row[name] for name in PACKET.names if name not in ("payload_at", "payload_entropy")))
            )
    return rows


def read_files(inputs, payload_octets=0, sensor_from="all"):
    report = ReadReport()
    settings = ReadSettings(HeaderSettings(payload_octets=payload_octets, headers_hash=True))
    sensors = sensor_inputs(list(map(str, inputs)), sensor_from=sensor_from)
    return {one.sensor: all_rows(read_packets(one, settings, report)) for one in sensors}, report


def read_spool(url, payload_octets=0):
    """All rows of each sensor, stream after stream."""
    report = ReadReport()
    settings = ReadSettings(HeaderSettings(payload_octets=payload_octets))
    found = defaultdict(list)
    for one in queue_inputs(url):
        found[one.stream.sensor] += all_rows(read_queue_packets(one, settings, report))
    return found, report


@pytest.mark.parametrize("payload_octets", [0, 8])
@pytest.mark.parametrize("sensor_from", ["all", "file"])
@pytest.mark.parametrize("settings", ["", "?codec=deflate&file_octets=1000"])
def test_a_spool_holds_what_the_files_hold(captures, tmp_path, payload_octets, sensor_from, settings):
    """Packets in the same order, column for column, and the same account of what was read and refused."""
    url = f"spool:{tmp_path}/spool"
    options = ("--payload_octets", payload_octets, "--sensor_from", sensor_from, "--block_packets", 30)
    assert run("--input", captures, "--queue", url + settings, *options) == 0
    expected, told = read_files([captures], payload_octets, sensor_from)
    found, report = read_spool(url, payload_octets)
    assert found == expected
    assert (report.packets_read, report.rejects) == (told.packets_read, told.rejects)
    assert report.packets_read == sum(map(len, found.values())) + report.rejects.total() == 104
    assert report.damage == []


def test_any_avro_tool_reads_the_spool(captures, tmp_path):
    """Blocks are in order; the last one closes the stream at the time of the last packet."""
    run("--input", captures, "--queue", f"spool:{tmp_path}/spool", "--block_packets", 40, "--sensor", "north")
    blocks = []
    for path in sorted((tmp_path / "spool").iterdir()):
        with path.open("rb") as file:
            blocks += fastavro.reader(file)
    assert [block["sequence"] for block in blocks] == list(range(len(blocks)))
    assert {block["sensor"] for block in blocks} == {"north"}
    assert [len(block["packets"]) for block in blocks] == [40, 40, 22, 0]
    assert [block["end"] for block in blocks] == [False, False, False, True]
    assert blocks[-1]["observed_ns"] == 99 * SECOND
    assert sum(sum(block["rejects"].values()) for block in blocks) == 2
    assert all(packet["headers_hash"] != bytes(8) for block in blocks for packet in block["packets"])


def test_a_capture_without_packets_ends_its_stream(tmp_path):
    """The spool then holds one block, the end."""
    (tmp_path / "empty.pcap").write_bytes(pcap_header())
    assert run("--input", tmp_path / "empty.pcap", "--queue", f"spool:{tmp_path}/spool") == 0
    found, report = read_spool(f"spool:{tmp_path}/spool")
    assert found == {"local": []}
    assert report.packets_read == 0


def test_the_summary_adds_up(captures, tmp_path, capsys):
    """Packets read are packets in blocks and rejects by reason."""
    assert run("--input", captures, "--queue", f"spool:{tmp_path}/spool", quiet=False) == 0
    shown = capsys.readouterr().out
    assert "104 read, 102 in blocks" in shown
    assert "2: malformed 1, not_ip 1" in shown
    blocks = [message for one in queue_inputs(f"spool:{tmp_path}/spool") for message in blocks_of(one)]
    assert f"{len(blocks)}, {sum(map(len, blocks)):,} octets" in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--input", "{a}"], "--queue"),
        (["--queue", "spool:{out}"], "--input"),
        (["--input", "{a}", "--queue", "spool:{out}", "--block_packets", "0"], "--block_packets"),
        (["--input", "{a}", "--queue", "spool:{out}", "--payload_octets", "-1"], "--payload_octets"),
        (["--input", "{a}", "--queue", "spool:{out}", "--decapsulate", "gre,foo"], "foo"),
        (["--input", "{a}", "--queue", "spool:{out}", "--sensor_from", "moon"], "--sensor_from"),
        (["--input", "{a}", "--queue", "kafak://broker/topic"], "no queue"),
        (["--input", "{a}", "--queue", "spool:{a}"], "cannot be written to"),
        (["--input", "{a}x", "--queue", "spool:{out}"], "a.pcapx"),
        (["--input", "{a}", "--queue", "spool:{out}", "--sensors", "x"], "--sensors"),
        (["--input", "{a}", "--queue", "spool:{out}", "--block_octets", "10"], "--block_octets: 10"),
        (["--input", "{a}", "--queue", "spool:{out}", "--speed", "2"], "--speed: only for --input replay:"),
        (["--input", "{a}", "--queue", "spool:{out}", "--rings", "2"], "--rings: only for --input interface:"),
        (["--input", "{a}", "--queue", "spool:{out}", "--filter", "tcp porte 1"], "--filter"),
        (["--input", "{a}", "--queue", "spool:{out}", "--snaplen", "3"], "--snaplen: 3"),
        (["--input", "{a}", "--queue", "spool:{out}", "--sample", "2"], "--sample"),
        (["--input", "{a}", "--queue", "spool:{out}", "--anonymize", "{a}x"], "a.pcapx"),
        (["--input", "{a}", "--queue", "spool:{out}", "--metrics_port", "99999"], "--metrics_port: 99999"),
        (["--input", "{a}", "--queue", "spool:{out}", "--user", "nobody-of-that-name"], "nobody-of-that-name"),
        (["--input", "replay:", "--queue", "spool:{out}"], "names nothing"),
        (["--input", "replay:{a}", "--queue", "spool:{out}", "--speed", "fast"], "--speed: fast"),
        (["--input", "replay:{a}", "--queue", "spool:{out}", "--speed", "2", "--rate", "3"], "--rate"),
        (["--input", "replay:{a}", "--queue", "spool:{out}", "--loop", "-1"], "--loop: -1"),
        (["--input", "replay:{a}", "--queue", "spool:{out}", "--buffer_octets", "1"], "--buffer_octets: 1"),
        (
            ["--input", "replay:{a}", "--queue", "spool:{out}", "--max_out_of_orderness_s", "-1"],
            "--max_out_of_orderness_s: -1",
        ),
        (["--input", "replay:{a}", "--input", "{a}", "--queue", "spool:{out}"], "of different kinds"),
        (["--input", "interface:a", "--input", "interface:b", "--queue", "spool:{out}"], "one interface"),
        (["--input", "interface:nosuch0", "--queue", "spool:{out}"], "nosuch0"),
    ],
)
def test_wrong_settings_are_one_line_and_status_2(captures, tmp_path, capsys, arguments, complaint):
    """The line names the setting."""
    names = {"a": captures / "a.pcap", "out": tmp_path / "spool"}
    assert run(*(argument.format(**names) for argument in arguments)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert complaint in told


def test_each_run_is_an_epoch_of_its_sensor(captures, tmp_path):
    """Several captures of a sensor fit into one spool, in the order in which they were made."""
    url = f"spool:{tmp_path}/spool"
    for name in ("b.pcap", "a.pcap"):
        assert run("--input", captures / name, "--queue", url) == 0
    streams = [one.stream for one in queue_inputs(url)]
    assert streams[0].epoch < streams[1].epoch
    assert read_spool(url)[0] == {"local": [*read_files([captures / "b.pcap"])[0]["local"],
                                            *read_files([captures / "a.pcap"])[0]["local"]]}  # fmt: skip


def test_partitions_hold_the_packets_of_whole_flows(captures, tmp_path):
    """Each its own, in their order; rejects are told once."""
    url = f"spool:{tmp_path}/spool"
    assert run("--input", captures, "--queue", f"{url}?partitions=4", "--block_packets", 20) == 0
    expected, told = read_files([captures])
    found, report = read_spool(url)
    assert {one.stream.partition for one in queue_inputs(url)} == {0, 1, 2, 3}
    assert sorted(found["local"], key=repr) == sorted(expected["local"], key=repr)
    assert (report.packets_read, report.rejects) == (told.packets_read, told.rejects)


def test_a_filter_and_a_snap_length_hold_for_files_too(captures, tmp_path):
    """As if the capture had been made with them."""
    url = f"spool:{tmp_path}/spool"
    assert run("--input", captures, "--queue", url, "--filter", "ip host 0.0.0.7", "--snaplen", 34) == 0
    found, report = read_spool(url)
    assert report.packets_read == len(found["local"]) == 2
    assert report.transport_truncated == 2


def test_an_unreadable_file_does_not_stop_the_others(captures, tmp_path, capsys):
    """It is one line; where nothing at all can be read, that is the error."""
    (captures / "c.pcap").write_bytes(b"\x89PNG\r\n\x1a\n" * 10)
    arguments = ("--sensor_from", "file", "--queue", f"spool:{tmp_path}/spool")
    assert run("--input", captures, *arguments) == 0
    assert capsys.readouterr().err.count("c.pcap") == 1
    assert sorted(read_spool(f"spool:{tmp_path}/spool")[0]) == ["a.pcap", "b.pcap"]
    assert run("--input", captures / "c.pcap", "--queue", f"spool:{tmp_path}/none") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_it_starts_without_beam(captures, tmp_path):
    """A sensor needs no Beam."""
    arguments = ["--input", str(captures), "--queue", f"spool:{tmp_path}/spool", "--quiet"]
    code = (
        "import json, sys; from pipelines import capture; status = capture.main(sys.argv[1:]);"
        "print(json.dumps([status, 'apache_beam' in sys.modules]))"
    )
    top = Path(capture.__file__).parents[1]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=top, env=os.environ | {"PYTHONPATH": str(top)}, capture_output=True, check=True)
    assert json.loads(done.stdout) == [0, False]


@pytest.mark.corpus
def test_real_captures_come_through_the_spool_unchanged(corpus, tmp_path):
    """Tunnels, fragments, IPv6 and hostile files: what the files give is what the spool gives."""
    names = ("ndpi", "zeek", "scapy", "dpkt")
    paths = [path for name in names for path in sorted((corpus / "captures" / name).glob("*.pcap*"))[::25]]
    compared = 0
    for number, path in enumerate(path for path in paths if path.stat().st_size < 200_000):
        url = f"spool:{tmp_path}/{number}"
        if run("--input", path, "--queue", url, "--payload_octets", 32):
            continue
        expected, told = read_files([path], 32)
        found, report = read_spool(url, 32)
        assert found == expected, path
        assert (report.packets_read, report.rejects) == (told.packets_read, told.rejects)
        compared += 1
    assert compared > 10

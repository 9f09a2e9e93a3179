"""A disk that is full: one line, status 2, nothing that looks whole, nothing lost that was there; room helps."""

import os
import struct
import subprocess

import alert_testing
import block_testing
import duckdb
import pytest
import sink_testing
from block_testing import Store, write_to
from sink_testing import flow_id, flows, schema_of

from pipelines import flows as main_job
from pipelines import generate
from sinks import blocks, outputs, unsent
from sinks.outputs import SinkContext
from transforms.records import InputError

NO_ROOM = "No space left on device; free room or choose another"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk (tmpfs)")


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB; `room` gives it more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "flowbeam-test", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def room(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def files_of(disk):
    return [path for path in disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("place", ["parquet:{}/flows", "jsonl:{}/x.jsonl", "csv:{}/x.csv", "duckdb:{}/x.duckdb"])
def test_an_output_without_room_leaves_nothing_half_written(place, disk, tmp_path, capsys):
    """Nor does the job leave its other output half written; with room the same command has everything."""
    capture, output = str(tmp_path / "demo.pcap"), place.format(disk)
    assert generate.main(["--output", capture, "--packets", "10000", "--quiet"]) == 0
    job = ["--quiet", "--features=cic@1", f"--input={capture}", f"--output={output}"]
    job += [f"--output=parquet:{tmp_path}/other", "--on_sink_failure=continue"]
    assert main_job.main(job) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [f"flowbeam: {output}: cannot write {disk / output.rpartition('/')[2]}: {NO_ROOM} --output"]
    assert files_of(disk) == []
    room(disk, "20m")
    assert main_job.main(job) == 0
    assert "part" not in " ".join(path.name for path in files_of(disk))
    assert records_in(disk) == records_in(tmp_path / "other") > 500


def records_in(folder):
    """Flows in the files of a folder, whatever their kind."""
    (path, *more) = files_of(folder)
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as database:
            return database.sql("SELECT count(DISTINCT flow_id) FROM flows").fetchall()[0][0]
    read = {".jsonl": "read_json", ".csv": "read_csv", ".parquet": "read_parquet"}[path.suffix]
    rows = f"FROM {read}({[str(one) for one in (path, *more)]})"
    counted = "DISTINCT flow_id" if read == "read_parquet" else "*"
    return duckdb.sql(f"SELECT count({counted}) {rows}").fetchall()[0][0]


def test_rejects_without_room_end_the_job(disk, tmp_path, capsys):
    """A job whose rejects cannot be kept does not say that all is well."""
    with open(tmp_path / "bad.pcap", "wb") as capture:
        capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(3000):
            frame = os.urandom(12) + b"\x08\x00\x45" + os.urandom(9)
            capture.write(struct.pack("<IIII", 1_767_600_000 + number, 0, len(frame), len(frame)) + frame)
    job = ["--quiet", f"--input={tmp_path}/bad.pcap", f"--output=parquet:{tmp_path}/flows", f"--rejects={disk}/rejects"]
    assert main_job.main(job) == 2
    assert capsys.readouterr().err == f"flowbeam: rejects: cannot write {disk}/rejects: {NO_ROOM} --rejects\n"
    assert files_of(disk) == []


def test_a_block_list_without_room_stays_as_it_was(disk):
    """The firewall goes on with the one before; what is known of it, too."""
    output = f"blocklist:{disk}/list?apply=yes&ttl_s=100000&never=127.0.0.1"
    first = alert_testing.scored([1], src_ip="198.51.100.1")
    sink_testing.run([first], sink_of(output, first))
    before = {path: path.read_bytes() for path in files_of(disk)}
    assert before[disk / "list"] == b"198.51.100.1\n"
    more = alert_testing.scored(range(4000), src_ip=[f"198.51.{n // 250}.{n % 250}" for n in range(4000)])
    with pytest.raises(Exception, match=f"cannot write .*: {NO_ROOM} --output"):
        sink_testing.run([more], sink_of(output, more))
    assert {path: path.read_bytes() for path in files_of(disk)} == before
    room(disk, "4m")
    sink_testing.run([more], sink_of(output, more))
    assert len((disk / "list").read_text().splitlines()) == 4001


def sink_of(output, batch):
    ((_, sink),) = outputs.open_outputs([output], alert_testing.context(batch))
    return sink


def test_blocks_that_cannot_be_written_aside_fail(disk, tmp_path):
    """Those before them wait whole; the failed one is nowhere, so the runner has it still."""
    block_testing.STORES[str(tmp_path)] = store = Store()
    store.down = -1
    context = SinkContext(("cic@1",), schema_of(), "test", retry_s=0.0, unsent=disk / "unsent")
    sender = write_to(str(tmp_path), context).sender()
    assert sender.send(flows([0])).aside == 1
    many = flows(range(1, 8001), flow_iat_mean_us=[float.fromhex(os.urandom(6).hex()) for _ in range(8000)])
    with pytest.raises(InputError, match=rf"^unsent: cannot write {disk}/unsent: {NO_ROOM} --unsent$"):
        sender.send(many)
    assert [block.flows["flow_id"].to_pylist() for block in unsent.blocks(disk / "unsent")] == [[flow_id(0)]]
    assert len(files_of(disk)) == 1
    room(disk, "8m")
    assert sender.send(many).aside == 8000
    sender.close()
    blocks._healths.clear()
    del block_testing.STORES[str(tmp_path)]

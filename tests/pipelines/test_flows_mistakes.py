"""The main job as a user meets it, where something is wrong: one line that says what, and nothing that looks whole."""

import contextlib
import errno
import os
import pty
import re
import resource
import signal
import subprocess
import threading
from pathlib import Path

import duckdb
import pytest
from capture_files import frame, pcap, pcap_header, pcap_record
from command_testing import ENVIRONMENT, command, files_of, records_of, run, summary_of

from pipelines import capture, flows, generate

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def place(compiled, tmp_path, monkeypatch):
    """The working folder, with all kinds of files that are no good."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name, content in (
        ("good.pcap", pcap([0, 1, 2])),
        ("empty.pcap", b""),
        ("png.pcap", PNG),
        ("head.pcap", pcap_header()[:10]),
        ("first.pcap", pcap_header() + pcap_record(1, 0, frame(1))[:20]),
        ("text.txt", b"not a capture, not a folder"),
    ):
        (tmp_path / name).write_bytes(content)
    return tmp_path


UNREADABLE = {
    "missing": (["--input", "nothing.pcap"], "nothing.pcap: there is no such file or folder"),
    "one of two missing": (["--input", "good.pcap", "--input", "nothing.pcap"], "nothing.pcap: there is no such file"),
    "pattern": (["--input", "no*.pcap"], "no*.pcap: no file matches this pattern"),
    "empty": (["--input", "empty.pcap"], "empty.pcap: is empty"),
    "picture": (["--input", "png.pcap"], "png.pcap: is a PNG image"),
    "cut in its header": (["--input", "head.pcap"], "head.pcap: ends inside its file header"),
    "cut in its first packet": (["--input", "first.pcap"], "first.pcap: damaged at offset 24"),
    "folder without captures": (["--input", "folder"], "folder: no capture files in this folder"),
    "two of one sensor": (["--input", "png.pcap", "--input", "empty.pcap"], "is empty; png.pcap: is a PNG image"),
    "two sensors": (
        ["--input", "png.pcap", "--input", "empty.pcap", "--sensor_from=file"],
        "is empty; png.pcap: is a PNG image",
    ),
    "no queue": (["--input", "spool:nothing"], "nothing: no such folder"),
    "no blocks in a queue": (["--input", "spool:folder"], "folder: no Avro files in this folder"),
    "no name": (["--input", ""], "--input: is empty"),
}

WRONG = {
    "misspelt option": (["--inptu=good.pcap"], "--inptu=good.pcap"),
    "abbreviated option": (["--end_rule=idle"], "--end_rule=idle"),
    "option without its value": (["--output"], "--output: expected one argument"),
    "word too much": (["extra"], "unrecognized arguments: extra"),
    "no number": (["--idle_timeout_s=abc"], "--idle_timeout_s: invalid float value: 'abc'"),
    "not a number": (["--idle_timeout_s=nan"], "--idle_timeout_s: nan"),
    "negative time": (["--active_timeout_s=-1"], "--active_timeout_s: -1"),
    "endless wait": (["--max_out_of_orderness_s=inf"], "--max_out_of_orderness_s: inf"),
    "no shards": (["--shards=0"], "--shards: 0"),
    "no room for flows": (["--max_open_flows=0"], "--max_open_flows: 0"),
    "negative rejects": (["--max_rejects=-1"], "--max_rejects: -1"),
    "negative payload": (["--payload_octets=-1"], "--payload_octets: -1"),
    "end rule": (["--end_rules=tcp,timeout"], "--end_rules: 'timeout' is no rule"),
    "tunnel": (["--decapsulate=wireguard"], "--decapsulate: unknown tunnel 'wireguard'"),
    "ICMP key": (["--icmp_key=code"], "--icmp_key: 'code'"),
    "assembler": (["--assembler=fast"], "--assembler: invalid choice: 'fast'"),
    "assembler for other rules": (["--assembler=sessions"], "add --end_rules=idle"),
    "feature set": (["--features=cic"], "unknown feature set 'cic': did you mean cic@1?"),
    "feature module": (["--feature_module=nothing_there"], "cannot import nothing_there"),
    "sensor without a name": (["--sensor="], "--sensor: is empty"),
    "runner": (["--runner=FastRunner"], "--runner FastRunner: there is no such runner here"),
    "temporary folder": (["--temp_dir=nothing"], "--temp_dir nothing: is no folder"),
    "summary in no folder": (["--summary=nothing/s.json"], "--summary nothing/s.json: there is no folder"),
    "summary is a folder": (["--summary=folder"], "--summary folder: is a folder"),
    "rejects in a file": (["--rejects=text.txt"], "text.txt is not a folder; choose another --rejects"),
    "no URL": (["--output=flows"], "--output flows: no scheme; write SCHEME:PLACE with one of"),
    "unknown scheme": (["--output=parkay:flows"], "--output parkay:flows: unknown scheme 'parkay'"),
    "URL without a place": (["--output=csv:"], "names no place; write csv:PLACE"),
    "URL of a host": (["--output=parquet://host/flows"], "// is for hosts"),
    "object storage": (["--output=parquet:gs://bucket/flows"], "flows go to files of this machine"),
    "URL with unknown parameter": (["--output=parquet:flows?size=1"], "unknown parameter 'size'"),
    "the same place twice": (["--output=csv:a.csv", "--output=jsonl:a.csv"], "goes to the same place"),
    "output in no folder": (["--output=csv:nothing/a.csv"], "there is no folder"),
    "output is a folder": (["--output=csv:folder"], "folder is a folder; name a file in it"),
    "output in a file": (["--output=parquet:text.txt"], "text.txt is not a folder; choose another --output"),
    "no database": (["--output=duckdb:text.txt"], "text.txt is no DuckDB database"),
    "no feature set for a text": (["--output=csv:a.csv", "--features=cic@1", "--features=nfstream@1"], "say which"),
}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
@pytest.mark.parametrize(("arguments", "complaint"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_one_line(place, capsys, arguments, complaint, quiet):
    """Status 2, over both streams one line, no output."""
    _refused([*arguments, *quiet], complaint, place, capsys)


@pytest.mark.parametrize(("arguments", "complaint"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_one_line(place, capsys, arguments, complaint):
    """Status 2, a line that names the setting, no output."""
    _refused(["--input=good.pcap", *arguments], complaint, place, capsys)


def _refused(arguments, complaint, place, capsys):
    before = files_of(place)
    assert flows.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("flowbeam: ")
    assert complaint in err
    assert "while running" not in err
    left = {path: content for path, content in files_of(place).items() if path not in before}
    assert not left


def test_a_misspelt_option_as_a_process(place):
    """Beam, which is told the same words, adds no line of its own."""
    ended = run("--input", "good.pcap", "--otuput", "csv:a.csv", folder=place)
    assert ended == (2, "", "flowbeam: unrecognized arguments: --otuput csv:a.csv; did you mean --output?\n")


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
def test_an_unreadable_file_as_a_process(place, quiet):
    """Neither Beam nor Python adds a line to what fails on a worker."""
    ended = run("--input", "png.pcap", *quiet, folder=place)
    assert ended == (2, "", "flowbeam: png.pcap: is a PNG image, not a pcap, pcapng or snoop capture\n")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_damaged_capture_is_processed_up_to_the_damage(place, traffic, capsys, quiet):
    """One line names file and offset; the packet that is there in part is neither read nor rejected."""
    records = records_of(traffic.read_bytes())
    whole = 24 + sum(map(len, records[:1000]))
    (place / "cut.pcap").write_bytes(traffic.read_bytes()[: whole + 40])
    assert flows.main(["--input=cut.pcap", "--summary=s.json", *(["--quiet"] if quiet else [])]) == 0
    out, err = capsys.readouterr()
    line = f"cut.pcap: damaged at offset {whole}: the last packet record is cut off; read up to there"
    assert err == f"flowbeam: {line}\n"
    assert bool(out) != quiet
    assert not (place / "rejects").exists()
    summary = summary_of("--input=cut.pcap", folder=place)
    assert (summary["packets_read"], summary["packets_in_flows"], summary["rejects"]) == (1000, 1000, {})
    assert summary["damage"] == [line]


@pytest.mark.parametrize("sensors", [[], ["--sensor_from=file"]], ids=["one sensor", "sensor each"])
def test_an_unreadable_file_does_not_stop_the_others(place, capsys, sensors):
    """It is one line; the flows of the others are there."""
    assert summary_of("--input=good.pcap", "--input=png.pcap", *sensors, folder=place)["packets_read"] == 3
    assert capsys.readouterr().err == "flowbeam: png.pcap: is a PNG image, not a pcap, pcapng or snoop capture\n"


@pytest.mark.parametrize("scheme", ["parquet", "csv", "jsonl", "duckdb"])
def test_a_place_that_refuses_only_when_written_to(place, capsys, scheme):
    """/proc says that it can be written, to root at least."""
    assert flows.main(["--input=good.pcap", f"--output={scheme}:/proc/flows"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"flowbeam: {scheme}:/proc/flows: cannot write ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in any folder")
def test_a_folder_without_permission(place, capsys):
    (place / "folder").chmod(0o555)
    _refused(["--input=good.pcap", "--output=parquet:folder/flows"], "make it writable or choose", place, capsys)


@pytest.mark.parametrize("scheme", ["parquet", "csv", "duckdb"])
def test_output_beyond_the_limit_of_file_size(traffic, tmp_path, scheme):
    """One line, and neither a whole file nor a hidden one is left."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, 32 << 10))

    ended = run(
        "--input", traffic, "--output", f"{scheme}:out/flows", folder=_with_folder(tmp_path), preexec_fn=limited
    )
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"{scheme}:out/flows: cannot write" in ended.err
    assert os.strerror(errno.EFBIG) in ended.err
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("scheme", ["parquet", "csv", "duckdb"])
def test_a_full_disk(traffic, tmp_path, scheme):
    """One line with advice, and nothing is left."""
    folder = _with_folder(tmp_path) / "out"
    mounting = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root and the right to mount")
    try:
        ended = run("--input", traffic, "--output", f"{scheme}:out/flows", folder=tmp_path)
        assert files_of(folder) == {}
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert f"{os.strerror(errno.ENOSPC)}; free room or choose another --output" in ended.err


def _with_folder(path: Path) -> Path:
    (path / "out").mkdir()
    return path


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda n: str(n)
)
def test_a_stop_in_the_middle(traffic, tmp_path, number, status):
    """While input is awaited that never comes: at once, one line; what other jobs wrote stays."""
    (tmp_path / "old.csv").write_text("of another job")
    process = subprocess.Popen(
        command("--input=-", "--output=parquet:flows", "--output=csv:old.csv", "--output=duckdb:flows.duckdb"),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(traffic.read_bytes())
    process.stdin.flush()
    process.send_signal(number)  # it has taken all but what a pipe holds, so it is beyond its start
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (status, b"flowbeam: stopped; no half-written file is left\n")
    assert files_of(tmp_path) == {"old.csv": b"of another job"}


def test_a_stop_while_files_are_written(traffic, tmp_path):
    """The hidden parts that are there go, and the demo's capture."""
    process = subprocess.Popen(
        command("--output=csv:flows.csv"),
        cwd=tmp_path,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not any(".partial-" in path.name for path in tmp_path.iterdir()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)
    assert any(path.name.startswith("flowbeam-demo-") for path in tmp_path.iterdir())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[1:] == [b"flowbeam: stopped; no half-written file is left"]
    assert files_of(tmp_path) == {}


def test_a_reader_of_the_summary_that_goes_away(place):
    """`| head -1` is no mistake; a full device behind standard output is one."""
    words = " ".join(command("--input", "good.pcap"))
    gone = subprocess.run(f"{words} | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", cwd=place,
                          env=ENVIRONMENT, capture_output=True)  # fmt: skip
    assert (gone.returncode, gone.stderr) == (0, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--input", "good.pcap"), cwd=place, env=ENVIRONMENT, stdout=full,
                              stderr=subprocess.PIPE)  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        b"flowbeam: standard output: cannot be written: No space left on device\n",
    )


def test_the_progress_bar_on_a_terminal(traffic, tmp_path):
    """It is on standard error alone, fits 80 columns, gives way to lines, and is gone in the end."""
    (tmp_path / "cut.pcap").write_bytes(traffic.read_bytes()[:-1])
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        command("--input", "cut.pcap"),
        cwd=tmp_path,
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    shown: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(terminal, shown))
    reader.start()
    out, _ = process.communicate(timeout=60)
    reader.join()
    text = b"".join(shown).decode()
    assert process.returncode == 0
    assert b"\x1b" not in out
    assert b"2,999 read" in out
    assert "reading" in text
    assert "\x1b[?25h" in text  # the cursor is back
    cleared = text[text.rindex("\x1b[2K") :]
    assert "reading" not in cleared
    assert cleared.count("flowbeam: cut.pcap: damaged") == 1
    assert all(len(line) <= 80 for line in _plain(text).splitlines() if "reading" in line)


def _read_all(terminal: int, shown: list[bytes]) -> None:
    while True:
        try:
            shown.append(os.read(terminal, 1 << 16))
        except OSError:  # how a pseudo-terminal ends on Linux
            break
        if not shown[-1]:
            break
    os.close(terminal)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--packets=10"], "--output"),
        (["--output=a.pcap", "--packets=ten"], "--packets: invalid int value: 'ten'"),
        (["--output=a.pcap", "--packets=10", "--sede=2"], "--sede=2"),
        (["--output=folder", "--packets=10"], "folder: cannot be written"),
        (["--output=nothing/a.pcap", "--packets=10"], "nothing/a.pcap: cannot be written"),
        (["--output=a.pcap", "--packets=10", "--labels=nothing/a.csv"], "nothing/a.csv: cannot be written"),
    ],
)
def test_mistakes_of_generate_are_one_line(place, capsys, arguments, complaint):
    """Status 2, and nothing is written."""
    before = files_of(place)
    assert generate.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err
    assert files_of(place) == before


def test_a_picture_onto_a_queue(place, capsys):
    """`pipelines.capture` says it in the same words."""
    assert capture.main(["--input=png.pcap", "--queue=spool:blocks"]) == 2
    assert capsys.readouterr() == ("", "flowbeam: png.pcap: is a PNG image, not a pcap, pcapng or snoop capture\n")


def test_an_interrupted_database_is_as_before(place, capsys):
    """What was in an existing database stays, where the next job cannot read its input."""
    assert flows.main(["--input=good.pcap", "--output=duckdb:f.duckdb", "--quiet"]) == 0
    assert flows.main(["--input=png.pcap", "--output=duckdb:f.duckdb", "--quiet"]) == 2
    with duckdb.connect("f.duckdb", read_only=True) as database:
        assert database.execute("SELECT count(*) FROM flows").fetchall() == [(3,)]

"""Mistakes with endless input: one line that names what is wrong and what to do, status 2, and nothing is started."""

import pytest

from pipelines import flows
from queues import kafka_client

PRISM = "--runner=PrismRunner"
SPOOL = ["--streaming", "--input=spool:folder"]
NOBODY = "127.0.0.1:9"
"""A port on which nobody listens: the discard protocol's."""

RUNNERS = {
    "none": ["--input=kafka://{nobody}/packets"],
    "DirectRunner": ["--runner=DirectRunner", "--input=kafka://{nobody}/packets"],
    "a spool, too": ["--runner=DirectRunner", *SPOOL],
    "by its full name": ["--runner=FnApiRunner", *SPOOL],
}

WRONG = {
    "a capture beside a queue": (
        [PRISM, "--input=kafka://{nobody}/packets", "--input=good.pcap"],
        "--input good.pcap: kafka://{nobody}/packets has no end; read it in a job of its own",
    ),
    "a spool with its end beside a queue": (
        [PRISM, "--input=kafka://{nobody}/packets", "--input=spool:folder"],
        "--input spool:folder: kafka://{nobody}/packets has no end",
    ),
    "captures have an end": (
        [PRISM, "--streaming", "--input=good.pcap"],
        "--input good.pcap: --streaming reads queues",
    ),
    "nothing to wait for": ([PRISM, "--streaming"], "--streaming: without --input"),
    "merged without names": ([PRISM, *SPOOL, "--merge_sensors"], "--merge_sensors: on endless input it must be known"),
    "no time": ([PRISM, *SPOOL, "--start_at=yesterday"], "--start_at yesterday: neither earliest, latest nor a time"),
    "no patience": ([PRISM, *SPOOL, "--sensor_timeout_s=0"], "--sensor_timeout_s: 0 s; give more than 0"),
    "files that never appear": ([PRISM, *SPOOL, "--file_max_age_s=-1"], "--file_max_age_s: -1 s"),
    "negative skew": ([PRISM, *SPOOL, "--max_clock_skew_s=-1"], "--max_clock_skew_s: -1 s"),
    "negative cache": ([PRISM, *SPOOL, "--table_cache_bytes=-1"], "--table_cache_bytes: -1"),
    "DuckDB": ([PRISM, *SPOOL, "--output=duckdb:f.duckdb"], "duckdb:f.duckdb: is written when the input ends"),
    "CSV file": ([PRISM, *SPOOL, "--output=csv:f.csv"], "csv:f.csv: is written when the input ends"),
    "JSON file": ([PRISM, *SPOOL, "--output=jsonl:f.jsonl"], "jsonl:f.jsonl: is written when the input ends"),
    "no spool": (
        [PRISM, "--streaming", "--input=spool:nothing"],
        "nothing: no such folder; make it, or start the sensor",
    ),
    "a spool without a name": ([PRISM, "--streaming", "--input=spool:"], "spool:: names no folder"),
    "no topic in the URL": ([PRISM, "--input=kafka://{nobody}"], "kafka://{nobody}: write kafka://HOST:PORT/TOPIC"),
    "no broker": ([PRISM, "--input=kafka://{nobody}/packets"], "kafka://{nobody}/packets: no broker answers"),
    "no Prism": ([PRISM, *SPOOL, "--prism_location=/nowhere"], "--prism_location /nowhere: is no program; build it"),
    "no job server": (
        ["--runner=FlinkRunner", *SPOOL, "--job_endpoint={nobody}"],
        "--job_endpoint {nobody}: cannot be reached",
    ),
    "unsafe on Flink": (
        ["--runner=FlinkRunner", *SPOOL, "--finish_bundle_before_checkpointing=false"],
        "--finish_bundle_before_checkpointing=false: elements of a bundle that is open at a checkpoint are lost",
    ),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with a spool that has nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.pcap").touch()
    return tmp_path


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Who can only be told of a mistake does not wait for kernels, nor long for a broker."""

    def refuse(*_: object) -> None:
        raise AssertionError("kernels are compiled")

    monkeypatch.setattr(kafka_client, "PATIENCE_S", 1.0)
    monkeypatch.setattr("pipelines.endless.compile_kernels", refuse)
    monkeypatch.setattr("pipelines.bounded.compile_kernels", refuse)


def line_of(arguments, capsys):
    """The one line that the command says."""
    assert flows.main([one.format(nobody=NOBODY) for one in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    return err


@pytest.mark.parametrize("arguments", RUNNERS.values(), ids=RUNNERS)
def test_the_runner_for_endless_input_is_named(place, capsys, arguments):
    line = line_of(arguments, capsys)
    assert "cannot run an endless input; use --runner=PrismRunner on this machine, or --runner=FlinkRunner" in line


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_one_line(place, capsys, arguments, said):
    line = line_of(arguments, capsys)
    assert line.startswith(f"flowbeam: {said.format(nobody=NOBODY)}")
    assert sorted(path.name for path in place.iterdir()) == ["folder", "good.pcap"]


def test_a_missing_topic_says_how_to_make_it(place, capsys, kafka):
    url = f"kafka://{kafka.bootstrap}/no-such-topic"
    line = line_of([PRISM, f"--input={url}"], capsys)
    assert line.startswith(f"flowbeam: {url}: no such topic; make it with kafka-topics --create --topic no-such-topic")

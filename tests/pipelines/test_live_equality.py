"""The main promise: a streaming job gives the flows of the bounded job on the same packets, bit for bit."""

import os
import uuid
from pathlib import Path

import pytest
from command_testing import run
from corpus_captures import CHECK_ALL, all_captures
from live_testing import blocks_in, differences, disordered, produce

from pipelines import capture
from sources.generate.capture import GenerateSettings, generate

PACKETS = 1_000_000 if CHECK_ALL else 40_000
PARTITIONS = 8
CAPTURES = 300
FIRST_OF_HOUR = ": dropping: the first of this hour"
"""Some captures say that their interface lost packets, which the job tells."""


@pytest.fixture(params=["prism", pytest.param("flink", marks=pytest.mark.xdist_group("flink"))])
def runner(request):
    """The options of each runner."""
    server = request.getfixturevalue(request.param)
    if request.param == "prism":
        return server
    return [*server.pipeline_args(), f"--flink_master={server.rest_url.removeprefix('http://')}"]


def topic_of(kafka, partitions=PARTITIONS) -> str:
    """A new topic, which notes when it receives a message."""
    name = f"blocks-{uuid.uuid4().hex}"
    kafka.create_topic(name, partitions, {"message.timestamp.type": "LogAppendTime"})
    return name


def captured(*arguments: object) -> None:
    """Runs the capture command in this process."""
    assert capture.main([*map(str, arguments), "--quiet"]) == 0


def followed(runner, kafka, topic: str, folder: Path, *arguments: object) -> None:
    """Runs the streaming job until every stream has ended."""
    where = ["--input", f"kafka://{kafka.bootstrap}/{topic}", "--output", "parquet:live"]
    ended = run(*runner, *where, "--stop_at_end", "--quiet", *arguments, folder=folder, timeout=1500)
    assert (ended.status, [line for line in ended.err.splitlines() if not line.endswith(FIRST_OF_HOUR)]) == (0, [])


def test_generated_traffic_of_four_sensors(runner, kafka, tmp_path):
    """Blocks out of order within the bound and 5 % of them repeated, over eight partitions."""
    names = [f"s{number}" for number in range(4)]
    for number, name in enumerate(names):
        generate(GenerateSettings(output=str(tmp_path / f"{name}.pcap"), packets=PACKETS // 4, seed=number))
    files = [word for name in names for word in ("--input", tmp_path / f"{name}.pcap")]
    spool = f"spool:{tmp_path}/blocks?partitions={PARTITIONS}"
    captured(*files, "--sensor_from=file", "--queue", spool, "--block_packets=500")
    topic = topic_of(kafka)
    produce(kafka.bootstrap, topic, disordered(blocks_in(tmp_path / "blocks"), bound_s=1.5, repeated=0.05))
    followed(runner, kafka, topic, tmp_path, "--sensors", ",".join(sensors_in(tmp_path / "blocks")))
    bounded = ["--input", f"spool:{tmp_path}/blocks", "--output", "parquet:whole", "--quiet"]
    assert run("--runner=DirectRunner", *bounded, folder=tmp_path).status == 0
    count, missing, added = differences(tmp_path / "whole", tmp_path / "live")
    assert (missing, added) == (0, 0)
    assert count > PACKETS / 200
    assert not (tmp_path / "rejects").exists()


def sensors_in(spool: Path) -> list[str]:
    """The names of a spool's sensors."""
    from queues import open_reader

    return sorted({stream.sensor for stream in open_reader(f"spool:{spool}").parts()})


@pytest.mark.slow
@pytest.mark.corpus
def test_real_captures(runner, kafka, tmp_path):
    """Three hundred captures, each a sensor, replayed onto a topic by the capture command."""
    chosen = [one for one in all_captures() if 2 <= one.packets <= 20_000]
    chosen = chosen[:: len(chosen) // CAPTURES]
    links = tmp_path / "captures"
    links.mkdir()
    for number, one in enumerate(chosen):
        os.symlink(one.path, links / f"{number:04d}{one.path.suffix}")
    assert len(chosen) >= CAPTURES
    topic = topic_of(kafka)
    files = ["--input", links, "--sensor_from=file"]
    captured(*files, "--queue", f"kafka://{kafka.bootstrap}/{topic}")
    followed(runner, kafka, topic, tmp_path, "--max_clock_skew_s=9e8")  # some captures have times of the future
    assert run("--runner=DirectRunner", *files, "--output", "parquet:whole", "--quiet", folder=tmp_path).status == 0
    count, missing, added = differences(tmp_path / "whole", tmp_path / "live")
    assert (missing, added) == (0, 0)
    assert count > 2 * CAPTURES

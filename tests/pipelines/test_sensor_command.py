"""The sensor as a process of its own, ended in every way that there is."""

import os
import signal
import socket
import subprocess
from collections import Counter

import pytest
from capture_files import number_of, pcap
from command_testing import ENVIRONMENT, command
from sensor_testing import until

import queues
from sources.sensor_folder import sensor_folder
from transforms import avro

PACKETS = 20_000
SECOND = 1_000_000_000


@pytest.fixture
def rig(tmp_path):
    """Starts sensors that replay a capture of twenty seconds into a spool; none outlives the test."""
    (tmp_path / "a.pcap").write_bytes(pcap([i * SECOND // 1000 for i in range(PACKETS)]))
    processes = []

    def start(*arguments, queue="?partitions=2"):
        words = command(
            *("--input", f"replay:{tmp_path}/a.pcap", "--queue", f"spool:{tmp_path}/spool{queue}"),
            *("--buffer_dir", tmp_path / "state", "--quiet", *arguments),
            module="pipelines.capture",
        )
        process = subprocess.Popen(words, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def streams(tmp_path):
    """The blocks of each stream on the spool."""
    reader = queues.open_reader(f"spool:{tmp_path}/spool")
    return {
        stream: [avro.decode_block(message.octets) for part in parts for message in reader.read(part)]
        for stream, parts in reader.parts().items()
    }


def kept(tmp_path):
    """Size of the buffer on disk."""
    return sum(path.stat().st_size for path in sensor_folder(tmp_path / "state", "local").glob("*.blocks"))


def finish(process, limit_s=60):
    """Waits for the end: what it said, after its exit status."""
    said = process.communicate(timeout=limit_s)[1]
    return process.returncode, said.splitlines()


def test_a_replay_ends_by_itself(rig, tmp_path):
    """All packets, both streams ended, no buffer left, nothing said."""
    assert finish(rig("--speed", "max")) == (0, [])
    found = streams(tmp_path)
    assert sorted(number for blocks in found.values() for block in blocks for number in number_of(block.packets)) == [
        *range(PACKETS)
    ]
    assert all(blocks[-1].end and not any(block.end for block in blocks[:-1]) for blocks in found.values())
    assert kept(tmp_path) == 0


def test_a_signal_stops_it_with_everything_flushed(rig, tmp_path):
    """SIGTERM and Ctrl-C: what was captured until then is on the queue, in ended streams; exit status 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        process = rig()
        until(lambda: kept(tmp_path) > 20_000, 60)
        process.send_signal(number)
        assert finish(process) == (0, [])
    for blocks in streams(tmp_path).values():
        assert [block.sequence for block in blocks] == list(range(len(blocks)))
        assert blocks[-1].end
    by_epoch = Counter()
    for stream, blocks in streams(tmp_path).items():
        by_epoch[stream.epoch] += sum(len(block.packets) for block in blocks)
    assert len(by_epoch) == 2
    assert all(100 < count < PACKETS for count in by_epoch.values())
    assert kept(tmp_path) == 0


def test_a_killed_sensor_loses_its_open_blocks_at_most(rig, tmp_path):
    """The next run sends what was kept, ends the streams, says from when packets are missing, and goes on."""
    process = rig(queue="?partitions=2&file_max_age_s=30")
    until(lambda: kept(tmp_path) > 60_000, 60)
    process.kill()
    finish(process)
    written = kept(tmp_path)
    status, said = finish(rig("--speed", "max"))
    assert status == 0
    assert len(said) == 1
    assert "did not stop cleanly: packets from 1970-01-01T00:00:0" in said[0]
    found = streams(tmp_path)
    first = min(stream.epoch for stream in found)
    assert {(stream.epoch == first, stream.partition) for stream in found} == {
        (old, partition) for old in (True, False) for partition in (0, 1)
    }
    for blocks in found.values():
        assert [block.sequence for block in blocks] == list(range(len(blocks)))
        assert blocks[-1].end
    old = [block for stream, blocks in found.items() for block in blocks if stream.epoch == first]
    assert sum(len(avro.encode_block(block)) for block in old if not block.end) > 0.8 * written
    numbers = sorted(number for block in old for number in number_of(block.packets))
    assert numbers[: len(numbers) // 2] == list(range(len(numbers) // 2))
    assert sum(len(block.packets) for stream, blocks in found.items() if stream.epoch > first for block in blocks) == (
        PACKETS
    )


def test_a_second_sensor_of_the_name_is_refused(rig, tmp_path):
    """In one line."""
    rig("--loop")
    until(lambda: kept(tmp_path) > 0, 60)
    status, said = finish(rig())
    assert (status, len(said)) == (2, 1)
    assert "sensor local runs already" in said[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk (tmpfs)")
def test_a_queue_without_room_is_waited_for(rig, tmp_path):
    """One line when it is full, one when it has room again; all packets reach it."""
    disk = tmp_path / "spool"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "flowbeam-test", disk]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        process = rig("--speed", "max", "--block_packets", "500")
        assert process.stderr.readline() == f"flowbeam: {disk}: cannot be written to: No space left on device\n"
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        status, said = finish(process)
        assert (status, len(said)) == (0, 1)
        assert said[0].startswith("flowbeam: the queue takes blocks again; ")
        assert sum(len(block.packets) for blocks in streams(tmp_path).values() for block in blocks) == PACKETS
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_port_that_is_taken_is_one_line(rig):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = finish(rig("--metrics_port", port))
    assert status == 2
    assert said == [f"flowbeam: --metrics_port: {port} cannot be used: Address already in use; choose another port"]


def test_a_disk_that_takes_nothing_stops_nothing(rig, tmp_path):
    """A buffer that cannot be written to is one line; packets reach the queue all the same."""
    (tmp_path / "state").touch()
    status, said = finish(rig("--speed", "max"))
    assert (status, len(said)) == (0, 1)
    assert "blocks wait in memory" in said[0]
    assert sum(len(block.packets) for blocks in streams(tmp_path).values() for block in blocks) == PACKETS

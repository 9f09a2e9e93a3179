"""Spools as a sensor writes them: complete within their age, settled in order, patient with a full disk."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flow_testing import packets

import queues
from queues import spool, spool_files, spool_live
from transforms import avro
from transforms.records import InputError, PacketBatch, Stream


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def block(sequence, *, sensor="local", epoch=7, partition=0, end=False, rows=3):
    made = packets(at_s=[sequence + i / 10 for i in range(rows)])
    stream = Stream(sensor, epoch, partition)
    return avro.encode_block(PacketBatch(stream, sequence, int(made["time_ns"].max(initial=0)), made, end=end))


def opened(folder, clock=None, **settings):
    values = {"codec": "null", "file_octets": 1 << 20, "file_max_age_s": 1.0, **settings}
    return spool_live.LiveSpool(folder, clock=clock or Clock(), **values)


def numbers(folder):
    """The blocks in complete files: (epoch, partition, sequence), in the order of the files."""
    reader = queues.open_reader(f"spool:{folder}")
    messages = (message for parts in reader.parts().values() for part in parts for message in reader.read(part))
    heads = [avro.decode_header(message.octets) for message in messages]
    assert reader.damage == []
    return [(head.stream.epoch, head.stream.partition, head.sequence) for head in heads]


def test_a_file_is_complete_at_its_age(tmp_path):
    """Until then nothing is settled, and nobody sees it."""
    clock = Clock()
    live = opened(tmp_path, clock)
    assert live.put(block(0), 0, "local")
    clock.now_s += 0.9
    assert live.put(block(1), 0, "local")
    assert (live.settled(0), spool_files.names_in(tmp_path)) == (0, [])
    clock.now_s += 0.1
    assert live.settled(0) == 2
    assert numbers(tmp_path) == [(7, 0, 0), (7, 0, 1)]
    assert live.problem is None


def test_a_file_is_complete_at_its_size_and_at_the_end_of_its_stream(tmp_path):
    live = opened(tmp_path, file_octets=1)
    assert live.put(block(0), 0, "local")
    assert live.settled(0) == 1
    live = opened(tmp_path)
    assert live.put(block(1), 0, "local")
    assert live.put(block(2, end=True), 0, "local")
    assert live.settled(0) == 2
    assert numbers(tmp_path) == [(7, 0, 0), (7, 0, 1), (7, 0, 2)]


def test_settled_counts_in_the_order_of_put(tmp_path):
    """A block that is there before an earlier one of another partition does not count yet."""
    clock = Clock()
    live = opened(tmp_path, clock, partitions=2)
    assert live.partitions == 2
    assert live.put(block(0, partition=1), 1, "local")
    assert live.put(block(0, end=True), 0, "local")
    assert live.settled(0) == 0
    clock.now_s += 1
    assert live.settled(0) == 2


def test_settled_waits_no_longer_than_needed(tmp_path):
    """It returns once a file has come of age, long before the wait is over."""
    live = spool_live.LiveSpool(tmp_path, "null", 1 << 20, 0.05)
    assert live.put(block(0), 0, "local")
    assert live.settled(60) == 1


def test_what_a_killed_sensor_had_settled_is_not_written_twice(tmp_path):
    """It hands over again what it does not know to be settled; that is skipped, and counts at once."""
    clock = Clock()
    live = opened(tmp_path, clock)
    assert all(live.put(block(i), 0, "local") for i in range(3))
    clock.now_s += 1
    assert live.settled(0) == 3
    again = opened(tmp_path, clock)
    assert all(again.put(block(i), 0, "local") for i in range(1, 6))
    assert again.settled(0) == 2
    clock.now_s += 1
    assert again.settled(0) == 5
    assert numbers(tmp_path) == [(7, 0, i) for i in range(6)]


KILLED = """
import os, signal, sys
from pathlib import Path
from queues.spool_files import OpenFile, name_of
from transforms.records import Stream
files = [OpenFile(Path(sys.argv[1]), name_of(Stream(sensor, 7, 0), 0), "null") for sensor in ("local", "other")]
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_of_a_killed_process_are_removed(tmp_path):
    """Those of other sensors stay, and so do those of a process that lives."""
    environment = {**os.environ, "PYTHONPATH": str(Path(spool.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=environment, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    living = spool_files.OpenFile(tmp_path, spool_files.name_of(Stream("local", 7, 1), 0), "null")
    live = opened(tmp_path)
    assert live.put(block(0), 0, "local")
    names = sorted(path.name.rpartition(".")[0] for path in tmp_path.iterdir())
    streams = [("local", 0), ("local", 1), ("other", 0)]
    assert names == [f".{spool_files.name_of(Stream(sensor, 7, part), 0)}" for sensor, part in streams]
    living.discard()
    live.close()


@pytest.mark.parametrize("fails", ["write", "open", "rename"])
def test_a_full_disk_is_waited_for(tmp_path, monkeypatch, fails):
    """Nothing is accepted meanwhile, nothing lost, and no half object stays in a file."""
    clock = Clock()
    live = opened(tmp_path, clock)
    assert live.put(block(0), 0, "local")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if fails == "write":
            file = live._filling[Stream("local", 7, 0)].file
            whole = file._file

            class Full:
                def write(self, octets):
                    whole.write(octets[: len(octets) // 2])
                    full()

                def __getattr__(self, name):
                    return getattr(whole, name)

            patch.setattr(file, "_file", Full())
            assert not live.put(block(1), 0, "local")
        elif fails == "open":
            patch.setattr(spool_live, "OpenFile", full)
            assert not live.put(block(0, partition=1), 1, "local")
        else:
            patch.setattr(os, "rename", full)
            clock.now_s += 1
            assert live.settled(0) == 0
        assert live.problem == f"{tmp_path}: cannot be written to: No space left on device"
        assert not live.put(block(1), 0, "local")
    clock.now_s += 0.5
    assert live.put(block(1), 0, "local")
    assert live.put(block(0, partition=1), 1, "local")
    assert live.problem is None
    clock.now_s += 1
    assert live.settled(0) == 3
    assert numbers(tmp_path) == [(7, 0, 0), (7, 0, 1), (7, 1, 0)]


def test_close_completes_what_is_open(tmp_path):
    """What was put is there; no hidden file stays."""
    live = opened(tmp_path)
    assert live.put(block(0), 0, "local")
    live.close()
    assert numbers(tmp_path) == [(7, 0, 0)]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [("?partitions=0", "partitions 0 is not a number from 1 to"), ("?partitions=x", "partitions x"),
     ("?file_max_age_s=0", "file_max_age_s 0 is not a positive"), ("?file_max_age_s=-1", "file_max_age_s -1"),
     ("?codec=lz77", "codec lz77"), ("?colour=red", "unknown setting colour")],
)  # fmt: skip
def test_wrong_settings_are_one_line(tmp_path, settings, complaint):
    """They are refused when the queue is opened."""
    with pytest.raises(InputError, match=complaint):
        queues.open_live(f"spool:{tmp_path}{settings}")


def test_a_folder_that_cannot_be_written_to(tmp_path):
    """A file in its place is noticed at once, by its path."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"taken.*cannot be written to"):
        queues.open_live(f"spool:{tmp_path}/taken")


def test_a_block_that_is_too_large(tmp_path, monkeypatch):
    """It would be damage to every reader."""
    monkeypatch.setattr(spool_live, "BLOCK_OCTETS_MOST", 10)
    with pytest.raises(InputError, match="lower --block_packets"):
        opened(tmp_path).put(block(0), 0, "local")


def test_many_files_are_listed_by_their_names(tmp_path, monkeypatch):
    """Only files whose name does not tell are looked into."""
    for i in range(50):
        (tmp_path / spool_files.name_of(Stream("local", 7, i % 2), i)).touch()
    (tmp_path / spool_files.name_of(Stream("x" * 200, 7, 0), 0)).touch()
    looked_into = []
    monkeypatch.setattr(spool.SpoolReader, "read", lambda _, part: looked_into.append(part) or iter(()))
    parts = queues.open_reader(f"spool:{tmp_path}").parts()
    assert {stream: len(files) for stream, files in parts.items()} == {Stream("local", 7, i): 25 for i in (0, 1)}
    assert len(looked_into) == 1


@pytest.mark.parametrize("sensor", ["", ".", "../up", "a/b", "a.b", "Zürich %", "~", "\0", "x~" * 40])
def test_names_tell_the_sensor(sensor):
    """A name gives back what it was made of."""
    told = spool_files.parsed(spool_files.name_of(Stream(sensor, 2**62, 12), 345))
    assert spool_files.sensor_of(told.sensor) == sensor
    assert (told.epoch, told.partition, told.sequence) == (2**62, 12, 345)
    assert "/" not in told.text


@pytest.mark.parametrize("name", ["again.avro", "a.b.avro", f"local.{7:020d}.{0:05d}.avro", "x.avro.tmp"])
def test_other_names_tell_nothing(name):
    assert spool_files.parsed(name) is None
    assert spool_files.sensor_of(spool_files.sensor_text("x" * 200)) is None

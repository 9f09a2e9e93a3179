"""Spools: files that any Avro tool reads, whole or not there, and one line for whatever is wrong with them."""

import contextlib
import importlib
import io
import json
import os
from pathlib import Path

import fastavro
import pytest
from flow_testing import packets
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from queue_testing import put_all

import queues
from queues import Damaged, object_files, spool
from transforms import avro
from transforms.records import InputError, PacketBatch, Stream


def block(sequence, *, sensor="local", epoch=0, partition=0, end=False, rows=3):
    made = packets(at_s=[sequence + i / 10 for i in range(rows)])
    return PacketBatch(Stream(sensor, epoch, partition), sequence, int(made["time_ns"].max(initial=0)), made, end=end)


def write(folder, *blocks, settings=""):
    put_all(f"spool:{folder}{settings}", map(avro.encode_block, blocks))


def visible(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


def messages(folder):
    reader = queues.open_reader(f"spool:{folder}")
    return [message for parts in reader.parts().values() for part in parts for message in reader.read(part)]


def identities(folder):
    blocks = [avro.decode_block(message.octets) for message in messages(folder)]
    return [(*one.stream, one.sequence) for one in blocks]


def test_modules_that_help_are_no_schemes():
    """A queue is a module that can be opened; its name is what stands before the colon."""
    assert "spool" in queues.schemes()
    for scheme in queues.schemes():
        module = importlib.import_module(f"queues.{scheme}")
        assert callable(module.open_live)
        assert callable(module.open_reader)


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_files_are_what_fastavro_reads(tmp_path, codec):
    """A generic Avro reader finds the schema, and every block as a record with all its packets."""
    write(tmp_path, block(0), block(1, end=True), settings=f"?codec={codec}")
    (name,) = visible(tmp_path)
    with open(tmp_path / name, "rb") as file:
        reader = fastavro.reader(file)
        assert reader.writer_schema["name"] == "flowbeam.PacketBlock"
        assert reader.metadata["avro.codec"] == codec
        records = list(reader)
    assert [record["sequence"] for record in records] == [0, 1]
    assert [len(record["packets"]) for record in records] == [3, 3]
    assert records[0]["packets"][0]["src_ip"] == bytes([10, 0, 0, 1])


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_files_that_fastavro_wrote_are_read(tmp_path, codec):
    """So is a spool that another Avro tool has rewritten, with several blocks in one and another codec."""
    write(tmp_path / "ours", block(0), block(1, end=True))
    with open(tmp_path / "ours" / visible(tmp_path / "ours")[0], "rb") as file:
        records = list(fastavro.reader(file))
    out = io.BytesIO()
    fastavro.writer(out, avro.current_schema(), records, codec)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "rewritten.avro").write_bytes(out.getvalue())
    assert [one.octets for one in messages(tmp_path / "theirs")] == [one.octets for one in messages(tmp_path / "ours")]


def test_zstandard_comes_back_and_is_smaller(tmp_path):
    """The one codec for which fastavro needs a package more."""
    for codec in ("null", "zstandard"):
        write(tmp_path / codec, block(0, rows=500, end=True), settings=f"?codec={codec}")
    (plain,), (packed,) = messages(tmp_path / "null"), messages(tmp_path / "zstandard")
    assert packed.octets == plain.octets
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("zstandard", "null")]
    assert sizes[0] < sizes[1] / 2


def test_files_of_another_version_are_read(tmp_path):
    """A file carries its schema, so that it need not be a registered one."""
    schema = json.loads(avro.schema_text())
    schema["fields"] = [field for field in schema["fields"] if field["name"] not in ("health", "rejects")]
    record = {"sensor": "old", "sequence": 0, "observed_ns": 5, "end": True, "packets": []}
    out = io.BytesIO()
    fastavro.writer(out, schema, [record])
    (tmp_path / "old.avro").write_bytes(out.getvalue())
    assert identities(tmp_path) == [("old", 0, 0, 0)]


def test_files_are_bounded_and_their_names_sort(tmp_path):
    """Files are closed at the size asked for; in order of their names come sensor, epoch, partition, sequence."""
    streams = [(5, 0), (5, 1), (40, 0), (40, 1)]
    blocks = [block(i, epoch=epoch, partition=partition) for epoch, partition in streams for i in range(12)]
    write(tmp_path, *blocks, settings="?file_octets=1")
    assert len(visible(tmp_path)) == len(blocks)
    expected = [(*one.stream, one.sequence) for one in blocks]
    assert identities(tmp_path) == expected
    by_name = [next(queues.open_reader(f"spool:{tmp_path}").read(str(tmp_path / name))) for name in visible(tmp_path)]
    assert [avro.decode_block(one.octets).sequence for one in by_name] == [one.sequence for one in blocks]


@pytest.mark.parametrize("sensor", ["", ".", "../up", "a/b", "a.b", "Zürich %", "x" * 400, "\0"])
def test_any_sensor_name_makes_a_file(tmp_path, sensor):
    """Names of sensors are text; files stay in the folder, and the name comes back."""
    write(tmp_path, block(0, sensor=sensor, end=True))
    assert len(visible(tmp_path)) == 1
    assert identities(tmp_path) == [(sensor, 0, 0, 0)]


def test_the_same_blocks_give_the_same_files(tmp_path):
    """Nothing in a file depends on chance or time."""
    for name in ("one", "other"):
        write(tmp_path / name, block(0), block(1, end=True))
    (name,) = visible(tmp_path / "one")
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [("spool:", "names no folder"), ("spol:x", "no queue.*spool:"), ("x", "no queue"),
     ("spool:x?codec=lz77", "codec lz77 is not one of null, deflate, zstandard"),
     ("spool:x?file_octets=-1", "file_octets -1"), ("spool:x?colour=red", "unknown setting colour")],
)  # fmt: skip
def test_wrong_settings_are_one_line(url, complaint, tmp_path, monkeypatch):
    """They are refused when the queue is opened."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=complaint):
        queues.open_live(url)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    """A file in its place is noticed at once, by its path."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"taken.*cannot be written to"):
        queues.open_live(f"spool:{tmp_path}/taken")


def test_a_folder_without_blocks(tmp_path):
    """No folder, an empty one, one with other files: one line each."""
    with pytest.raises(InputError, match="no such folder"):
        queues.open_reader(f"spool:{tmp_path}/absent")
    (tmp_path / ".local.avro.half").write_bytes(b"Obj\x01")
    with pytest.raises(InputError, match="no Avro files"):
        queues.open_reader(f"spool:{tmp_path}").parts()
    (tmp_path / "picture.avro").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"picture\.avro: not an Avro object container file"):
        queues.open_reader(f"spool:{tmp_path}").parts()


def test_foreign_files_are_lines_and_the_rest_is_read(tmp_path):
    """Whatever lies in the folder beside blocks is named, each in one line."""
    write(tmp_path, block(0, end=True))
    out = io.BytesIO()
    fastavro.writer(out, {"type": "record", "name": "Person", "fields": [{"name": "age", "type": "int"}]}, [{"age": 3}])
    foreign = {
        "a.avro": (b"", "empty file"),
        "b.avro": (b"PK", "not an Avro object container file"),
        "c.avro": (out.getvalue(), "its schema is not that of packet blocks"),
        "d.avro": (b"Obj\x01\x02\x14avro.codec\x0csnappy\x00", "codec snappy cannot be read"),
        "e.avro": (b"Obj\x01\x02\x14avro", "it breaks off"),
    }
    for name, (content, _) in foreign.items():
        (tmp_path / name).write_bytes(content)
    reader = queues.open_reader(f"spool:{tmp_path}")
    assert [stream.sensor for stream in reader.parts()] == ["local"]
    assert len(reader.damage) == len(foreign)
    for line, (name, (_, reason)) in zip(reader.damage, foreign.items(), strict=True):
        assert line.startswith(f"{tmp_path / name}: {reason}")


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path):
    """What stands before it comes; the error names file and offset, and holds the first octets of the rest."""
    write(tmp_path, *(block(i) for i in range(5)))
    path = tmp_path / visible(tmp_path)[0]
    content = bytearray(path.read_bytes())
    places = [one.position for one in messages(tmp_path)]
    content[places[3] - 5] ^= 0xFF  # in the marker after the third block
    path.write_bytes(content)
    reader = queues.open_reader(f"spool:{tmp_path}")
    reading = reader.read(str(path))
    assert [avro.decode_block(next(reading).octets).sequence for _ in range(2)] == [0, 1]
    with pytest.raises(Damaged, match=f"damaged at offset {places[2]}: no sync marker .*; read up to there") as error:
        next(reading)
    assert str(error.value).startswith(f"{path}: ")
    assert error.value.position == places[2]
    assert error.value.piece == bytes(content[places[2] :][:4096])


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_line(tmp_path, data):
    """Cut or changed anywhere, a file gives blocks and perhaps the one error."""
    folder = tmp_path / "whole"
    if not folder.exists():
        write(folder, *(block(i) for i in range(3)), settings="?codec=deflate")
    content = bytearray((folder / visible(folder)[0]).read_bytes())
    for at, octet in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)):
        content[at] = octet
    path = tmp_path / "damaged.avro"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    count = 0
    with contextlib.suppress(Damaged):
        for message in spool.SpoolReader(tmp_path).read(str(path)):
            count += len(message.octets) > 0
    assert count <= 3


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A block that unpacks to more than the bound is damage, found with no more memory than the bound."""
    for codec in ("deflate", "zstandard"):
        write(tmp_path, block(0, sensor=f"{codec}{'x' * 20_000}", end=True), settings=f"?codec={codec}")
    for codec in ("bzip2", "xz"):
        out = io.BytesIO()
        record = {"sensor": "x" * 20_000, "sequence": 0, "observed_ns": 5, "end": True, "packets": []}
        fastavro.writer(out, avro.current_schema(), [record], codec)
        (tmp_path / f"{codec}.avro").write_bytes(out.getvalue())
    monkeypatch.setattr(object_files, "BLOCK_OCTETS_MOST", 10_000)
    reader = queues.open_reader(f"spool:{tmp_path}")
    with pytest.raises(InputError):
        reader.parts()
    assert len(reader.damage) == 4
    assert all("does not unpack (too large)" in line for line in reader.damage)


def test_files_that_cannot_be_opened(tmp_path):
    """A folder that is called like a file is one line."""
    write(tmp_path, block(0, end=True))
    os.mkdir(tmp_path / "folder.avro")
    reader = queues.open_reader(f"spool:{tmp_path}")
    assert [stream.sensor for stream in reader.parts()] == ["local"]
    assert reader.damage == [f"{tmp_path}/folder.avro: Is a directory"]

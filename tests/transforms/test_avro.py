"""Packet blocks in Avro: our encoder and decoder against fastavro, both ways, and against bytes that are no blocks."""

import contextlib
import copy
import io
import json
import struct
import tracemalloc

import fastavro
import numpy as np
import pytest
from flow_testing import packets
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transforms import avro, avro_kernels
from transforms.records import PACKET, PacketBatch, SensorHealth, Stream

SCHEMA = fastavro.parse_schema(json.loads(avro.schema_text()))
PACKET_FIELDS = {field["name"] for field in SCHEMA["fields"][-1]["type"]["items"]["fields"]}
IPV4 = np.uint64(0xFFFF << 32)
LONGS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)


def any_packets(count, seed):
    """Rows over the whole range of every column, as far as PACKET allows; half the rows small numbers, half IPv4."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, PACKET)
    for name in PACKET.names:
        if PACKET[name].kind == "f":
            continue
        limits = np.iinfo(PACKET[name])
        wide = rng.integers(limits.min, limits.max, count, PACKET[name], endpoint=True)
        rows[name] = np.where(rng.random(count) < 0.5, wide, wide % 3)
    rows["vni"] = np.maximum(rows["vni"], -1)
    rows["ip_version"] = np.where(rng.random(count) < 0.5, 4, 6)
    for name, most in (("tunnel", 6), ("fragment", 3), ("transport", 2)):
        rows[name] %= most + 1
    for name in ("src_mac", "dst_mac"):
        rows[name] &= np.uint64(2**48 - 1)
    four = rows["ip_version"] == 4
    for side in ("src", "dst"):
        rows[side + "_hi"][four] = 0
        rows[side + "_lo"][four] = rows[side + "_lo"][four] & np.uint64(2**32 - 1) | IPV4
    outer_four = rng.random(count) < 0.3
    rows["outer_src_hi"][outer_four] = 0
    rows["outer_src_lo"][outer_four] = rows["outer_src_lo"][outer_four] & np.uint64(2**32 - 1) | IPV4
    rows["payload_captured"] = np.where(rng.random(count) < 0.5, 0, rng.integers(0, 300, count))
    rows["payload_at"] = np.where(
        rows["payload_captured"], np.cumsum(rows["payload_captured"]) - rows["payload_captured"], 0
    )
    rows["payload_entropy"] = np.nan
    return rows, rng.bytes(int(rows["payload_captured"].sum()))


@st.composite
def batches(draw):
    rows, payloads = any_packets(draw(st.integers(0, 20)), draw(st.integers(0, 2**32)))
    health = SensorHealth(draw(st.floats(allow_nan=False)), *(draw(LONGS) for _ in range(5)))
    rejects = draw(st.dictionaries(st.text(max_size=10), COUNTS, max_size=3))
    return PacketBatch(
        Stream(draw(st.text(max_size=70)), draw(LONGS), draw(st.integers(0, 2**31 - 1))),
        draw(COUNTS),
        draw(LONGS),
        rows,
        payloads,
        draw(st.integers(1, 2**31 - 1)),
        draw(st.booleans()),
        draw(COUNTS),
        tuple(sorted(rejects.items())),
        draw(st.sampled_from([None, health])),
        draw(COUNTS),
    )


def address(hi, lo, four):
    return (
        (int(lo) & 0xFFFFFFFF).to_bytes(4, "big") if four else int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big")
    )


def outer_address(hi, lo):
    return address(hi, lo, hi == 0 and lo >> np.uint64(32) == 0xFFFF) if hi or lo else b""


def record_of(batch):
    """The batch as any Avro library takes it."""
    record = {
        "sensor": batch.stream.sensor,
        "epoch": batch.stream.epoch,
        "partition": batch.stream.partition,
        **{
            name: getattr(batch, name)
            for name in ("partitions", "sequence", "observed_ns", "end", "ended_by", "dropped")
        },
        "rejects": dict(batch.rejects),
        "health": batch.health and batch.health._asdict(),
        "packets": [],
    }
    plain = [
        field["name"] for field in SCHEMA["fields"][-1]["type"]["items"]["fields"] if field["name"] in PACKET.names
    ]
    for row in batch.packets:
        packet = {name: int(row[name]) for name in plain}
        four = row["ip_version"] == 4
        for side in ("src", "dst"):
            packet[side + "_ip"] = address(row[side + "_hi"], row[side + "_lo"], four)
            packet[f"outer_{side}_ip"] = outer_address(row[f"outer_{side}_hi"], row[f"outer_{side}_lo"])
            packet[side + "_mac"] = int(row[side + "_mac"]).to_bytes(6, "big")
        packet["headers_hash"] = int(row["headers_hash"]).to_bytes(8, "big")
        packet["payload"] = batch.payloads[row["payload_at"] :][: row["payload_captured"]]
        record["packets"].append(packet)
    return record


def with_fastavro(batch, schema=SCHEMA):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record_of(batch))
    return out.getvalue()


def same(one, other):
    """Equal in everything; NaN equals NaN."""
    return one._replace(packets=None) == other._replace(packets=None) and all(
        np.array_equal(one.packets[name], other.packets[name], equal_nan=PACKET[name].kind == "f")
        for name in PACKET.names
    )


def batch_of(rows, **values):
    return PacketBatch(Stream("local"), 0, int(rows["time_ns"].max(initial=0)), rows, **values)


def schema_with(change):
    """A version of the schema that `change` has been let loose on, and its fingerprint."""
    schema = copy.deepcopy(json.loads(avro.schema_text()))
    change(schema, schema["fields"][-1]["type"]["items"]["fields"])
    return schema, avro.fingerprint_of(schema)


def test_fingerprint_is_that_of_the_schema_file():
    """The constant that spares every start the reading of the schema is true."""
    assert avro.fingerprint_of(json.loads(avro.schema_text())) == avro.FINGERPRINT
    assert avro.FINGERPRINT in avro.known_schemas()


def test_fingerprints_are_those_of_the_avro_specification():
    """The string `"null"` has the fingerprint of Avro's own tests, least significant octet first."""
    assert avro.fingerprint_of("null") == struct.pack("<Q", 7195948357588979594)


def test_schema_and_rows_agree_field_by_field():
    """Every column is a field of its own name, or one of the few that are carried as octets or not at all."""
    fields, columns = PACKET_FIELDS, set(PACKET.names)
    assert fields - columns == {"src_ip", "dst_ip", "outer_src_ip", "outer_dst_ip", "payload"}
    assert {name for name in columns - fields if not name.endswith(("_hi", "_lo"))} == {
        "ip_version", "payload_at", "payload_captured", "payload_entropy",
    }  # fmt: skip


@hypothesis_settings(deadline=None, max_examples=80)
@given(batches())
def test_encoder_and_decoder_agree_with_fastavro(batch):
    """Byte for byte what fastavro writes, and back again what went in."""
    message = avro.encode_block(batch)
    assert message == b"\xc3\x01" + avro.FINGERPRINT + with_fastavro(batch)
    assert fastavro.schemaless_reader(io.BytesIO(message[10:]), SCHEMA, None) == record_of(batch)
    assert same(avro.decode_block(message), batch)
    header = avro.decode_header(message)
    assert same(header, batch._replace(packets=batch.packets[:0], payloads=b""))


def test_whole_range_of_many_rows():
    """Four thousand rows over the whole range of every column come back as they were."""
    rows, payloads = any_packets(4096, 7)
    batch = batch_of(rows, payloads=payloads)
    assert same(avro.decode_block(avro.encode_block(batch)), batch)


def test_sizes_that_the_decoder_counts_on():
    """No packet is shorter or longer than the kernels assume."""
    least = packets(ip_octets=0, frame_octets=0, header_octets=0, ip_header_octets=0, tcp_window=0, ttl=0)
    least["time_ns"] = least["src_port"] = least["dst_port"] = 0
    out = np.empty(1000, np.uint8)
    none = np.frombuffer(b"", np.uint8)
    assert avro_kernels.encode_packets(least, none, out) == avro_kernels.PACKET_OCTETS_LEAST
    most = np.zeros(1, PACKET)
    for name in PACKET.names:
        if PACKET[name].kind != "f":
            most[name] = np.iinfo(PACKET[name]).max
    most["time_ns"] = -(2**63)
    for name, value in {
        "ip_version": 6,
        "src_mac": 1,
        "dst_mac": 1,
        "tunnel": 6,
        "fragment": 3,
        "transport": 2,
    }.items():
        most[name] = value
    most["payload_at"] = most["payload_captured"] = 0
    assert avro_kernels.encode_packets(most, none, out) + 4 <= avro_kernels.PACKET_OCTETS_MOST


def test_plain_tcp_packet_stays_small():
    """An IPv4/TCP packet with MACs and hash takes at most 80 octets."""
    rows = packets([0] * 100, 1000, tcp_seq=2**31, tcp_ack=2**31, fragment_id=40000, headers_hash=1, src_mac=1)
    assert len(avro.encode_block(batch_of(rows))) <= 100 * 80 + 40


@pytest.mark.parametrize(
    "column",
    [{"ip_version": 5}, {"src_hi": 1}, {"dst_lo": 7}, {"src_mac": 2**48}, {"tunnel": 7}, {"fragment": 4},
     {"transport": 3}, {"payload_captured": 1}],
    ids=lambda column: next(iter(column)),
)  # fmt: skip
def test_rows_that_could_not_come_back_are_refused(column):
    """A row that breaks PACKET's rules is an error of the program, never a wrong block."""
    with pytest.raises(ValueError, match="packet 1 of block 0"):
        avro.encode_block(batch_of(np.concatenate([packets(), packets(**column)])))


def test_numbers_of_the_head_outside_the_schema_are_refused():
    """The head is held to its ranges as well."""
    with pytest.raises(ValueError, match="-1"):
        avro.encode_block(batch_of(packets())._replace(sequence=-1))


def test_place_of_no_payload_means_nothing():
    """A packet without payload prefix may point anywhere; it comes back with 0."""
    batch = avro.decode_block(avro.encode_block(batch_of(packets(payload_at=77))))
    assert batch.packets["payload_at"] == 0


def test_read_only_rows_are_encoded():
    """Rows that may not be written to, as batches are, need no second compilation of the kernel."""
    rows = packets()
    rows.flags.writeable = False
    avro.encode_block(batch_of(rows))
    assert len(avro_kernels.encode_packets.signatures) == 1


def test_blocks_in_several_parts():
    """Avro may split an array into parts, with a count, or a negative count and a size."""
    batch = batch_of(packets(at_s=[0, 1, 2]))
    message = avro.encode_block(batch)
    head = len(avro.encode_block(batch._replace(packets=batch.packets[:0]))) - 1
    rows = [avro.encode_block(batch._replace(packets=batch.packets[i : i + 1]))[head + 1 : -1] for i in range(3)]
    sized = avro.encode_long(-2) + avro.encode_long(len(rows[1] + rows[2])) + rows[1] + rows[2]
    split = message[:head] + avro.encode_long(1) + rows[0] + sized + b"\0"
    assert same(avro.decode_block(split), batch)
    wrong_size = split.replace(avro.encode_long(len(rows[1] + rows[2])) + rows[1], avro.encode_long(9) + rows[1])
    with pytest.raises(avro.BlockDecodeError, match="damaged block"):
        avro.decode_block(wrong_size)


ROWS, PAYLOADS = any_packets(12, 3)
BATCH = batch_of(ROWS, payloads=PAYLOADS, rejects=(("malformed", 2),), health=SensorHealth())
MESSAGE = avro.encode_block(BATCH)


def test_every_truncation_is_noticed():
    """A block that was cut anywhere is an error with a place in it."""
    for length in range(len(MESSAGE)):
        with pytest.raises(avro.BlockDecodeError) as error:
            avro.decode_block(MESSAGE[:length], "topic")
        assert error.value.source == "topic"
        assert error.value.position <= length


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(10, len(MESSAGE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_blocks_raise_or_are_what_fastavro_reads(changes):
    """Any octets give an error, or exactly the block that fastavro makes of them."""
    damaged = bytearray(MESSAGE)
    for at, octet in changes:
        damaged[at] = octet
    try:
        batch = avro.decode_block(bytes(damaged))
    except avro.BlockDecodeError:
        return
    record = fastavro.schemaless_reader(io.BytesIO(bytes(damaged[10:])), SCHEMA, None)
    for packet in record["packets"]:
        for name in ("outer_src_ip", "outer_dst_ip"):  # of which PACKET keeps no version
            number = int.from_bytes(packet[name], "big") | ((0xFFFF << 32) if len(packet[name]) == 4 else 0)
            packet[name] = outer_address(np.uint64(number >> 64), np.uint64(number & 2**64 - 1))
    read = io.BytesIO()
    fastavro.schemaless_writer(read, SCHEMA, record)
    assert read.getvalue() == with_fastavro(batch)


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400))
def test_any_octets_raise_the_one_error_or_give_a_batch(octets):
    """Nothing else is raised, whatever follows the fingerprint."""
    with contextlib.suppress(avro.BlockDecodeError):
        avro.decode_block(avro.MARKER + avro.FINGERPRINT + octets)


def test_huge_counts_allocate_nothing():
    """A count is believed only if the octets for it are there."""
    head = avro.encode_block(batch_of(packets()[:0]))[:-1]
    tracemalloc.start()
    try:
        for count in (2**62, -(2**63), 10**6):
            with pytest.raises(avro.BlockDecodeError):
                avro.decode_block(head + avro.encode_long(count) + bytes(5000))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("field", "value"),
    [("src_port", 65536), ("protocol", 256), ("tcp_seq", 2**32), ("frame_octets", -1), ("vni", -2), ("tunnel", 7),
     ("transport", 3), ("src_ip", b"abc"), ("dst_ip", bytes(16)), ("outer_src_ip", b"a")],
)  # fmt: skip
def test_values_outside_their_field_are_refused(field, value):
    """A number that its column cannot hold is damage, not a number modulo something."""
    record = record_of(batch_of(packets(at_s=[0, 1])))
    record["packets"][1][field] = value
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, record)
    with pytest.raises(avro.BlockDecodeError, match="damaged packet"):
        avro.decode_block(avro.MARKER + avro.FINGERPRINT + out.getvalue())


def test_octets_after_the_block_are_refused():
    """A message holds one block."""
    with pytest.raises(avro.BlockDecodeError, match="octets after the block"):
        avro.decode_block(MESSAGE + b"\0")


@pytest.mark.parametrize("message", [b"", b"\xc3", b"{}", b"Obj\x01" * 10], ids=["empty", "cut", "json", "file"])
def test_messages_without_the_marker(message):
    """What is not Avro's single-object encoding is named so."""
    with pytest.raises(avro.BlockDecodeError, match="not a single-object Avro message"):
        avro.decode_block(message)


def test_unknown_schema_is_named():
    """The fingerprint of a version that we do not know stands in the error."""
    with pytest.raises(avro.BlockDecodeError, match="unknown schema 0102030405060708"):
        avro.decode_block(b"\xc3\x01\1\2\3\4\5\6\7\x08" + bytes(100))


def test_older_schema_is_resolved(monkeypatch):
    """Fields that an older version lacks get their defaults, octets included."""

    def older(schema, packet_fields):
        schema["fields"] = [
            field for field in schema["fields"] if field["name"] not in ("rejects", "health", "dropped")
        ]
        packet_fields[:] = [field for field in packet_fields if field["name"] not in ("headers_hash", "payload", "vni")]

    schema, fingerprint = schema_with(older)
    batch = batch_of(packets(at_s=[0, 1], payload=5))
    message = avro.MARKER + fingerprint + with_fastavro(batch, fastavro.parse_schema(schema))
    with pytest.raises(avro.BlockDecodeError, match="unknown schema"):
        avro.decode_block(message)
    monkeypatch.setitem(avro.known_schemas(), fingerprint, schema)
    assert same(avro.decode_block(message), batch)
    assert avro.decode_header(message).stream == batch.stream
    with pytest.raises(avro.BlockDecodeError):
        avro.decode_block(message[:-3])
    with pytest.raises(avro.BlockDecodeError, match="octets after the block"):
        avro.decode_block(message + b"\0")


def test_newer_schema_is_resolved(monkeypatch):
    """Fields that a newer version has gained are skipped, other orders and narrower numbers are fine."""

    def newer(schema, packet_fields):
        schema["fields"].insert(2, {"name": "site", "type": "string", "default": "here"})
        packet_fields.insert(3, {"name": "colour", "type": ["null", "string"], "default": None})
        next(field for field in packet_fields if field["name"] == "tcp_seq")["type"] = "int"

    schema, fingerprint = schema_with(newer)
    batch = batch_of(packets(at_s=[0, 1], tcp_seq=77))
    monkeypatch.setitem(avro.known_schemas(), fingerprint, schema)
    assert same(
        avro.decode_block(avro.MARKER + fingerprint + with_fastavro(batch, fastavro.parse_schema(schema))), batch
    )


def test_schema_of_something_else_does_not_resolve():
    """A foreign record is refused as such."""
    foreign = {"type": "record", "name": "Person", "fields": [{"name": "age", "type": "int"}]}
    with pytest.raises(avro.BlockDecodeError, match="does not resolve"):
        avro.decode_with_schema(b"\x02", foreign)


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_octets_of_an_older_schema(octets):
    """The many errors of fastavro come out as the one error."""
    schema, _ = schema_with(lambda schema, _: schema["fields"].pop(7))
    with contextlib.suppress(avro.BlockDecodeError):
        avro.decode_with_schema(octets, schema)

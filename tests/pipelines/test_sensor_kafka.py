"""The sensor with a real broker that dies in the middle of traffic, and itself too."""

import subprocess
from collections import defaultdict

import pytest
from capture_files import number_of, pcap
from command_testing import ENVIRONMENT, command
from confluent_kafka import Consumer, TopicPartition
from sensor_testing import until
from servers.fixtures import need

from sources.sensor_folder import sensor_folder
from transforms import avro

PACKETS = 10_000


@pytest.fixture
def broker(tmp_path):
    """A broker of this test alone, that may be killed."""
    need("kafka")
    from servers.kafka import KafkaServer

    with KafkaServer(tmp_path / "kafka") as server:
        server.create_topic("packets", 2, {"message.timestamp.type": "LogAppendTime"})
        yield server


def delivered(broker):
    """The blocks of each partition of the topic, in their order there."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test", "enable.auto.commit": False})
    found = defaultdict(list)
    try:
        for partition in range(2):
            place = TopicPartition("packets", partition, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=20)
            consumer.assign([place])
            while len(found[partition]) < end:
                message = consumer.poll(20)
                assert message is not None
                assert message.error() is None
                found[partition].append(avro.decode_block(message.value()))
    finally:
        consumer.close()
    return found


def test_neither_a_killed_broker_nor_a_killed_sensor_loses_a_kept_block(broker, tmp_path):
    """The broker is gone for a while: nothing is lost. The sensor is killed meanwhile: its next run sends the rest."""
    (tmp_path / "a.pcap").write_bytes(pcap([i * 1_000_000 for i in range(PACKETS)]))
    words = command(
        *("--input", f"replay:{tmp_path}/a.pcap", "--queue", f"kafka://{broker.bootstrap}/packets"),
        *("--buffer_dir", tmp_path / "state", "--block_packets", 50, "--quiet"),
        module="pipelines.capture",
    )
    kept = sensor_folder(tmp_path / "state", "local")

    def octets():
        return sum(path.stat().st_size for path in kept.glob("*.blocks"))

    first = subprocess.Popen(words, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: octets() > 20_000, 60)
        broker.kill()
        seen = octets()
        until(lambda: octets() > seen + 30_000, 60)
    finally:
        first.kill()
    assert "Traceback" not in first.communicate()[1]
    second = subprocess.Popen(words, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: octets() > seen + 60_000, 60)
        broker.start()
        said = second.communicate(timeout=90)[1]
    finally:
        second.kill()
        second.wait()
    assert second.returncode == 0, said
    assert "did not stop cleanly" in said
    streams = defaultdict(dict)
    for partition, blocks in delivered(broker).items():
        for block in blocks:
            assert block.stream.partition == partition
            streams[block.stream].setdefault(block.sequence, block)
    assert len(streams) == 4
    packets = defaultdict(list)
    for stream, blocks in streams.items():
        assert list(blocks) == list(range(len(blocks)))  # in order, repeated ones aside, and none missing
        assert [number for number, block in blocks.items() if block.end] == [len(blocks) - 1]
        packets[stream.epoch] += [number for block in blocks.values() for number in number_of(block.packets)]
    killed, whole = (sorted(packets[epoch]) for epoch in sorted(packets))
    assert whole == list(range(PACKETS))
    assert len(killed) > 500
    assert len(set(killed)) == len(killed)
    assert killed[-1] - len(killed) < 300  # of the open blocks, some may have been closed and others not
    assert not list(kept.glob("*.blocks"))

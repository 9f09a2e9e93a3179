"""What tests of the whole live path share: blocks of a spool, put on a topic in an order that a test chooses."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
from confluent_kafka import Producer

import queues
from transforms import avro


class Block(NamedTuple):
    """A block as a sensor put it on a queue."""

    partition: int
    observed_ns: int
    octets: bytes


def blocks_in(spool: Path) -> list[Block]:
    """All blocks of a spool, stream by stream."""
    reader = queues.open_reader(f"spool:{spool}")
    found = []
    for parts in reader.parts().values():
        for part in parts:
            for message in reader.read(part):
                header = avro.decode_header(message.octets)
                found.append(Block(header.stream.partition, header.observed_ns, message.octets))
    return found


def disordered(blocks: Sequence[Block], bound_s: float, repeated: float, seed: int = 1) -> list[Block]:
    """Blocks up to the bound of observed time away from their place, and a share of them twice."""
    chosen = random.Random(seed)
    again = [*blocks, *(block for block in blocks if chosen.random() < repeated)]
    return sorted(again, key=lambda block: block.observed_ns + chosen.uniform(0, bound_s * 1e9))


def produce(bootstrap: str, topic: str, blocks: Iterable[Block]) -> None:
    """Puts blocks on their partitions, in this order."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    for block in blocks:
        while True:
            try:
                producer.produce(topic, block.octets, partition=block.partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def differences(one: Path, other: Path) -> tuple[int, int, int]:
    """Number of flow records, and how many are only in one of two Parquet outputs; repeated ones count once."""
    duckdb.sql("SET threads = 2")
    rows = "SELECT DISTINCT * FROM read_parquet('{}/**/*.parquet', hive_partitioning = false)"
    count = duckdb.sql(f"SELECT count(*) FROM ({rows.format(one)})").fetchall()[0][0]
    left, right = (
        duckdb.sql(f"SELECT count(*) FROM ({rows.format(a)} EXCEPT {rows.format(b)})").fetchall()[0][0]
        for a, b in ((one, other), (other, one))
    )
    return count, left, right

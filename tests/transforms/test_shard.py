"""Blocks split by flow."""

import numpy as np
import pytest
from flow_testing import packets
from table_testing import batch

from transforms.identity import shard_hash
from transforms.records import MERGED_SENSORS, InputError, Stream
from transforms.shard import _SplitFn, split


def many(n=500):
    """Packets of many hosts, both ways."""
    rows = packets([i / 100 for i in range(n)], forward=[i % 2 == 0 for i in range(n)])
    rows["src_port"] += np.where(np.arange(n) % 2 == 0, np.arange(n) // 2, 0).astype(np.uint16)
    rows["dst_port"] += np.where(np.arange(n) % 2 == 1, np.arange(n) // 2, 0).astype(np.uint16)
    return rows


def test_split_keeps_every_packet_its_order_and_its_flow():
    """The parts are those of the shard hash, both ways of a flow in one, in the order of the block."""
    rows = many()
    parts = split(rows, 7)
    hashes = shard_hash(rows)
    assert [part["time_ns"].tolist() for part in parts] == [
        rows["time_ns"][hashes % np.uint64(7) == s].tolist() for s in range(7)
    ]
    assert (hashes[::2] == hashes[1::2]).all()


def test_every_shard_hears_of_every_block():
    """Empty parts included; stream, number and time are those of the block."""
    whole = batch(many(1), 5, observed_ns=77, end=True)
    found = list(_SplitFn(4, False).process(whole))
    assert [key for key, _ in found] == [("local", s) for s in range(4)]
    assert sum(len(part.packets) for _, part in found) == 1
    assert all(part._replace(packets=None) == whole._replace(packets=None) for _, part in found)


def test_partition_concerns_its_own_shards():
    """Of two partitions the second concerns the odd shards; merged sensors share one name."""
    odd = many()[shard_hash(many()) % np.uint64(2) == 1]
    found = list(_SplitFn(4, True).process(batch(odd, 0, Stream("x", 0, 1), partitions=2)))
    assert [key for key, _ in found] == [(MERGED_SENSORS, 1), (MERGED_SENSORS, 3)]
    assert sum(len(part.packets) for _, part in found) == len(odd)


@pytest.mark.parametrize(
    ("partition", "partitions", "message"),
    [(0, 3, "no multiple of the 3 partitions"), (5, 8, "no multiple"), (4, 4, "number 4"), (1, 2, "another partition")],
    ids=["do-not-divide", "more-than-shards", "no-such-partition", "split-otherwise"],
)
def test_partitions_that_do_not_fit_fail(partition, partitions, message):
    """Packets that no shard would take are an error, not a loss."""
    with pytest.raises(InputError, match=message):
        list(_SplitFn(4, False).process(batch(many(), 0, Stream("x", 0, partition), partitions=partitions)))

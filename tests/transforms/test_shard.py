"""Blocks split by flow."""

import numpy as np
import pytest
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from flow_testing import packets
from table_testing import batch

from transforms.arrivals import Arrival, unpack
from transforms.handover import BY_VALUE, InProcess
from transforms.identity import shard_hash
from transforms.records import MERGED_SENSORS, Gap, InputError, Stream
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


def handed_on(blocks, shards, merge=False):
    """What a bundle of these blocks gives: arrivals by key."""
    split_fn = _SplitFn(shards, merge, BY_VALUE)
    split_fn.start_bundle()
    parts = [part.value for block in blocks for part in split_fn.process(block, Timestamp(0))]
    parts += [part.value for part in split_fn.finish_bundle()] if blocks else []
    return [(key, arrival) for key, octets in parts for arrival in unpack(octets)]


@pytest.mark.parametrize(("merge", "expected"), [(False, [9, 5]), (True, [MIN_TIMESTAMP] * 2)])
def test_what_waits_for_a_shard_of_merged_sensors_keeps_the_order_of_the_queue(merge, expected):
    """Prism sorts it by its times: where the queue's order counts, all have the same."""
    split_fn = _SplitFn(1, merge, InProcess(1 << 30))
    times = []
    for at_s in (9, 5):
        split_fn.start_bundle()
        assert not list(split_fn.process(batch(many(1), 0), Timestamp(at_s)))
        times += [part.timestamp for part in split_fn.finish_bundle()]
    assert times == expected


def test_every_shard_hears_of_every_block():
    """Empty parts included; stream, number and time are those of the block."""
    whole = batch(many(1), 5, observed_ns=77, end=True)
    found = handed_on([whole], 4)
    assert [key for key, _ in found] == [("local", s) for s in range(4)]
    assert sum(len(part.batch.packets) for _, part in found) == 1
    assert all(part.batch._replace(packets=None) == whole._replace(packets=None) for _, part in found)


def test_what_the_queue_says_goes_to_every_shard_concerned():
    """Receive time and predecessor with each part; a gap to the shards of its own stream alone."""
    gap = Gap(Stream("x", 0, 1), 2, 3, 9, "lost")
    found = handed_on([Arrival(batch(many(1), 5), 77, 6, False, (gap,))], 4)
    assert [key for key, part in found if part.gaps == (gap,)] == [("x", 1), ("x", 3)]
    assert [part[1:] for _, part in found if part.batch] == [(77, 6, False, ())] * 4


def test_a_bundle_of_many_packets_is_handed_on_in_pieces(monkeypatch):
    """So that no element grows without bound; in the order of the blocks."""
    monkeypatch.setattr("transforms.shard.MOST_PACKETS", 600)
    found = handed_on([batch(many(), number) for number in range(5)], 2)
    assert [part.batch.sequence for key, part in found if key == ("local", 0)] == list(range(5))


def test_partition_concerns_its_own_shards():
    """Of two partitions the second concerns the odd shards; merged sensors share one name."""
    odd = many()[shard_hash(many()) % np.uint64(2) == 1]
    found = handed_on([batch(odd, 0, Stream("x", 0, 1), partitions=2)], 4, True)
    assert [key for key, _ in found] == [(MERGED_SENSORS, 1), (MERGED_SENSORS, 3)]
    assert sum(len(part.batch.packets) for _, part in found) == len(odd)


@pytest.mark.parametrize(
    ("partition", "partitions", "message"),
    [(0, 3, "no multiple of the 3 partitions"), (5, 8, "no multiple"), (4, 4, "number 4"), (1, 2, "another partition")],
    ids=["do-not-divide", "more-than-shards", "no-such-partition", "split-otherwise"],
)
def test_partitions_that_do_not_fit_fail(partition, partitions, message):
    """Packets that no shard would take are an error, not a loss."""
    with pytest.raises(InputError, match=message):
        handed_on([batch(many(), 0, Stream("x", 0, partition), partitions=partitions)], 4)

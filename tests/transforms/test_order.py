"""Packets leave in one order, whatever order they came in."""

import numpy as np
from flow_testing import START_NS, packets
from table_testing import S, batch

from transforms.order import PacketBuffer
from transforms.records import Stream


def taken(buffer, before_ns=None):
    """Ports of the packets that leave, in order: they tell who they are."""
    return [port for rows in buffer.take(before_ns) for port in rows["src_port"].tolist()]


def test_ties_go_by_stream_then_number_then_position():
    """Equal times: sensor, epoch, partition, number of the block, place in it; never arrival."""
    streams = [Stream("a"), Stream("a", 0, 1), Stream("a", 2), Stream("b")]
    blocks = [(stream, number) for stream in streams for number in (0, 1)]
    buffer = PacketBuffer()
    for at in (5, 0, 7, 2, 1, 6, 3, 4):
        rows = packets([0, 0], src_port=[10 * at, 10 * at + 1])
        buffer.add(batch(rows, blocks[at][1], blocks[at][0]), rows)
    assert taken(buffer) == [10 * at + i for at in range(8) for i in (0, 1)]
    assert taken(buffer) == []


def test_time_comes_first_and_what_is_later_waits():
    """Unsorted blocks are cut at the time asked for; a packet of that very time waits."""
    buffer = PacketBuffer()
    for number, at_s in enumerate(([3, 1, 2], [2, 0], [4, 5])):
        rows = packets(at_s, src_port=[10 * number + i for i in range(len(at_s))])
        buffer.add(batch(rows, number), rows)
    assert taken(buffer, START_NS + 2 * S) == [11, 1]
    assert taken(buffer, START_NS + 2 * S) == []
    assert taken(buffer, START_NS + 5 * S) == [2, 10, 0, 20]
    assert taken(buffer) == [21]


def test_sorted_blocks_are_not_copied():
    """Files give blocks that continue each other: they pass as they are."""
    rows = packets([0, 1, 2, 3])
    buffer = PacketBuffer()
    for number, part in enumerate((rows[:2], rows[2:])):
        buffer.add(batch(part, number), part)
    assert all(np.shares_memory(part, rows) for part in buffer.take(None))

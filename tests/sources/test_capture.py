"""From batches to blocks on a queue: nothing that was read goes untold."""

from collections import Counter

from flow_testing import packets

from sources.capture import closed, publish
from sources.captures import ReadReport
from transforms import avro
from transforms.records import PacketBatch, Stream


class Listing:
    """A queue that keeps its messages."""

    def __init__(self):
        self.messages = []

    def put(self, message):
        self.messages.append(message)


def reading(report, *steps):
    """Batches as a reader gives them, whose counts grow before each; a last count may follow the last batch."""
    for sequence, (rejects, drops, at_s) in enumerate(steps):
        report.rejects.update(rejects)
        report.interface_drops += drops
        if at_s:
            made = packets(at_s=at_s)
            yield PacketBatch(Stream("local"), sequence, int(made["time_ns"][-1]), made)


def test_blocks_come_in_order_and_the_last_one_ends_the_stream():
    """The end has the next number and the time of the last packet."""
    report, queue = ReadReport(), Listing()
    batches = list(reading(ReadReport(), ({}, 0, [0, 1]), ({}, 0, [2])))
    assert publish(closed(iter(batches), "local", report), queue) == 3
    blocks = [avro.decode_block(message) for message in queue.messages]
    assert [block.sequence for block in blocks] == [0, 1, 2]
    assert [block.end for block in blocks] == [False, False, True]
    assert blocks[2].observed_ns == batches[1].observed_ns
    assert [block.packets["time_ns"].tolist() for block in blocks[:2]] == [
        batch.packets["time_ns"].tolist() for batch in batches
    ]


def test_rejects_and_drops_are_told_once():
    """What was refused before a block stands in it, the rest in the end; together they are the report."""
    report = ReadReport()
    steps = [({"malformed": 2}, 5, [0]), ({}, 0, [1]), ({"malformed": 1, "not_ip": 4}, 0, [2]), ({"not_ip": 1}, 7, [])]
    blocks = list(closed(reading(report, *steps), "local", report))
    assert [dict(block.rejects) for block in blocks] == [
        {"malformed": 2}, {}, {"malformed": 1, "not_ip": 4}, {"not_ip": 1},
    ]  # fmt: skip
    assert [block.dropped for block in blocks] == [5, 0, 0, 7]
    assert sum((Counter(dict(block.rejects)) for block in blocks), Counter()) == report.rejects


def test_a_sensor_without_packets_gives_the_end():
    """So that whoever reads the queue knows of it, and of what was refused."""
    report = ReadReport()
    (block,) = closed(reading(report, ({"not_ip": 3}, 0, [])), "silent", report)
    assert block.stream == Stream("silent")
    assert (block.end, len(block.packets), dict(block.rejects)) == (True, 0, {"not_ip": 3})

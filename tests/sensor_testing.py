"""What tests of sensors share: chunks to capture, and a queue that can be slow, down, full or gone."""

import threading
import time
from collections import Counter, defaultdict

import numpy as np
from flow_testing import START_NS, packets

from sources.live import Chunk
from transforms import avro
from transforms.records import InputError, PacketBatch

SECOND_NS = 1_000_000_000


def chunk(at_s, observed_s=None, **details):
    """Packets of flows by their second, observed up to the last one."""
    made = packets(at_s=at_s, src_port=[round(at) % 60_000 + 1 for at in at_s])
    if observed_s is None:
        observed_s = max(at_s)
    return Chunk(made, np.zeros(0, np.uint8), START_NS + round(observed_s * 1e9), *_counts(**details))


def _counts(rejects=None, dropped=0):
    return rejects or {}, dropped


def until(condition, limit_s=60.0):
    """Waits until something holds; fails where it does not in time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come true in time"
        time.sleep(0.002)


class Line:
    """A live input that gives chunks, and calls what lies between them."""

    def __init__(self, *steps):
        self._steps = list(steps)

    def read(self, wait_s):
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, Chunk):
                return step
            step()
        return None

    def close(self):
        pass


class Queue:
    """What a queue has for good, and how it behaves.

    Attributes:
        partitions: Number of its parts.
        up: Whether it takes blocks.
        refuses: Whether it says that it will never take any.
        opened: How often it was opened.
    """

    def __init__(self, partitions=1):
        self.partitions, self.up, self.refuses, self.opened = partitions, True, False, 0
        self.messages = []
        self.lock = threading.Lock()

    def open(self):
        if self.refuses:
            raise InputError("the topic is gone")
        self.opened += 1
        return Writer(self)

    def blocks(self) -> list[PacketBatch]:
        """All blocks, in the order in which they came."""
        with self.lock:
            return [avro.decode_block(message) for message in self.messages]

    def streams(self):
        """The blocks of each stream, each once, in the order of their first coming."""
        streams = defaultdict(dict)
        for block in self.blocks():
            streams[block.stream].setdefault(block.sequence, block)
        return {stream: list(blocks.values()) for stream, blocks in streams.items()}

    def packets(self):
        """Number of packets, each block counted once."""
        return sum(len(block.packets) for blocks in self.streams().values() for block in blocks)

    def told(self):
        """Dropped packets and rejects that the blocks tell."""
        blocks = [block for blocks in self.streams().values() for block in blocks]
        return sum(block.dropped for block in blocks), sum((Counter(dict(one.rejects)) for one in blocks), Counter())


class Writer:
    """A client that holds a few blocks."""

    message_octets_most = 1 << 20

    def __init__(self, queue, room=4):
        self.partitions, self.problem = queue.partitions, None
        self._queue, self._room, self._held, self._settled = queue, room, [], 0

    def put(self, message, partition, sensor):
        self._serve()
        if len(self._held) >= self._room:
            return False
        header = avro.decode_header(message)
        assert (header.stream.partition % self.partitions, header.stream.sensor) == (partition, sensor)
        self._held.append(message)
        return True

    def settled(self, wait_s):
        self._serve()
        if self._held:
            time.sleep(min(wait_s, 0.002))
        return self._settled

    def close(self):
        self._held.clear()

    def _serve(self):
        queue = self._queue
        if queue.refuses:
            raise InputError("the topic is gone")
        self.problem = None if queue.up else "the broker is down"
        if queue.up:
            with queue.lock:
                queue.messages += self._held
            self._settled += len(self._held)
            self._held.clear()

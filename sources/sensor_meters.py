"""What a sensor counts and measures of itself: for heartbeats, and for Prometheus."""

import ctypes
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sources.journal import Journal
from sources.live import Chunk
from sources.sending import Sender
from transforms.records import NO_TIME, InputError, PacketBatch, SensorHealth

_TIME_ERROR = 5
"""What adjtimex returns while no time service has set the clock (adjtimex(2))."""


class Meters:
    """Counts since the start; one thread writes, others read.

    Attributes:
        packets: Packets taken from the line: those in blocks, and rejects.
        octets: Octets of those in blocks, on the wire.
        rejects: Packets that are in no block, by reason, as far as blocks tell.
        kernel_drops: Packets that the kernel or the card lost.
        queue_drops: Packets that found no room in the buffer.
        packets_kept: Packets in blocks that were kept.
        blocks: Blocks that were kept.
        block_octets: Their size.
        observed_ns: Everything before this time was captured.
        epoch_ns: Start of the epoch.
    """

    def __init__(self) -> None:
        self.packets = self.octets = self.kernel_drops = self.queue_drops = 0
        self.packets_kept = self.blocks = self.block_octets = 0
        self.observed_ns, self.epoch_ns = NO_TIME, 0
        self.rejects: Counter[str] = Counter()

    def captured(self, chunk: Chunk) -> None:
        """Counts what was captured."""
        refused = sum(chunk.rejects.values())
        self.packets += len(chunk.packets) + refused
        self.octets += int(chunk.packets["frame_octets"].sum(dtype=np.int64))
        self.kernel_drops += chunk.dropped

    def kept(self, block: PacketBatch, octets: int) -> None:
        """Counts a block that is in the buffer."""
        self.packets_kept += len(block.packets)
        self.blocks += 1
        self.block_octets += octets
        if block.rejects:
            self.rejects = self.rejects + Counter(dict(block.rejects))  # not changed while another thread looks


class Health:
    """Measures the process: what heartbeats say of it.

    Raises:
        InputError: A library is missing.
    """

    def __init__(self, meters: Meters, journal: Journal) -> None:
        try:
            import psutil
        except ImportError as error:
            raise InputError("a sensor needs psutil: pip install 'flowbeam[sensor]'") from error
        self._meters, self._journal = meters, journal
        self._process = psutil.Process()
        self._process.cpu_percent()

    def __call__(self) -> SensorHealth:
        """What there is to say now; the use of the processor is that since the last call."""
        return SensorHealth(
            self._process.cpu_percent(),
            self._process.memory_info().rss,
            self._journal.waiting,
            self._journal.octets,
            self._meters.packets,
            clock_error_ns(),
        )


class _Timex(ctypes.Structure):
    """`struct timex` as far as its largest error, with room for the rest (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    )


def clock_error_ns() -> int:
    """The largest error of the clock, as the kernel keeps it for the time service; -1 if none has set the clock."""
    timex = _Timex()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return -1 if state in (-1, _TIME_ERROR) else int(timex.maxerror) * 1000


@contextmanager
def served(port: int, sensor: str, meters: Meters, journal: Journal, sender: Sender) -> Generator[int, None, None]:
    """Answers Prometheus meanwhile; gives the port, which is a free one for 0.

    Raises:
        InputError: The port is taken, or a library is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
    except ImportError as error:
        raise InputError("--metrics_port needs prometheus-client: pip install 'flowbeam[sensor]'") from error
    registry = CollectorRegistry()
    registry.register(_Collector(sensor, meters, journal, sender))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    try:
        server, thread = start_http_server(port, registry=registry)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--metrics_port: {port} cannot be used: {reason}; choose another port") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Reads the meters when Prometheus asks."""

    def __init__(self, sensor: str, meters: Meters, journal: Journal, sender: Sender) -> None:
        self._sensor, self._meters, self._journal, self._sender = sensor, meters, journal, sender

    def collect(self) -> Iterator[Any]:
        """All that is measured."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        meters, journal = self._meters, self._journal
        oldest_ns, now_ns = journal.oldest_ns, time.time_ns()
        counters = (
            ("packets", "Packets taken from the line: those in blocks, and rejects.", meters.packets),
            ("octets", "Octets on the wire of packets that carry IP.", meters.octets),
            ("kernel_drops", "Packets that the kernel or the card lost.", meters.kernel_drops),
            ("queue_drops", "Packets that found no room in the buffer.", meters.queue_drops),
            ("blocks", "Blocks that were closed and kept.", meters.blocks),
            ("block_octets", "Octets of blocks that were closed and kept.", meters.block_octets),
        )
        lag_s = 0.0 if meters.observed_ns == NO_TIME else (now_ns - meters.observed_ns) / 1e9
        gauges = (
            ("queue_up", "1 while the queue takes blocks.", float(self._sender.up)),
            ("queue_partitions", "Parts of the queue that the sensor writes to.", self._sender.partitions),
            ("waiting_blocks", "Blocks that the queue does not have for good.", journal.waiting),
            ("buffer_octets", "Room that blocks take on disk and in memory.", journal.octets),
            ("buffer_memory_octets", "Room of blocks that are lost if the process is.", journal.octets_in_memory),
            ("buffer_disk_up", "1 while the disk takes blocks.", float(journal.problem is None)),
            ("oldest_waiting_seconds", "Age of the oldest block that the queue does not have for good.",
             0.0 if oldest_ns is None else (now_ns - oldest_ns) / 1e9),
            ("observed_lag_seconds", "How far captured time is behind the clock.", lag_s),
            ("epoch_seconds", "Start of the epoch, since the Unix epoch.", meters.epoch_ns / 1e9),
            ("clock_error_seconds", "Largest error of the clock; negative if unknown.", clock_error_ns() / 1e9),
        )  # fmt: skip
        for name, meaning, value in counters:
            counter = CounterMetricFamily(f"flowbeam_sensor_{name}", meaning, labels=["sensor"])
            counter.add_metric([self._sensor], value)
            yield counter
        rejects = CounterMetricFamily(
            "flowbeam_sensor_rejects", "Packets that are in no block, by reason.", labels=["sensor", "reason"]
        )
        for reason, count in sorted(meters.rejects.items()):
            rejects.add_metric([self._sensor, reason], count)
        yield rejects
        for name, meaning, number in gauges:
            gauge = GaugeMetricFamily(f"flowbeam_sensor_{name}", meaning, labels=["sensor"])
            gauge.add_metric([self._sensor], number)
            yield gauge

"""The counters of the assembling steps."""

from typing import Protocol

import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from transforms.flow_table import FlowTable
from transforms.records import REJECT_DUPLICATE, REJECT_LATE, Reject
from transforms.shard_state import Shard

END_REASONS = ("open", "idle", "active", "end", "forced", "resources")
"""Names of flowEndReason (IPFIX 136) by number, as counters have them."""


class ReadReport(Protocol):
    """What reading a sensor's input tells once it is read."""

    packets_read: int
    rejects: dict[str, int]
    samples: list[Reject]
    notes: dict[str, int]


class Span:
    """First and last packet time of what was added."""

    def __init__(self) -> None:
        self.first_ns, self.last_ns = (1 << 63) - 1, -(1 << 63)

    def add(self, packets: np.ndarray) -> None:
        """Widens the span to these packets."""
        if len(packets):
            self.first_ns = min(self.first_ns, int(packets["time_ns"].min()))
            self.last_ns = max(self.last_ns, int(packets["time_ns"].max()))


class Counted:
    """The counters of a driver. The first and last packet time are strings: a Beam distribution would overflow."""

    def __init__(self) -> None:
        self._reasons = [Metrics.counter("assemble", f"flows_ended_{name}") for name in END_REASONS]
        self._spans = Metrics.string_set("assemble", "spans_seen")
        self._open = Metrics.distribution("assemble", "shard_open_flows")
        self._octets = Metrics.distribution("assemble", "shard_table_octets")
        self._lag = Metrics.distribution("assemble", "observed_to_assembled_ms")

    def flows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Counts flows by end reason; interim records are no flows."""
        reasons = batch.column("end_reason").fill_null(0).to_numpy()
        for reason, n in enumerate(np.bincount(reasons)):
            if n:
                self._reasons[reason].inc(int(n))
        return batch

    def table(self, table: FlowTable) -> None:
        """Adds up what a finished table counted."""
        for name, n in table.counts.items():
            if name in (REJECT_LATE, REJECT_DUPLICATE):
                Metrics.counter("packets_rejected", name).inc(n)
            else:
                Metrics.counter("assemble", name).inc(n)

    def span(self, span: Span) -> None:
        """Notes the times of a sensor's first and last packet, if it had any."""
        if span.first_ns <= span.last_ns:
            self._spans.add(f"{span.first_ns} {span.last_ns}")

    def repeated(self) -> None:
        """Counts a block that was delivered again."""
        Metrics.counter("assemble", "blocks_repeated").inc()

    def shard(self, shard: Shard, now_ns: int) -> None:
        """Adds up what a shard counted since the last time, and how it is."""
        for name, n in shard.take_counts().items():
            word, _, reason = name.partition(" ")
            if reason:
                Metrics.counter("packets_rejected", reason).inc(n)
            elif name in (REJECT_LATE, REJECT_DUPLICATE):
                Metrics.counter("packets_rejected", name).inc(n)
            elif name == "packets_taken":
                Metrics.counter("read", "packets_read").inc(n)
            else:
                Metrics.counter("assemble", word).inc(n)
        self._open.update(shard.open_flows)
        self._octets.update(shard.octets)
        if shard.observed_ns is not None:
            self._lag.update((now_ns - shard.observed_ns) // 1_000_000)

    def report(self, report: ReadReport) -> None:
        """Adds up what reading counted."""
        Metrics.counter("read", "packets_read").inc(report.packets_read)
        for reason, n in report.rejects.items():
            Metrics.counter("packets_rejected", reason).inc(n)
        for name, n in report.notes.items():
            Metrics.counter("read", name).inc(n)

"""The idle rule by Beam's own session windows, one element a packet: slow and plain, the reference for the table."""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows, Sessions, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms.assemble import AssembledFlows
from transforms.counted import Counted
from transforms.identity import icmp_two_way
from transforms.records import ICMP, ICMPV6, PACKET, InputError, PacketBatch, Stream
from transforms.settings import FlowSettings

_Key = tuple[str, bytes]
_Packet = tuple[tuple[str, int, int, int, int], bytes]
"""Place of a packet in the order of its sensor, and its row."""


class AssembleSessions(beam.PTransform):
    """Assembles flows that end by the idle rule alone: `WindowInto(Sessions)`, `GroupByKey`.

    Input: `PacketBatch`, bounded, perhaps repeated. Output: the flows of `AssembleFlows` with `--end_rules=idle`,
    where packet times are whole microseconds: windows know no finer time. A table of its own makes each session a flow.

    Args:
        settings: How flows are assembled; its end rules must be `idle` alone.
        merged_sensor: Name of the one line that all sensors see; None if each has its own.
    """

    def __init__(self, settings: FlowSettings, merged_sensor: str | None = None) -> None:
        super().__init__()
        rules = settings.rules
        if tuple(rules.end_rules) != ("idle",) or rules.interim_interval_s or rules.drop_duplicates_s:
            raise InputError(
                "--assembler=sessions knows the idle rule alone: add --end_rules=idle, and neither --interim_interval_s"
                " nor --drop_duplicates_s"
            )
        self.settings, self.merged_sensor = settings, merged_sensor

    def expand(self, batches):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        ends = (
            batches
            | "LastTimes" >> beam.FlatMap(_last_times, self.merged_sensor)
            | "EndOfInput" >> beam.CombinePerKey(max)
        )
        flows = (
            batches
            | "Packets" >> beam.ParDo(_PacketsFn(self.settings, self.merged_sensor))
            | "Sessions" >> beam.WindowInto(Sessions(self.settings.rules.idle_timeout_s))
            | "GroupPackets" >> beam.GroupByKey()
            | "Fold" >> beam.ParDo(_FoldFn(self.settings), beam.pvalue.AsDict(ends)).with_output_types(pa.RecordBatch)
            | "WholeInput" >> beam.WindowInto(GlobalWindows())  # sinks join parts, which sessions cannot be asked for
        )
        nothing = batches.pipeline | "NoRejects" >> beam.Create([])
        return AssembledFlows(flows, nothing)


def _last_times(batch: PacketBatch, merged_sensor: str | None) -> Iterator[tuple[str, int]]:
    if len(batch.packets):
        yield merged_sensor or batch.stream.sensor, int(batch.packets["time_ns"].max())


def _flow_key(packet: np.void, settings: FlowSettings) -> bytes:
    """The key fields of a packet, the same for both directions of a biflow."""
    rules = settings.rules
    icmp = packet["protocol"] in (ICMP, ICMPV6)
    ports = not icmp or rules.icmp_key == "type"
    ends = [
        (int(packet[f"{side}_hi"]), int(packet[f"{side}_lo"]), int(packet[f"{side}_port"]) if ports else 0)
        for side in ("src", "dst")
    ]
    if not (icmp and ports) or icmp_two_way(packet["protocol"], packet["src_port"], packet["dst_port"]):
        ends.sort()
    vni = -1 if rules.ignore_vni else int(packet["vni"])
    return repr((ends, int(packet["protocol"]), int(packet["ip_version"]), int(packet["vlan_id"]), vni)).encode()


class _PacketsFn(beam.DoFn):
    def __init__(self, settings: FlowSettings, merged_sensor: str | None) -> None:
        self._settings, self._merged = settings, merged_sensor

    def process(self, batch: PacketBatch) -> Iterator[tuple[_Key, _Packet]]:
        for position, packet in enumerate(batch.packets):
            key = (self._merged or batch.stream.sensor, _flow_key(packet, self._settings))
            place = (*batch.stream, batch.sequence, position)
            at = Timestamp(micros=int(packet["time_ns"]) // 1000)
            yield TimestampedValue((key, (place, packet.tobytes())), at)


class _FoldFn(beam.DoFn):
    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._columns = self._settings.columns()
        self._counted = Counted()

    def process(self, session: tuple[_Key, Iterable[_Packet]], ends: dict[str, int]) -> Iterator[pa.RecordBatch]:
        (sensor, _), packets = session
        rows = np.frombuffer(b"".join(row for _, row in sorted(set(packets))), PACKET)
        table = self._settings.table(self._columns, sensor)
        table.add(PacketBatch(Stream(sensor), 0, 0, rows))
        for flows in table.finish(ends[sensor]):
            yield self._counted.flows(flows)
        self._counted.table(table)

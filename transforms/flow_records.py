"""From finished rows of the table to Arrow record batches."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import fields
from transforms.addresses import address_texts, mac_texts
from transforms.arrow_columns import column, constant, is_constant
from transforms.features.flow_state import FLOW
from transforms.features.registry import field_of
from transforms.gather import RECORD
from transforms.identity import community_ids, flow_ids
from transforms.records import MERGED_SENSORS, TUNNEL_NAMES

ROWS = 8192
"""The most rows of a batch."""


class Finished(NamedTuple):
    """Flows copied out of a table: rows of equal length, one array of states for each family."""

    interim: bool
    records: np.ndarray  # RECORD[n]
    flows: np.ndarray  # FLOW[n]
    states: dict[str, np.ndarray]  # STATE[n] by field


class FlowColumns:
    """Makes record batches of one schema.

    Args:
        families: The families whose columns are wanted.
        features: Names of the feature columns, in order; the common columns stand before them.
        sets: Names of the feature sets, kept in the schema's metadata under `features`.
        community_id_seed: Seed of the Community ID.
    """

    def __init__(
        self,
        families: Sequence[ModuleType],
        features: Sequence[str],
        sets: Sequence[str] = (),
        community_id_seed: int = 0,
    ) -> None:
        wanted = {field.name: field for family in families for field in family.FIELDS}
        described = fields.arrow_schema([*fields.COMMON, *(wanted[name] for name in features)])
        self.schema = described.with_metadata({"features": ",".join(sets)})
        self.families = tuple(families)
        self._families = [family for family in families if any(field.name in features for field in family.FIELDS)]
        self._types = {field.name: field.type for field in self.schema}
        self._seed = community_id_seed

    def needs(self, family: ModuleType) -> bool:
        """Whether a column of `family` is wanted."""
        return family in self._families

    def batch(self, finished: Finished, sensor: str) -> pa.RecordBatch:
        """The finished flows of `sensor` as a record batch."""
        n = len(finished.records)
        columns = {  # converted one by one, so that memory which is not kept serves the next ones
            name: column(values, self._types[name], n)
            for name, values in self._values(finished, sensor)
            if name in self._types
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in self._types], schema=self.schema)

    def joined(self, parts: "Sequence[FinishedFlows]") -> pa.RecordBatch:
        """Parts of one sensor and one kind as one batch, which costs the same for ten flows as for a hundred."""
        first = parts[0].finished
        if len(parts) > 1:
            several = [part.finished for part in parts]
            first = Finished(
                first.interim,
                _end_to_end([one.records for one in several]),
                _end_to_end([one.flows for one in several]),
                {name: _end_to_end([one.states[name] for one in several]) for name in first.states},
            )
        return self.batch(first, parts[0].sensor)

    def _values(self, finished: Finished, sensor: str) -> Iterator[tuple[str, Any]]:
        yield from _common(finished, sensor, self._seed)
        for family in self._families:
            states = None if family.STATE is None else finished.states[field_of(family)]
            yield from family.features(states, finished.flows)


class FinishedFlows(NamedTuple):
    """Flows that ended in one table, before they become columns."""

    sensor: str
    finished: Finished


class LateColumns(FlowColumns):
    """Leaves flows as they are: they are to become columns together with those of other tables."""

    def batch(self, finished: Finished, sensor: str) -> Any:
        """The flows as `FinishedFlows`."""
        return FinishedFlows(sensor, finished)


def _end_to_end(arrays: list[np.ndarray]) -> np.ndarray:
    """One array of rows; copied as octets, numpy would copy field by field."""
    dtype = arrays[0].dtype
    octets = [np.ascontiguousarray(rows).view(np.dtype((np.void, dtype.itemsize))) for rows in arrays]
    return np.concatenate(octets).view(dtype)


def _common(finished: Finished, sensor: str, seed: int) -> Iterator[tuple[str, Any]]:
    records, flows = finished.records, finished.flows
    n = len(records)
    keys = np.ascontiguousarray(records["key"])
    ids = flow_ids(keys, "" if sensor == MERGED_SENSORS else sensor)
    yield "flow_id", pa.Array.from_buffers(pa.binary(16), n, [None, pa.py_buffer(ids)])
    yield "flow_part", keys["flow_part"]
    yield "record_kind", constant("interim" if finished.interim else "final", n)
    yield "record_number", records["record_number"]
    yield "sensor", constant(sensor, n)
    for end in ("src", "dst"):
        macs = np.ascontiguousarray(records[f"{end}_mac"])
        yield f"{end}_mac", constant(mac_texts(macs[:1])[0].as_py(), n) if is_constant(macs) else mac_texts(macs)
    yield "ip_version", keys["ip_version"]
    for end in ("src", "dst"):
        hi, lo = np.ascontiguousarray(keys[f"{end}_hi"]), np.ascontiguousarray(keys[f"{end}_lo"])
        yield f"{end}_ip", address_texts(hi, lo, np.ascontiguousarray(keys["ip_version"]))
    yield "src_port", keys["src_port"]
    yield "dst_port", keys["dst_port"]
    yield "protocol", keys["protocol"]
    yield "vlan_id", keys["vlan_id"]
    yield "community_id", community_ids(keys, seed)
    yield "flow_first_ns", keys["flow_first_ns"]
    yield "flow_start_ns", flows["first_ns"]
    yield "flow_end_ns", flows["last_ns"]
    yield "end_reason", np.ma.array(records["end_reason"], mask=records["end_reason"] == 0)
    yield "vni", np.ma.array(keys["vni"], mask=keys["vni"] < 0)
    yield from _tunnels(records)
    for name in ("fwd", "rev"):
        totals = flows[name]
        for counter in ("packets", "frame_octets", "ip_octets", "payload_octets", "tcp_flags"):
            yield f"{name}_{counter}", totals[counter]


def _tunnels(records: np.ndarray) -> Iterator[tuple[str, Any]]:
    kinds = records["tunnel"]
    if not kinds.any():
        for name in ("tunnel", "outer_src_ip", "outer_dst_ip"):
            yield name, None
        return
    names = pa.array([None, *TUNNEL_NAMES[1:]], pa.string())
    yield "tunnel", names.take(pa.array(kinds))
    there = pa.array(kinds > 0)
    for side in ("src", "dst"):
        hi, lo = (np.ascontiguousarray(records[f"outer_{side}_{half}"]) for half in ("hi", "lo"))
        version = np.where((hi == 0) & (lo >> np.uint64(32) == 0xFFFF), 4, 6).astype(np.uint8)
        texts = address_texts(hi, lo, version)
        yield f"outer_{side}_ip", pc.if_else(there, texts, pa.scalar(None, pa.string()))


def empty(n: int, states_octets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records, flows and a buffer of states for `n` flows."""
    return np.zeros(n, RECORD), np.empty(n, FLOW), np.empty(states_octets, np.uint8)

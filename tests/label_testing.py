"""Flows by hand for labelling: of each, only what labels depend on."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from transforms import fields
from transforms.records import TCP

S = 1_000_000_000
START_NS = 1_767_600_000 * S
"""2026-01-05T08:00:00Z."""

SCHEMA = fields.arrow_schema(fields.COMMON)

_DEFAULTS: dict[str, Any] = {
    "src_ip": "10.0.0.1", "dst_ip": "192.168.0.9", "src_port": 40_000, "dst_port": 80, "protocol": TCP, "start_s": 0,
    "length_s": 1, "fwd_payload_octets": 100, "rev_payload_octets": 100, "community_id": None,
}  # fmt: skip


def flow(number: int = 0, **columns: Any) -> dict[str, Any]:
    """One flow, begun `start_s` after `START_NS`, of `length_s`."""
    made = _DEFAULTS | columns
    start, length = (round(made.pop(name) * 1e9) for name in ("start_s", "length_s"))
    first = {"flow_id": number.to_bytes(16, "little"), "flow_first_ns": START_NS + start, "record_kind": "final"}
    return first | {"flow_start_ns": START_NS + start, "flow_end_ns": START_NS + start + length} | made


def batch(*flows: dict[str, Any]) -> pa.RecordBatch:
    """Flows as the pipeline has them."""
    return pa.RecordBatch.from_pylist(list(flows), SCHEMA)


def written(folder: Path, *flows: dict[str, Any], name: str = "hour=2026-01-05T08/a.parquet") -> Path:
    """A folder with one file of flows."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_batches([batch(*flows)]), path)
    return folder

"""Flows that a model has judged, by hand: what tests of sinks of alerts share."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sink_testing

from sinks import outputs

EXPLANATION = pa.list_(pa.struct([("feature", pa.string()), ("contribution", pa.float32())]))


def scored(numbers: Sequence[int], alerts: Sequence[bool] | bool = True, **columns: Any) -> pa.RecordBatch:
    """Flows as `sink_testing.flows` makes them, with the columns of scoring; columns of either may be given."""
    is_alert = list(alerts) if isinstance(alerts, Sequence) else [alerts] * len(numbers)
    judged = {
        "score": [0.9 if alert else 0.1 for alert in is_alert],
        "predicted_class": ["scan" if alert else "benign" for alert in is_alert],
        "model_id": ["demo-0123456789ab"] * len(numbers),
        "explanation": [[{"feature": "fwd_packets", "contribution": 0.5}] if alert else None for alert in is_alert],
    }
    judged |= {name: columns.pop(name) for name in judged.keys() & columns.keys()}
    flows = sink_testing.flows(numbers, **columns)
    for name, kind in (("score", pa.float32()), ("predicted_class", pa.string())):
        flows = flows.append_column(pa.field(name, kind), pa.array(judged[name], kind))
    flows = flows.append_column("is_alert", pa.array(is_alert))
    flows = flows.append_column("model_id", pa.array(judged["model_id"]))
    return flows.append_column("explanation", pa.array(judged["explanation"], EXPLANATION))


def context(flows: pa.RecordBatch, **of: Any) -> outputs.SinkContext:
    """What a sink of these flows would know of its job."""
    return outputs.SinkContext(("cic@1",), flows.schema, "test", **of)

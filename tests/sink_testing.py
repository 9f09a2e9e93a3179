"""What the tests of sinks share: flows by hand, and a run of one output."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from sinks import outputs
from transforms import fields
from transforms.features import sets

START_NS = 1_795_266_000_000_000_000
"""2026-11-21T13:00:00Z."""

HOUR_NS = 3_600_000_000_000


def flow_id(number: int) -> bytes:
    return hashlib.md5(str(number).encode()).digest()


def flows(numbers: Sequence[int], feature_sets: Sequence[str] = ("cic@1",), **columns: Any) -> pa.RecordBatch:
    """Flow `number` starts `number` seconds after `START_NS`; every argument is one value or one for each flow."""
    schema = schema_of(feature_sets)
    starts = [START_NS + number * 1_000_000_000 for number in numbers]
    given: dict[str, Any] = {
        "flow_id": [flow_id(number) for number in numbers],
        "record_kind": "final",
        "record_number": 0,
        "sensor": "local",
        "src_ip": "10.0.0.1",
        "dst_ip": "10.0.0.2",
        "flow_first_ns": starts,
        "flow_start_ns": starts,
        "flow_end_ns": starts,
        **columns,
    }
    arrays = []
    for field in schema:
        values = given.get(field.name, 0 if pa.types.is_integer(field.type) else None)
        arrays.append(pa.array(values if isinstance(values, list) else [values] * len(numbers), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def extreme_flows(sensors: Sequence[str | None]) -> pa.RecordBatch:
    """Three flows of `flowbeam@1` from these sensors: nulls, 64 bits, IPv6, nanoseconds, lists."""
    return flows(
        [1, 2, 3],
        ("flowbeam@1",),
        sensor=list(sensors),
        src_ip=["2001:db8::1", "10.0.0.1", "::ffff:0"],
        fwd_packets=[2**63 - 1, -(2**63), 0],
        rev_packets=[None, 2**53, -(2**53) - 1],
        flow_end_ns=[START_NS + 1, START_NS + 999, START_NS + 1000],
        fwd_iat_mean_us=[0.1, None, 1e300],
        splt_iat_us=[[1, 2], [], None],
        vni=[None, 7, None],
    )


def schema_of(feature_sets: Sequence[str] = ("cic@1",)) -> pa.Schema:
    names = sets.features_for(map(sets.get, feature_sets))
    schema = fields.arrow_schema([*fields.COMMON, *(sets.CANONICAL[name] for name in names)])
    return schema.with_metadata({"features": ",".join(feature_sets)})


def write(output: str, batches: Sequence[pa.RecordBatch], feature_sets: Sequence[str] = ("cic@1",)) -> dict[str, int]:
    """Writes `batches` to one output on Beam's local runner; returns the counters."""
    context = outputs.SinkContext(tuple(feature_sets), schema_of(feature_sets), "test")
    ((_, sink),) = outputs.open_outputs([output], context)
    return run(batches, sink)


def run(elements: Sequence[Any], sink: beam.PTransform) -> dict[str, int]:
    """Runs one sink over the elements; returns the counters."""
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    _ = pipeline | "Elements" >> beam.Create(list(elements), reshuffle=False) | "Write" >> sink
    result = pipeline.run()
    result.wait_until_finish()
    return {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}


def rows_of_cassandra(
    rows: Iterable[dict[str, Any]], members: Sequence[str] = ("feature", "contribution")
) -> list[dict[str, Any]]:
    """Rows of a table of Cassandra as Arrow would give them: without day and hour, reasons with their `members`."""
    found = []
    for row in rows:
        nested = {
            name: [dict(zip(members, one, strict=True)) for one in row[name]]
            for name in row
            if name == "explanation" and row[name] is not None
        }
        found.append({name: value for name, value in {**row, **nested}.items() if name not in ("day", "hour")})
    return found


def rows_of_bigquery(flows: pa.RecordBatch) -> list[dict[str, Any]]:
    """What a table of BigQuery is to hold of flows: times to the microsecond, too, and no lists that are null."""
    rows = []
    for row in flows.to_pylist():
        wanted = {
            name: [] if value is None and pa.types.is_list(flows.schema.field(name).type) else value
            for name, value in row.items()
        }
        wanted |= {"flow_start": row["flow_start_ns"] // 1000, "flow_end": row["flow_end_ns"] // 1000}
        rows.append({"predicted_class": None, "score": None, "is_alert": None} | wanted)
    return rows


def bundle(dofn: beam.DoFn, elements: Sequence[Any]) -> list[Any]:
    """One bundle by hand, as a runner that cuts its input into several would run it; returns what it ends with."""
    dofn.start_bundle()
    for element in elements:
        list(dofn.process(element) or ())
    return [windowed.value for windowed in dofn.finish_bundle() or ()]

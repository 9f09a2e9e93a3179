"""The bundle for Kibana is the generator's, its fields are those of the documents, and each panel shows right numbers.

Kibana itself does not run here: the query behind each panel is asked of a real Elasticsearch.
"""

import datetime
import ipaddress
import json
import random
import secrets
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from sink_testing import START_NS, flows

from pipelines import kibana as command
from sinks import drift, kibana_panels, outputs, sensors
from sinks import kibana as objects_of
from sinks.outputs import SinkContext
from transforms.drift import rows as drift_rows
from transforms.records import EVENT_DROPPING, EVENT_STALE, EVENT_STARTED, NO_TIME, SensorEvent, SensorHealth

BUNDLE = Path(__file__).parents[2] / "deploy" / "kibana" / "flowbeam.ndjson"
SCHEMAS = command.schemas()
SCHEMA = SCHEMAS["flows"]


@pytest.fixture(scope="module")
def objects():
    return [json.loads(line) for line in BUNDLE.read_text(encoding="utf-8").splitlines()]


def test_the_bundle_is_what_the_generator_writes(tmp_path):
    """After a change of a column or a panel: `python -m pipelines.kibana --output deploy/kibana/flowbeam.ndjson`."""
    assert command.main(["--output", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new").read_text(encoding="utf-8") == BUNDLE.read_text(encoding="utf-8")
    assert command.main(["--output", str(tmp_path / "missing" / "new")]) == 2


def test_a_name_that_no_index_can_have_is_one_line(tmp_path, capsys):
    assert command.main(["--output", str(tmp_path / "new"), "--index", "La b"]) == 2
    assert "--index La b: is no name of an index: small letters, digits, - and _" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_an_object_refers_to_comes_before_it(objects):
    seen = set()
    for one in objects:
        assert all((reference["type"], reference["id"]) in seen for reference in one["references"]), one["id"]
        assert (one["type"], one["id"]) not in seen
        seen.add((one["type"], one["id"]))
    assert {name for kind, name in seen if kind == "dashboard"} >= {"flowbeam-catraca", "flowbeam-alerts"}
    for one in objects:
        for name, text in one["attributes"].items():
            if name.endswith(("JSON", "visState", "fieldAttrs", "fieldFormatMap")):
                json.loads(text)


def test_every_panel_is_on_a_dashboard(objects):
    shown = {name for names in kibana_panels.DASHBOARDS.values() for name in names}
    assert shown == {panel.name for panel in kibana_panels.PANELS}
    (catraca,) = (one for one in objects if one["id"] == "flowbeam-catraca")
    assert len(json.loads(catraca["attributes"]["panelsJSON"])) == 11


def test_every_field_is_in_the_mapping(objects):
    views = {one["id"]: one["attributes"] for one in objects if one["type"] == "index-pattern"}
    for view, schema in SCHEMAS.items():
        documents = objects_of.documents_in(view, schema, "flows")
        mapping = {leaf.name: leaf.mapping for leaf in documents.leaves}
        known = {f"{name}.{inner}" for name, one in mapping.items() for inner in one.get("properties", ())} | set(
            mapping
        )
        for panel in kibana_panels.PANELS:
            if panel.view == view:
                assert kibana_panels.fields_of(panel) <= known, panel.name
                for bucket in panel.buckets:
                    is_point = mapping.get(bucket.field, {}).get("type") == "geo_point"
                    assert is_point == (bucket.kind == "tile"), panel.name
        attributes = views[objects_of.DATA_VIEWS[view]]
        assert set(json.loads(attributes["fieldAttrs"])) <= known
        assert attributes["title"] == f"{documents.index}-*"


def test_a_visualization_asks_for_what_its_query_does(objects):
    """Both come of one description."""
    states = {one["id"]: json.loads(one["attributes"]["visState"]) for one in objects if one["type"] == "visualization"}
    for panel in kibana_panels.PANELS:
        if panel.kind != "map":
            asked = {aggregation["params"].get("field") for aggregation in states[panel.name]["aggs"]}
            assert asked - {None} == kibana_panels.fields_of(panel) - {field for field, _ in panel.where} | (
                asked & {field for field, _ in panel.where}
            )


def traffic():
    """Flows of an hour: of 30 addresses, some alerts, places, zones and lists; nulls everywhere they may be."""
    dice = random.Random(7)
    rows = 600
    choice = dice.choice

    def some(*values):
        return [choice(values) for _ in range(rows)]

    batch = flows(
        [dice.randrange(3600) for _ in range(rows)],
        feature_sets=["flowbeam@1"],
        flow_id=[secrets.token_bytes(16) for _ in range(rows)],
        src_ip=[f"10.0.0.{min(dice.randrange(1, 20), dice.randrange(1, 20))}" for _ in range(rows)],
        dst_ip=[f"2001:db8::{dice.randrange(1, 12):x}" for _ in range(rows)],
        dst_port=some(22, 53, 80, 443, 8080, 3389, 25),
        protocol=some(1, 6, 6, 6, 17),
        ip_version=6,
        fwd_packets=[dice.randrange(1, 1000) for _ in range(rows)],
        rev_packets=[dice.randrange(1000) for _ in range(rows)],
        fwd_ip_octets=[dice.randrange(40, 1 << 40) for _ in range(rows)],
        rev_ip_octets=[dice.randrange(1 << 40) for _ in range(rows)],
        end_reason=some(1, 2, 3, 4, None),
        conn_state=some("SF", "S0", "REJ", None),
        sensor=some("north", "south"),
        flow_end_ns=[START_NS + dice.randrange(3600, 7200) * 1_000_000_000 for _ in range(rows)],
    )
    alerts = some(True, False, False, None)
    reasons = [{"feature": name, "value": 1.0, "direction": "raises", "contribution": 0.5} for name in ("a", "b")]
    places = some((52.5, 13.4), (-33.9, 151.2), (40.7, -74.0), (0.0, 0.0), (None, None))
    more = {
        "is_alert": alerts,
        "score": [choice((0.25, 0.5, 0.875)) if alert is not None else None for alert in alerts],
        "predicted_class": [{True: choice(("scan", "flood")), False: "benign", None: None}[alert] for alert in alerts],
        "model_id": ["demo-1" if alert is not None else None for alert in alerts],
        "explanation": [reasons if alert else None for alert in alerts],
        "src_latitude": [place[0] for place in places],
        "src_longitude": [place[1] for place in places],
        "dst_latitude": [place[0] for place in reversed(places)],
        "dst_longitude": [place[1] for place in reversed(places)],
        "dst_country_iso": some("DE", "AU", "US", None),
        "dst_as_org": some("One", "Two", None),
        "src_zone": some("office", "lab", None),
        "locality": some("internal", "outbound", "inbound"),
        "service": some("ssh", "http", None),
        "threat_list": some(None, None, None, "bad"),
        "threat_indicator": some("10.0.0.0/24", "x.example"),
        "enrichment_problem": some(None, "no database"),
    }  # fmt: skip
    there = batch.schema.names
    columns = [
        batch[field.name] if field.name in there else pa.array(more.get(field.name, [None] * rows), field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def sensor_events():
    """Of two sensors within an hour: what they dropped, how busy they are; times that are not known."""
    dice, found = random.Random(8), []
    for number in range(200):
        sensor, at = dice.choice(("north", "south")), START_NS + dice.randrange(3600) * 1_000_000_000
        kind = dice.choice((EVENT_STARTED, EVENT_DROPPING, EVENT_DROPPING, EVENT_STALE))
        health = SensorHealth(dice.randrange(400) / 4, 1 << 30, dice.randrange(50)) if kind == EVENT_DROPPING else None
        time_ns = at if dice.random() < 0.9 else NO_TIME
        found.append(SensorEvent(sensor, START_NS, 0, kind, time_ns, at, number, dice.randrange(1, 10**12), health))
    return pa.Table.from_batches(map(sensors.rows_of, found)).combine_chunks().to_batches()[0]


def noticed():
    """Of two models within an hour: inputs and answers, alarms among them."""
    dice, found = random.Random(9), []
    for number in range(100):
        row = {"model_id": dice.choice(("one", "two")), "window_end_ns": START_NS + number * 36_000_000_000}
        if dice.random() < 0.5:
            event = dice.choice((drift_rows.INPUTS_COMPARED, drift_rows.INPUTS_CHANGED))
            row |= {"event": event, "psi": dice.random(), "features_changed": dice.randrange(9), "level": dice.random()}
            row |= {"features": [{"feature": "Flow Duration", "psi": 0.5}]}
        else:
            event = dice.choice((drift_rows.ANSWERS_COMPARED, drift_rows.MODEL_DECAYED))
            row |= {"event": event, "error_rate": dice.random(), "usual_error_rate": 0.01, "wrong": dice.randrange(9)}
        found.append(row)
    return drift_rows.batch(found)


@pytest.fixture(scope="module")
def there(elasticsearch):
    """For each data view its indices, filled by one output, and the documents as they were sent."""
    index, batch = f"kibana-{secrets.token_hex(4)}", traffic()
    context = SinkContext(("flowbeam@1",), batch.schema, "test")
    output = f"elasticsearch://{elasticsearch.host}/{index}?replicas=0"
    ((url, sink),) = outputs.open_outputs([output], context)
    sinks = {"flows": (sink, batch)}
    for view, rows in {sensors.NAME: sensor_events(), drift.NAME: noticed()}.items():
        ((_, sink),) = outputs.open_events([url], context, view, SCHEMAS[view])
        sinks[view] = (sink, rows)
    found = {}
    for view, (sink, rows) in sinks.items():
        sender = sink.sender()
        for _ in range(2):  # a bundle may be repeated
            assert sender.send(rows).written == len(rows)
        sender.close()
        documents = objects_of.documents_in(view, SCHEMAS[view], index)
        assert elasticsearch.count(documents.index) == len(rows)
        lines = documents.lines(rows)
        found[view] = documents.index, [json.loads(lines.line(row)) for row in range(len(lines))]
    return found


def test_events_may_be_left_out():
    """Then the server gets flows alone, as those that take nothing else do."""
    context = SinkContext(("cic@1",), SCHEMA, "test")
    urls = map(outputs.parse_url, ("elasticsearch://127.0.0.1:1/x?events=no", "kafka://127.0.0.1:1/x", "parquet:x"))
    assert outputs.open_events(urls, context, sensors.NAME, SCHEMAS["sensors"]) == []


def values(document, field):
    """All values of a field."""
    found = [document]
    for part in field.split("."):
        found = [one.get(part) for one in found if isinstance(one, dict)]
        found = [one for value in found for one in (value if isinstance(value, list) else [value])]
    return [one for one in found if one is not None]


def minute(text):
    when = datetime.datetime.fromisoformat(text[:16] + ":00+00:00")
    return int(when.timestamp()) * 1000


def keys(document, bucket):
    found = values(document, bucket.field)
    if bucket.kind == "time":
        return {minute(one) for one in found}
    if bucket.kind == "tile":
        return {kibana_panels.tile_of(one["lat"], one["lon"]) for one in found}
    return {int(one) if isinstance(one, bool) else one for one in found}


def number(documents, metric):
    found = [one for document in documents for one in values(document, metric.field)] if metric.field else documents
    if metric.kind == "count":
        return len(documents)
    if metric.kind == "cardinality":
        return len(set(found))
    if metric.field == "event.end":
        return minute(max(found))
    if not found:
        return 0 if metric.kind == "sum" else None
    return {"sum": sum, "max": max, "avg": lambda all: sum(all) / len(all)}[metric.kind](found)


def rank(key):
    """Order of keys where what counts is equal: addresses by their octets."""
    try:
        address = ipaddress.ip_address(key if isinstance(key, str) else "")
    except ValueError:
        return key
    return int(address) + (0xFFFF << 32 if address.version == 4 else 0)


def expected(documents, panel, buckets):
    """What the panel is to show, worked out from the documents."""
    if not buckets:
        return [number(documents, metric) for metric in panel.metrics]
    groups = defaultdict(list)
    for document in documents:
        for key in keys(document, buckets[0]):
            groups[key].append(document)
    chosen = sorted(groups, key=rank)
    if buckets[0].kind == "terms":
        chosen.sort(key=lambda key: -number(groups[key], panel.metrics[0]))
        chosen = chosen[: buckets[0].size]
    return {key: expected(groups[key], panel, buckets[1:]) for key in chosen}


def shown(answer, count, panel, level=0):
    """The same of an answer."""
    if level < len(panel.buckets):
        found = answer[f"b{level}"]["buckets"]
        return {one["key"]: shown(one, one["doc_count"], panel, level + 1) for one in found}
    return [count if metric.kind == "count" else answer[f"m{n}"]["value"] for n, metric in enumerate(panel.metrics)]


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [None if one is None else float(f"{one:.6g}") for one in value]


@pytest.mark.parametrize("panel", kibana_panels.PANELS, ids=lambda panel: panel.name)
def test_a_panel_shows_right_numbers(there, elasticsearch, panel):
    index, documents = there[panel.view]
    answer = elasticsearch.ask("POST", f"/{index}-*/_search", kibana_panels.query(panel))
    kept = [
        document
        for document in documents
        if all(
            values(document, field) if value is None else value in values(document, field)
            for field, value in panel.where
        )
    ]
    found = shown(answer.get("aggregations", {}), answer["hits"]["total"]["value"], panel)
    awaited = expected(kept, panel, panel.buckets)
    if any(metric.field == "event.end" for metric in panel.metrics):
        found = {key: [*one[:-1], one[-1] // 60_000 * 60_000] for key, one in found.items()}
    assert awaited
    assert rounded(found) == rounded(awaited)

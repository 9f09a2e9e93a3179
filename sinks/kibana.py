"""Kibana's data view, visualizations and dashboards for flows, and the queries behind them.

`pipelines/kibana.py` writes them to a file that Kibana imports. A panel names fields of the documents
(`sinks/documents.py`), and one description gives both its saved object and its query.
"""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from sinks.documents import Documents

DATA_VIEW = "flowbeam"

TILE_ZOOM = 4
"""Zoom of the tiles that maps put flows into."""

_SIZE = 10
_VERSIONS = {"index-pattern": "8.0.0", "visualization": "8.5.0", "map": "8.4.0", "dashboard": "8.7.0"}
_COLUMNS, _ROWS = 48, 15
_SEARCH = "kibanaSavedObjectMeta.searchSourceJSON.index"


class Metric(NamedTuple):
    """A number for each bucket: `count`, or `sum`, `avg`, `max`, `cardinality` of a field."""

    kind: str
    field: str = ""
    label: str = ""


class Bucket(NamedTuple):
    """How flows are put together: by `terms` of a field, by `time`, or by `tile` of the map."""

    kind: str
    field: str
    size: int = _SIZE


class Panel(NamedTuple):
    """One panel.

    Attributes:
        name: Its id.
        title: What stands above it.
        kind: `metric`, `line`, `area`, `bar`, `pie`, `table` or `map`.
        metrics: What is shown; buckets of terms are those with the most of the first.
        buckets: The outermost first.
        where: Values of fields that flows must have; None: any.
    """

    name: str
    title: str
    kind: str
    metrics: tuple[Metric, ...]
    buckets: tuple[Bucket, ...] = ()
    where: tuple[tuple[str, Any], ...] = ()


FLOWS = Metric("count", label="Flows")
BYTES = Metric("sum", "network.bytes", "Octets")
SENT, ANSWERED = Metric("sum", "source.bytes", "Octets sent"), Metric("sum", "destination.bytes", "Octets received")
TIME = Bucket("time", "@timestamp")
SOURCE, DESTINATION = Bucket("tile", "source.geo.location"), Bucket("tile", "destination.geo.location")
ALERT = (("flow.is_alert", True),)
_SCORED = (("flow.is_alert", None),)
_LISTED = (("threat.feed.name", None),)


def _terms(field: str, size: int = _SIZE) -> Bucket:
    return Bucket("terms", field, size)


PANELS = (
    # CATRACA's eleven
    Panel("analyzed-flows", "Analyzed flows", "metric", (FLOWS,)),
    Panel("threats", "Threats", "metric", (Metric("count", label="Alerts"),), where=ALERT),
    Panel("attack-versus-normal", "Attack versus normal", "area", (FLOWS,), (TIME, _terms("flow.is_alert")), _SCORED),
    Panel("destinations-of-alerts", "Destinations of alerts", "map", (FLOWS,), (DESTINATION,), ALERT),
    Panel("sources-of-alerts", "Sources of alerts", "map", (FLOWS,), (SOURCE,), ALERT),
    Panel("destination-addresses", "Destination addresses", "bar", (FLOWS,), (_terms("destination.ip"),)),
    Panel("destination-ports", "Destination ports", "pie", (FLOWS,), (_terms("destination.port"),)),
    Panel("packets-over-time", "Packets of a flow over time", "line",
          (Metric("avg", "source.packets", "Sent"), Metric("avg", "destination.packets", "Answered")), (TIME,)),
    Panel("packets-trend", "Packets, trend", "line",
          (Metric("sum", "source.packets", "Sent"), Metric("sum", "destination.packets", "Answered")), (TIME,)),
    Panel("received-bytes", "Received octets by destination", "map", (ANSWERED,), (DESTINATION,)),
    Panel("bytes-over-time", "Octets sent and received", "line", (ANSWERED, SENT), (TIME,)),
    # overview
    Panel("octets", "Octets", "metric", (BYTES,)),
    Panel("sources-seen", "Sources", "metric", (Metric("cardinality", "source.ip", "Addresses"),)),
    Panel("end-reasons", "Why flows ended", "pie", (FLOWS,), (_terms("flow.end_reason"),)),
    Panel("connection-states", "States of connections", "pie", (FLOWS,), (_terms("flow.conn_state"),)),
    # traffic over time
    Panel("protocols-over-time", "Octets by protocol", "area", (BYTES,), (TIME, _terms("network.transport", 5))),
    Panel("zones-over-time", "Octets by zone of the source", "area", (BYTES,), (TIME, _terms("flow.src_zone", 5))),
    Panel("directions-over-time", "Flows by direction", "area", (FLOWS,), (TIME, _terms("network.direction", 5))),
    # top talkers, ports
    Panel("top-sources", "Sources with the most octets", "table", (BYTES, FLOWS), (_terms("source.ip"),)),
    Panel("top-destinations", "Destinations with the most octets", "table", (BYTES, FLOWS),
          (_terms("destination.ip"),)),
    Panel("top-pairs", "Who talks to whom", "table", (BYTES, FLOWS),
          (_terms("source.ip"), _terms("destination.ip", 5))),
    Panel("top-systems", "Organizations with the most octets", "table", (BYTES, FLOWS),
          (_terms("destination.as.organization.name"),)),
    Panel("services", "Services", "table", (FLOWS, BYTES), (_terms("network.application"),)),
    Panel("ports-by-protocol", "Ports by protocol", "table", (FLOWS, BYTES),
          (_terms("network.transport", 5), _terms("destination.port"))),
    Panel("scanned-ports", "Sources by ports they tried", "table",
          (Metric("cardinality", "destination.port", "Ports"), FLOWS), (_terms("source.ip"),)),
    # world maps
    Panel("map-of-sources", "Sources", "map", (FLOWS,), (SOURCE,)),
    Panel("map-of-destinations", "Destinations", "map", (FLOWS,), (DESTINATION,)),
    Panel("countries", "Countries of destinations", "table", (BYTES, FLOWS),
          (_terms("destination.geo.country_iso_code"),)),
    # alerts, threats
    Panel("alerts-by-class", "Alerts by class", "area", (FLOWS,), (TIME, _terms("flow.predicted_class")), ALERT),
    Panel("alerting-pairs", "Who attacks whom", "table", (FLOWS, Metric("max", "event.risk_score", "Score")),
          (_terms("source.ip"), _terms("destination.ip", 5), _terms("flow.predicted_class", 3)), ALERT),
    Panel("reasons", "Why", "table", (FLOWS, Metric("avg", "flow.explanation.contribution", "Contribution")),
          (_terms("flow.predicted_class"), _terms("flow.explanation.feature", 5)), ALERT),
    Panel("threat-lists", "Threat lists", "pie", (FLOWS,), (_terms("threat.feed.name"),), _LISTED),
    Panel("threat-indicators", "Indicators that were met", "table", (FLOWS, BYTES),
          (_terms("threat.indicator.name"), _terms("threat.feed.name", 3)), _LISTED),
    Panel("listed-over-time", "Flows of listed addresses", "line", (FLOWS,), (TIME,), _LISTED),
    # drift, sensors
    Panel("score-over-time", "Mean score", "line", (Metric("avg", "event.risk_score", "Score"),),
          (TIME, _terms("flow.model_id", 5)), _SCORED),
    Panel("classes-over-time", "Classes", "area", (FLOWS,), (TIME, _terms("flow.predicted_class")), _SCORED),
    Panel("models", "Models", "table", (FLOWS, Metric("avg", "event.risk_score", "Score")),
          (_terms("flow.model_id"),), _SCORED),
    Panel("unenriched", "What enrichment lacked", "table", (FLOWS,), (_terms("flow.enrichment_problem"),)),
    Panel("sensors-over-time", "Flows by sensor", "area", (FLOWS,), (TIME, _terms("observer.name"))),
    Panel("sensors", "Sensors", "table",
          (FLOWS, BYTES, Metric("max", "event.end", "Last flow")), (_terms("observer.name", 50),)),
)  # fmt: skip
"""Every panel there is."""

DASHBOARDS: dict[str, tuple[str, ...]] = {
    "CATRACA": tuple(panel.name for panel in PANELS[:11]),
    "Overview": (
        "analyzed-flows", "octets", "sources-seen", "threats", "protocols-over-time", "bytes-over-time",
        "end-reasons", "connection-states", "top-pairs", "services",
    ),
    "Traffic over time": (
        "protocols-over-time", "zones-over-time", "directions-over-time", "bytes-over-time", "packets-over-time",
        "packets-trend",
    ),
    "Top talkers": ("top-sources", "top-destinations", "top-pairs", "top-systems"),
    "Ports": ("destination-ports", "ports-by-protocol", "services", "scanned-ports"),
    "World maps": ("map-of-sources", "map-of-destinations", "received-bytes", "countries"),
    "Attack versus normal": ("attack-versus-normal", "threats", "analyzed-flows", "alerts-by-class"),
    "Alerts": ("alerts-by-class", "alerting-pairs", "reasons", "sources-of-alerts", "destinations-of-alerts"),
    "Threats": ("threat-lists", "threat-indicators", "listed-over-time"),
    "Drift": ("score-over-time", "classes-over-time", "models", "unenriched"),
    "Sensors": ("sensors-over-time", "sensors"),
}  # fmt: skip
"""Panels of each dashboard."""


def fields_of(panel: Panel) -> set[str]:
    """The fields that a panel asks for."""
    named = {metric.field for metric in panel.metrics} | {bucket.field for bucket in panel.buckets}
    return {*named, *(field for field, _ in panel.where)} - {""}


def query(panel: Panel, interval: str = "1m") -> dict[str, Any]:
    """The search behind a panel, as Kibana sends it; times in buckets of `interval`."""
    filters = [_filter(field, value) for field, value in panel.where]
    metrics = {f"m{n}": _metric(metric) for n, metric in enumerate(panel.metrics) if metric.kind != "count"}
    order = {"_count": "desc"} if panel.metrics[0].kind == "count" else {"m0": "desc"}
    inner: dict[str, Any] = metrics
    for number, bucket in reversed(list(enumerate(panel.buckets))):
        if bucket.kind == "time":
            aggregation = {"date_histogram": {"field": bucket.field, "fixed_interval": interval, "min_doc_count": 1}}
        elif bucket.kind == "tile":
            aggregation = {"geotile_grid": {"field": bucket.field, "precision": TILE_ZOOM}}
        else:
            aggregation = {"terms": {"field": bucket.field, "size": bucket.size, "order": [order, {"_key": "asc"}]}}
        inner = {f"b{number}": {**aggregation, **({"aggs": {**inner, **metrics}} if inner or metrics else {})}}
    return {"size": 0, "track_total_hits": True, "query": {"bool": {"filter": filters}}, "aggs": inner}


def _filter(field: str, value: Any) -> dict[str, Any]:
    return {"exists": {"field": field}} if value is None else {"term": {field: value}}


def _metric(metric: Metric) -> dict[str, Any]:
    return {metric.kind: {"field": metric.field}}


def tile_of(latitude: float, longitude: float) -> str:
    """The tile of a place, as `geotile_grid` names it."""
    tiles = 1 << TILE_ZOOM
    bent = math.asinh(math.tan(math.radians(latitude)))
    return f"{TILE_ZOOM}/{int((longitude + 180) / 360 * tiles)}/{int((1 - bent / math.pi) / 2 * tiles)}"


def saved_objects(schema: pa.Schema, index: str) -> Iterator[dict[str, Any]]:
    """The data view, the panels and the dashboards, in the order in which they refer to each other."""
    yield _data_view(schema, index)
    for panel in PANELS:
        yield _map(panel) if panel.kind == "map" else _visualization(panel)
    kinds = {panel.name: "map" if panel.kind == "map" else "visualization" for panel in PANELS}
    for title, names in DASHBOARDS.items():
        yield _dashboard(title, names, kinds)


def _object(
    kind: str, name: str, attributes: dict[str, Any], references: Iterable[tuple[str, str, str]]
) -> dict[str, Any]:
    """A saved object; references are name, type and id."""
    return {
        "id": name,
        "type": kind,
        "attributes": attributes,
        "references": [{"name": name, "type": kind, "id": id} for name, kind, id in references],
        "coreMigrationVersion": "8.8.0",
        "typeMigrationVersion": _VERSIONS[kind],
    }


def _data_view(schema: pa.Schema, index: str) -> dict[str, Any]:
    docs = {field.name: (field.metadata or {}).get(b"doc", b"").decode() for field in schema}
    about = {
        leaf.name: {"customDescription": docs[leaf.column][:300]}
        for leaf in Documents(schema, index).leaves
        if leaf.column and docs[leaf.column]
    }
    attributes = {
        "title": f"{index}-*",
        "name": "flowbeam flows",
        "timeFieldName": "@timestamp",
        "fieldAttrs": _text(about),
        "fieldFormatMap": _text({"network.bytes": {"id": "bytes"}, "source.bytes": {"id": "bytes"},
                                 "destination.bytes": {"id": "bytes"}}),
        "fields": "[]",
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }  # fmt: skip
    return _object("index-pattern", DATA_VIEW, attributes, ())


def _visualization(panel: Panel) -> dict[str, Any]:
    kinds = {"bar": "histogram"}
    aggregations: list[dict[str, Any]] = []
    for metric in panel.metrics:
        params: dict[str, Any] = {"customLabel": metric.label}
        if metric.field:
            params["field"] = metric.field
        aggregations.append(_agg(len(aggregations), metric.kind, "metric", params))
    for place, bucket in enumerate(panel.buckets):
        schema = "bucket" if panel.kind == "table" else ("segment" if panel.kind == "pie" or not place else "group")
        if bucket.kind == "time":
            params = {"field": bucket.field, "interval": "auto", "min_doc_count": 1, "useNormalizedEsInterval": True}
            aggregations.append(_agg(len(aggregations), "date_histogram", schema, params))
        else:
            params = {"field": bucket.field, "size": bucket.size, "order": "desc", "orderBy": "1"}
            aggregations.append(_agg(len(aggregations), "terms", schema, params))
    state = {
        "title": panel.title,
        "type": kinds.get(panel.kind, panel.kind),
        "aggs": aggregations,
        "params": _params(panel),
    }
    search = {"query": {"language": "kuery", "query": _kuery(panel)}, "filter": [], "indexRefName": _SEARCH}
    attributes = {
        "title": panel.title,
        "description": "",
        "uiStateJSON": "{}",
        "version": 1,
        "visState": _text(state),
        "kibanaSavedObjectMeta": {"searchSourceJSON": _text(search)},
    }
    return _object("visualization", panel.name, attributes, [(_SEARCH, "index-pattern", DATA_VIEW)])


def _agg(number: int, kind: str, schema: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"id": str(number + 1), "enabled": True, "type": kind, "schema": schema, "params": params}


def _params(panel: Panel) -> dict[str, Any]:
    if panel.kind == "table":
        return {"perPage": _SIZE, "showTotal": False, "totalFunc": "sum", "showPartialRows": False}
    if panel.kind == "metric":
        return {"addTooltip": True, "type": "metric", "metric": {"style": {"fontSize": 60}, "labels": {"show": True}}}
    if panel.kind == "pie":
        return {"type": "pie", "addTooltip": True, "legendDisplay": "show", "legendPosition": "right", "isDonut": True}
    shape = "histogram" if panel.kind == "bar" else panel.kind
    series = [
        {
            "show": True,
            "type": shape,
            "mode": "stacked" if panel.kind == "area" else "normal",
            "data": {"id": str(number + 1), "label": metric.label},
            "valueAxis": "ValueAxis-1",
            "drawLinesBetweenPoints": True,
            "showCircles": False,
        }
        for number, metric in enumerate(panel.metrics)
    ]
    value = {"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": True,
             "scale": {"type": "linear", "mode": "normal"}, "labels": {"show": True, "truncate": 100},
             "title": {"text": panel.metrics[0].label}}  # fmt: skip
    category = {"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True,
                "scale": {"type": "linear"}, "labels": {"show": True, "truncate": 100}, "title": {}}  # fmt: skip
    return {"type": shape, "addLegend": True, "addTooltip": True, "legendPosition": "right", "seriesParams": series,
            "valueAxes": [value], "categoryAxes": [category], "grid": {"categoryLines": False}}  # fmt: skip


def _kuery(panel: Panel) -> str:
    return " and ".join(f"{field}: {'*' if value is None else str(value).lower()}" for field, value in panel.where)


def _map(panel: Panel) -> dict[str, Any]:
    (bucket,), (metric,) = panel.buckets, panel.metrics
    shown = {"type": metric.kind, "label": metric.label, **({"field": metric.field} if metric.field else {})}
    origin = "count" if metric.kind == "count" else f"{metric.kind}_of_{metric.field}"
    size = {"type": "DYNAMIC", "options": {"minSize": 4, "maxSize": 32, "field": {"name": origin, "origin": "source"}}}
    base = {"id": "base", "type": "EMS_VECTOR_TILE", "visible": True, "alpha": 1, "minZoom": 0, "maxZoom": 24,
            "sourceDescriptor": {"type": "EMS_TMS", "isAutoSelect": True},
            "style": {"type": "EMS_VECTOR_TILE", "color": ""}}  # fmt: skip
    grid = {"id": "flows", "label": panel.title, "type": "GEOJSON_VECTOR", "visible": True, "alpha": 0.8, "minZoom": 0,
            "maxZoom": 24,
            "sourceDescriptor": {"id": f"{panel.name}-grid", "type": "ES_GEO_GRID", "requestType": "point",
                                 "resolution": "COARSE", "geoField": bucket.field, "metrics": [shown],
                                 "indexPatternRefName": "layer_1_source_index_pattern"},
            "style": {"type": "VECTOR", "properties": {"iconSize": size}}}  # fmt: skip
    state = {"zoom": 1.5, "center": {"lat": 20, "lon": 0}, "query": {"language": "kuery", "query": _kuery(panel)}}
    attributes = {"title": panel.title, "description": "", "mapStateJSON": _text(state),
                  "layerListJSON": _text([base, grid]), "uiStateJSON": "{}"}  # fmt: skip
    return _object("map", panel.name, attributes, [("layer_1_source_index_pattern", "index-pattern", DATA_VIEW)])


def _dashboard(title: str, names: tuple[str, ...], kinds: dict[str, str]) -> dict[str, Any]:
    panels = []
    for place, name in enumerate(names):
        grid = {"x": place % 2 * _COLUMNS // 2, "y": place // 2 * _ROWS, "w": _COLUMNS // 2, "h": _ROWS, "i": name}
        panels.append(
            {"type": kinds[name], "panelIndex": name, "gridData": grid, "embeddableConfig": {},
             "panelRefName": f"panel_{name}"}
        )  # fmt: skip
    attributes = {
        "title": f"flowbeam: {title}",
        "description": "",
        "version": 1,
        "timeRestore": False,
        "panelsJSON": _text(panels),
        "optionsJSON": _text({"useMargins": True, "hidePanelTitles": False}),
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": _text({"query": {"language": "kuery", "query": ""}, "filter": []})
        },
    }
    references = [(f"{name}:panel_{name}", kinds[name], name) for name in names]
    return _object("dashboard", f"flowbeam-{title.lower().replace(' ', '-')}", attributes, references)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

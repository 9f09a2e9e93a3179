"""Panels of Kibana's dashboards, and the queries behind them.

A panel names fields of the documents (`sinks/documents.py`, `sinks/event_documents.py`), and one description gives both
its saved object (`sinks/kibana.py`) and its query.
"""

import math
from typing import Any, NamedTuple

TILE_ZOOM = 4
"""Zoom of the tiles that maps put flows into."""

SIZE = 10
"""Buckets of terms."""


class Metric(NamedTuple):
    """A number for each bucket: `count`, or `sum`, `avg`, `max`, `cardinality` of a field."""

    kind: str
    field: str = ""
    label: str = ""


class Bucket(NamedTuple):
    """How documents are put together: by `terms` of a field, by `time`, or by `tile` of the map."""

    kind: str
    field: str
    size: int = SIZE


class Panel(NamedTuple):
    """One panel.

    Attributes:
        name: Its id.
        title: What stands above it.
        kind: `metric`, `line`, `area`, `bar`, `pie`, `table` or `map`.
        metrics: What is shown; buckets of terms are those with the most of the first.
        buckets: The outermost first.
        where: Values of fields that documents must have; None: any.
        view: Of which documents: `flows`, `drift` or `sensors`.
    """

    name: str
    title: str
    kind: str
    metrics: tuple[Metric, ...]
    buckets: tuple[Bucket, ...] = ()
    where: tuple[tuple[str, Any], ...] = ()
    view: str = "flows"


FLOWS, EVENTS = Metric("count", label="Flows"), Metric("count", label="Events")
BYTES = Metric("sum", "network.bytes", "Octets")
SENT, ANSWERED = Metric("sum", "source.bytes", "Octets sent"), Metric("sum", "destination.bytes", "Octets received")
TIME = Bucket("time", "@timestamp")
SOURCE, DESTINATION = Bucket("tile", "source.geo.location"), Bucket("tile", "destination.geo.location")
ALERT = (("flow.is_alert", True),)
_SCORED = (("flow.is_alert", None),)
_LISTED = (("threat.feed.name", None),)


def _terms(field: str, size: int = SIZE) -> Bucket:
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
    Panel("input-drift", "How far inputs are from the training data", "line",
          (Metric("max", "drift.psi", "PSI"), Metric("max", "drift.score_psi", "PSI of the score")),
          (TIME, _terms("drift.model_id", 5)), (("drift.psi", None),), "drift"),
    Panel("errors-over-time", "Errors, by labels that came back", "line",
          (Metric("max", "drift.error_rate", "Error rate"), Metric("max", "drift.usual_error_rate", "Usual, at most")),
          (TIME, _terms("drift.model_id", 5)), (("drift.error_rate", None),), "drift"),
    Panel("drift-alarms", "What was noticed about models", "table",
          (EVENTS, Metric("max", "drift.features_changed", "Features changed"), Metric("max", "drift.level", "Level")),
          (_terms("drift.model_id", 5), _terms("event.action")), view="drift"),
    Panel("unenriched", "What enrichment lacked", "table", (FLOWS,), (_terms("flow.enrichment_problem"),)),
    Panel("sensors-over-time", "Flows by sensor", "area", (FLOWS,), (TIME, _terms("observer.name"))),
    Panel("sensors", "Sensors", "table",
          (FLOWS, BYTES, Metric("max", "event.end", "Last flow")), (_terms("observer.name", 50),)),
    Panel("sensor-events", "Events of sensors", "table",
          (EVENTS, Metric("sum", "sensors.amount", "Packets, blocks")),
          (_terms("observer.name", 50), _terms("event.action")), view="sensors"),
    Panel("sensor-events-over-time", "Events of sensors over time", "area", (EVENTS,), (TIME, _terms("event.action")),
          view="sensors"),
    Panel("dropped-packets", "Packets that sensors dropped", "line", (Metric("sum", "sensors.amount", "Packets"),),
          (TIME, _terms("observer.name", 50)), (("event.action", "dropping"),), "sensors"),
    Panel("sensor-load", "Load of sensors", "line",
          (Metric("max", "sensors.cpu_percent", "Processor, % of a core"),
           Metric("max", "sensors.queued_blocks", "Blocks queued")),
          (TIME, _terms("observer.name", 50)), (("sensors.cpu_percent", None),), "sensors"),
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
    "Drift": (
        "input-drift", "errors-over-time", "drift-alarms", "score-over-time", "classes-over-time", "models",
        "unenriched",
    ),
    "Sensors": (
        "sensors-over-time", "sensors", "sensor-events", "sensor-events-over-time", "dropped-packets", "sensor-load",
    ),
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

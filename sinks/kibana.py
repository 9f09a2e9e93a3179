"""Kibana's data views, visualizations and dashboards as saved objects; `pipelines/kibana.py` writes them to a file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from sinks.documents import Documents
from sinks.event_documents import described, documents_of
from sinks.kibana_panels import DASHBOARDS, PANELS, SIZE, Panel

DATA_VIEWS = {"flows": "flowbeam", "drift": "flowbeam-drift", "sensors": "flowbeam-sensors"}
"""Id of the data view of each kind of documents."""

_OCTETS = {"network.bytes", "source.bytes", "destination.bytes", "sensors.memory_octets", "sensors.queued_octets"}
_VERSIONS = {"index-pattern": "8.0.0", "visualization": "8.5.0", "map": "8.4.0", "dashboard": "8.7.0"}
_COLUMNS, _ROWS = 48, 15
_SEARCH = "kibanaSavedObjectMeta.searchSourceJSON.index"


def saved_objects(schemas: Mapping[str, pa.Schema], index: str) -> Iterator[dict[str, Any]]:
    """The data views, the panels and the dashboards, in the order in which they refer to each other.

    Args:
        schemas: The columns of each of `DATA_VIEWS`.
        index: What the names of the indices begin with.
    """
    for view, schema in schemas.items():
        yield _data_view(view, schema, index)
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


def documents_in(view: str, schema: pa.Schema, index: str) -> Documents:
    """The documents that a data view is of."""
    return Documents(schema, index) if view == "flows" else documents_of(described(schema, view), f"{index}.{view}")


def _data_view(view: str, schema: pa.Schema, index: str) -> dict[str, Any]:
    docs = {field.name: (field.metadata or {}).get(b"doc", b"").decode() for field in schema}
    documents = documents_in(view, schema, index)
    about = {
        leaf.name: {"customDescription": docs[leaf.column][:300]}
        for leaf in documents.leaves
        if leaf.column and docs[leaf.column]
    }
    octets = [leaf.name for leaf in documents.leaves if leaf.name in _OCTETS]
    attributes = {
        "title": f"{documents.index}-*",
        "name": f"flowbeam {view}",
        "timeFieldName": "@timestamp",
        "fieldAttrs": _text(about),
        "fieldFormatMap": _text({name: {"id": "bytes"} for name in octets}),
        "fields": "[]",
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    return _object("index-pattern", DATA_VIEWS[view], attributes, ())


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
    return _object("visualization", panel.name, attributes, [(_SEARCH, "index-pattern", DATA_VIEWS[panel.view])])


def _agg(number: int, kind: str, schema: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"id": str(number + 1), "enabled": True, "type": kind, "schema": schema, "params": params}


def _params(panel: Panel) -> dict[str, Any]:
    if panel.kind == "table":
        return {"perPage": SIZE, "showTotal": False, "totalFunc": "sum", "showPartialRows": False}
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
    return _object(
        "map", panel.name, attributes, [("layer_1_source_index_pattern", "index-pattern", DATA_VIEWS[panel.view])]
    )


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

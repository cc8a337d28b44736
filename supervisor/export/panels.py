"""What Grafana dashboards are made of, as classic JSON: panels, queries, variables, annotations, a grid. Keys as Grafana's own export writes them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from supervisor.export.definition import with_selector
from supervisor.export.document import MARK

Json = dict[str, Any]

SOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION: Final = 42  # of the SDK release that checks them; older and newer Grafanas migrate
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"


class Query(Struct, frozen=True):
    """One query: PromQL with bare selectors, the legend, and whether only the newest values are asked for (tables, single figures)."""

    expr: str
    legend: str = "__auto"
    instant: bool = False


class Panel(Struct, frozen=True):
    """One panel. ``options`` and ``overrides`` are Grafana's own; ``limits`` names the queries (by legend) that are drawn as dashed lines."""

    id: int
    kind: str
    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 12
    height: int = 8
    limits: tuple[str, ...] = ()
    steps: tuple[tuple[float | None, str], ...] = ()
    mappings: tuple[Json, ...] = ()
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()
    decimals: int | None = None


_OPTIONS: Final[Mapping[str, Json]] = {
    "timeseries": {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.85,
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}
_CUSTOM: Final[Mapping[str, Json]] = {
    "timeseries": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto", "spanNulls": False},
    "stat": {},
    "state-timeline": {"fillOpacity": 80, "lineWidth": 0},
    "table": {"align": "auto", "filterable": True},
}


def dashboard(
    uid: str, title: str, about: str, panels: Sequence[Panel], selector: str, *, variables: Sequence[Json], annotations: Sequence[Json]
) -> Json:
    """A whole dashboard; *selector* goes into every query."""
    return {
        "uid": uid,
        "title": title,
        "description": f"{about} This dashboard was {MARK}.",
        "tags": ["mainstay"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "title": "Mainstay",
                "type": "dashboards",
                "tags": ["mainstay"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "icon": "external link",
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": [_datasource(), *variables]},
        "annotations": {"list": list(annotations)},
        "panels": [_panel(panel, place, selector) for panel, place in zip(panels, _grid(panels), strict=True)],
    }


def _grid(panels: Sequence[Panel]) -> list[Json]:
    """Left to right, top to bottom, 24 columns; a row is as high as its highest panel."""
    places: list[Json] = []
    x = y = row = 0
    for panel in panels:
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        places.append({"h": panel.height, "w": panel.width, "x": x, "y": y})
        x, row = x + panel.width, max(row, panel.height)
    return places


def _panel(panel: Panel, place: Json, selector: str) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.steps else "palette-classic"},
        "custom": {**_CUSTOM[panel.kind], **panel.custom},
        "mappings": list(panel.mappings),
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in panel.steps or ((None, GREEN),)]},
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    made: Json = {
        "id": panel.id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": dict(SOURCE),
        "gridPos": place,
        "targets": [_target(query, chr(ord("A") + index), panel, selector) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": [*map(_limit_line, panel.limits), *panel.overrides]},
        "options": {**_OPTIONS[panel.kind], **panel.options},
    }
    if panel.transformations:
        made["transformations"] = list(panel.transformations)
    return made


def _target(query: Query, letter: str, panel: Panel, selector: str) -> Json:
    return {
        "refId": letter,
        "datasource": dict(SOURCE),
        "editorMode": "code",
        "expr": with_selector(query.expr.strip(), selector),
        "legendFormat": query.legend,
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _limit_line(legend: str) -> Json:
    """A limit is a dashed red line without a filling."""
    return by_name(
        legend,
        ("color", {"mode": "fixed", "fixedColor": RED}),
        ("custom.fillOpacity", 0),
        ("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
    )


def by_name(name: str, *properties: tuple[str, Any]) -> Json:
    """Other properties of the field with this name."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": id_, "value": value} for id_, value in properties]}


def values(words: Mapping[str, tuple[str, str]]) -> Json:
    """A mapping of values to (text, colour)."""
    options = {value: {"text": text, "color": color, "index": index} for index, (value, (text, color)) in enumerate(words.items())}
    return {"type": "value", "options": options}


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "regex": "",
    }


def variable(name: str, label: str, query: str, *, many: bool) -> Json:
    """A choice that is looked up in Prometheus whenever the time range changes."""
    made: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": dict(SOURCE),
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "definition": query,
        "hide": 0,
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "multi": many,
        "includeAll": many,
    }
    if many:
        made |= {"allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return made


def annotation(name: str, expr: str, color: str, text: str, selector: str, *, at_value: bool = False, shown: bool = True) -> Json:
    """Marks on every graph. *at_value*: the value of the query is the time of the mark, in milliseconds; otherwise its samples are."""
    return {
        "name": name,
        "enable": shown,
        "hide": False,
        "iconColor": color,
        "datasource": dict(SOURCE),
        "expr": with_selector(expr, selector),
        "titleFormat": name,
        "textFormat": text,
        "step": "15s",
        "useValueForTime": "on" if at_value else False,
    }

"""The pieces of a Grafana dashboard: panels, rows, variables, and how they become its JSON (schema 39)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, and the name of its lines."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        description: what is shown, and what to make of it.
        unit: Grafana's id of the unit.
        kind: Grafana's id of the visualisation.
        steps: (from this value on, colour), the lowest first; drawn as lines in a time series.
        link: (title, URL) opened from a point, with `${__field.labels...}` of its line.
        width: in columns of 24.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    width: int = 8
    link: tuple[str, str] | None = None
    values: dict[str, str] = field(default_factory=dict)
    stack: bool = False
    maximum: float | None = None

    def as_json(self, number: int, x: int, y: int, height: int) -> Json:
        """The panel at a place of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": height},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": _OPTIONS[self.kind],
            "targets": [
                {
                    "refId": chr(ord("A") + position),
                    "datasource": DATASOURCE,
                    "expr": query.expression,
                    "legendFormat": query.legend or "__auto",
                    **({"instant": True, "range": False} if self.kind in ("stat", "table") else {}),
                    **({"format": "table"} if self.kind == "table" else {}),
                }
                for position, query in enumerate(self.queries)
            ],
        }

    def _defaults(self) -> Json:
        steps = [{"value": value, "color": colour} for value, colour in self.steps]
        defaults: Json = {
            "unit": self.unit,
            "min": 0,
            "color": {"mode": "thresholds" if self.kind == "stat" else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": steps},
        }
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.values:
            options = {value: {"text": text} for value, text in self.values.items()}
            defaults["mappings"] = [{"type": "value", "options": options}]
        if self.link:
            defaults["links"] = [{"title": self.link[0], "url": self.link[1]}]
        if self.kind == "timeseries":
            defaults["custom"] = {
                "fillOpacity": 20 if self.stack else 5,
                "stacking": {"mode": "normal" if self.stack else "none"},
                "showPoints": "never",
                "thresholdsStyle": {"mode": "dashed" if len(self.steps) > 1 else "off"},
            }
        return defaults


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "calcs": ["lastNotNull", "max"],
            "sortBy": "Max",
            "sortDesc": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"]},
        "colorMode": "background",
        "graphMode": "none",
    },
    "table": {"showHeader": True},
}


@dataclass(frozen=True, slots=True)
class Row:
    """A titled line of panels, each as high as the others."""

    title: str
    panels: Sequence[Panel]
    height: int = 8


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the head of the dashboard: the values of a label."""

    name: str
    label: str
    metric: str

    def as_json(self) -> Json:
        """The variable; "All" matches series without the label too."""
        query = f"label_values({self.metric}, {self.name})"
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": "variable"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard under a fixed uid, so that others can link to it."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    links: Sequence[tuple[str, str]] = ()

    def as_json(self) -> Json:
        """The dashboard as Grafana provisions it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["event-router"],
            "schemaVersion": 39,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "graphTooltip": 1,
            "links": [
                {"type": "link", "title": title, "url": url, "keepTime": True, "includeVars": True}
                for title, url in self.links
            ],
            "templating": {"list": [_DATASOURCES, *(found.as_json() for found in self.variables)]},
            "panels": list(self._panels()),
        }

    def _panels(self) -> Sequence[Json]:
        placed: list[Json] = []
        y = 0
        for row in self.rows:
            grid = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            placed.append(
                {
                    "id": len(placed) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": grid,
                    "panels": [],
                }
            )
            x, y = 0, y + 1
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y = 0, y + row.height
                placed.append(panel.as_json(len(placed) + 1, x, y, row.height))
                x += panel.width
            y += row.height
        return placed


_DATASOURCES: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
    "current": {},
}

"""The dashboards as Grafana would read them: panels, variables, and queries with a choice made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.deploy.renderings import ROOT

FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, rows left out."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries() -> dict[str, str]:
    """Every query by where it stands."""
    return {
        f"{uid} / {panel['title']} / {target['refId']}": target["expr"]
        for uid, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


def chosen(expression: str) -> str:
    """A query with everything chosen, as Prometheus is asked."""
    for name in ("namespace", "stream", "instance"):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "30s")

"""Writes dashboards/*.json from the Python beside it: `python -m deploy.grafana.generate`."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana import overview, pods

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = (overview.DASHBOARD, pods.DASHBOARD)


def texts() -> dict[Path, str]:
    """What each file holds."""
    return {
        FOLDER / f"{dashboard.uid}.json": json.dumps(dashboard.as_json(), indent=2, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")

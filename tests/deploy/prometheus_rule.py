"""The rules as the Prometheus operator takes them; run as a module, this writes the manifest."""

from __future__ import annotations

from typing import Any

import yaml

from tests.deploy.renderings import KUBERNETES, ROOT

RULES = (
    ROOT / "deploy" / "prometheus" / "recording.rules.yml",
    ROOT / "deploy" / "prometheus" / "alerts.rules.yml",
)
MANIFEST = KUBERNETES / "components" / "monitoring" / "prometheusrule.yaml"
COMMENT = "# Written from deploy/prometheus/*.rules.yml by: python -m tests.deploy.prometheus_rule\n"


def groups() -> list[dict[str, Any]]:
    """The groups of all rules."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def manifest() -> str:
    """The manifest's text."""
    labels = {"app.kubernetes.io/name": "event-router", "app.kubernetes.io/part-of": "event-router"}
    content = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "event-router", "labels": labels},
        "spec": {"groups": groups()},
    }
    return COMMENT + yaml.safe_dump(content, sort_keys=False, width=110)


if __name__ == "__main__":
    MANIFEST.write_text(manifest(), encoding="utf-8")

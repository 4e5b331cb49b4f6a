"""Every kustomization of deploy/, rendered, and what a router in it would be given."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.deploy.kustomize import Manifest, render

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = tuple(KUBERNETES / "overlays" / name for name in ("development", "production", "sentinel"))
ROUTERS = (KUBERNETES / "base", *OVERLAYS)
ROOTS = (*ROUTERS, KUBERNETES / "redis")


def by_name(manifests: Iterable[Manifest]) -> dict[tuple[str, str, str], Manifest]:
    """Manifests by kind, namespace and name."""
    return {(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]): m for m in manifests}


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """The manifests of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: Iterable[Manifest], kind: str, name: str = "event-router") -> Manifest:
    """The one manifest of a kind and name."""
    (found,) = [m for m in of_kind(manifests, kind) if m["metadata"]["name"] == name]
    return found


def variables(manifests: list[Manifest]) -> dict[str, str]:
    """The environment of the router's container: from its ConfigMap, then its own; without Secrets."""
    (container,) = named(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            found |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def with_component(folder: Path, component: str) -> list[Manifest]:
    """The base with one component, rendered by way of a kustomization in an empty folder."""
    paths = {
        "resources": [os.path.relpath(KUBERNETES / "base", folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / component, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(paths))
    return render(folder)


def labels_of_pods(manifest: Manifest) -> dict[str, str]:
    """The labels of a workload's pods; empty for other kinds."""
    template: Manifest = manifest.get("spec", {}).get("template", {})
    labels: dict[str, str] = template.get("metadata", {}).get("labels", {})
    return labels

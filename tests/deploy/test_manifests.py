"""Every rendering is valid, and its parts fit one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest

from tests.deploy.kustomize import Manifest, containers, pod_of, render
from tests.deploy.renderings import ROOTS, ROUTERS, labels_of_pods, named, of_kind, with_component

VERSIONS = ("1.30", "1.37")
"""The oldest and the newest Kubernetes that manifests are checked for."""

# Kinds of operators, whose schemas the validator has not: their fields as far as they are used.
CUSTOM: dict[str, dict[str, set[str]]] = {
    "ScaledObject": {
        "apiVersion": {"keda.sh/v1alpha1"},
        "required": {"scaleTargetRef", "triggers"},
        "allowed": {
            "scaleTargetRef",
            "triggers",
            "pollingInterval",
            "minReplicaCount",
            "maxReplicaCount",
            "fallback",
            "advanced",
        },
    },
    "PodMonitor": {
        "apiVersion": {"monitoring.coreos.com/v1"},
        "required": {"selector", "podMetricsEndpoints"},
        "allowed": {"selector", "podMetricsEndpoints"},
    },
    "PrometheusRule": {
        "apiVersion": {"monitoring.coreos.com/v1"},
        "required": {"groups"},
        "allowed": {"groups"},
    },
}


@pytest.fixture(params=[*ROOTS, "hpa"], ids=lambda root: getattr(root, "name", root))
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """The manifests of one rendering."""
    if request.param == "hpa":
        return with_component(tmp_path_factory.mktemp("hpa"), "hpa")
    return render(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_have_their_schema(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if custom := CUSTOM.get(manifest["kind"]):
            assert manifest["apiVersion"] in custom["apiVersion"]
            assert custom["required"] <= set(manifest["spec"]) <= custom["allowed"]
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_is_noticed(version: str) -> None:
    deployment = named(render(ROUTERS[0]), "Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(deployment, version, strict=True)


def test_objects_and_pods_carry_the_recommended_labels(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"].get("labels", {})
        assert "app.kubernetes.io/part-of" in labels, manifest["metadata"]
    for labels in filter(None, map(labels_of_pods, manifests)):
        assert set(labels) >= {f"app.kubernetes.io/{name}" for name in ("name", "version", "part-of")}


def test_selectors_find_pods_and_hold_nothing_that_changes(manifests: list[Manifest]) -> None:
    pods = [labels_of_pods(manifest) for manifest in manifests]
    found = dict(selectors(manifests))
    assert found
    for where, selector in found.items():
        assert any(selector.items() <= labels.items() for labels in pods), where
        # A selector is immutable: what changes from release to release must not be in it.
        assert "app.kubernetes.io/version" not in selector, where


def selectors(manifests: list[Manifest]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Every selector of pods of these manifests, with where it stands."""
    for manifest in manifests:
        spec: Mapping[str, Any] = manifest.get("spec", {})
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["kind"] == "Service":
            yield name, spec["selector"]
        elif "matchLabels" in spec.get("selector", {}):
            yield name, spec["selector"]["matchLabels"]
        elif spec.get("podSelector"):
            yield name, spec["podSelector"]["matchLabels"]
        for number, spread in enumerate(pod_of(manifest).get("topologySpreadConstraints", ())):
            yield f"{name} spread {number}", spread["labelSelector"]["matchLabels"]


def test_services_lead_to_ports_that_exist(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service"):
        ports = {
            port["name"]
            for manifest in manifests
            for container in containers(manifest)
            if service["spec"]["selector"].items() <= labels_of_pods(manifest).items()
            for port in container["ports"]
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]


def test_probes_ask_ports_that_exist(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for container in containers(manifest):
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                for kind in ("httpGet", "tcpSocket"):
                    if asked := container.get(probe, {}).get(kind):
                        assert asked["port"] in ports, f"{container['name']} {probe}"


def test_config_maps_that_are_named_exist(manifests: list[Manifest]) -> None:
    existing = {found["metadata"]["name"] for found in of_kind(manifests, "ConfigMap")}
    for manifest in manifests:
        needed = {v["configMap"]["name"] for v in pod_of(manifest).get("volumes", ()) if "configMap" in v}
        for container in containers(manifest):
            sources = container.get("envFrom", ())
            needed |= {source["configMapRef"]["name"] for source in sources if "configMapRef" in source}
        assert needed <= existing


def test_mounts_name_volumes(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        spec = manifest.get("spec", {})
        volumes = {volume["name"] for volume in pod_of(manifest).get("volumes", ())}
        volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
        for container in containers(manifest):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def test_resources_are_requested_and_memory_is_limited(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for container in containers(manifest):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_every_image_has_a_tag(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for container in containers(manifest):
            _, _, tag = container["image"].partition(":")
            assert tag, container["image"]
            assert tag != "latest"


def test_a_drain_may_take_a_pod(manifests: list[Manifest]) -> None:
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] in (1, "25%")


def test_one_scaler_at_most_and_it_alone_decides(manifests: list[Manifest]) -> None:
    scalers = [m for kind in ("ScaledObject", "HorizontalPodAutoscaler") for m in of_kind(manifests, kind)]
    assert len(scalers) <= 1
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in named(manifests, "Deployment", target)["spec"]

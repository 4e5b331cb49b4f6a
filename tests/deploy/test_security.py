"""No workload breaks the "restricted" Pod Security Standard, and no traffic is open that is not needed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from event_router.redis_client.address import parse_url
from tests.deploy.kustomize import pod_of, render
from tests.deploy.renderings import KUBERNETES, OVERLAYS, ROOTS, ROUTERS, named, of_kind, variables
from tests.deploy.restricted import violations

ids = pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
routers = pytest.mark.parametrize("root", ROUTERS, ids=lambda root: root.name)


@ids
def test_workloads_meet_the_restricted_standard(root: Path) -> None:
    workloads = [manifest for manifest in render(root) if pod_of(manifest)]
    assert workloads
    for manifest in workloads:
        assert violations(manifest) == [], manifest["metadata"]["name"]


def without(*path: str) -> Callable[[Any], None]:
    def change(pod: Any) -> None:
        for step in path[:-1]:
            pod = pod[int(step)] if step.isdigit() else pod[step]
        del pod[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("securityContext", "runAsNonRoot"),
        without("securityContext", "seccompProfile"),
        without("automountServiceAccountToken"),
        without("containers", "0", "securityContext"),
        without("containers", "0", "securityContext", "allowPrivilegeEscalation"),
        without("containers", "0", "securityContext", "readOnlyRootFilesystem"),
        without("containers", "0", "securityContext", "capabilities", "drop"),
        lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
        lambda pod: pod["containers"][0]["securityContext"].update(runAsUser=0),
        lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        lambda pod: pod["containers"][0]["ports"][0].update(hostPort=80),
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod.update(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
        lambda pod: pod.update(initContainers=[{"name": "i", "image": "i"}]),
    ],
)
def test_each_breach_is_noticed(change: Callable[[Any], None]) -> None:
    deployment = copy.deepcopy(named(render(ROUTERS[0]), "Deployment"))
    change(pod_of(deployment))
    assert violations(deployment)


@routers
def test_pod_gets_neither_a_token_nor_service_links(root: Path) -> None:
    manifests = render(root)
    account = named(manifests, "ServiceAccount")
    pod = pod_of(named(manifests, "Deployment"))
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


@ids
def test_policies_deny_by_default(root: Path) -> None:
    policies = of_kind(render(root), "NetworkPolicy")
    assert policies
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"].get("egress", []) + policy["spec"].get("ingress", []):
            assert rule.get("to") or rule.get("from"), "open to everybody"
            assert rule["ports"]


@pytest.mark.parametrize("root", OVERLAYS, ids=lambda root: root.name)
def test_overlays_have_a_namespace_of_their_own(root: Path) -> None:
    manifests = render(root)
    labels = named(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] != "Namespace"} == {"event-router"}
    assert named(manifests, "NetworkPolicy", "default-deny")["spec"]["podSelector"] == {}


@routers
def test_router_reaches_redis_sentinel_and_dns_and_nothing_else(root: Path) -> None:
    manifests = render(root)
    redis, dns = named(manifests, "NetworkPolicy")["spec"]["egress"]
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert {(p["protocol"], p["port"]) for p in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    namespace = redis["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    ports = {port["port"] for port in redis["ports"]}
    assert ports == {6379, 26379}
    for host, port in redis_addresses(variables(manifests)):
        assert port in ports
        assert host.split(".")[1:] == [namespace, "svc", "cluster", "local"]


@routers
def test_settings_name_services_that_the_development_redis_has(root: Path) -> None:
    services = {
        f"{service['metadata']['name']}.redis.svc.cluster.local": {
            p["port"] for p in service["spec"]["ports"]
        }
        for service in of_kind(render(KUBERNETES / "redis"), "Service")
    }
    hosts = set()
    for host, port in redis_addresses(variables(render(root))):
        assert port in services[host]
        hosts.add(host)
    assert hosts == {"rfr-streams-redis.redis.svc.cluster.local", "rfr-pubsub-redis.redis.svc.cluster.local"}


def redis_addresses(found: dict[str, str]) -> list[tuple[str, int]]:
    """Host and port of each Redis or Sentinel that the settings name."""
    addresses: list[tuple[str, int]] = []
    for name in ("EVENT_ROUTER_REDIS_STREAMS_URL", "EVENT_ROUTER_REDIS_PUBSUB_URL"):
        address = parse_url(found[name])
        parts = urlsplit(found[name])
        addresses += address.sentinels or [(str(parts.hostname), parts.port or 6379)]
    return addresses


def test_no_committed_url_has_a_password() -> None:
    for root in ROUTERS:
        for value in variables(render(root)).values():
            assert urlsplit(value).password is None

"""What manifests set is what the router takes: variables, probes, ports, times, scalers' names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from event_router.handler_loading import load_handlers
from event_router.ops.http import HttpServer
from event_router.redis_client.address import parse_url
from event_router.settings import PREFIX, Settings, SettingsError, load
from tests.deploy.exported import exported_names
from tests.deploy.exported import named as metrics_of
from tests.deploy.kustomize import Manifest, pod_of, render
from tests.deploy.promql import wrongly_summed
from tests.deploy.renderings import OVERLAYS, ROUTERS, named, of_kind, variables

SCALED_BY = {"event_router_consumer_lag", "event_router_pending_messages", "event_router_stream_paused"}

routers = pytest.mark.parametrize("root", ROUTERS, ids=lambda root: root.name)


@pytest.fixture(autouse=True)
def no_variables_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def settings_of(root: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Settings:
    """The settings of a router that is started with the variables of the manifests."""
    for name, value in {**variables(render(root)), **more}.items():
        assert name.startswith(PREFIX), name
        monkeypatch.setenv(name, value)
    return load()


@routers
def test_router_starts_with_the_variables_of_the_manifests(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(root, monkeypatch)
    assert settings.redis_streams_url is not None
    assert settings.redis_pubsub_url is not None
    assert settings.embedded is False
    assert settings.log_format == "json"


def test_a_variable_that_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="EVENT_ROUTER_CLAIM_MIN_IDLE is no setting"):
        settings_of(ROUTERS[0], monkeypatch, EVENT_ROUTER_CLAIM_MIN_IDLE="1")


def test_a_variable_with_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="EVENT_ROUTER_HTTP_PORT"):
        settings_of(ROUTERS[0], monkeypatch, EVENT_ROUTER_HTTP_PORT="http")


@pytest.mark.parametrize("name", ["development", "sentinel"])
def test_sentinel_overlays_ask_the_sentinels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (root,) = [overlay for overlay in OVERLAYS if overlay.name == name]
    address = parse_url(str(settings_of(root, monkeypatch).redis_streams_url))
    assert address.sentinels == (("rfr-streams-redis.redis.svc.cluster.local", 26379),)
    assert address.service == "mymaster"


@routers
def test_consumer_is_named_after_the_pod(root: Path) -> None:
    (container,) = pod_of(named(render(root), "Deployment"))["containers"]
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert container["env"] == [pod_name]


@routers
def test_secret_comes_after_the_config_map(root: Path) -> None:
    (container,) = pod_of(named(render(root), "Deployment"))["containers"]
    config_map, secret = container["envFrom"]
    name = config_map["configMapRef"]["name"]
    assert re.fullmatch(r"event-router-\w{10}", name), "without a hash, a changed setting rolls no pod"
    # In production the URLs have passwords: without the Secret, no pod must start.
    assert secret == {"secretRef": {"name": "event-router", "optional": root.name != "production"}}


@routers
def test_pod_is_given_longer_to_stop_than_the_router_takes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = settings_of(root, monkeypatch).shutdown_grace_s
    assert pod_of(named(render(root), "Deployment"))["terminationGracePeriodSeconds"] > grace


@routers
def test_port_is_the_one_that_the_router_serves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod_of(named(render(root), "Deployment"))["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": settings_of(root, monkeypatch).http_port}]


async def test_paths_of_probes_and_scrapes_are_served() -> None:
    asked = {path for root in ROUTERS for path in paths(render(root))}
    assert asked == {"/livez", "/readyz", "/metrics"}
    server = HttpServer(
        host="127.0.0.1",
        port=0,
        stuck=list,
        readiness=lambda: {"ready": True},
        registry=CollectorRegistry(),
    )
    await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
            for path in asked:
                async with client.get(f"http://127.0.0.1:{server.port}{path}") as answer:
                    assert answer.status == 200, path
    finally:
        await server.stop()


def paths(manifests: list[Manifest]) -> Iterator[str]:
    """Every path that a probe or a scrape asks a router for."""
    (container,) = pod_of(named(manifests, "Deployment"))["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield container[probe]["httpGet"]["path"]
    for monitor in of_kind(manifests, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] == "http"
            yield endpoint["path"]


def triggers(name: str) -> list[dict[str, Any]]:
    """The triggers of an overlay's ScaledObject."""
    (root,) = [overlay for overlay in OVERLAYS if overlay.name == name]
    found: list[dict[str, Any]] = named(render(root), "ScaledObject")["spec"]["triggers"]
    return found


def served_streams() -> set[str]:
    settings = Settings()
    domains = load_handlers(settings).domains
    return {stream for domain in domains for stream in settings.streams(domain)}


def test_scaler_asks_for_metrics_that_are_exported_once_for_each_stream() -> None:
    streams = set()
    for trigger in triggers("production"):
        query = trigger["metadata"]["query"]
        asked = metrics_of(query)
        assert asked == SCALED_BY <= exported_names()
        assert wrongly_summed(query) == set(), "figures of the group"
        (stream,) = set(re.findall(r'stream="([^"]+)"', query))
        assert set(re.findall(r'group="([^"]+)"', query)) == {Settings().group}
        streams.add(stream)
        assert int(trigger["metadata"]["threshold"]) > Settings().max_in_flight
    assert streams == served_streams()


def test_sentinel_scaler_asks_the_sentinels_for_lag_and_pending_of_each_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (root,) = [overlay for overlay in OVERLAYS if overlay.name == "sentinel"]
    settings = settings_of(root, monkeypatch)
    address = parse_url(str(settings.redis_streams_url))
    asked = []
    for trigger in triggers("sentinel"):
        metadata = trigger["metadata"]
        assert trigger["type"] == "redis-sentinel-streams"
        assert metadata["addresses"] == ",".join(f"{host}:{port}" for host, port in address.sentinels)
        assert metadata["sentinelMaster"] == address.service
        assert metadata["consumerGroup"] == settings.group
        (figure,) = {"lagCount", "pendingEntriesCount"} & set(metadata)
        asked.append((metadata["stream"], figure))
    figures = ("lagCount", "pendingEntriesCount")
    assert sorted(asked) == sorted((stream, figure) for stream in served_streams() for figure in figures)

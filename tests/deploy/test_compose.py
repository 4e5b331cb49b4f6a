"""The compose file holds together: what is mounted, named or awaited exists, and settings are real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from event_router.redis_client.address import parse_url
from event_router.settings import PREFIX, Settings, load
from tests.deploy.dashboards import DASHBOARDS, FOLDER
from tests.deploy.prometheus_rule import RULES
from tests.deploy.promtool import promtool
from tests.deploy.renderings import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Of the Compose Specification (compose-spec.io), what the file uses.
FIELDS = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "volumes",
}
every_service = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the router's service."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in SERVICES["router"]["environment"].items():
        monkeypatch.setenv(name, value)
    return load()


def mounts(name: str) -> list[tuple[str, str]]:
    """(source, target) of a service's volumes."""
    found = [mount.split(":") for mount in SERVICES[name].get("volumes", ())]
    return [(source, target) for source, target, *_ in found]


def test_all_parts_are_there() -> None:
    assert set(SERVICES) == {"router", "redis-streams", "redis-pubsub", "prometheus", "grafana"}
    assert set(COMPOSE) == {"name", "services", "volumes"}


@every_service
def test_services_have_known_fields_and_a_tag(name: str) -> None:
    assert set(SERVICES[name]) <= FIELDS
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert tag not in ("", "latest")


@every_service
def test_what_is_mounted_exists(name: str) -> None:
    for source, _ in mounts(name):
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


@every_service
def test_what_is_waited_for_exists_and_can_become_healthy(name: str) -> None:
    awaited = SERVICES[name].get("depends_on", [])
    for other in awaited:
        assert other in SERVICES
        if isinstance(awaited, dict) and awaited[other]["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@every_service
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_router_reaches_both_roles(settings: Settings) -> None:
    for url, role in ((settings.redis_streams_url, "streams"), (settings.redis_pubsub_url, "pubsub")):
        assert url is not None
        parse_url(url)
        parts = urlsplit(url)
        assert parts.hostname == f"redis-{role}"
        assert (f"../config/redis-{role}.conf", "/etc/redis/redis.conf") in mounts(f"redis-{role}")
        # Without a password, the configuration lets only loopback in.
        assert "--protected-mode no" in SERVICES[f"redis-{role}"]["command"]


def test_router_is_confined_and_given_time_to_stop(settings: Settings) -> None:
    router = SERVICES["router"]
    assert router["read_only"] is True
    assert router["cap_drop"] == ["ALL"]
    assert router["security_opt"] == ["no-new-privileges:true"]
    assert float(router["stop_grace_period"].removesuffix("s")) > settings.shutdown_grace_s


def test_health_check_is_python_that_asks_the_port(settings: Settings) -> None:
    command, _, code = SERVICES["router"]["healthcheck"]["test"][1:]
    assert command == "python"
    compile(code, "healthcheck", "exec")
    assert f":{settings.http_port}/readyz" in code


def test_prometheus_finds_its_configuration_its_rules_and_every_router(settings: Settings) -> None:
    (source, target), _ = mounts("prometheus")
    folder = (DEPLOY / source).resolve()
    assert target == "/etc/prometheus"
    checked: subprocess.CompletedProcess[str] = promtool(
        "check", "config", "--syntax-only", folder / "prometheus.yml"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    (pattern,) = configuration["rule_files"]
    assert set(folder.glob(Path(pattern).name)) == set(RULES)
    (found,) = configuration["scrape_configs"][0]["dns_sd_configs"]
    assert found["names"] == ["router"]
    assert found["port"] == settings.http_port


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    grafana = dict(mounts("grafana"))
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    address = urlsplit(source["url"])
    assert (address.hostname, address.port) == ("prometheus", 9090)
    assert source["isDefault"] is True
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "event-router.yaml").read_text())["providers"]
    (folder,) = [source for source, target in grafana.items() if target == provider["options"]["path"]]
    assert (DEPLOY / folder).resolve() == FOLDER
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.stem in DASHBOARDS
    assert str(home.parent) == provider["options"]["path"]

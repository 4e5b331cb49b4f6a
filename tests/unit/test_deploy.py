"""The manifests, settings files and Redis configurations agree with the program and with each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "kubernetes" / "base"
CONFIG = ROOT / "config"
PREFIX = "EVENT_ROUTER_"

# Settings whose default is "unset", which TOML cannot say.
UNSET = {"redis_streams_url", "redis_pubsub_url", "operator_url", "consumer"}

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    """The rendered base by kind."""
    if shutil.which("kubectl") is None:
        if os.environ.get("CI"):
            pytest.fail("kubectl is not installed")
        pytest.skip("kubectl is not installed")
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(BASE)], capture_output=True, text=True, check=True, timeout=60
    )
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(rendered.stdout)}


@pytest.fixture
def pod(manifests: Mapping[str, Manifest]) -> Manifest:
    """The pod of the Deployment."""
    spec: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    """The only container of the pod."""
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.fixture
def variables(manifests: Mapping[str, Manifest], container: Manifest) -> dict[str, str]:
    """The environment that the ConfigMap and the container give, without references to fields."""
    data: dict[str, str] = dict(manifests["ConfigMap"]["data"])
    return data | {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def config(name: str) -> dict[str, Any]:
    """The content of a settings file."""
    return tomllib.loads((CONFIG / f"{name}.toml").read_text(encoding="utf-8"))


def directives(name: str) -> dict[str, str]:
    """The directives of a Redis configuration, by name."""
    lines = (CONFIG / f"{name}.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def test_base_holds_the_four_kinds(manifests: Mapping[str, Manifest]) -> None:
    assert set(manifests) == {"ConfigMap", "Deployment", "Service", "ServiceAccount"}


def test_objects_and_pods_carry_the_recommended_labels(manifests: Mapping[str, Manifest]) -> None:
    recommended = {
        f"app.kubernetes.io/{label}" for label in ("name", "instance", "version", "component", "part-of")
    }
    for manifest in manifests.values():
        assert set(manifest["metadata"]["labels"]) >= recommended, manifest["kind"]
    assert set(manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]) >= recommended


def test_service_and_deployment_select_the_pods(manifests: Mapping[str, Manifest]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert manifests["Service"]["spec"]["selector"].items() <= labels
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    # A selector is immutable: what changes from release to release must not be in it.
    assert "app.kubernetes.io/version" not in manifests["Deployment"]["spec"]["selector"]["matchLabels"]


def test_pod_meets_the_restricted_pod_security_standard(pod: Manifest, container: Manifest) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(pod)
    assert all("hostPort" not in port for port in container["ports"])


def test_pod_gets_neither_a_token_nor_service_links(manifests: Mapping[str, Manifest], pod: Manifest) -> None:
    assert pod["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_resources_are_requested_and_memory_is_limited(container: Manifest) -> None:
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_probes_ask_the_http_server(container: Manifest, variables: Mapping[str, str]) -> None:
    from event_router.settings import Settings

    port = int(variables.get("EVENT_ROUTER_HTTP_PORT", Settings.model_fields["http_port"].default))
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}


def test_service_reaches_the_http_port(manifests: Mapping[str, Manifest]) -> None:
    assert manifests["Service"]["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]


def test_pod_is_given_longer_to_stop_than_the_router_takes(
    pod: Manifest, variables: Mapping[str, str]
) -> None:
    from event_router.settings import Settings

    grace = variables.get("EVENT_ROUTER_SHUTDOWN_GRACE_S", Settings.model_fields["shutdown_grace_s"].default)
    assert pod["terminationGracePeriodSeconds"] > float(grace)


def test_consumer_is_named_after_the_pod(container: Manifest) -> None:
    assert container["env"] == [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    ]


def test_pod_reads_the_config_map_then_the_secret(
    manifests: Mapping[str, Manifest], container: Manifest
) -> None:
    name = manifests["ConfigMap"]["metadata"]["name"]
    assert name.startswith("event-router-"), "without a hash in its name, a changed setting rolls no pod"
    assert container["envFrom"] == [
        {"configMapRef": {"name": name}},
        {"secretRef": {"name": "event-router", "optional": True}},
    ]


def test_router_starts_with_the_variables_of_the_manifests(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from event_router.settings import Settings, load

    fields = {name.removeprefix(PREFIX).lower() for name in variables}
    assert all(name.startswith(PREFIX) for name in variables)
    assert fields <= set(Settings.model_fields)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = load()

    assert settings.redis_streams_url == "redis://rfr-streams-redis.redis.svc.cluster.local:6379/0"
    assert settings.redis_pubsub_url == "redis://rfr-pubsub-redis.redis.svc.cluster.local:6379/0"
    assert settings.embedded is False
    assert settings.log_format == "json"


def test_default_toml_gives_every_setting_its_default() -> None:
    from event_router.settings import Settings

    named = config("default")
    assert set(named) == set(Settings.model_fields) - UNSET
    defaults = Settings()
    assert {name: getattr(Settings(**named), name) for name in named} == {
        name: getattr(defaults, name) for name in named
    }


def test_default_toml_shows_the_unset_settings_as_comments() -> None:
    text = (CONFIG / "default.toml").read_text(encoding="utf-8")
    for name in UNSET:
        assert f"\n# {name} = " in text


@pytest.mark.parametrize("name", ["development", "production", "test"])
def test_environment_files_name_only_what_differs(name: str) -> None:
    from event_router.settings import Settings

    settings = Settings(**config(name))
    defaults = Settings()
    for setting in config(name):
        assert getattr(settings, setting) != getattr(defaults, setting), setting


def test_streams_redis_is_durable_and_never_evicts() -> None:
    streams = directives("redis-streams")
    assert streams["appendonly"] == "yes"
    assert streams["appendfsync"] == "everysec"
    assert streams["maxmemory-policy"] == "noeviction"
    assert streams["timeout"] == "0"


def test_pubsub_redis_keeps_nothing_and_cuts_slow_subscribers_off() -> None:
    pubsub = directives("redis-pubsub")
    assert pubsub["appendonly"] == "no"
    assert pubsub["save"] == '""'
    assert pubsub["client-output-buffer-limit"].startswith("pubsub ")


def test_image_runs_unprivileged_without_the_embedded_server() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    final = dockerfile.split("\nFROM ")[-1]
    assert "\nUSER 10001:10001\n" in final
    assert '\nENTRYPOINT ["event-router"]\nCMD ["run"]\n' in final
    assert "\nEXPOSE 8080\n" in final
    assert "RUN" not in final, "the final stage only copies"
    assert PREFIX not in dockerfile, "an image has no settings of its own"
    assert installs(dockerfile)
    for command in installs(dockerfile):
        assert "--require-hashes" in command or "--no-index" in command


def installs(dockerfile: str) -> list[str]:
    """The pip install commands of a Dockerfile, each on one line."""
    commands = dockerfile.replace("\\\n", " ").replace("&&", "\n").splitlines()
    return [command for command in commands if "pip" in command and " install " in command]


def test_image_is_built_from_what_its_context_holds() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert "*" in ignored
    assert copied == allowed

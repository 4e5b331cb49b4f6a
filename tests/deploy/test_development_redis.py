"""The Redis of development clusters: durable, replicated, refusing writes that nobody else would have."""

from __future__ import annotations

from tests.deploy.kustomize import Manifest, pod_of, render
from tests.deploy.renderings import KUBERNETES, named

MANIFESTS = render(KUBERNETES / "redis")


def container(kind: str, workload: str, name: str) -> Manifest:
    pod = pod_of(named(MANIFESTS, kind, workload))
    (found,) = [container for container in pod["containers"] if container["name"] == name]
    assert isinstance(found, dict)
    return found


def directives(text: str) -> dict[str, str]:
    lines = text.splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def files() -> dict[str, str]:
    """The files of the streams servers' ConfigMap."""
    pod = pod_of(named(MANIFESTS, "StatefulSet", "rfr-streams-redis"))
    data: dict[str, str] = named(MANIFESTS, "ConfigMap", pod["volumes"][0]["configMap"]["name"])["data"]
    return data


def test_streams_servers_are_durable_and_write_only_with_a_replica() -> None:
    found = directives(files()["redis.conf"])
    assert found["appendonly"] == "yes"
    assert found["maxmemory-policy"] == "noeviction"
    assert found["min-replicas-to-write"] == "1"


def test_three_nodes_each_with_a_sentinel_of_quorum_two() -> None:
    statefulset = named(MANIFESTS, "StatefulSet", "rfr-streams-redis")
    assert statefulset["spec"]["replicas"] == 3
    assert "sentinel monitor mymaster $primary 6379 2" in files()["start-sentinel.sh"]


def test_streams_servers_have_the_resources_they_are_meant_to_have() -> None:
    resources = container("StatefulSet", "rfr-streams-redis", "redis")["resources"]
    assert resources == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"cpu": "2", "memory": "4Gi"},
    }
    # The AOF's rewrite may copy as much again as is stored.
    assert directives(files()["redis.conf"])["maxmemory"] == "2gb"


def test_scripts_are_started_with_all_they_need() -> None:
    for name, script in (("redis", "start-redis.sh"), ("sentinel", "start-sentinel.sh")):
        found = container("StatefulSet", "rfr-streams-redis", name)
        given = {entry["name"] for entry in found["env"]}
        assert found["command"] == ["sh", f"/etc/redis/{script}"]
        for variable in ("SELF", "FIRST", "SENTINELS", "DATA"):
            assert f"${variable}" in files()[script]
            assert variable in given


def test_pubsub_server_keeps_nothing() -> None:
    command = container("Deployment", "rfr-pubsub-redis", "redis")["command"]
    assert command[command.index("--save") + 1] == ""
    assert command[command.index("--appendonly") + 1] == "no"
    assert named(MANIFESTS, "Deployment", "rfr-pubsub-redis")["spec"]["replicas"] == 1
    assert "volumes" not in pod_of(named(MANIFESTS, "Deployment", "rfr-pubsub-redis"))

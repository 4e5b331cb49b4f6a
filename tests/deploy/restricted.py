"""The Pod Security Standard "restricted", as far as a pod specification can break it.

Source: kubernetes.io/docs/concepts/security/pod-security-standards. Stricter in two points: the root file
system must be read-only, and no service-account token mounted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.deploy.kustomize import Manifest, containers, pod_of

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(manifest: Manifest) -> list[str]:
    """What in a workload breaks "restricted", a line each; empty when nothing does."""
    pod = pod_of(manifest)
    return [*_of_pod(pod), *(found for c in containers(manifest) for found in _of_container(pod, c))]


def _of_pod(pod: Manifest) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is on"
    for volume in pod.get("volumes", ()):
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service-account token is mounted"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls are set"


def _of_container(pod: Manifest, container: Manifest) -> Iterator[str]:
    own = container.get("securityContext", {})
    both: dict[str, Any] = {**pod.get("securityContext", {}), **own}
    name = container["name"]
    if both.get("runAsNonRoot") is not True:
        yield f"{name} may run as root"
    if both.get("runAsUser") == 0:
        yield f"{name} runs as user 0"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name} has no seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate privileges"
    if own.get("privileged"):
        yield f"{name} is privileged"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name} keeps capabilities"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write to its root file system"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield f"{name} takes a port of the host"

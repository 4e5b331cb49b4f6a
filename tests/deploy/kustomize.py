"""Renders the kustomizations of deploy/ without kustomize: the fields they use, any other is an error.

`test_kustomize.py` holds it against `kubectl kustomize` wherever a kubectl is installed.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

FIELDS = {
    "apiVersion",
    "kind",
    "namespace",
    "labels",
    "resources",
    "components",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "patches",
}
GENERATOR_FIELDS = {"name", "namespace", "behavior", "envs", "files", "options"}
CLUSTER_WIDE = {"Namespace"}
WITH_TEMPLATES = {"Deployment", "StatefulSet"}
SPELLING = str.maketrans("013ae", "ghkmt")
CONFIG_MAP_REFERENCES = {"configMap", "configMapRef", "configMapKeyRef"}


class Unsupported(ValueError):
    """A kustomization uses what this renderer does not know."""


def render(root: Path) -> list[Manifest]:
    """The manifests that `kubectl kustomize root` gives, in no particular order.

    Raises:
        Unsupported: the kustomization, or one it is made of, uses a field that is not rendered here.
    """
    return copy.deepcopy(_rendered(root))


@functools.cache
def _rendered(root: Path) -> list[Manifest]:
    manifests = _accumulate(root, [])
    for config_map in [m for m in manifests if m.get("_hash")]:
        name = config_map["metadata"]["name"]
        config_map["metadata"]["name"] = f"{name}-{_hash(config_map)}"
        namespace = config_map["metadata"].get("namespace")
        for manifest in manifests:
            if manifest["metadata"].get("namespace") == namespace:
                _rename(manifest, name, config_map["metadata"]["name"])
    for manifest in manifests:
        manifest.pop("_hash", None)
    return manifests


def _accumulate(root: Path, manifests: list[Manifest]) -> list[Manifest]:
    kustomization = yaml.safe_load((root / "kustomization.yaml").read_text(encoding="utf-8"))
    _refuse_unknown(root, kustomization, FIELDS)
    for name in kustomization.get("resources", ()):
        path = root / name
        if path.is_dir():
            manifests += _accumulate(path.resolve(), [])
        else:
            manifests += [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]
    for generator in kustomization.get("configMapGenerator", ()):
        _generate(root, generator, kustomization.get("generatorOptions", {}), manifests)
    for name in kustomization.get("components", ()):
        manifests = _accumulate((root / name).resolve(), manifests)
    for patch in kustomization.get("patches", ()):
        _patch(root, patch, manifests)
    for manifest in manifests:
        if "namespace" in kustomization and manifest["kind"] not in CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
        for labels in kustomization.get("labels", ()):
            _label(root, labels, manifest)
        for image in kustomization.get("images", ()):
            _set_image(root, image, manifest)
    return manifests


def _refuse_unknown(root: Path, found: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(found) - known:
        raise Unsupported(f"{root}: {', '.join(sorted(unknown))} is not rendered")


def _generate(
    root: Path, generator: Mapping[str, Any], options: Mapping[str, Any], manifests: list[Manifest]
) -> None:
    _refuse_unknown(root, generator, GENERATOR_FIELDS)
    options = {**options, **generator.get("options", {})}
    _refuse_unknown(root, options, {"disableNameSuffixHash", "labels"})
    data: dict[str, str] = {}
    for name in generator.get("envs", ()):
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                key, _, value = line.partition("=")
                data[key] = value
    for name in generator.get("files", ()):
        data[Path(name).name] = (root / name).read_text(encoding="utf-8")
    if generator.get("behavior") == "merge":
        (existing,) = _selected(manifests, {"kind": "ConfigMap", "name": generator["name"]})
        existing["data"] |= data
        return
    if "behavior" in generator:
        raise Unsupported(f"{root}: behavior {generator['behavior']}")
    metadata = {"name": generator["name"]}
    if "namespace" in generator:
        metadata["namespace"] = generator["namespace"]
    if "labels" in options:
        metadata["labels"] = dict(options["labels"])
    manifest: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    if not options.get("disableNameSuffixHash"):
        manifest["_hash"] = True
    manifests.append(manifest)


def _patch(root: Path, patch: Mapping[str, Any], manifests: list[Manifest]) -> None:
    _refuse_unknown(root, patch, {"target", "patch", "path"})
    text = patch["patch"] if "patch" in patch else (root / patch["path"]).read_text(encoding="utf-8")
    operations = yaml.safe_load(text)
    if not isinstance(operations, list):
        raise Unsupported(f"{root}: a patch that is no list of JSON 6902 operations")
    _refuse_unknown(root, patch["target"], {"kind", "name"})
    targets = _selected(manifests, patch["target"])
    if not targets:
        raise Unsupported(f"{root}: the patch of {patch['target']} finds nothing")
    for manifest in targets:
        for operation in operations:
            _apply(root, operation, manifest)


def _selected(manifests: list[Manifest], target: Mapping[str, str]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == target["kind"] and m["metadata"]["name"] == target["name"]]


def _apply(root: Path, operation: Mapping[str, Any], manifest: Manifest) -> None:
    *path, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    place: Any = manifest
    for step in path:
        place = place[int(step)] if isinstance(place, list) else place[step]
    value = copy.deepcopy(operation.get("value"))
    match operation["op"], place:
        case "add", list():
            place.insert(len(place) if last == "-" else int(last), value)
        case "add", dict():
            place[last] = value
        case "replace", list():
            place[int(last)] = value
        case "replace", dict() if last in place:
            place[last] = value
        case "remove", dict() if last in place:
            del place[last]
        case other:
            raise Unsupported(f"{root}: {other[0]} at {operation['path']}")


def _label(root: Path, labels: Mapping[str, Any], manifest: Manifest) -> None:
    _refuse_unknown(root, labels, {"includeTemplates", "pairs"})
    manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])
    if labels.get("includeTemplates") and manifest["kind"] in WITH_TEMPLATES:
        manifest["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {}).update(
            labels["pairs"]
        )
        for claim in manifest["spec"].get("volumeClaimTemplates", ()):
            claim["metadata"].setdefault("labels", {}).update(labels["pairs"])


def _set_image(root: Path, image: Mapping[str, Any], manifest: Manifest) -> None:
    _refuse_unknown(root, image, {"name", "newName", "newTag"})
    for container in containers(manifest):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def pod_of(manifest: Manifest) -> Manifest:
    """The pod specification of a workload; empty for other kinds."""
    if manifest["kind"] not in WITH_TEMPLATES:
        return {}
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def containers(manifest: Manifest) -> list[Manifest]:
    """Every container of a workload, those that initialise it included."""
    pod = pod_of(manifest)
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def _rename(manifest: Manifest, old: str, new: str) -> None:
    for key, value in _walk(manifest):
        if key in CONFIG_MAP_REFERENCES and isinstance(value, dict) and value.get("name") == old:
            value["name"] = new


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from _walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part)


def _hash(config_map: Manifest) -> str:
    """The suffix of a generated name: kustomize's own, so that names agree (it hashes the name as empty)."""
    content = {"data": config_map["data"], "kind": "ConfigMap", "name": ""}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return hashlib.sha256(escaped.encode()).hexdigest()[:10].translate(SPELLING)

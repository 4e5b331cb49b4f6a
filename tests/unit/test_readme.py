"""What the README and the documentation say is there, and the README's code does what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import event_router
from event_router.cli.commands import app
from event_router.core.outcome import REASONS
from event_router.settings import Settings
from tests.readme import README, ROOT, commands, files, save_files

DOCUMENTS = ("README.md", "CHANGELOG.md", "docs/architecture.md")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def quoted(document: str) -> set[str]:
    """What stands in backticks in a document, outside blocks."""
    prose = re.sub(r"^```.*?^```$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", prose))


def test_own_handler_passes_its_own_test(tmp_path: Path) -> None:
    save_files(tmp_path)
    assert set(files()) == {"orders.py", "test_orders.py"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_orders.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_own_handler_has_ten_lines() -> None:
    lines = [line for line in files()["orders.py"].splitlines() if line and not line.startswith("#")]
    assert len(lines) == 10


def test_public_names_are_public() -> None:
    (imported,) = re.findall(r"^from event_router import (EventRouter.*)$", README, re.MULTILINE)
    assert set(imported.split(", ")) <= set(event_router.__all__)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(document)):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_that_are_named_exist(document: str) -> None:
    known = {name.upper() for name in Settings.model_fields} | {"POD_NAME", "REDIS_URL"}
    named = {name for name in quoted(document) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name)}
    named |= set(re.findall(r"EVENT_ROUTER_([A-Z_]+[A-Z])", text_of(document)))
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_classes_that_are_named_exist(document: str) -> None:
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "event_router").rglob("*.py"))
    for name in quoted(document):
        if re.fullmatch(r"[\w./-]+/|[\w./-]+\.(py|lua|toml|conf)", name) and not name.startswith("."):
            places = (ROOT, ROOT / "event_router", ROOT / "event_router/redis_io/scripts")
            assert name in files() or any((place / name).exists() for place in places), name
        elif re.fullmatch(r"([A-Z][a-z]+){2,}", name):
            assert re.search(rf"^class {name}\b", code, re.MULTILINE), name


def test_metrics_that_are_named_exist() -> None:
    source = (ROOT / "event_router/ops/metrics.py").read_text("utf-8")
    for name in re.findall(r"`event_router_(\w+)`", README):
        assert f'"{name.removesuffix("_total")}"' in source or f"{{PREFIX}}{name}" in source, name


def test_dead_letter_reasons_are_all_there() -> None:
    (sentence,) = re.findall(r"with its reason: (.*?)\.\n", README, re.DOTALL)
    assert re.findall(r"`(\w+)`", sentence) == list(REASONS)


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert targets >= {"run", "test", "bench", "battery"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_commands_exist_with_their_options() -> None:
    lines = [line.partition("event-router ")[2] for line in commands() if "event-router " in line]
    assert len(lines) > 7
    for line in lines:
        words = line.split()
        depth = 2 if words[0] in ("dlq", "state") else 1
        shown = CliRunner().invoke(app, [*words[:depth], "--help"])
        assert shown.exit_code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.output, line

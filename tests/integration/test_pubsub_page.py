"""The programs on the page about Pub/Sub, run as they stand: they print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from event_router.cli.commands import app
from event_router.ops.pubsub_metrics import PubSubMetrics
from tests.environment.servers import Server

PAGE = (Path(__file__).parents[2] / "docs/pubsub.md").read_text("utf-8")
_PROGRAM = re.compile(r"^```python\n(# (\w+)\.py\n.*?)^```\n+^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {name: (program, output) for program, name, output in _PROGRAM.findall(PAGE)}


@pytest.mark.once
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_prints_what_the_page_says(name: str, server: Server, tmp_path: Path) -> None:
    program, output = PROGRAMS[name]
    (tmp_path / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, output), done.stderr
    assert "Traceback" not in done.stderr


def test_every_block_of_python_is_run() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 3


def test_commands_exist_with_their_options() -> None:
    lines = re.findall(r"^event-router (.+)$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for words in map(str.split, lines):
        depth = 2 if words[0] == "job" else 1
        shown = CliRunner().invoke(app, [*words[:depth], "--help"])
        assert shown.exit_code == 0
        assert all(word in shown.output for word in words if word.startswith("--"))


def test_metrics_that_are_named_exist() -> None:
    exported = {f"{family.name}" for family in PubSubMetrics().collect()}
    named = set(re.findall(r"`event_router_(\w+)", PAGE))
    assert named
    assert {f"event_router_{name.removesuffix('_total')}" for name in named} <= exported

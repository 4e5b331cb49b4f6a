"""The programs on the pages about patterns, run as they stand: they print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment.servers import Server

DOCS = Path(__file__).parents[2] / "docs"
_PROGRAM = re.compile(r"^```python\n(# \w+\.py\n.*?)^```\n+^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.once
@pytest.mark.parametrize("page", ["cache-aside.md", "composite-bus.md", "producers.md", "rate-limit.md"])
def test_program_prints_what_the_page_says(page: str, server: Server, tmp_path: Path) -> None:
    ((program, output),) = _PROGRAM.findall((DOCS / page).read_text("utf-8"))
    (tmp_path / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")

"""Prometheus's own program that checks and tests rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; it comes with Debian's prometheus."""
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed")
        pytest.skip("promtool is not installed")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)

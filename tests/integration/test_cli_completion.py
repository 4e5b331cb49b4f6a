"""Completion of commands in a shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.environment.routers import program


@pytest.mark.parametrize(
    ("typed", "offered"), [("event-router res", "resume"), ("event-router group ", "reset")]
)
def test_commands_are_completed(typed: str, offered: str) -> None:
    asked = {
        "_EVENT_ROUTER_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [program()], env=os.environ | asked, capture_output=True, text=True, timeout=30, check=False
    )
    assert offered in done.stdout.split()
    assert done.stderr == ""


def test_the_script_for_a_shell_is_shown() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{program()} --show-completion; true"], capture_output=True, text=True, timeout=30
    )
    assert "_EVENT_ROUTER_COMPLETE=complete_bash" in done.stdout

"""The published contract's own check, where it stands beside the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.environment.routers import environment, program
from tests.environment.servers import ServerProgram

CHECK = Path(__file__).parents[2].parent / "shared" / "checks" / "contract.py"


@pytest.mark.skipif(not CHECK.exists(), reason=f"{CHECK} is not here")
def test_the_contract_holds(server_program: ServerProgram) -> None:
    words = [str(program().with_name("python")), str(CHECK), str(program().parent), str(server_program.path)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, env=environment({}), check=False
    )
    differing = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    assert done.returncode == 0, "\n".join(differing) + done.stderr[-2000:]

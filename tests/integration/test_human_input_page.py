"""docs/human-input.md: its program prints what the page says, with no more permissions than it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from event_router.core import input_request
from event_router.core.errors import InvalidSchema
from event_router.core.json_schema import check_schema
from event_router.patterns import human_input
from tests.environment.servers import Server
from tests.integration.cli_calls import call

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/human-input.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = dict(reversed(_BLOCK.findall(PAGE)))  # the first of each kind


def run_program(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(BLOCKS["python"], encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=os.environ | {"REDIS_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.once
def test_the_commands_work_while_the_program_waits(
    server: Server, redis_client: redis.Redis, tmp_path: Path
) -> None:
    done = run_program(server.url, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, BLOCKS["text"], "")
    for line in BLOCKS["sh"].splitlines():
        called = call(*line.split()[1:], env={"REDIS_STREAMS_URL": server.url})
        expired = "request order-7:2 expired" in called.err
        assert (called.code, expired) == ((1, True) if "answer" in line else (0, False)), line


def test_the_permissions_on_the_page_suffice(
    server: Server, redis_client: redis.Redis, tmp_path: Path
) -> None:
    (sentence,) = re.findall(r"restricted by ACL needs\n(.*?)\.$", PAGE, re.DOTALL | re.MULTILINE)
    rules = re.findall(r"[+]\w+|~[\w:*-]+", sentence)
    redis_client.execute_command("ACL", "SETUSER", "guest", "reset", "on", "nopass", "-@all", *rules)
    try:
        done = run_program(server.url.replace("://", "://guest:x@"), tmp_path)
        assert (done.stdout, done.stderr) == (BLOCKS["text"], "")
    finally:
        redis_client.acl_deluser("guest")


def test_keywords_and_limits_are_those_of_the_code() -> None:
    (sentence,) = re.findall(r"with these keywords: (.*?)\. Titles", PAGE, re.DOTALL)
    sample: dict[str, object] = {"type": "string", "required": ["a"], "enum": [1], "uniqueItems": True}
    for keyword in re.findall(r"`(\w+)`", sentence):
        for value in (sample.get(keyword), 1, True, [True], {}):
            try:
                check_schema({keyword: value})
                break
            except InvalidSchema:
                continue
        else:
            pytest.fail(f"{keyword} is refused")
    assert input_request.KEPT_S == 86_400
    assert input_request.MAX_TIMEOUT_S == 365 * 86_400
    assert input_request.DEFAULT_TIMEOUT_S == 3600
    assert human_input.LOOK_AGAIN_S == 15

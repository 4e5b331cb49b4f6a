"""docs/presence.md: its example prints what the page says, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from event_router.patterns.presence import MAX_CONNECTIONS
from event_router.settings import Settings
from tests.environment.servers import Server
from tests.integration.cli_calls import call

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/presence.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def run_example(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page's example on a server."""
    example = folder / "example.py"
    example.write_text(BLOCKS["python"], encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(example)],
        env=os.environ | {"REDIS_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.once
def test_the_example_prints_what_the_page_says(server: Server, tmp_path: Path) -> None:
    done = run_example(server.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == BLOCKS["text"]


@pytest.mark.once
def test_the_commands_work(server: Server) -> None:
    for line in BLOCKS["sh"].splitlines():
        words = line.partition("#")[0].split()
        assert call(*words[1:], env={"REDIS_STREAMS_URL": server.url}).code == 0, line


def test_settings_and_limits_are_those_of_the_code() -> None:
    fields = Settings.model_fields
    assert fields["presence_ttl_s"].default == 60
    assert fields["presence_last_seen_s"].default == 30 * 86_400
    assert "`PRESENCE_TTL_S` (60 s)" in PAGE
    assert "`PRESENCE_LAST_SEEN_S` (30 days)" in PAGE
    assert f"the {MAX_CONNECTIONS} newest" in PAGE
    assert f"MOST_CONNECTIONS = {MAX_CONNECTIONS} " in (ROOT / "event_router/lua/presence.lua").read_text()


def test_the_permissions_on_the_page_suffice(
    server: Server, redis_client: redis.Redis, tmp_path: Path
) -> None:
    (sentence,) = re.findall(r"restricted by ACL needs\n(.*?)\.$", PAGE, re.DOTALL | re.MULTILINE)
    rules = re.findall(r"\+\w+|~[\w:*-]+", sentence)
    redis_client.execute_command("ACL", "SETUSER", "guest", "reset", "on", "nopass", "-@all", *rules)
    url = server.url.replace("://", "://guest:x@")
    try:
        done = run_example(url, tmp_path)
        assert done.stdout == BLOCKS["text"], done.stderr
    finally:
        redis_client.acl_deluser("guest")

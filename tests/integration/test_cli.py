"""The commands that look: state, status, pending, check; and how every command fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from event_router.cli.commands import app
from event_router.embedded import EmbeddedServer
from tests.environment.servers import Server
from tests.integration.cli_calls import call, refusal

GROUP = "event-router-group"


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    """Settings that name the server."""
    return {"REDIS_STREAMS_URL": server.url}


def test_state_get(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.hset("state:user:1", mapping={"login_count": "3", "name": "Zoë"})
    called = call("state", "get", "user", "1", "--output", "json", env=env)
    assert called.code == 0
    assert called.rows == [{"login_count": "3", "name": "Zoë"}]
    assert "login_count  3" in call("state", "get", "user", "1", env=env).out


def test_state_get_of_any_key(redis_bytes: redis.Redis, env: Mapping[str, str]) -> None:
    redis_bytes.hset("stats:daily:2026-01-31", mapping={b"\xff": b"\x1b[31m"})
    redis_bytes.set("counter", "5")
    redis_bytes.rpush("list", "a")
    key = "stats:daily:2026-01-31"
    assert call("state", "get", "--key", key, "-o", "json", env=env).rows == [{"\\xff": "\x1b[31m"}]
    assert "\x1b" not in call("state", "get", "--key", key, env=env).out
    assert call("state", "get", "--key", "counter", "-o", "json", env=env).rows == [{"value": "5"}]
    assert "list is a list" in refusal(call("state", "get", "--key", "list", env=env), 1)


def test_state_get_of_what_is_not_there(env: Mapping[str, str], server: Server) -> None:
    assert "there is no state:user:nobody" in refusal(call("state", "get", "user", "nobody", env=env), 1)
    job = refusal(call("state", "get", "job", "7", env=env), 1)
    assert job.endswith(
        "there is no state:job:7; a job's state is a key of its domain: --key {domain}:state:7"
    )
    assert "entity type" in refusal(call("state", "get", "a:b", "c", env=env), 2)
    for arguments in (["user"], [], ["user", "1", "--key", "x"], ["user", "--key", "x"]):
        assert "--key" in refusal(call("state", "get", *arguments, env=env), 2)


def test_state_prefix_is_that_of_the_settings(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.hset("other:user:1", "a", "b")
    assert call("state", "get", "user", "1", "-o", "json", env={**env, "STATE_PREFIX": "other"}).rows == [
        {"a": "b"}
    ]


def test_status(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.xgroup_create("events:auth", GROUP, id="0", mkstream=True)
    for _ in range(5):
        redis_client.xadd("events:auth", {"type": "login"})
    redis_client.xreadgroup(GROUP, "consumer-a", {"events:auth": ">"}, count=2)
    redis_client.xadd("dlq:events:auth", {"type": "login"})
    called = call("status", "--output", "json", env=env)
    assert called.code == 0
    rows = called.rows[0]["streams"]
    assert [row["stream"] for row in rows] == ["events:auth", "events:chat", "events:scan", "events:info"]
    assert rows[0].pop("lag_seconds") >= 0
    assert rows[0] == {
        "stream": "events:auth",
        "group": GROUP,
        "length": 5,
        "lag": 3,
        "pending": 2,
        "consumers": 1,
        "dead_letters": 1,
    }
    assert "events:auth" in call("status", env=env).out
    sharded = call("status", "-o", "json", env={**env, "DOMAINS": "chat", "SHARDS": "chat=2"}).rows[0][
        "streams"
    ]
    assert [row["stream"] for row in sharded] == ["events:chat:0", "events:chat:1"]


def test_pending(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.xgroup_create("events:chat", GROUP, id="0", mkstream=True)
    ids = [redis_client.xadd("events:chat", {"type": "x"}) for _ in range(2500)]
    redis_client.xreadgroup(GROUP, "consumer-a", {"events:chat": ">"}, count=2400)
    redis_client.xreadgroup(GROUP, "consumer-b", {"events:chat": ">"})
    called = call("pending", "--output", "json", env=env)
    assert called.code == 0
    assert [row["id"] for row in called.rows] == ids
    assert called.rows[0].pop("idle_ms") >= 0
    assert called.rows[0].keys() == {"stream", "id", "consumer", "idle_ms", "deliveries"}
    assert called.rows[0]["deliveries"] == 1
    of_b = call("pending", "-o", "json", "--consumer", "consumer-b", "--limit", "7", env=env).rows
    assert {row["consumer"] for row in of_b} == {"consumer-b"}
    assert len(of_b) == 7
    assert call("pending", "-o", "json", "--min-idle-ms", "3600000", env=env).rows == []
    assert "consumer-a" in call("pending", env=env).out


def test_pending_without_any_group(env: Mapping[str, str]) -> None:
    called = call("pending", "--output", "json", env=env)
    assert (called.code, called.out) == (0, "")


def test_check_shows_settings_their_sources_and_the_handlers(env: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text("read_count = 7\n")
    url = "redis://user:hunter2@redis/0"
    called = call("check", "--config", str(file), "-o", "json", env={"REDIS_STREAMS_URL": url})
    assert called.code == 0
    [found] = called.rows
    settings = {row["name"]: row for row in found["settings"]}
    assert settings["read_count"] == {
        "name": "read_count",
        "variable": "EVENT_ROUTER_READ_COUNT",
        "value": 7,
        "source": "file",
    }
    assert settings["redis_streams_url"]["source"] == "environment variable"
    assert {"domain": "auth", "type": "login", "handler": "handlers.auth:AuthEventHandler"} in found[
        "handlers"
    ]
    text = call("check", "--config", str(file), env={"REDIS_STREAMS_URL": url})
    assert "EVENT_ROUTER_READ_COUNT" in text.out
    assert "hunter2" not in called.out + text.out


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"CLAIM_MIN_IDEL_MS": "1"}, "EVENT_ROUTER_CLAIM_MIN_IDLE_MS"),
        ({"READ_COUNT": "0"}, "EVENT_ROUTER_READ_COUNT"),
        ({"HANDLERS": "handlers.nothing:Handler"}, "EVENT_ROUTER_HANDLERS"),
        ({"HANDLERS": "handlers.auth:Nothing"}, "Nothing"),
        ({"HANDLERS": "handlers.auth:AuthEventHandler,handlers.auth:Login"}, "Login"),
        ({"REDIS_STREAMS_URL": "http://u:hunter2@h"}, "EVENT_ROUTER_REDIS_STREAMS_URL"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(wrong: Mapping[str, str], named: str) -> None:
    line = refusal(call("check", env={"REDIS_STREAMS_URL": "redis://redis", **wrong}), 2)
    assert named in line
    assert "hunter2" not in line


def test_check_without_any_redis_is_wrong(tmp_path: Path) -> None:
    called = call("check", env={"DATA_DIR": str(tmp_path)})
    assert called.code == 2
    assert "EVENT_ROUTER_REDIS_STREAMS_URL" in called.err
    assert call("check", env={"DATA_DIR": str(tmp_path), "EMBEDDED": "true"}).code == 0


def test_run_without_a_url_says_what_to_set(tmp_path: Path) -> None:
    env = {"REDIS_STREAMS_URL": "", "DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    line = refusal(call("run", env=env), 2)
    assert "EVENT_ROUTER_REDIS_STREAMS_URL" in line
    assert "--embedded" in line
    both = call("run", "--embedded", "--streams-url", "redis://redis")
    assert "exclude" in refusal(both, 2)


COMMANDS = [
    ["state", "get", "user", "1"],
    ["status"],
    ["pending"],
    ["publish", "auth", "login", "user_id=1"],
    ["dlq", "list"],
    ["dlq", "show", "1-1"],
    ["dlq", "replay"],
    ["dlq", "purge", "--yes"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_without_a_url_the_running_embedded_server_is_used(command: list[str], tmp_path: Path) -> None:
    env = {"DATA_DIR": str(tmp_path)}
    line = refusal(call(*command, env=env), 2)
    assert "EVENT_ROUTER_REDIS_STREAMS_URL" in line
    assert "--embedded" in line
    assert "make run" in line
    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.start()) as client:
        client.hset("state:user:1", "a", "b")
        called = call(*command, env=env)
        assert called.code == (1 if "show" in command else 0), called


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_redis_that_cannot_be_reached_is_one_line(command: list[str]) -> None:
    env = {"REDIS_STREAMS_URL": "redis://user:hunter2@127.0.0.1:1/0"}
    called = call(*command, env=env)
    assert called.code == 1
    assert "redis://user:***@127.0.0.1:1/0" in called.err
    assert "hunter2" not in called.err
    assert "Traceback" not in called.err
    lines = [line for line in called.err.splitlines() if line.startswith("event-router: ")]
    assert len(lines) == 1


def test_commands_that_change_things_use_the_operators_url(server: Server, redis_client: redis.Redis) -> None:
    env = {"REDIS_STREAMS_URL": "redis://127.0.0.1:1", "OPERATOR_URL": server.url}
    assert call("publish", "auth", "login", "user_id=1", env=env).code == 0
    assert call("dlq", "replay", env=env).code == 0
    assert call("dlq", "purge", "--yes", env=env).code == 0
    assert call("status", env=env).code == 1
    assert redis_client.xlen("events:auth") == 1


def test_an_unknown_option_is_wrong_usage() -> None:
    called = call("status", "--nonsense")
    assert called.code == 2
    assert "--nonsense" in called.err


def test_help_answers_soon() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "event_router.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "publish" in done.stdout
    assert time.monotonic() - begin < 1.5  # measured: 0.17 s; the machine may be busy
    assert done.stderr == ""


@pytest.mark.parametrize(
    "group", [(), *((name,) for name in ("state", "group", "consumers", "job", "dlq", "input"))]
)
def test_summaries_fit_a_terminal(group: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*group, "--help"], terminal_width=80).stdout
    _, commands, rows = shown.partition("Commands:")
    assert commands
    assert "..." not in rows
    assert max(map(len, rows.splitlines())) <= 80


def test_the_version_is_that_of_the_package() -> None:
    called = call("--version")
    assert (called.code, called.out) == (0, f"event-router {version('event-router')}\n")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, event_router.cli\n"
        "print([name for name in ('redis', 'pydantic', 'aiohttp', 'rich', 'uvloop') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_demo(tmp_path: Path) -> None:
    config = tmp_path / "demo.toml"
    config.write_text('shutdown_grace_s = 5\nlog_format = "json"\n')
    command = [sys.executable, "-m", "event_router.cli", "demo", "--seconds", "1", "--rate", "300"]
    done = subprocess.run(
        [*command, "--config", str(config)],
        env={"PATH": "/usr/bin:/bin", "EVENT_ROUTER_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    last, totals = done.stdout.splitlines()[-2:]
    words = last.split()
    assert words[1] == words[3] != "0"
    assert "lag 0  pending 0" in last
    assert "logins" in totals
    assert "\x1b" not in done.stdout

"""`event-router presence`: the list in pages, the count, one user."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import redis

from event_router.core.timestamps import format_time
from tests.environment.servers import Server
from tests.integration.cli_calls import call, refusal
from tests.integration.presence_bench import PREFIX, Change, PresenceBench


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    """Settings that name the server."""
    return {"REDIS_STREAMS_URL": server.url}


@pytest.fixture
def now_ms(redis_client: redis.Redis) -> int:
    """Three users are there now, and a fourth a day ago."""
    seconds, _ = redis_client.time()
    now_ms = int(seconds) * 1000
    users = [("7", "phone", "busy"), ("7", "laptop", "away"), ("zoë", "a", "online"), ("8", "a", "away")]
    changes = [Change(user, connection, status, now_ms) for user, connection, status in users]
    bench = PresenceBench(redis_client)
    bench.observe(now_ms, [*changes, Change("9", "a", "online", now_ms - 86_400_000)])
    return now_ms


def row(user: str, status: str, seen: int | None, connections: int) -> dict[str, object]:
    last_seen = None if seen is None else format_time(seen)
    return {"user_id": user, "status": status, "last_seen": last_seen, "connections": connections}


def test_list(env: Mapping[str, str], now_ms: int) -> None:
    called = call("presence", "--output", "json", env=env)
    assert called.code == 0
    assert called.rows == [
        row("7", "busy", now_ms, 2),
        row("8", "away", now_ms, 1),
        row("zoë", "online", now_ms, 1),
    ]
    shown = call("presence", env=env).out.splitlines()
    assert shown[0].split() == ["user", "id", "status", "last", "seen", "connections"]
    assert shown[1].split() == ["7", "busy", format_time(now_ms), "2"]


def test_list_in_pages(env: Mapping[str, str], now_ms: int) -> None:
    called = call("presence", "--limit", "2", "-o", "json", env=env)
    assert [found["user_id"] for found in called.rows] == ["7", "8"]
    assert called.err == "2 of 3; the next: --after 8\n"
    called = call("presence", "--limit", "2", "--after", "8", "-o", "json", env=env)
    assert [found["user_id"] for found in called.rows] == ["zoë"]
    assert called.err == ""


def test_count(env: Mapping[str, str], now_ms: int) -> None:
    assert call("presence", "--count", env=env).out == "3\n"
    assert call("presence", "--count", "-o", "json", env=env).rows == [{"count": 3}]


def test_one_user(env: Mapping[str, str], now_ms: int) -> None:
    assert call("presence", "7", "-o", "json", env=env).rows == [row("7", "busy", now_ms, 2)]
    gone = row("9", "offline", now_ms - 86_400_000, 0)
    assert call("presence", "9", "-o", "json", env=env).rows == [gone]
    assert call("presence", "nobody", "-o", "json", env=env).rows == [row("nobody", "offline", None, 0)]
    assert "offline" in call("presence", "nobody", env=env).out


def test_the_setting_decides_how_long_a_connection_counts(
    env: Mapping[str, str], redis_client: redis.Redis
) -> None:
    seconds, _ = redis_client.time()
    PresenceBench(redis_client).observe(seconds * 1000, [Change("7", "a", "online", (seconds - 20) * 1000)])
    for ttl_s, status in ((3600, "online"), (10, "offline")):
        called = call("presence", "7", "-o", "json", env={**env, "PRESENCE_TTL_S": str(ttl_s)})
        assert called.rows[0]["status"] == status


def test_wrong_usage(env: Mapping[str, str]) -> None:
    for arguments in (["7", "--count"], ["7", "--after", "8"], ["--count", "--after", "8"]):
        assert "leave" in refusal(call("presence", *arguments, env=env), 2)
    assert "user_id" in refusal(call("presence", "a\nb", env=env), 2)


def test_a_key_of_another_type(env: Mapping[str, str], redis_client: redis.Redis) -> None:
    redis_client.set(f"{PREFIX}names", "text")
    assert "wrong kind" in refusal(call("presence", env=env), 1)


def test_what_is_shown_steers_no_terminal(env: Mapping[str, str], redis_client: redis.Redis) -> None:
    redis_client.zadd(f"{PREFIX}names", {"\x1b[31m": 0})
    redis_client.hset(f"{PREFIX}connections", "\x1b[31m", f"2\n{99_999_999_999_999} 2 a")
    assert "\x1b" not in call("presence", env=env).out
    assert json.loads(call("presence", "-o", "json", env=env).out)["user_id"] == "\x1b[31m"

"""`event-router pause` and `resume`: one key, its expiry, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import redis

from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.environment.waiting import eventually
from tests.integration.cli_calls import call, refusal

KEY = "event-router:pause:event-router-group:events:auth"
PAUSE = ("pause", "events:auth", "--reason", "mending \x1b[31m")


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    """Settings that name the server."""
    return {"REDIS_STREAMS_URL": server.url}


def test_a_pause_has_its_reason_and_ends_by_itself(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    [row] = call(*PAUSE, "--for", "1h30m", "--by", "kim", "-o", "json", env=env).rows
    assert row["reason"] == "mending \x1b[31m"
    assert (row["stream"], row["by"]) == ("events:auth", "kim")
    assert row["since"] < row["until"]
    assert 5_390_000 < redis_client.pttl(KEY) <= 5_400_000
    [status] = [s for s in call("status", "-o", "json", env=env).rows[0]["streams"] if "paused" in s]
    assert status["stream"] == "events:auth"
    assert status["paused"] == {name: row[name] for name in ("reason", "by", "since", "until")}
    shown = call("status", env=env).out
    assert f"events:auth is paused until {row['until']}, by kim: mending \\x1b[31m" in shown
    redis_client.pexpire(KEY, 1)
    eventually(lambda: "paused" not in call("status", env=env).out, within=5)


def test_the_last_pause_counts(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    assert call(*PAUSE, "--by", "kim", env=env).code == 0
    again = call("pause", "events:auth", "--reason", "more", "--for", "2m", env=env)
    assert again.code == 0
    assert "events:auth is paused for 2m, until 2" in again.out
    assert again.err == "replaces the pause by kim: mending \\x1b[31m\n"
    assert redis_client.pttl(KEY) <= 120_000
    stored = json.loads(str(redis_client.get(KEY)))
    assert stored["reason"] == "more"
    assert "@" in stored["by"]


def test_resume(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    call(*PAUSE, env=env)
    first = call("resume", "events:auth", env=env)
    assert first.code == 0
    assert "events:auth goes on; it was paused by " in first.out
    assert redis_client.exists(KEY) == 0
    second = call("resume", "events:auth", "-o", "json", env=env)
    assert (second.code, second.rows) == (0, [{"stream": "events:auth", "was_paused": False}])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pause", "events:auht", "--reason", "x"], "'events:auht' is no stream of the served domains"),
        (["resume", "events:auht"], "'events:auht' is no stream"),
        ([*PAUSE, "--for", "0s"], "--for '0s'"),
        ([*PAUSE, "--for", "31d"], "up to 30d"),
        ([*PAUSE, "--for", "soon"], "--for 'soon'"),
        ([*PAUSE, "--for", ""], "--for ''"),
        (["pause", "events:auth", "--reason", " "], "--reason"),
        (["pause", "events:auth", "--reason", "x" * 501], "--reason"),
    ],
)
def test_wrong_calls(
    redis_client: redis.Redis, env: Mapping[str, str], arguments: list[str], named: str
) -> None:
    assert named in refusal(call(*arguments, env=env), 2)
    assert redis_client.keys("*") == []


def test_a_reason_must_be_given(env: Mapping[str, str]) -> None:
    called = call("pause", "events:auth", env=env)
    assert called.code == 2
    assert "--reason" in called.err


def test_a_key_of_another_type_is_left_alone(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.rpush(KEY, "a")
    assert f"{KEY} is no pause" in refusal(call(*PAUSE, env=env), 1)
    assert f"{KEY} is no pause" in refusal(call("resume", "events:auth", env=env), 1)
    assert redis_client.lrange(KEY, 0, -1) == ["a"]
    assert "paused" not in call("status", env=env).out


def test_a_permission_that_is_missing_names_the_user(
    redis_client: redis.Redis, server: Server, env: Mapping[str, str]
) -> None:
    redis_client.execute_command("ACL", "SETUSER", "viewer", "on", "nopass", "~*", "+@all", "-set", "-del")
    url = server.url.replace("redis://", "redis://viewer:x@")
    try:
        lacking = refusal(call(*PAUSE, env={"REDIS_STREAMS_URL": url}), 1)
        assert "operator's user: set EVENT_ROUTER_OPERATOR_URL" in lacking
        assert "viewer:x" not in lacking
        wrong = refusal(call(*PAUSE, env={**env, "OPERATOR_URL": url}), 1)
        assert "the operator's user, of EVENT_ROUTER_OPERATOR_URL, needs it" in wrong
        assert redis_client.exists(KEY) == 0
        assert call(*PAUSE, env={"REDIS_STREAMS_URL": url, "OPERATOR_URL": server.url}).code == 0
        assert "operator's user" in refusal(call("resume", "events:auth", env={"REDIS_STREAMS_URL": url}), 1)
        assert redis_client.exists(KEY) == 1
    finally:
        redis_client.execute_command("ACL", "DELUSER", "viewer")


def test_a_lost_reply_leaves_a_pause_that_a_second_call_replaces(
    redis_client: redis.Redis, server: Server, env: Mapping[str, str]
) -> None:
    with Proxy(server.port) as proxy:
        lossy = {"REDIS_STREAMS_URL": proxy.url, "REDIS_TIMEOUT_S": "1"}
        proxy.drop_reply("SET")
        assert "no reply to SET" in refusal(call(*PAUSE, env=lossy), 1)
    assert redis_client.exists(KEY) == 1
    assert call(*PAUSE, env=env).code == 0
    assert redis_client.exists(KEY) == 1

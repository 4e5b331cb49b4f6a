"""`event-router group reset`: what it says, what it sets, and when it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router.cli import group as group_command
from event_router.core.entry_id import before
from event_router.redis_client.sent_once import SentOnce
from event_router.redis_io.group_reset import GroupPosition
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, refusal
from tests.integration.operated import (
    FIRST_MS,
    GROUP,
    STREAM,
    deliver,
    fill,
    group_of,
    pending_ids,
    rest,
)

CHECKPOINT = f"event-router:checkpoint:{GROUP}"


@pytest.fixture
def env(server: Server, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Settings under which a consumer is active for 2 ms only."""
    monkeypatch.setattr(group_command, "MARGIN_MS", 0)
    return {"REDIS_STREAMS_URL": server.url, "READ_BLOCK_MS": "1"}


@pytest.fixture
def reset(env: Mapping[str, str]) -> Callable[..., Called]:
    """Calls `group reset` of the stream to a place: `reset("0")`; with --yes unless told otherwise."""

    def ask(to: str, *options: str) -> Called:
        options = options or ("--yes",)
        return call("group", "reset", STREAM, "--to", to, "-o", "json", *options, env=env)

    return ask


def lag(client: redis.Redis) -> Any:
    """What Redis itself reports, which scalers read."""
    return group_of(client)["lag"]


def test_everything_again(reset: Callable[..., Called], redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 6)
    deliver(redis_client, 4)
    redis_client.hset(CHECKPOINT, mapping={STREAM: ids[3], "events:chat": "5-5"})
    called = reset("0")
    assert called.code == 0, called
    assert called.rows == [
        {
            "stream": STREAM,
            "group": GROUP,
            "delivered": ids[3],
            "position": "0-0",
            "handled_again": 4,
            "counted_twice_at_most": 4,
            "skipped": 0,
            "pending": 0,
            "pending_again": 0,
            "applied": True,
        }
    ]
    assert lag(redis_client) == 6
    assert redis_client.hgetall(CHECKPOINT) == {STREAM: "0-0", "events:chat": "5-5"}
    assert rest(redis_client) == ids


@pytest.mark.parametrize("to", [f"{FIRST_MS + 2000}-0", str(FIRST_MS + 1001), "2026-01-01T00:00:02Z"])
def test_an_entry_or_a_time_names_what_comes_next(
    reset: Callable[..., Called], redis_client: redis.Redis, to: str
) -> None:
    ids = fill(redis_client, 6)
    deliver(redis_client, 5)
    [row] = reset(to).rows
    assert (row["handled_again"], row["skipped"]) == (3, 0)
    assert lag(redis_client) == 4
    assert rest(redis_client) == ids[2:]


def test_leaving_out(reset: Callable[..., Called], redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 6)
    deliver(redis_client, 1)
    assert reset(ids[4]).rows[0]["skipped"] == 3
    assert lag(redis_client) == 2
    assert reset("$").rows[0]["skipped"] == 2
    assert group_of(redis_client)["last-delivered-id"] == ids[5]
    assert lag(redis_client) == 0
    assert redis_client.hget(CHECKPOINT, STREAM) == ids[5]


def test_at_both_ends_of_all_ids(reset: Callable[..., Called], redis_client: redis.Redis) -> None:
    first, last = "0-1", f"{2**64 - 1}-{2**64 - 1}"
    for entry_id in (first, last):
        redis_client.xadd(STREAM, {"type": "login"}, id=entry_id)
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    assert reset("$").rows[0]["skipped"] == 2
    assert lag(redis_client) == 0
    assert reset(first).rows[0]["handled_again"] == 2
    assert rest(redis_client) == [first, last]


def test_pending_entries_stay_and_count_once(reset: Callable[..., Called], redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 6)
    deliver(redis_client, 1, settle=False)
    deliver(redis_client, 1)
    deliver(redis_client, 1, settle=False)
    deliver(redis_client, 1)
    [row] = reset(ids[1]).rows
    assert (row["handled_again"], row["pending_again"], row["counted_twice_at_most"]) == (3, 1, 2)
    assert row["pending"] == 2
    assert pending_ids(redis_client) == [ids[0], ids[2]]
    assert redis_client.hget(CHECKPOINT, STREAM) == f"({ids[0]}"
    assert rest(redis_client) == ids[1:]
    assert redis_client.xack(STREAM, GROUP, ids[2]) == 1
    assert redis_client.xack(STREAM, GROUP, ids[2]) == 0


def test_after_trimming(
    reset: Callable[..., Called], redis_client: redis.Redis, env: Mapping[str, str]
) -> None:
    ids = fill(redis_client, 6)
    deliver(redis_client, 5)
    redis_client.xtrim(STREAM, minid=ids[3], approximate=False)
    shown = call("group", "reset", STREAM, "--to", "0", "--yes", env=env).out
    assert "2 entries" in shown
    assert f"whatever was before {ids[3]} is trimmed" in shown
    assert lag(redis_client) == 3
    assert rest(redis_client) == ids[3:]


def test_what_it_would_do(
    reset: Callable[..., Called], redis_client: redis.Redis, env: Mapping[str, str]
) -> None:
    fill(redis_client, 3)
    deliver(redis_client, 2)
    found = group_of(redis_client)
    [row] = reset("0", "--dry-run").rows
    assert (row["handled_again"], row["applied"]) == (2, False)
    assert "--yes" in refusal(call("group", "reset", STREAM, "--to", "0", env=env), 2)
    assert group_of(redis_client) == found
    assert redis_client.exists(CHECKPOINT) == 0
    shown = call("group", "reset", STREAM, "--to", "0", "--dry-run", env=env)
    assert "2 of them: they are settled" in shown.out
    assert shown.err == "nothing changed\n"


def test_refused_while_consumers_are_active(
    redis_client: redis.Redis, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis_client, 3)
    deliver(redis_client, 2)
    behind = group_of(redis_client)["last-delivered-id"]
    command = ("group", "reset", STREAM, "--to", "0", "--yes", "-o", "json")
    env = {"REDIS_STREAMS_URL": server.url}
    refused = refusal(call(*command, env=env), 1)
    assert "1 consumer is active in event-router-group (consumer-a)" in refused
    assert "event-router pause events:auth" in refused
    assert group_of(redis_client)["last-delivered-id"] == behind
    call("pause", STREAM, "--reason", "reset", env=env)
    assert "is active" in refusal(call(*command, env=env), 1)
    monkeypatch.setattr(group_command, "MARGIN_MS", 0)
    assert call(*command, env=env).code == 0
    assert call(*command, "--force", env=env).code == 0
    assert group_of(redis_client)["last-delivered-id"] == "0-0"


@pytest.mark.parametrize(
    ("to", "code", "named"),
    [
        ("$$", 2, "--to"),
        ("yesterday", 2, "--to"),
        (f"{2**64}-0", 2, "--to"),
        (f"{FIRST_MS + 9000}-0", 1, "newest entry"),
        ("2100-01-01", 1, "newest entry"),
    ],
)
def test_wrong_places(
    reset: Callable[..., Called], redis_client: redis.Redis, to: str, code: int, named: str
) -> None:
    fill(redis_client, 3)
    assert named in refusal(reset(to), code)
    assert group_of(redis_client)["last-delivered-id"] == "0-0"


def test_without_a_group_and_with_keys_of_other_types(
    reset: Callable[..., Called], redis_client: redis.Redis
) -> None:
    assert "has no group" in refusal(reset("0"), 1)
    redis_client.xadd(STREAM, {"type": "login"})
    assert "has no group" in refusal(reset("0"), 1)
    redis_client.delete(STREAM)
    ids = fill(redis_client, 3)
    deliver(redis_client, 2)
    redis_client.set(CHECKPOINT, "x")
    assert "where the checkpoint should be" in refusal(reset("0"), 1)
    assert group_of(redis_client)["last-delivered-id"] == ids[1]
    redis_client.delete(STREAM)
    redis_client.set(STREAM, "x")
    assert "WRONGTYPE" in refusal(reset("0"), 1)


@pytest.mark.parametrize("lacking", ["-hset", "-xgroup|setid"])
def test_a_permission_that_is_missing_leaves_everything_as_it_was(
    redis_client: redis.Redis, server: Server, env: Mapping[str, str], lacking: str
) -> None:
    ids = fill(redis_client, 3)
    deliver(redis_client, 2)
    redis_client.execute_command("ACL", "SETUSER", "viewer", "on", "nopass", "~*", "+@all", lacking)
    try:
        viewer = {**env, "OPERATOR_URL": server.url.replace("redis://", "redis://viewer:x@")}
        refused = refusal(call("group", "reset", STREAM, "--to", "0", "-y", "-o", "json", env=viewer), 1)
        assert "the operator's user, of EVENT_ROUTER_OPERATOR_URL, needs it" in refused
    finally:
        redis_client.execute_command("ACL", "DELUSER", "viewer")
    assert group_of(redis_client)["last-delivered-id"] == ids[1]
    assert redis_client.exists(CHECKPOINT) == 0


def test_a_lost_reply_and_a_second_call(
    reset: Callable[..., Called], redis_client: redis.Redis, server: Server, env: Mapping[str, str]
) -> None:
    ids = fill(redis_client, 5)
    deliver(redis_client, 4)
    redis_client.script_flush()
    with Proxy(server.port) as proxy:
        proxy.drop_reply("EVAL", request=b"Sets a group's position")
        lossy = {**env, "REDIS_STREAMS_URL": proxy.url}
        lost = refusal(call("group", "reset", STREAM, "--to", ids[1], "-y", "-o", "json", env=lossy), 1)
        assert "it may or may not have been carried out" in lost
    assert group_of(redis_client)["last-delivered-id"] == before(ids[1])
    [row] = reset(ids[1]).rows
    assert (row["handled_again"], row["applied"]) == (0, True)
    assert lag(redis_client) == 4
    assert rest(redis_client) == ids[1:]


async def test_a_group_that_has_moved_since_is_left_alone_and_a_repetition_is_not(
    redis_client: redis.Redis, server: Server
) -> None:
    ids = fill(redis_client, 5)
    deliver(redis_client, 2)
    async with Redis.from_url(server.url, protocol=2) as client:
        place = GroupPosition(SentOnce(client), STREAM, GROUP)
        plan = await place.plan("0-0")
        deliver(redis_client, 1)
        moved = await place.apply(plan, active_ms=0)
        assert (moved.outcome, moved.detail) == ("moved", [ids[2]])
        assert group_of(redis_client)["last-delivered-id"] == ids[2]
        plan = await place.plan("0-0")
        for _ in range(2):
            assert (await place.apply(plan, active_ms=0)).outcome == "done"
            assert group_of(redis_client)["last-delivered-id"] == "0-0"

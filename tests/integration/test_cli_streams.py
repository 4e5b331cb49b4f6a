"""Which streams commands are about: a stream by its name or its domain's, and no name that is a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import redis

from tests.environment.servers import Server
from tests.integration.cli_calls import call, refusal
from tests.integration.operated import STREAM, deliver, fill

# What the commands do with a server is tested on both elsewhere.
pytestmark = pytest.mark.once

LISTING = (
    ("status", "--stream"),
    ("pending", "--stream"),
    ("retention",),
    ("consumers", "list"),
    ("dlq", "list", "--stream"),
    ("tail", "--from", "0", "--limit", "1", "--stream"),
)
ABOUT_ONE = (
    (("pause",), ("--reason", "x")),
    (("resume",), ()),
    (("group", "reset"), ("--to", "0", "--dry-run")),
    (("consumers", "remove"), ("consumer-a",)),
)
ABOUT_LETTERS = (
    (("dlq", "list", "--stream"), ()),
    (("dlq", "replay", "--stream"), ()),
    (("dlq", "purge", "--stream"), ("--yes",)),
)


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    return {"REDIS_STREAMS_URL": server.url}


def add_letter(client: redis.Redis, stream: str) -> None:
    own: Any = {"dlq_stream": stream, "dlq_id": "1-0", "dlq_reason": "invalid", "dlq_error": "no"}
    own |= {"dlq_deliveries": "1", "dlq_consumer": "a", "dlq_time": "2026-01-01T00:00:09.000Z"}
    client.xadd(f"dlq:{stream}", {"type": "login", **own})


@pytest.mark.parametrize("words", LISTING)
def test_a_domain_stands_for_its_streams(
    env: Mapping[str, str], redis_client: redis.Redis, words: tuple[str, ...]
) -> None:
    fill(redis_client, 2)
    deliver(redis_client, 1, settle=False)
    add_letter(redis_client, STREAM)
    by_domain = call(*words, "auth", "-o", "json", env=env)
    assert by_domain.code == 0, by_domain
    assert STREAM in by_domain.out
    assert "events:chat" not in by_domain.out


def test_a_domain_with_shards_stands_for_all_of_them_or_is_refused(
    env: Mapping[str, str], redis_client: redis.Redis
) -> None:
    sharded = {**env, "SHARDS": "auth=2"}
    [found] = call("status", "--stream", "auth", "-o", "json", env=sharded).rows
    assert [row["stream"] for row in found["streams"]] == [f"{STREAM}:0", f"{STREAM}:1"]
    for before, behind in ABOUT_ONE:
        refused = refusal(call(*before, "auth", *behind, env=sharded), 2)
        assert refused.endswith(f"domain 'auth' has several streams, name one: {STREAM}:0, {STREAM}:1")


@pytest.mark.parametrize(("before", "behind"), ABOUT_ONE)
def test_commands_about_one_stream_take_its_domain(
    env: Mapping[str, str], redis_client: redis.Redis, before: tuple[str, ...], behind: tuple[str, ...]
) -> None:
    fill(redis_client, 1)
    redis_client.xgroup_createconsumer(STREAM, "event-router-group", "consumer-a")
    called = call(*before, "auth", *behind, "-o", "json", env=env)
    assert called.code == 0, called
    assert [row["stream"] for row in called.rows] == [STREAM]


def test_a_letter_and_an_entry_are_found_by_the_domain(
    env: Mapping[str, str], redis_client: redis.Redis
) -> None:
    ids = fill(redis_client, 1)
    assert call("explain", "auth", ids[0], "-o", "json", env=env).rows[0]["stream"] == STREAM


@pytest.mark.parametrize(
    ("before", "behind"),
    [*((words, ()) for words in LISTING), *ABOUT_ONE, *ABOUT_LETTERS, (("explain",), ("1-0",))],
)
def test_a_stream_that_does_not_exist_is_refused(
    env: Mapping[str, str], redis_client: redis.Redis, before: tuple[str, ...], behind: tuple[str, ...]
) -> None:
    fill(redis_client, 1)
    refused = refusal(call(*before, "events:ath", *behind, env=env), 2)
    assert "'events:ath'" in refused
    assert "events:auth, events:chat, events:scan, events:info" in refused


def test_a_stream_that_nobody_serves_can_be_looked_at(
    env: Mapping[str, str], redis_client: redis.Redis
) -> None:
    redis_client.xadd("events:old", {"type": "login"})
    [found] = call("status", "--stream", "events:old", "-o", "json", env=env).rows
    assert found["streams"][0]["length"] == 1
    redis_client.delete("events:old")
    add_letter(redis_client, "events:old")
    without = {**env, "HANDLERS": "nowhere:Handler"}
    for settings in (env, without):
        [row] = call("dlq", "list", "--stream", "events:old", "-o", "json", env=settings).rows
        assert row["origin_id"] == "1-0"

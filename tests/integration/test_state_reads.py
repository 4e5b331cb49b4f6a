"""Reads of state: each place is answered by itself, whatever is wrong with its neighbours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import redis

from event_router.core.errors import EventRouterError, InvalidState, RedisDenied, RedisUnavailable
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.state_reads import StateReads
from tests.environment.servers import Server

USER = "limited"
Reads = Callable[..., StateReads]


@pytest.fixture
async def reads(server: Server, redis_client: redis.Redis) -> AsyncIterator[Reads]:
    """Makes reads of a user who has all rights but these."""
    links = []

    def make(*rules: str) -> StateReads:
        redis_client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">secret", "~*", "+@all", *rules)
        url = server.url.replace("://", f"://{USER}:secret@")
        links.append(Link(parse_url(url), timeout_s=10, name="state"))
        return StateReads(links[-1])

    yield make
    for link in links:
        await link.close()
    redis_client.execute_command("ACL", "DELUSER", USER)


def told(values: Sequence[str | EventRouterError | None]) -> list[object]:
    """The values, with each error as its class and text."""
    return [(type(value), str(value)) if isinstance(value, Exception) else value for value in values]


async def test_absence_and_a_key_of_another_type_are_told_place_by_place(
    reads: Reads, redis_client: redis.Redis
) -> None:
    redis_client.hset("state:user:1", "a", "v")
    redis_client.set("state:user:2", "v")
    places = [("state:user:1", "a"), ("state:user:2", "a"), ("state:user:1", "b"), ("state:user:3", "a")]
    assert told(await reads().read(places)) == [
        "v",
        (InvalidState, "key 'state:user:2' is a string, not a hash"),
        None,
        None,
    ]


async def test_a_key_that_is_forbidden_spares_the_others(reads: Reads, redis_client: redis.Redis) -> None:
    for key in ("state:user:1", "state:user:2"):
        redis_client.hset(key, "a", "v")
    limited = reads("resetkeys", "~state:user:2", "~state:user:3")
    places = [("state:user:2", "a"), ("state:user:1", "a"), ("state:user:3", "a"), ("state:user:2", "a")]
    why = (RedisDenied, "NOPERM this user may not run HGET on state:user:1")
    assert told(await limited.read(places)) == ["v", why, None, "v"]
    redis_client.execute_command("ACL", "SETUSER", USER, "allkeys")
    assert told(await limited.read(places)) == ["v", "v", None, "v"]


@pytest.mark.parametrize(("rule", "command"), [("-hget", "HGET"), ("-type", "TYPE")])
async def test_a_command_that_is_missing_is_named(
    reads: Reads, redis_client: redis.Redis, rule: str, command: str
) -> None:
    redis_client.set("state:user:1", "v")
    why = (RedisDenied, f"NOPERM this user may not run {command} on state:user:1")
    assert told(await reads(rule).read([("state:user:1", "a")])) == [why]


async def test_without_the_script_nothing_is_answered(reads: Reads) -> None:
    with pytest.raises(RedisUnavailable):
        await reads("-eval", "-evalsha").read([("state:user:1", "a")])

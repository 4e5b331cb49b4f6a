"""State that others spoiled: the events that need it are dead letters that name the key, all others count."""

from __future__ import annotations

from typing import Any

import redis

from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, letters

AUTH, CHAT, SCAN = "events:auth", "events:chat", "events:scan"
LAST = 2**63 - 1
UNRAISABLE = [str(LAST), str(LAST + 1), "007", "+1", "1.0", "1e3", "-0", "many", "", " 1"]


def event(kind: str, day: str = "2026-10-01", **fields: str) -> dict[Any, Any]:
    """An event's fields, early on a day."""
    return {"type": kind, "timestamp": f"{day}T08:00:00Z", **fields}


def test_a_key_of_the_wrong_type_is_named_and_harms_nobody_else(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    redis_client.set("state:user:string", "mine")
    redis_client.rpush("stats:user:list", "mine")
    redis_client.set("stats:daily:2026-09-09", "mine")
    redis_client.sadd("scan:state:set", "mine")
    new_router(server.url).start()
    add = redis_client.xadd
    # By stream and id: entries added to two streams in one millisecond have the same id.
    spoiled = {
        (AUTH, add(AUTH, event("login", user_id="string"))): "state:user:string",
        (CHAT, add(CHAT, event("message_sent", user_id="list"))): "stats:user:list",
        (AUTH, add(AUTH, event("login", "2026-09-09", user_id="fine"))): "stats:daily:2026-09-09",
        (SCAN, add(SCAN, event("scan_start", user_id="fine", job_id="set"))): "scan:state:set",
    }
    for _ in range(10):
        add(AUTH, event("login", user_id="fine"))
    await_settled(redis_client, within=5)
    found = {
        (stream, entry): letter
        for stream in (AUTH, CHAT, SCAN)
        for entry, letter in letters(redis_client, stream).items()
    }
    assert found.keys() == spoiled.keys()
    assert {letter["dlq_reason"] for letter in found.values()} == {"invalid"}
    assert [key for entry, key in spoiled.items() if key not in found[entry]["dlq_error"]] == []
    assert redis_client.get("state:user:string") == "mine"
    assert redis_client.get("stats:daily:2026-09-09") == "mine"
    assert redis_client.lrange("stats:user:list", 0, -1) == ["mine"]
    assert redis_client.smembers("scan:state:set") == {"mine"}
    assert redis_client.hget("state:user:fine", "login_count") == "10"
    assert redis_client.hgetall("stats:daily:2026-10-01") == {"logins": "10"}


def test_counters_that_cannot_be_raised_are_left_as_they_are(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    spoiled = {f"u{n}": stored for n, stored in enumerate(UNRAISABLE)}
    dead = {}
    for user, stored in spoiled.items():
        redis_client.hset(f"state:user:{user}", "login_count", stored)
        dead[redis_client.xadd(AUTH, event("login", user_id=user))] = user
        redis_client.xadd(AUTH, event("login", user_id="fine"))
    new_router(server.url).start()
    await_settled(redis_client, [AUTH], within=5)
    found = letters(redis_client, AUTH)
    assert found.keys() == dead.keys()
    assert {letter["dlq_reason"] for letter in found.values()} == {"invalid"}
    assert all(f"state:user:{user}" in found[str(entry)]["dlq_error"] for entry, user in dead.items())
    for user, stored in spoiled.items():
        assert redis_client.hgetall(f"state:user:{user}") == {"login_count": stored}, "nothing was applied"
    assert redis_client.hget("state:user:fine", "login_count") == str(len(spoiled))
    assert redis_client.hgetall("stats:daily:2026-10-01") == {"logins": str(len(spoiled))}


def test_the_last_number_of_64_bits_is_reached_and_not_passed(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    redis_client.hset("state:user:u", "login_count", LAST - 3)
    for _ in range(5):
        redis_client.xadd(AUTH, event("login", user_id="u"))
    new_router(server.url).start()
    await_settled(redis_client, [AUTH], within=5)
    assert redis_client.hget("state:user:u", "login_count") == str(LAST)
    assert redis_client.hget("stats:daily:2026-10-01", "logins") == "3"
    assert len(letters(redis_client, AUTH)) == 2

"""A stream that Redis denies, or whose key is none, is left out: the others are served as ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.acceptance.users import as_limited
from tests.acceptance.workplace import OTHER, WORK, Workplace
from tests.conftest import RouterFactory
from tests.environment.routers import Router
from tests.environment.servers import Server
from tests.environment.streams import GROUP, await_settled, group_state
from tests.environment.waiting import eventually

AUTH, CHAT = "events:auth", "events:chat"
OTHERS = ("events:chat", "events:scan", "events:info")
WITHOUT_AUTH = ("[^e]*", "event-router:*", "events:[^a]*")
WITHOUT_STREAMS = ("[^e]*", "event-router:*")


def login(client: redis.Redis, times: int = 1) -> None:
    """Add logins of the user `u`."""
    for _ in range(times):
        client.xadd(AUTH, {"type": "login", "user_id": "u"})


def logins(client: redis.Redis) -> str | None:
    return client.hget("state:user:u", "login_count")


def chat_is_served(client: redis.Redis, user: str, times: int = 20) -> None:
    """Add messages of a user, and wait until they are settled."""
    for _ in range(times):
        client.xadd(CHAT, {"type": "message_sent", "user_id": user})
    eventually(lambda: client.hget(f"stats:user:{user}", "messages_sent") == str(times), within=3)


def told(router: Router, about: str) -> list[str]:
    """The events of the log whose names begin like that."""
    names = [str(line["event"]) for line in router.log()]
    return [name for name in names if name.startswith(about)]


def names_the_stream(router: Router, stream: str = AUTH) -> bool:
    """Whether `/readyz` answers 503, and says on which stream what is missing."""
    code, why = router.readyz()
    return code == 503 and "NOPERM" in str(why["redis"]) and stream in why["refused"]


def test_a_stream_that_a_new_rule_leaves_out_is_served_again_with_the_permission(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, permit: Callable[..., None]
) -> None:
    permit("*")
    redis_client.xgroup_create(CHAT, GROUP, id="0", mkstream=True)
    router = new_router(as_limited(server)).start()
    permit(*WITHOUT_AUTH)
    chat_is_served(redis_client, "a")  # which ends the read that began before the rule
    eventually(lambda: names_the_stream(router), within=4)
    login(redis_client, 10)
    router.freeze()
    for _ in range(30):
        redis_client.xadd(CHAT, {"type": "message_sent", "user_id": "left"})
    redis_client.xreadgroup(GROUP, "consumer-gone", {CHAT: ">"}, count=30)
    router.thaw()
    await_settled(redis_client, OTHERS, within=6)  # claimed
    assert redis_client.hget("stats:user:left", "messages_sent") == "30"
    assert names_the_stream(router)
    assert router.get("/livez")[0] == 200
    assert logins(redis_client) is None
    permit("*")
    eventually(lambda: logins(redis_client) == "10", within=4)
    router.await_ready(within=4)
    assert told(router, "redis_") == ["redis_unavailable", "redis_available"]
    assert not redis_client.exists(f"dlq:{AUTH}")


@pytest.mark.once
def test_when_all_streams_are_denied_each_is_served_with_its_permission(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, permit: Callable[..., None]
) -> None:
    permit("*")
    router = new_router(as_limited(server)).start()
    permit(*WITHOUT_STREAMS)
    eventually(lambda: names_the_stream(router) and names_the_stream(router, CHAT), within=8)
    permit(*WITHOUT_AUTH)
    chat_is_served(redis_client, "a")
    login(redis_client, 10)
    assert names_the_stream(router)
    permit("*")
    eventually(lambda: logins(redis_client) == "10", within=4)
    router.await_ready(within=4)


@pytest.mark.once
def test_a_stream_that_is_denied_from_the_start_waits_for_its_permission(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, permit: Callable[..., None]
) -> None:
    redis_client.xgroup_create(AUTH, GROUP, id="0", mkstream=True)
    login(redis_client, 10)
    redis_client.xreadgroup(GROUP, "consumer-a", {AUTH: ">"}, count=5)  # what it had when it ended
    permit(*WITHOUT_AUTH)
    router = new_router(as_limited(server), CLAIM_MIN_IDLE_MS=60_000).start(ready=False)
    eventually(lambda: names_the_stream(router), within=15)
    chat_is_served(redis_client, "a")
    permit("*")
    eventually(lambda: logins(redis_client) == "10", within=4)
    router.await_ready(within=4)
    router.terminate()
    assert router.wait(10) == 0


@pytest.mark.once
def test_what_is_in_hand_of_a_stream_as_it_is_denied_keeps_no_other_commit_waiting(
    server: Server, redis_client: redis.Redis, workplace: Workplace, permit: Callable[..., None]
) -> None:
    permit("*")
    workplace.router(as_limited(server), "a").start()
    workplace.give("gated", ["held"])
    eventually(workplace.starts, within=4)
    permit("[^e]*", "event-router:*", "events:[^w]*")
    workplace.open_gate()
    things = [f"t{n}" for n in range(20)]
    workplace.give("count", things, OTHER)
    eventually(lambda: workplace.counts(things) == dict.fromkeys(things, 1), within=2)
    permit("*")
    await_settled(redis_client, [WORK, OTHER], within=4)
    assert workplace.counts([*things, "held"]) == dict.fromkeys([*things, "held"], 1)


@pytest.mark.once
@pytest.mark.parametrize("running", [False, True])
def test_a_key_that_is_no_stream_is_told_once_and_served_once_it_is_gone(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, running: bool
) -> None:
    router = new_router(server.url)
    if running:
        router.start()
        redis_client.delete(AUTH)
    redis_client.set(AUTH, "a text")
    if not running:
        router.start()
    eventually(lambda: told(router, "stream_"), within=8)
    chat_is_served(redis_client, "a")
    code, why = router.readyz()
    assert code == 200
    assert "WRONGTYPE" in why["refused"][AUTH]
    assert router.metric("stream_refused", stream=AUTH) == 1
    assert router.metric("stream_refused", stream=CHAT) == 0
    chat_is_served(redis_client, "b", 100)
    redis_client.delete(AUTH)
    eventually(lambda: group_state(redis_client, AUTH), within=4)
    login(redis_client, 10)
    eventually(lambda: logins(redis_client) == "10", within=4)
    eventually(lambda: told(router, "stream_") == ["stream_refused", "stream_accepted"], within=5)
    assert router.readyz()[1]["refused"] == {}
    assert router.metric("stream_refused", stream=AUTH) == 0

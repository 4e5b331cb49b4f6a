"""The users of `event-router acl` can do all that they have to, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from event_router.patterns.presence import Presence
from tests.acceptance.users import PASSWORD, refusals, rules, sign_up, url_for
from tests.conftest import RouterFactory
from tests.environment.routers import Router
from tests.environment.servers import Server, ServerProgram, flush
from tests.environment.streams import GROUP, await_settled, group_state
from tests.environment.waiting import eventually
from tests.integration.cli_calls import call, refusal
from tests.oracle.comparing import assert_equal
from tests.oracle.fold import fold
from tests.oracle.workload import Workload, publish

AUTH, SCAN = "events:auth", "events:scan"
ROUTER, RELAY, OPERATOR = "event-router", "event-router-relay", "event-router-operator"
TWO_ROLES = {"REDIS_PUBSUB_URL": "redis://another"}


@pytest.fixture(scope="module")
def walled(server_program: ServerProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the three users; the default one, which the tests use themselves, may do everything."""
    folder = tmp_path_factory.mktemp("walled")
    server = Server(server_program, folder)
    try:
        with server.start().client() as client:
            sign_up(client, rules("router", "relay", "operator", folder=folder, settings=TWO_ROLES))
        yield server
    finally:
        server.kill()


@pytest.fixture
def client(walled: Server) -> Iterator[redis.Redis]:
    """The default user, on an empty server with an empty ACL LOG."""
    flush(walled)
    with walled.client() as client:
        client.execute_command("ACL", "LOG", "RESET")
        yield client


def as_user(server: Server, user: str) -> redis.Redis:
    """A client that signs in; it names no library, which needs a permission of its own."""
    return redis.Redis(
        port=server.port,
        username=user,
        password=PASSWORD,
        protocol=2,
        decode_responses=True,
        driver_info=None,
    )


def started(walled: Server, new_router: RouterFactory, pod: str = "a") -> Router:
    """A ready router with users of its own on both roles, which soon takes dead consumers for dead."""
    return new_router(
        url_for(walled, ROUTER),
        pod,
        REDIS_PUBSUB_URL=url_for(walled, RELAY),
        STREAM_MIN_LENGTH=0,
        CLAIM_MIN_IDLE_MS=400,
        CLAIM_INTERVAL_MS=200,
        READ_BLOCK_MS=200,
        PRESENCE_TTL_S=0.2,
    ).start()


def test_the_whole_traffic_of_the_four_handlers_runs_without_a_refusal(
    walled: Server, client: redis.Redis, new_router: RouterFactory
) -> None:
    planned = Workload(1, 600, now_ms=time.time_ns() // 1_000_000).entries()
    client.xgroup_create(AUTH, GROUP, id="0", mkstream=True)
    with walled.client(decode_responses=False) as plain, client.pubsub() as subscriber:
        subscriber.psubscribe("sse:events:*")
        accepted = publish(plain, planned[:300])
        plain.xreadgroup(GROUP, "consumer-gone", {AUTH: ">"}, count=50)
        router = started(walled, new_router)
        client.script_flush()
        accepted += publish(plain, planned[300:])
        ask_and_answer(client)
        await_settled(plain, within=20)
        seen_off(walled.url)
        assert fold(accepted).dead
        eventually(lambda: told(subscriber), within=5, what="the relay publishes")
        assert_equal(fold(accepted), plain)
    eventually(lambda: "consumer-gone" not in consumers(client), within=10, what="removal of consumers")
    eventually(lambda: client.xlen(AUTH) < 100, within=10, what="retention")
    eventually(lambda: not client.exists("event-router:presence:connections"), within=10, what="presence")
    lag_mended(router, client)
    router.terminate()
    assert router.wait(10) == 0
    assert refusals(client) == []


def ask_and_answer(client: redis.Redis) -> None:
    """A question that is answered, one that is not, and an answer that comes too early."""
    who = {"user_id": "7", "prompt": "Which size?"}
    for request, timeout in (("question:1", 600), ("question:2", 0.5)):
        more = {"type": "input_requested", "job_id": "question", "request_id": request, "timeout_s": timeout}
        client.xadd("events:chat", who | more)
    said = {"type": "input_received", "job_id": "question", "user_id": "7", "value": '"M"'}
    client.xadd("events:chat", said | {"request_id": "question:1"})
    client.xadd("events:chat", said | {"request_id": "question:3"})
    eventually(
        lambda: (
            [client.hget(f"input:request:question:{n}", "status") for n in (1, 2)] == ["answered", "expired"]
        ),
        within=10,
    )


def seen_off(url: str) -> None:
    """A user comes, by another service, and vanishes: routers have to announce it."""

    async def come() -> None:
        async with Redis.from_url(url, protocol=2) as service:
            await Presence(service, ttl_s=0.2).update("7", "online")

    asyncio.run(come())


def told(subscriber: redis.client.PubSub) -> bool:
    message = subscriber.get_message(ignore_subscribe_messages=True, timeout=0.1)
    return message is not None


def consumers(client: redis.Redis) -> set[str]:
    return {found["name"] for found in client.xinfo_consumers(AUTH, GROUP)}


def lag_mended(router: Router, client: redis.Redis) -> None:
    """Entries that are trimmed unread leave a wrong lag, which the router corrects."""
    router.freeze()
    for n in range(10):
        client.xadd(SCAN, {"type": "scan_start", "user_id": "7", "job_id": f"lost-{n}"})
    client.xtrim(SCAN, maxlen=0, approximate=False)
    client.xadd(SCAN, {"type": "scan_start", "user_id": "7", "job_id": "kept"})
    router.thaw()
    await_settled(client, [SCAN], within=10)
    eventually(lambda: group_state(client, SCAN)["lag"] == 0, within=10)


FORBIDDEN = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "SHUTDOWN NOSAVE",
    "SLOWLOG RESET",
    "MONITOR",
    "REPLICAOF NO ONE",
    "SAVE",
    "ACL LIST",
    "ACL SETUSER event-router +@all",
    "ACL DRYRUN default ping",
    "CLIENT KILL TYPE normal",
    "SCRIPT FLUSH",
    "SCRIPT LOAD x",
    "FUNCTION FLUSH",
    "DEL events:auth",
    "UNLINK events:auth",
    "EXPIRE events:auth 1",
    "RENAME events:auth events:other",
    "SET events:auth x",
    "HSET events:auth f v",
    "XGROUP DESTROY events:auth event-router-group",
    "XDEL events:auth 1-1",
    "DEL dlq:events:auth",
    "XDEL dlq:events:auth 1-1",
    "XTRIM dlq:events:auth MAXLEN 0",
    "DEL outbox:auth",
    "DEL event-router:checkpoint:event-router-group",
    "GET session:1",
    "SET session:1 x",
    "HGETALL session:1",
    "XADD orders * f v",
    "COPY state:user:1 session:1",
    "PUBLISH sse:events:1 x",
    "SUBSCRIBE sse:events:1",
    "PSUBSCRIBE *",
]


def allowed(server: Server, user: str, commands: list[str]) -> list[str]:
    """Which of the commands the server does not refuse to the user."""
    found = []
    with as_user(server, user) as client:
        for command in commands:
            try:
                client.execute_command(*command.split())
            except redis.exceptions.NoPermissionError:
                continue
            except redis.ResponseError as error:
                command += f" ({error})"
            found.append(command)
    return found


def test_the_router_may_not_do_what_is_not_its_own(walled: Server, client: redis.Redis) -> None:
    assert allowed(walled, ROUTER, FORBIDDEN) == []
    assert allowed(walled, ROUTER, ["PING", "XLEN events:auth"]) == ["PING", "XLEN events:auth"]


@pytest.mark.parametrize(
    ("script", "keys"),
    [
        ("return redis.call('GET', 'session:1')", []),
        ("return redis.call('GET', KEYS[1])", ["session:1"]),
        ("return redis.call('DEL', KEYS[1])", ["events:auth"]),
        ("return redis.call('FLUSHALL')", []),
        ("return redis.call('KEYS', '*')", []),
    ],
)
def test_a_script_may_no_more_than_its_user(
    walled: Server, client: redis.Redis, script: str, keys: list[str]
) -> None:
    client.xadd(AUTH, {"type": "login"})
    with as_user(walled, ROUTER) as router, pytest.raises(redis.ResponseError):
        router.eval(script, len(keys), *keys)
    assert len(refusals(client)) == 1
    assert client.xlen(AUTH) == 1


def test_the_relay_publishes_and_does_nothing_else(walled: Server, client: redis.Redis) -> None:
    with as_user(walled, RELAY) as relay:
        for channel in (
            "sse:events:j",
            "user:7",
            "notifications",
            "presence",
            "chat:r",
            "updates",
            "events:login",
        ):
            assert relay.execute_command("PUBLISH", channel, "x") == 0
        for command in (
            "PUBLISH other x",
            "GET state:user:7",
            "XADD events:auth * f v",
            "EVAL x 0",
            "KEYS *",
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                relay.execute_command(*command.split())


def test_the_operator_replays_purges_publishes_and_answers(
    walled: Server, client: redis.Redis, new_router: RouterFactory
) -> None:
    router = started(walled, new_router)
    client.xadd("events:chat", {"type": "input_requested", "job_id": "j", "user_id": "7", "prompt": "?"})
    large = {f"f{n}": "v" for n in range(4_000)}
    for fields in ({"type": "no"}, {"type": "login"}, {"type": "nothing", **large}):
        client.xadd(AUTH, fields)
    await_settled(client, within=10)
    env = {"REDIS_STREAMS_URL": url_for(walled, ROUTER), "OPERATOR_URL": url_for(walled, OPERATOR)}
    for command in (
        ["dlq", "list"],
        ["status"],
        ["pending"],
        ["presence"],
        ["state", "get", "--key", "x:state:y"],
    ):
        assert call(*command, env=env).code in (0, 1)
    assert (
        "no permission" in refusal(call("dlq", "purge", "--yes", env=env | {"OPERATOR_URL": ""}), 1).lower()
    )
    client.execute_command("ACL", "LOG", "RESET")
    assert call("input", "answer", "j:1", "true", "--user", "7", env=env).code == 0
    assert call("publish", "auth", "login", "user_id=7", env=env).code == 0
    replayed = call("dlq", "replay", env=env)
    assert (replayed.code, replayed.out) == (0, "3 replayed\n")
    await_settled(client, within=10)
    assert call("dlq", "purge", "--yes", env=env).out == "3 deleted\n"
    router.terminate()
    assert router.wait(10) == 0
    assert refusals(client) == []


def test_the_operator_may_not_do_everything_either(walled: Server, client: redis.Redis) -> None:
    forbidden = ["FLUSHALL", "KEYS *", "CONFIG GET *", "DEL events:auth", "SET session:1 x", "ACL LIST"]
    assert allowed(walled, OPERATOR, forbidden) == []


@pytest.mark.once
def test_a_permission_less_is_noticed(
    walled: Server, client: redis.Redis, new_router: RouterFactory, tmp_path: Path
) -> None:
    """The traffic test would fail for a rule that lacks a command."""
    whole = rules("router", folder=tmp_path, settings=TWO_ROLES)
    assert " +xtrim" in whole[ROUTER]
    try:
        sign_up(client, {ROUTER: whole[ROUTER].replace(" +xtrim", "")})
        started(walled, new_router)
        client.xadd(AUTH, {"type": "login", "user_id": "7"})
        client.xgroup_create(AUTH, "another", id="$")
        eventually(lambda: f"{ROUTER}: command xtrim" in refusals(client), within=10)
    finally:
        sign_up(client, whole)

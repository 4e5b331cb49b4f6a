"""Redis answers, but refuses: no event's fault, so none is dead-lettered or loses an attempt."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import redis

from tests.acceptance.users import as_limited
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, group_state
from tests.environment.waiting import eventually

AUTH = "events:auth"
Refusal = Callable[[Server, redis.Redis], AbstractContextManager[None]]


@contextlib.contextmanager
def out_of_memory(_: Server, client: redis.Redis) -> Iterator[None]:
    """OOM: reads and acknowledgements pass, other writes do not."""
    client.config_set("maxmemory", "1")
    yield
    client.config_set("maxmemory", "0")


@contextlib.contextmanager
def too_few_replicas(_: Server, client: redis.Redis) -> Iterator[None]:
    """NOREPLICAS."""
    client.config_set("min-replicas-to-write", "1")
    yield
    client.config_set("min-replicas-to-write", "0")


@contextlib.contextmanager
def read_only(_: Server, client: redis.Redis) -> Iterator[None]:
    """READONLY, or MASTERDOWN: it became the replica of a primary that does not exist."""
    client.config_set("replica-read-only", "yes")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def denied(_: Server, client: redis.Redis) -> Iterator[None]:
    """NOPERM of a command that the commit needs."""
    client.execute_command("ACL", "SETUSER", "default", "-hincrby")
    yield
    client.execute_command("ACL", "SETUSER", "default", "+hincrby")


@contextlib.contextmanager
def busy(server: Server, client: redis.Redis) -> Iterator[None]:
    """BUSY: a script of somebody else's does not end."""
    client.config_set("busy-reply-threshold", "50")

    def loop() -> None:
        with server.client() as other, contextlib.suppress(redis.RedisError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    eventually(lambda: is_busy(client), within=5)
    yield
    client.script_kill()
    thread.join()


def is_busy(client: redis.Redis) -> bool:
    """Whether the server refuses what anybody asks."""
    try:
        client.get("anything")
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


@pytest.mark.parametrize("refusal", [out_of_memory, too_few_replicas, read_only, denied, busy])
def test_while_redis_refuses_the_router_waits(
    new_server: ServerFactory, new_router: RouterFactory, refusal: Refusal
) -> None:
    server = new_server().start()
    router = new_router(server.url, MAX_DELIVERIES=2, RETRY_BACKOFF_MS=10, REDIS_TIMEOUT_S=2).start()
    with server.client() as client:
        router.freeze()
        for n in range(200):
            client.xadd(AUTH, {"type": "login", "user_id": "u"} if n % 10 else {"type": "nothing"})
        with refusal(server, client):
            router.thaw()
            begin = time.monotonic()
            while time.monotonic() - begin < 1.5:
                assert router.get("/livez")[0] == 200
                time.sleep(0.1)  # the length of the refusal is the test's subject
        await_settled(client, [AUTH], within=10)
        assert client.hget("state:user:u", "login_count") == "180"
        assert client.xlen(f"dlq:{AUTH}") == 20
        eventually(lambda: router.readyz()[0] == 200, within=5)
        assert router.metric("events_failed_total") == 0
        assert router.metric("circuit_open") == 0


def test_a_key_that_may_not_be_read_holds_up_only_the_events_that_read_it(
    server: Server,
    redis_client: redis.Redis,
    new_router: RouterFactory,
    permit: Callable[..., None],
) -> None:
    permit("*")
    url = as_limited(server)
    router = new_router(url, MAX_DELIVERIES=2, RETRY_BACKOFF_MS=10, HANDLER_TIMEOUT_S=0.5).start()
    permit("events:*", "event-router:*", "dlq:*", "outbox:*", "stats:*", "state:user:fine*")
    for n in range(100):
        for user in ("fine", "forbidden", f"fine-{n}"):
            redis_client.xadd(AUTH, {"type": "login", "user_id": user})
    eventually(lambda: group_state(redis_client, AUTH)["pending"] == 100, within=10)
    assert redis_client.hget("state:user:fine", "login_count") == "100"
    assert not redis_client.exists("state:user:forbidden")
    code, why = router.readyz()
    assert code == 503
    assert "HGET on state:user:forbidden" in str(why["redis"])
    for n in range(20):  # still, after it was asked for again
        redis_client.xadd(AUTH, {"type": "login", "user_id": "fine"})
        eventually(lambda n=n: redis_client.hget("state:user:fine", "login_count") == str(101 + n), within=5)
    assert router.get("/livez")[0] == 200
    permit("*")
    await_settled(redis_client, [AUTH], within=10)
    assert redis_client.hget("state:user:forbidden", "login_count") == "100"
    eventually(lambda: router.readyz()[0] == 200, within=5)
    assert not redis_client.exists(f"dlq:{AUTH}")
    assert router.metric("events_failed_total") == 0
    assert [line["event"] for line in router.log() if line["event"].startswith("redis_")] == [
        "redis_unavailable",
        "redis_available",
    ]


def test_scripts_forgotten_and_connections_killed_again_and_again_change_no_count(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url).start()
    for n in range(20):
        pipeline = redis_client.pipeline(transaction=False)
        for _ in range(200):
            pipeline.xadd(AUTH, {"type": "login", "user_id": "u", "timestamp": "2026-10-01T08:00:00Z"})
        pipeline.execute()
        if n % 2:
            redis_client.client_kill_filter(_type="normal", skipme=True)
        else:
            redis_client.script_flush()
    await_settled(redis_client, [AUTH], within=15)
    assert redis_client.hget("state:user:u", "login_count") == "4000"
    assert redis_client.hget("stats:daily:2026-10-01", "logins") == "4000"
    assert redis_client.exists(f"dlq:{AUTH}") == 0

"""One entry, however often it is delivered, and whatever reply is lost: one effect."""

from __future__ import annotations

import time
from functools import partial

import redis
import redis.asyncio

from event_router import StreamProducer
from tests.acceptance.workplace import WORK, Workplace
from tests.conftest import RouterFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.environment.streams import await_settled, give_to, letters
from tests.environment.waiting import eventually

AUTH = ("events:auth",)
COMMIT_COMMANDS = ("EVALSHA", "EVAL", "FCALL")


def login(client: redis.Redis, user: str, times: int = 1) -> None:
    """Publish logins of one user, all at one time of their own."""
    pipeline = client.pipeline(transaction=False)
    for _ in range(times):
        pipeline.xadd("events:auth", {"type": "login", "user_id": user, "timestamp": "2026-10-01T08:00:00Z"})
    pipeline.execute()


def test_delivered_to_five_routers_that_all_commit_it_counts_once(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    routers = [workplace.router(server.url, pod, MAX_DELIVERIES=10) for pod in "abcde"]
    [entry] = workplace.give("gated", ["t"])
    for count, router in enumerate(routers, 1):
        # Its own pending entries come first when it starts; then it freezes with the entry in hand.
        if count > 1:
            give_to(redis_client, WORK, router.consumer, [entry])
        router.start()
        eventually(partial(started, workplace, count), within=5, what=workplace.starts)
        router.freeze()
    workplace.open_gate()
    for router in routers:
        router.thaw()
    await_settled(redis_client, [WORK], within=15)
    eventually(lambda: sum(r.metric("events_duplicate_total") for r in routers) == 4, within=10)
    assert [start.pod for start in workplace.starts(entry)] == list("abcde")
    assert workplace.counts(["t"]) == {"t": 1}
    assert letters(redis_client, WORK) == {}
    assert sum(r.metric("events_processed_total") for r in routers) == 1


def started(workplace: Workplace, count: int) -> bool:
    """Whether handlers were started so often."""
    return len(workplace.starts()) == count


def test_a_commit_whose_reply_is_lost_counts_once(
    server: Server, redis_client: redis.Redis, proxy: Proxy, new_router: RouterFactory
) -> None:
    router = new_router(proxy.url).start()
    login(redis_client, "early")
    await_settled(redis_client, AUTH, within=5)
    drops = [proxy.drop_reply(command, request=b"late", times=3) for command in COMMIT_COMMANDS]
    login(redis_client, "late", times=20)
    await_settled(redis_client, AUTH, within=10)
    assert sum(drop.dropped for drop in drops) >= 1, "a reply was lost"
    assert redis_client.hget("state:user:late", "login_count") == "20"
    assert redis_client.hget("stats:daily:2026-10-01", "logins") == "21"
    eventually(lambda: router.metric("events_processed_total", event_type="login") == 21, within=5)


async def test_what_a_producer_sends_again_after_a_lost_reply_counts_once(
    server: Server, redis_client: redis.Redis, proxy: Proxy, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    drop = proxy.drop_reply("XADD", times=2)
    event = {"type": "login", "user_id": "7", "id": "login-1"}
    async with redis.asyncio.Redis(port=proxy.port) as behind_proxy:
        await StreamProducer(behind_proxy, retries=2).produce("events:auth", event)
    assert drop.dropped == 2
    assert redis_client.xlen("events:auth") == 3
    await_settled(redis_client, AUTH, within=5)
    assert redis_client.hget("state:user:7", "login_count") == "1"
    eventually(lambda: router.metric("events_duplicate_total") == 2, within=5)


def test_entries_of_a_read_whose_reply_is_lost_are_found_while_the_router_runs(
    server: Server, redis_client: redis.Redis, proxy: Proxy, new_router: RouterFactory
) -> None:
    router = new_router(proxy.url).start()
    drop = proxy.drop_reply("XREADGROUP", reply=b"lost")
    begin = time.monotonic()
    login(redis_client, "lost")
    eventually(lambda: drop.dropped, within=5, what="a read's reply with the entry is lost")
    await_settled(redis_client, AUTH, within=6)
    # Claim idle time 1.5 s, interval 0.5 s, and a second to reconnect.
    assert time.monotonic() - begin < 4.5
    login(redis_client, "lost", times=3)
    await_settled(redis_client, AUTH, within=5)
    assert redis_client.hget("state:user:lost", "login_count") == "4"
    assert router.is_running


def test_after_a_half_open_connection_work_goes_on(
    server: Server, redis_client: redis.Redis, proxy: Proxy, new_router: RouterFactory
) -> None:
    router = new_router(proxy.url, REDIS_TIMEOUT_S=1, READ_BLOCK_MS=500).start()
    login(redis_client, "u", times=50)
    await_settled(redis_client, AUTH, within=5)
    proxy.freeze()
    login(redis_client, "u", times=50)
    eventually(lambda: router.readyz()[0] == 503, within=5, what="not ready while Redis is silent")
    assert router.get("/livez")[0] == 200, "an outage kills no pod"
    proxy.thaw()
    # Timeout 1 s and 2 s to recover, then what was read into the void waits out the claim idle time.
    await_settled(redis_client, AUTH, within=8)
    assert redis_client.hget("state:user:u", "login_count") == "100"
    eventually(lambda: router.readyz()[0] == 200, within=3)

"""Live messages outlive routers that are killed or frozen, and a Pub/Sub Redis that goes away."""

from __future__ import annotations

import pytest
import redis

from event_router.core.entry_id import parse_id
from tests.acceptance.fan_out import CHAT, KEY, OUTBOX, Watcher, begin_jobs, leader, logged_ids
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled
from tests.environment.waiting import eventually, measure

LEASE_S = 5.0
TAKEOVER_S = LEASE_S + 2.0
CHAT_ONLY = {"HANDLERS": "handlers.chat:ChatEventHandler"}

# The relay itself is tested in tests/integration/test_relay.py: these wait for whole leases.
pytestmark = pytest.mark.battery


@pytest.mark.once
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_standby_takes_over_and_no_message_is_missed(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, fault: str
) -> None:
    routers = [new_router(server.url, pod, **CHAT_ONLY).start() for pod in "ab"]
    with Watcher(server) as watcher:
        first = leader(routers)
        (second,) = (router for router in routers if router is not first)
        token = int(redis_client.hget(KEY, "token") or 0)
        begin_jobs(redis_client, range(2_000))
        eventually(lambda: len(watcher.messages) > 200, within=5, every=0.001)
        if fault == "killed":
            first.kill()
        else:
            first.freeze()
        begin_jobs(redis_client, range(2_000, 3_000))
        took = measure(lambda: leader([second]) is second, within=TAKEOVER_S)
        print(f"the standby led after {took:.1f} s")
        assert int(redis_client.hget(KEY, "token") or 0) > token
        await_settled(redis_client, [CHAT], within=15)
        eventually(lambda: set(watcher.ids()) >= set(logged_ids(redis_client)), within=5)
        if fault == "frozen":
            published = redis_client.hget(KEY, "published")
            holder = redis_client.hget(KEY, "holder")
            first.thaw()
            eventually(lambda: first.readyz()[1]["relays"][OUTBOX] == "stands by", within=5)
            begin_jobs(redis_client, range(3_000, 3_100))
            await_settled(redis_client, [CHAT], within=15)
            eventually(lambda: set(watcher.ids()) >= set(logged_ids(redis_client)), within=5)
            assert redis_client.hget(KEY, "holder") == holder
            assert parse_id(redis_client.hget(KEY, "published") or "") >= parse_id(published or "")
        logged = logged_ids(redis_client)
        assert watcher.first_ids() == logged, "each message, in the order of the log, under its id"
        print(f"{len(watcher.messages) - len(logged)} repetitions")
        jobs = {message["job_id"] for message in watcher.messages}
        assert len(jobs) == (3_100 if fault == "frozen" else 3_000)


@pytest.mark.once
def test_commits_go_on_while_pubsub_is_frozen_and_messages_follow(
    server: Server, redis_client: redis.Redis, new_server: ServerFactory, new_router: RouterFactory
) -> None:
    pubsub = new_server().start()
    router = new_router(server.url, REDIS_PUBSUB_URL=pubsub.url, REDIS_TIMEOUT_S=1, **CHAT_ONLY).start()
    with Watcher(pubsub) as watcher:
        begin_jobs(redis_client, range(10))
        eventually(lambda: len(watcher.messages) == 10, within=5)
        eventually(lambda: router.readyz()[1]["pubsub"]["patterns"] == 1, within=5)
        pubsub.freeze()
        begin_jobs(redis_client, range(10, 2_000))
        await_settled(redis_client, [CHAT], within=5)
        eventually(lambda: not router.readyz()[1]["pubsub"]["up"], within=8)
        eventually(lambda: router.metric("redis_connected", role="pubsub") == 0, within=8)
        assert router.readyz()[0] == 200, "events are taken all the same"
        pubsub.thaw()
        eventually(lambda: len(watcher.first_ids()) == 2_000, within=10)
        assert watcher.first_ids() == logged_ids(redis_client)
    eventually(lambda: router.metric("redis_connected", role="pubsub") == 1, within=8)
    assert [line["event"] for line in router.log() if line["event"].startswith("fan_out_")] == [
        "fan_out_unavailable",
        "fan_out_available",
    ]


@pytest.mark.once
def test_what_the_log_cannot_hold_while_pubsub_is_down_is_counted(
    server: Server, redis_client: redis.Redis, new_server: ServerFactory, new_router: RouterFactory
) -> None:
    pubsub = new_server().start()
    router = new_router(server.url, REDIS_PUBSUB_URL=pubsub.url, OUTBOX_MAXLEN=100, **CHAT_ONLY).start()
    pubsub.kill()
    for first in range(0, 2_000, 500):
        begin_jobs(redis_client, range(first, first + 500))
        await_settled(redis_client, [CHAT], within=5)
    pubsub.start()
    added = redis_client.xinfo_stream(OUTBOX)["entries-added"]
    assert added == 2_000
    eventually(
        lambda: router.metric("pubsub_messages_total") + router.metric("pubsub_dropped_total") >= added,
        within=10,
    )
    assert router.metric("pubsub_messages_total", channel="sse:events:{job_id}") < 1_000
    assert router.metric("pubsub_dropped_total", channel="unknown") > 1_000
    assert any(line["event"] == "messages_trimmed_unpublished" for line in router.log())
    begin_jobs(redis_client, range(5_000, 5_010))
    with Watcher(pubsub) as watcher:
        begin_jobs(redis_client, range(6_000, 6_010))
        eventually(lambda: "j6009" in {message["job_id"] for message in watcher.messages}, within=5)


@pytest.mark.once
def test_a_stopped_leader_is_followed_at_once(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    routers = [new_router(server.url, pod, **CHAT_ONLY).start() for pod in "ab"]
    first = leader(routers)
    first.terminate()
    assert first.wait(10) == 0
    (second,) = (router for router in routers if router is not first)
    assert measure(lambda: leader([second]), within=LEASE_S - 1) < LEASE_S - 1

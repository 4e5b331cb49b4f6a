"""Two routers on the same entries and state: one effect each, nobody's change lost, and no collapse."""

from __future__ import annotations

import time

import redis

from tests.acceptance.workplace import WORK, Workplace
from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, give_to, held_by, pending
from tests.environment.waiting import eventually

AUTH = ("events:auth",)


def test_two_routers_that_handle_the_same_entries_at_once_count_each_once(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    first = workplace.router(server.url, "a").start()
    things = [f"t{n}" for n in range(16)]  # as many as are started at once when they were begun before
    ids = workplace.give("gated", things)
    eventually(lambda: len(workplace.starts()) == 16, within=5)
    first.freeze()
    second = workplace.router(server.url, "b").start()
    give_to(redis_client, WORK, second.consumer, ids)
    eventually(lambda: len(workplace.starts()) == 32, within=10)
    first.thaw()
    begin = time.monotonic()
    while time.monotonic() - begin < 2:
        # Both renew what they handle, and the one that lost the entries must not take them back by that.
        assert {entry["consumer"] for entry in pending(redis_client, WORK)} == {second.consumer}
        time.sleep(0.02)
    assert first.readyz()[0] == 200, "it runs again"
    workplace.open_gate()
    await_settled(redis_client, [WORK], within=10)
    assert workplace.counts(things) == dict.fromkeys(things, 1)
    eventually(
        lambda: first.metric("events_processed_total") + second.metric("events_processed_total") == 16,
        within=5,
    )
    eventually(
        lambda: first.metric("events_duplicate_total") + second.metric("events_duplicate_total") >= 16,
        within=5,
    )


def test_what_two_routers_read_as_absent_at_once_is_written_by_both_in_turn(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    # One place each, so that the second entry goes to the other; patient, so that it stays there.
    settings = {"MAX_IN_FLIGHT": 1, "CLAIM_MIN_IDLE_MS": 60_000}
    for pod in "ab":
        workplace.router(server.url, pod, **settings).start()
    ids = workplace.give("append", ["t"])
    eventually(lambda: len(workplace.starts()) == 1, within=5)
    ids += workplace.give("append", ["t"])
    eventually(lambda: len(workplace.starts()) == 2, within=5)
    assert {start.pod for start in workplace.starts()} == {"a", "b"}
    workplace.open_gate()
    await_settled(redis_client, [WORK], within=10)
    stored = redis_client.hget("state:thing:t", "ids")
    assert sorted(str(stored).split()) == ids


def test_one_hot_user_on_two_routers_counts_every_login_at_speed(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    routers = [new_router(server.url, pod).start(ready=False) for pod in "ab"]
    for router in routers:
        router.await_ready()
    pipeline = redis_client.pipeline(transaction=False)
    for n in range(10_000):
        day, second = n % 9 + 1, n % 60
        pipeline.xadd(
            "events:auth",
            {"type": "login", "user_id": "hot", "timestamp": f"2026-10-{day:02d}T08:00:{second:02d}Z"},
        )
    begin = time.monotonic()
    pipeline.execute()
    await_settled(redis_client, AUTH, within=30)
    seconds = time.monotonic() - begin
    state = redis_client.hgetall("state:user:hot")
    assert (state["login_count"], state["login_streak"]) == ("10000", "9")
    assert state["last_login"] == "2026-10-09T08:00:59.000Z"
    conflicts = sum(router.metric("commit_conflicts_total") for router in routers)
    print(f"{10_000 / seconds:.0f} events/s, {conflicts:.0f} conflicts")
    assert conflicts <= 20_000, "conflicts stay in proportion"
    assert sum(router.metric("events_processed_total") for router in routers) == 10_000
    assert redis_client.exists("dlq:events:auth") == 0
    assert pending(redis_client, "events:auth") == []
    assert all(held_by(redis_client, router.consumer, AUTH) == 0 for router in routers)

"""Streams, groups and entries that others destroy: the router goes on, and says what it may have cost."""

from __future__ import annotations

import redis

from tests.acceptance.workplace import WORK, Workplace
from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import GROUP, STREAMS, await_settled, group_state, pending
from tests.environment.waiting import eventually

AUTH = "events:auth"


def login(client: redis.Redis, user: str, times: int = 1) -> None:
    """Publish logins of a user."""
    pipeline = client.pipeline(transaction=False)
    for _ in range(times):
        pipeline.xadd(AUTH, {"type": "login", "user_id": user})
    pipeline.execute()


def await_groups(client: redis.Redis) -> None:
    """The group is on all streams again, in the time the contract allows."""
    eventually(
        lambda: all(group_state(client, stream) for stream in STREAMS), within=2, what="groups recreated"
    )


def test_after_flushall_everything_begins_anew(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    login(redis_client, "u", 100)
    await_settled(redis_client, within=5)
    redis_client.flushall()
    await_groups(redis_client)
    login(redis_client, "u", 50)
    await_settled(redis_client, within=5)
    assert redis_client.hget("state:user:u", "login_count") == "50"
    assert redis_client.keys("dlq:*") == []
    assert router.readyz()[0] == 200


def test_flushall_in_the_middle_of_work_is_survived(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    router = workplace.router(server.url, "a").start()
    lost = [f"t{n}" for n in range(50)]
    workplace.give("gated", lost)
    eventually(lambda: len(workplace.starts()) == 50, within=5)
    redis_client.flushall()
    workplace.open_gate()
    eventually(lambda: group_state(redis_client, WORK), within=2)
    kept = [f"k{n}" for n in range(50)]
    workplace.give("count", kept)
    await_settled(redis_client, [WORK], within=8)
    assert workplace.counts(kept) == dict.fromkeys(kept, 1)
    # What was in flight is applied or reported lost, but never twice; and its loss is no handler's fault.
    reported = [line for line in router.log() if line["level"] == "error" and line.get("stream") == WORK]
    assert [line["lost_or_counted_twice_at_most"] for line in reported] == [50]
    assert set(workplace.counts(lost).values()) <= {1}
    assert redis_client.exists(f"dlq:{WORK}") == 0
    assert router.readyz()[0] == 200
    assert router.metric("circuit_open") == 0


def test_a_deleted_stream_is_made_again_and_the_others_do_not_notice(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url).start()
    login(redis_client, "u", 10)
    await_settled(redis_client, within=5)
    redis_client.delete(AUTH)
    for _ in range(20):
        redis_client.xadd("events:chat", {"type": "message_sent", "user_id": "u"})
    await_groups(redis_client)
    login(redis_client, "u", 10)
    await_settled(redis_client, within=5)
    assert redis_client.hget("state:user:u", "login_count") == "20"
    assert redis_client.hget("stats:user:u", "messages_sent") == "20"


def test_a_destroyed_group_is_recreated_where_it_was_so_that_nothing_is_lost(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    login(redis_client, "before", 200)
    await_settled(redis_client, within=5)
    transaction = redis_client.pipeline(transaction=True)
    transaction.xgroup_destroy(AUTH, GROUP)
    for _ in range(30):
        transaction.xadd(AUTH, {"type": "login", "user_id": "meanwhile"})
    transaction.execute()
    await_groups(redis_client)
    login(redis_client, "after", 10)
    await_settled(redis_client, within=8)
    assert redis_client.hget("state:user:meanwhile", "login_count") == "30"
    assert redis_client.hget("state:user:after", "login_count") == "10"
    assert redis_client.hget("state:user:before", "login_count") == "200", "the checkpoint had passed them"
    reported = [line for line in router.log() if line["level"] in ("warning", "error") and AUTH in str(line)]
    assert 1 <= len(reported) <= 3, reported


def test_entries_in_hand_when_the_group_is_destroyed_count_once(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    workplace.router(server.url, "a").start()
    things = [f"t{n}" for n in range(20)]
    workplace.give("gated", things)
    eventually(lambda: len(workplace.starts()) == 20, within=5)
    redis_client.xgroup_destroy(WORK, GROUP)
    workplace.open_gate()
    eventually(lambda: group_state(redis_client, WORK), within=2)
    await_settled(redis_client, [WORK], within=5)
    # None of them was settled before, so none may be lost, and none may count twice.
    assert workplace.counts(things) == dict.fromkeys(things, 1)


def test_entries_trimmed_while_another_held_them_are_counted_as_trimmed_once(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    redis_client.xgroup_create(AUTH, GROUP, id="0", mkstream=True)
    login(redis_client, "u", 400)
    redis_client.xreadgroup(GROUP, "consumer-ghost", {AUTH: ">"}, count=400)
    redis_client.xtrim(AUTH, maxlen=5, approximate=False)
    routers = [new_router(server.url, pod).start(ready=False) for pod in "ab"]
    for router in routers:
        router.await_ready()
    eventually(lambda: pending(redis_client, AUTH) == [], within=6, what=lambda: pending(redis_client, AUTH))
    assert redis_client.hget("state:user:u", "login_count") == "5"
    login(redis_client, "u", 5)
    await_settled(redis_client, within=5)
    assert redis_client.hget("state:user:u", "login_count") == "10"
    assert all(router.readyz()[0] == 200 for router in routers)
    assert redis_client.xlen(f"dlq:{AUTH}") == 395
    assert sum(router.metric("entries_trimmed_total", stream=AUTH) for router in routers) == 395


def test_entries_trimmed_while_their_handler_runs_still_count(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    router = workplace.router(server.url, "a").start()
    things = [f"t{n}" for n in range(20)]
    workplace.give("gated", things)
    eventually(lambda: len(workplace.starts()) == 20, within=5)
    redis_client.xtrim(WORK, maxlen=0, approximate=False)
    workplace.open_gate()
    await_settled(redis_client, [WORK], within=5)
    assert workplace.counts(things) == dict.fromkeys(things, 1)
    assert router.metric("entries_trimmed_total") == 0
    assert redis_client.exists(f"dlq:{WORK}") == 0


def test_retention_keeps_what_is_not_settled_by_every_group(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url, STREAM_MIN_LENGTH=100).start()
    login(redis_client, "u", 2_000)
    await_settled(redis_client, within=10)
    eventually(lambda: redis_client.xlen(AUTH) < 500, within=30, what=lambda: redis_client.xlen(AUTH))
    assert redis_client.xlen(AUTH) >= 100
    redis_client.xgroup_create(AUTH, "slow-group", id="$")
    login(redis_client, "u", 2_000)
    await_settled(redis_client, within=10)
    assert redis_client.hget("state:user:u", "login_count") == "4000"
    assert redis_client.xlen(AUTH) >= 2_000, "the other group has not read them"

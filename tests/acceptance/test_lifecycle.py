"""Starting and stopping: ready when it can work, gone in an orderly way, nothing lost in between."""

from __future__ import annotations

import time

import pytest
import redis

from tests.acceptance.workplace import WORK, Workplace
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.servers import Server
from tests.environment.streams import GROUP, STREAMS, await_settled, group_state, held_by, letters, pending
from tests.environment.waiting import eventually, measure
from tests.oracle.comparing import assert_equal
from tests.oracle.fold import fold
from tests.oracle.workload import Workload, publish

# The product's defaults: with these nobody finds another's entries in time unless they were handed over.
PATIENT = {"CLAIM_MIN_IDLE_MS": 60_000, "CLAIM_INTERVAL_MS": 15_000}


def test_restarts_one_after_the_other_under_load_lose_nothing(
    server: Server, redis_bytes: redis.Redis, new_router: RouterFactory
) -> None:
    leaving, staying = (new_router(server.url, pod, **PATIENT).start() for pod in "ab")
    planned = Workload(11, 9_000, now_ms=time.time_ns() // 1_000_000).entries()
    accepted = []
    for start in range(0, len(planned), 1_500):
        leaving.await_ready()
        accepted += publish(redis_bytes, planned[start : start + 1_500])
        eventually(lambda: held_by(redis_bytes, leaving.consumer), within=5, every=0.001)
        leaving.terminate()
        assert leaving.wait(10) == 0
        eventually(
            lambda: held_by(redis_bytes, leaving.consumer) == 0, within=3, what="leftovers are taken over"
        )
        leaving.restart()
    await_settled(redis_bytes, within=15)
    assert_equal(fold(accepted), redis_bytes)
    assert staying.starts == 1
    assert staying.readyz()[0] == 200


@pytest.mark.once
def test_what_a_leaving_router_could_not_finish_is_taken_over_within_two_seconds(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    leaving = workplace.router(server.url, "a", SHUTDOWN_GRACE_S=1, CONCURRENCY=10, **PATIENT).start()
    things = [f"t{n}" for n in range(40)]
    ids = workplace.give("gated", things)
    eventually(lambda: len(workplace.starts()) == 10, within=5)
    staying = workplace.router(server.url, "b", **PATIENT).start()
    assert held_by(redis_client, leaving.consumer, [WORK]) == 40, "30 of them not begun"
    begin = time.monotonic()
    leaving.terminate()
    assert leaving.wait(5) == 0
    assert 0.5 < time.monotonic() - begin < 3, "it used its grace period and no more"
    eventually(lambda: {s.entry_id for s in workplace.starts() if s.pod == "b"} == set(ids), within=2)
    begun = {start.entry_id for start in workplace.starts() if start.pod == "a"}
    counts = {entry["message_id"]: entry["times_delivered"] for entry in pending(redis_client, WORK)}
    assert {counts[entry] for entry in set(ids) - begun} == {1}, "what was not begun used up no attempt"
    workplace.open_gate()
    await_settled(redis_client, [WORK], within=5)
    assert workplace.counts(things) == dict.fromkeys(things, 1)
    assert letters(redis_client, WORK) == {}
    assert staying.is_running


@pytest.mark.once
def test_sigterm_when_idle_ends_it_within_a_second(server: Server, new_router: RouterFactory) -> None:
    router = new_router(server.url).start()
    begin = time.monotonic()
    router.terminate()
    assert router.wait(3) == 0
    assert time.monotonic() - begin < 1


@pytest.mark.once
def test_a_second_signal_does_not_wait(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    router = workplace.router(server.url, "a").start()
    workplace.give("gated", ["t"])
    eventually(workplace.starts, within=5)
    router.terminate()
    eventually(lambda: router.readyz()[0] == 503, within=2, what="it drains")
    router.terminate()
    router.wait(2)
    workplace.open_gate()
    workplace.router(server.url, "b").start()
    await_settled(redis_client, [WORK], within=6)
    assert workplace.counts(["t"]) == {"t": 1}


@pytest.mark.once
def test_without_redis_it_waits_says_so_once_and_begins_when_it_can(
    new_server: ServerFactory, new_router: RouterFactory
) -> None:
    server = new_server()
    router = new_router(server.url).start(ready=False)
    eventually(lambda: router.readyz()[0] == 503, within=10)
    assert router.get("/livez")[0] == 200
    begin = time.monotonic()
    while time.monotonic() - begin < 3:
        assert router.is_running
        assert router.readyz()[0] == 503
        time.sleep(0.1)  # the length of the outage is the test's subject
    said = [line for line in router.log() if line["level"] in ("warning", "error")]
    assert len(said) == 1, said
    assert str(server.port) in str(said[0]), "it names the server"
    server.start()
    router.await_ready(within=5)
    with server.client() as client:
        client.xadd("events:auth", {"type": "login", "user_id": "u"})
        await_settled(client, within=5)
        assert client.hget("state:user:u", "login_count") == "1"


def test_entries_from_before_the_first_start_count(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    for _ in range(5):
        redis_client.xadd("events:auth", {"type": "login", "user_id": "u"})
    new_router(server.url).start()
    await_settled(redis_client, within=5)
    assert redis_client.hget("state:user:u", "login_count") == "5"
    assert [group_state(redis_client, stream)["name"] for stream in STREAMS] == [GROUP] * 4


@pytest.mark.once
def test_start_to_ready_takes_a_second_at_most(server: Server, new_router: RouterFactory) -> None:
    router = new_router(server.url).start(ready=False)
    assert measure(lambda: router.readyz()[0] == 200, within=10, every=0.005) < 2.5, "1 s, on an idle machine"


def test_after_restarts_under_new_names_the_dead_consumers_are_removed(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    # A consumer is dead when it is silent for several times as long as these.
    settings = {"CLAIM_MIN_IDLE_MS": 1000, "READ_BLOCK_MS": 500}
    for pod in ("old-1", "old-2"):
        gone = new_router(server.url, pod, **settings).start()
        redis_client.xadd("events:auth", {"type": "login", "user_id": pod})
        await_settled(redis_client, within=5)
        gone.kill()
    new_router(server.url, "new", **settings).start()
    eventually(
        lambda: {c["name"] for c in redis_client.xinfo_consumers("events:auth", GROUP)} <= {"consumer-new"},
        within=10,
        what=lambda: redis_client.xinfo_consumers("events:auth", GROUP),
    )

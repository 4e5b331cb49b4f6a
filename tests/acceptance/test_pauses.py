"""A paused stream: no router reads, claims or tries anything of it again, and nothing of it is lost."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.acceptance.workplace import OTHER, WORK, Workplace
from tests.environment.routers import Router
from tests.environment.servers import Server
from tests.environment.streams import await_settled, group_state, held_by, pending
from tests.environment.waiting import eventually

KEY = f"event-router:pause:event-router-group:{WORK}"
OTHER_KEY = f"event-router:pause:event-router-group:{OTHER}"
IDLE_MS = 700
CLAIMS: dict[str, object] = {"CLAIM_MIN_IDLE_MS": IDLE_MS, "CLAIM_INTERVAL_MS": 200}
SOON = 4
"""About a second is said; a busy machine gets more."""


def pause(client: redis.Redis, milliseconds: int = 600_000) -> None:
    """Pause the stream of work as the command does."""
    value: Any = '{"reason":"mending","by":"kim","until_ms":1767225600000}'
    client.set(KEY, value, px=milliseconds)


def said(router: Router) -> list[dict[str, Any]]:
    """What its log has of pauses."""
    return [line for line in router.log() if line["event"].startswith("stream_")]


def knows(*routers: Router) -> bool:
    """Whether every router says that the stream of work is paused."""
    return all(WORK in router.readyz()[1]["paused"] for router in routers)


def test_all_routers_leave_it_alone_and_others_go_on(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    routers = [workplace.router(server.url, pod).start() for pod in "ab"]
    pause(redis_client)
    eventually(lambda: knows(*routers), within=SOON)
    status, body = routers[0].readyz()
    assert status == 200
    assert body["paused"][WORK] == {"reason": "mending", "by": "kim", "until_ms": 1767225600000}
    # The read that was blocked when it was paused is over as soon as something of another stream came.
    things = [f"t{number}" for number in range(50)]
    workplace.give("count", things, OTHER)
    await_settled(redis_client, [OTHER], within=10)
    delivered = group_state(redis_client, WORK)["last-delivered-id"]
    workplace.give("count", [f"w{number}" for number in range(50)])
    workplace.give("count", things, OTHER)
    await_settled(redis_client, [OTHER], within=10)
    assert group_state(redis_client, WORK)["last-delivered-id"] == delivered
    assert group_state(redis_client, WORK)["pending"] == 0
    assert routers[0].metric("stream_paused", stream=WORK) == 1
    assert routers[0].metric("stream_paused", stream=OTHER) == 0
    redis_client.pexpire(KEY, 100)  # its time is over
    await_settled(redis_client, [WORK], within=SOON + 4)
    assert workplace.counts([f"w{number}" for number in range(50)]) == {f"w{n}": 1 for n in range(50)}
    for router in routers:
        eventually(lambda router=router: len(said(router)) == 2, within=SOON)  # type: ignore[misc]
        first, last = said(router)
        assert [first["event"], last["event"]] == ["stream_paused", "stream_resumed"]
        assert first["reason"] == "mending"
        assert first["remedy"] == f"event-router resume {WORK}"


@pytest.mark.once
def test_a_read_that_waits_for_entries_is_ended(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    redis_client.config_resetstat()
    router = workplace.router(server.url, "a", READ_BLOCK_MS=60_000).start()
    pause(redis_client)
    eventually(lambda: knows(router), within=SOON)
    eventually(lambda: redis_client.info("commandstats")["cmdstat_client|unblock"]["calls"] >= 2, within=SOON)
    workplace.give("count", ["w"])
    workplace.give("count", ["o"], OTHER)
    await_settled(redis_client, [OTHER], within=10)
    assert pending(redis_client, WORK) == []
    assert workplace.counts(["w"]) == {}
    redis_client.set(OTHER_KEY, "by hand")
    eventually(lambda: OTHER in router.readyz()[1]["paused"], within=SOON)
    redis_client.delete(KEY, OTHER_KEY)  # nothing at all is read, and nothing is in flight
    await_settled(redis_client, [WORK], within=SOON)


@pytest.mark.once
def test_what_is_in_hand_is_finished_and_what_failed_waits(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    routers = [workplace.router(server.url, pod, **CLAIMS).start() for pod in "ab"]
    [gated] = workplace.give("gated", ["g"])
    workplace.dependency_fails()
    [failing] = workplace.give("dependent", ["d"])
    eventually(lambda: workplace.starts(gated) and len(pending(redis_client, WORK)) == 2, within=5)
    pause(redis_client)
    eventually(lambda: knows(*routers), within=SOON)
    workplace.open_gate()
    eventually(lambda: [one["message_id"] for one in pending(redis_client, WORK)] == [failing], within=5)
    assert workplace.counts(["g"]) == {"g": 1}
    workplace.dependency_works()
    # Beyond the idle time at which others take an entry over, and several retries.
    eventually(lambda: pending(redis_client, WORK)[0]["time_since_delivered"] > 2 * IDLE_MS, within=10)
    assert workplace.counts(["d"]) == {}
    redis_client.delete(KEY)
    await_settled(redis_client, [WORK], within=SOON + 4)
    assert workplace.counts(["d"]) == {"d": 1}


@pytest.mark.once
def test_a_router_that_starts_or_dies_meanwhile_leaves_it_alone(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    router = workplace.router(server.url, "a", **CLAIMS).start()
    workplace.give("gated", ["g"])
    eventually(lambda: held_by(redis_client, router.consumer, [WORK]) == 1, within=5)
    pause(redis_client)
    router.kill()
    workplace.open_gate()
    workplace.give("count", ["w"])
    router.restart(ready=True)
    other = workplace.router(server.url, "b", **CLAIMS).start()
    eventually(lambda: pending(redis_client, WORK)[0]["time_since_delivered"] > 2 * IDLE_MS, within=10)
    assert knows(router, other)
    assert workplace.counts(["g", "w"]) == {}
    redis_client.delete(KEY)
    await_settled(redis_client, [WORK], within=SOON + 4)
    assert workplace.counts(["g", "w"]) == {"g": 1, "w": 1}

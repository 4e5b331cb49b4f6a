"""The promise as a whole: kill and freeze routers at will, and the state is right to the last count."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from contextlib import suppress

import pytest
import redis

from tests.acceptance.chaos import Chaos
from tests.conftest import RouterFactory
from tests.environment.routers import Router
from tests.environment.servers import Server
from tests.environment.streams import await_settled
from tests.oracle.comparing import assert_equal
from tests.oracle.fold import fold
from tests.oracle.reading import Accepted, Refused, read
from tests.oracle.workload import Planned, Workload, publish


@pytest.fixture
def seed() -> int:
    """Another one each time; TEST_SEED repeats a failed run's input and order of blows."""
    return int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture
def three_routers(server: Server, new_router: RouterFactory) -> list[Router]:
    """Three ready routers; retention is on and has little to keep."""
    routers = [new_router(server.url, pod, STREAM_MIN_LENGTH=100).start(ready=False) for pod in "abc"]
    return [router.await_ready() for router in routers]


def plan(seed: int, count: int) -> list[Planned]:
    """The entries to publish, ending now."""
    return Workload(seed, count, now_ms=time.time_ns() // 1_000_000).entries()


def repetitions(accepted: Iterable[Accepted]) -> int:
    """How many entries repeat an earlier one of their stream, as their producer's id tells."""
    given = []
    for entry in accepted:
        with suppress(Refused):
            event = read(entry)
            if event.given_id is not None:
                given.append((event.stream, event.given_id))
    return len(given) - len(set(given))


def assert_counted_once(
    accepted: list[Accepted], planned: list[Planned], client: redis.Redis, seed: int
) -> None:
    """The state is the fold's, and the fold saw as bad just what was planted."""
    expected = fold(accepted)
    pairs = zip(accepted, planned, strict=True)
    assert expected.dead == {(a.stream, a.id): p.reason for a, p in pairs if p.reason}, f"seed {seed}"
    assert_equal(expected, client, context=f"TEST_SEED={seed}")


def test_an_undisturbed_router_counts_every_event_once(
    server: Server, redis_bytes: redis.Redis, new_router: RouterFactory, seed: int
) -> None:
    router = new_router(server.url).start()
    planned = plan(seed, 5_000)
    accepted = publish(redis_bytes, planned)
    await_settled(redis_bytes, within=30)
    assert_counted_once(accepted, planned, redis_bytes, seed)
    good = sum(1 for one in planned if one.reason is None)
    processed, repeated = router.metric("events_processed_total"), router.metric("events_duplicate_total")
    assert processed + repeated == good
    assert repeated == repetitions(accepted)
    assert router.metric("events_dead_lettered_total") == len(planned) - good


def test_ten_kills_and_two_freezes_change_no_count(
    three_routers: list[Router], redis_bytes: redis.Redis, seed: int
) -> None:
    planned = plan(seed, 20_000)
    chaos = Chaos(three_routers, redis_bytes, random.Random(seed))
    blows = [chaos.kill_one] * 10
    blows[3:3], blows[8:8] = [chaos.freeze_one], [chaos.freeze_one]
    accepted = run_under(blows, planned, redis_bytes)
    assert chaos.kills_at_work >= 8, "the kills fell into the work"
    await_settled(redis_bytes, within=30)
    assert_counted_once(accepted, planned, redis_bytes, seed)
    assert_still_in_order(three_routers)


@pytest.mark.battery
def test_a_kill_every_half_second_changes_no_count(
    three_routers: list[Router], redis_bytes: redis.Redis, seed: int
) -> None:
    planned = plan(seed, 200_000)
    chaos = Chaos(three_routers, redis_bytes, random.Random(seed))
    accepted: list[Accepted] = []
    freezes = 0
    for start in range(0, len(planned), 2_500):
        begin = time.monotonic()
        accepted += publish(redis_bytes, planned[start : start + 2_500])
        if start >= freezes * len(planned) / 5:
            chaos.freeze_one()
            freezes += 1
        chaos.kill_one()
        time.sleep(max(0.0, begin + 0.5 - time.monotonic()))  # the pace is the test's subject
    assert freezes == 5
    await_settled(redis_bytes, within=120)
    assert_counted_once(accepted, planned, redis_bytes, seed)
    assert_still_in_order(three_routers)


def run_under(blows: list, planned: list[Planned], client: redis.Redis) -> list[Accepted]:  # type: ignore[type-arg]
    """Publish in as many parts as there are blows; each blow falls when its part has just been sent."""
    accepted: list[Accepted] = []
    for n, blow in enumerate(blows):
        part = planned[n * len(planned) // len(blows) : (n + 1) * len(planned) // len(blows)]
        accepted += publish(client, part)
        blow()
    return accepted


def assert_still_in_order(routers: list[Router]) -> None:
    """Routers that went through all this are ready, and leave in an orderly way."""
    for router in routers:
        router.await_ready()
        router.terminate()
    for router in routers:
        assert router.wait(5) == 0, router.log_tail()

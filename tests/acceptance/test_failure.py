"""Handlers that fail, each in its way: retried, convicted or waited for, and nobody beside them suffers."""

from __future__ import annotations

import time

import pytest
import redis

from tests.acceptance.workplace import OTHER, WORK, Workplace
from tests.environment.servers import Server
from tests.environment.streams import await_settled, letters, pending
from tests.environment.waiting import eventually

pytestmark = pytest.mark.once


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


@pytest.mark.parametrize(
    ("outage_s", "backoff_ms", "claim_idle_ms"),
    [
        pytest.param(4, 50, 1500, id="4s"),
        pytest.param(60, 1000, 60_000, id="60s", marks=pytest.mark.battery),
    ],
)
def test_an_outage_convicts_nobody_while_poison_is_convicted(
    server: Server,
    redis_client: redis.Redis,
    workplace: Workplace,
    outage_s: float,
    backoff_ms: int,
    claim_idle_ms: int,
) -> None:
    settings = {"RETRY_BACKOFF_MS": backoff_ms, "CLAIM_MIN_IDLE_MS": claim_idle_ms}
    router = workplace.router(server.url, "a", **settings).start()
    waiting = named("w", 200)
    good: list[str] = []
    poisoned: list[str] = []
    workplace.dependency_fails()
    workplace.give("dependent", waiting)
    opened = False
    begin = time.monotonic()
    while time.monotonic() - begin < outage_s:
        # All the while, one in a hundred of the other domain's events is poison.
        n = len(good)
        good += (batch := named(f"g{n}-", 99))
        workplace.give("count", batch, OTHER)
        poisoned += workplace.give("poison", [f"p{n}"], OTHER)
        assert router.metric("circuit_open", domain="other") == 0, "1 % poison is no outage"
        opened = opened or router.metric("circuit_open", domain="work") == 1
        time.sleep(outage_s / 20)  # the length of the outage is the test's subject
    assert opened, "the outage was noticed"
    assert letters(redis_client, WORK) == {}
    assert workplace.counts(waiting) == {}

    workplace.dependency_works()
    await_settled(redis_client, [WORK], within=5)
    assert workplace.counts(waiting) == dict.fromkeys(waiting, 1)
    assert letters(redis_client, WORK) == {}
    eventually(lambda: router.metric("circuit_open", domain="work") == 0, within=5)

    # The last poison was given just now: four back-offs of at most claim_min_idle are left.
    await_settled(redis_client, [OTHER], within=5 + 15 * backoff_ms * 1.5 / 1000)
    convicted = letters(redis_client, OTHER)
    assert convicted.keys() == set(poisoned)
    assert {letter["dlq_reason"] for letter in convicted.values()} == {"max_deliveries"}
    assert {letter["dlq_deliveries"] for letter in convicted.values()} == {"5"}
    attempts = {entry_id: [start.attempt for start in workplace.starts(entry_id)] for entry_id in poisoned}
    assert attempts == {entry_id: [1, 2, 3, 4, 5] for entry_id in poisoned}
    assert workplace.counts(good) == dict.fromkeys(good, 1)
    assert workplace.counts([f"p{n}" for n in range(0, len(good), 99)]) == {}, (
        "a failed attempt leaves nothing"
    )
    assert router.metric("circuit_open", domain="other") == 0


def test_an_entry_that_kills_the_process_is_convicted_alone(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    before, after = named("b", 150), named("a", 150)
    workplace.give("count", before)
    [deadly] = workplace.give("deadly", ["d"])
    workplace.give("count", after)
    router = workplace.router(server.url, "a")
    deaths = 0
    router.start(ready=False)
    while letters(redis_client, WORK) == {}:
        if router.is_running:
            time.sleep(0.02)
            continue
        assert router.exit_code == 1, router.log_tail()
        deaths += 1
        assert deaths <= 5, "it is convicted after five deaths at most"
        router.restart()
    await_settled(redis_client, [WORK], within=10)
    assert {entry: letter["dlq_reason"] for entry, letter in letters(redis_client, WORK).items()} == {
        deadly: "poison"
    }
    assert workplace.counts([*before, "d", *after]) == dict.fromkeys([*before, *after], 1)
    assert 1 <= deaths == len(workplace.starts(deadly))


def test_a_rejected_event_is_a_dead_letter_at_once(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    [rejected] = workplace.give("rejected", ["r"])
    workplace.give("count", ["n"])
    router = workplace.router(server.url, "a").start()
    await_settled(redis_client, [WORK], within=5)
    letter = letters(redis_client, WORK)[rejected]
    assert letter["dlq_reason"] == "rejected"
    assert "not for us" in letter["dlq_error"]
    assert (letter["type"], letter["thing_id"]) == ("rejected", "r"), "its fields are kept"
    assert len(workplace.starts(rejected)) == 1
    assert workplace.counts(["r", "n"]) == {"n": 1}
    assert router.metric("events_dead_lettered_total", reason="rejected") == 1


def test_a_handler_over_its_time_is_a_failed_attempt(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    router = workplace.router(server.url, "a", HANDLER_TIMEOUT_S=0.5).start()
    [hanging] = workplace.give("hang_once", ["h"])
    others = named("o", 20)
    workplace.give("count", others)
    eventually(lambda: workplace.counts(others) == dict.fromkeys(others, 1), within=2, what="others go on")
    await_settled(redis_client, [WORK], within=5)
    assert workplace.counts(["h"]) == {"h": 1}
    assert [start.attempt for start in workplace.starts(hanging)] == [1, 2]
    assert router.metric("events_failed_total", event_type="hang_once") == 1
    assert letters(redis_client, WORK) == {}


def test_a_handler_slower_than_the_claim_idle_time_keeps_its_entry(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    settings = {"CLAIM_MIN_IDLE_MS": 1000, "CLAIM_INTERVAL_MS": 200}
    for pod in "ab":
        workplace.router(server.url, pod, **settings).start()
    [slow] = workplace.give("slow", ["s"])
    await_settled(redis_client, [WORK], within=8)
    assert [start.attempt for start in workplace.starts(slow)] == [1]
    assert workplace.counts(["s"]) == {"s": 1}


def test_entries_that_wait_in_the_memory_of_a_router_that_dies_use_up_no_attempt(
    server: Server, redis_client: redis.Redis, workplace: Workplace
) -> None:
    things = named("t", 40)
    first = workplace.router(server.url, "a", CONCURRENCY=1).start()
    entries = workplace.give("gated", things)
    eventually(lambda: len(pending(redis_client, WORK)) == 40, within=5)
    eventually(lambda: len(workplace.starts()) == 1, within=2)
    for _ in range(3):
        # Killed with 39 unstarted entries in memory, again and again.
        first.kill()
        first.restart(ready=True)
        eventually(lambda: len(pending(redis_client, WORK)) == 40, within=5)
    first.kill()
    workplace.open_gate()
    workplace.router(server.url, "b").start()
    await_settled(redis_client, [WORK], within=10)
    assert workplace.counts(things) == dict.fromkeys(things, 1)
    assert letters(redis_client, WORK) == {}
    for entry in entries:
        starts = workplace.starts(entry)
        assert starts[-1].attempt <= len(starts) + 1, "being read or held is no attempt"

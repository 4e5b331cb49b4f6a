"""What presence keeps is a function of the changes and the time: neither order nor repetition matters."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_router.core.timestamps import DAY_MS
from tests.integration.presence_bench import (
    NOW_MS,
    RANKS,
    TTL_MS,
    Change,
    PresenceBench,
    Stored,
    Told,
    expected,
    status_in,
)

MOST, CHUNK = 3, 2
"""Small enough for generated changes to reach."""

many = settings(
    max_examples=120,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Few of each, so that changes meet: at one time, on one connection, at the very end of its life.
times = st.one_of(
    st.integers(NOW_MS - TTL_MS - 3, NOW_MS - TTL_MS + 3),
    st.integers(NOW_MS - 3, NOW_MS),
    st.integers(NOW_MS - 2 * TTL_MS, NOW_MS),
    st.integers(NOW_MS - 40 * DAY_MS, NOW_MS),
)


def changes(at: st.SearchStrategy[int]) -> st.SearchStrategy[Change]:
    users = st.sampled_from(["7", "zoë", "a b/c"])
    connections = st.sampled_from([None, "phone", "laptop", "a", "1 2"])
    anything = st.builds(Change, users, connections, st.sampled_from(sorted(RANKS)), at)
    # An end of all connections is rare among these.
    return st.one_of(anything, anything, st.builds(Change, users, st.none(), st.just("offline"), at))


def chunked(shuffled: Sequence[Change], sizes: Sequence[int]) -> list[list[Change]]:
    batches, rest = [], list(shuffled)
    for size in sizes:
        batches.append(rest[:size])
        rest = rest[size:]
    return [*batches, rest]


def assert_told_once(told: list[Told], final: dict[str, str]) -> None:
    """Each user's changes of status join up, from offline to what is true in the end."""
    status: dict[str, str] = {}
    for change in told:
        assert change.before == status.get(change.user, "offline")
        assert change.status != change.before
        status[change.user] = change.status
    for user, known in status.items():
        assert final[user] == known


@pytest.fixture
def bench(redis_client: redis.Redis) -> PresenceBench:
    return PresenceBench(redis_client, most=MOST, chunk=CHUNK)


@many
@given(
    given_changes=st.lists(changes(times), min_size=1, max_size=14),
    sizes=st.lists(st.integers(0, 6), max_size=4),
    repeated=st.integers(0, 10),
    seed=st.integers(0, 1000),
    steps=st.lists(st.integers(0, TTL_MS // 2), min_size=5, max_size=5),
)
def test_order_repetition_and_batches_do_not_matter(
    bench: PresenceBench,
    given_changes: list[Change],
    sizes: list[int],
    repeated: int,
    seed: int,
    steps: list[int],
) -> None:
    bench.client.flushall()
    chance = random.Random(seed)
    shuffled = [*given_changes, *given_changes[:repeated]]
    chance.shuffle(shuffled)
    now, told = NOW_MS, list[Told]()
    for batch, step in zip(chunked(shuffled, sizes), steps, strict=False):
        told += bench.observe(now, batch)
        if chance.random() < 0.3:
            told += bench.look_again(now)
        now += step
    told += bench.look_again(now)
    assert not bench.tidy(now, {change.user for change in given_changes})
    wanted = expected(given_changes, now, most=MOST)
    assert bench.stored() == wanted
    assert_told_once(told, {change.user: status_in(wanted, change.user) for change in given_changes})


@many
@given(
    given_changes=st.lists(changes(st.integers(NOW_MS - 5, NOW_MS + DAY_MS)), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_times_ahead_count_as_now(bench: PresenceBench, given_changes: list[Change], seed: int) -> None:
    bench.client.flushall()
    shuffled = given_changes * 2
    random.Random(seed).shuffle(shuffled)
    for change in shuffled:
        bench.observe(NOW_MS, [change])
    bench.look_again(NOW_MS)
    assert bench.stored() == expected(given_changes, NOW_MS, most=MOST)


def test_everything_of_users_long_gone_is_removed(bench: PresenceBench) -> None:
    users = [f"user-{number}" for number in range(7)]
    bench.observe(NOW_MS, [Change(user, "a", "online", NOW_MS) for user in users])
    bench.observe(
        NOW_MS, [Change(users[0], None, "offline", NOW_MS), Change(users[1], "a", "offline", NOW_MS)]
    )
    told = bench.look_again(NOW_MS + TTL_MS)
    assert [change.user for change in told] == users[2:]
    assert bench.stored() == Stored({}, {}, {}, {}, dict.fromkeys(users, NOW_MS))


def test_a_replayed_backlog_tells_nobody(bench: PresenceBench) -> None:
    past = NOW_MS - TTL_MS
    backlog = [Change("7", "a", "online", past - 1000), Change("8", None, "busy", past)]
    assert bench.observe(NOW_MS, backlog) == []
    assert bench.stored() == Stored({}, {}, {}, {}, {"7": past - 1000, "8": past})


def test_a_batch_tells_of_each_user_once(bench: PresenceBench) -> None:
    batch = [
        Change("7", None, "online", NOW_MS - 3),
        Change("8", None, "online", NOW_MS - 3),
        Change("7", None, "busy", NOW_MS - 2),
        Change("8", None, "offline", NOW_MS - 1),
    ]
    assert bench.observe(NOW_MS, batch) == [Told("7", "offline", "busy", NOW_MS - 2)]


def test_a_batch_of_many_users_is_whole(redis_client: redis.Redis) -> None:
    bench = PresenceBench(redis_client)
    batch = [Change(f"user-{number}", None, "online", NOW_MS) for number in range(1_700)]
    assert len(bench.observe(NOW_MS, batch)) == 1_700
    assert bench.stored() == expected(batch, NOW_MS)
    assert len(bench.look_again(NOW_MS + TTL_MS)) == 1_700


def test_hostile_connections_stay_within_their_record(redis_client: redis.Redis) -> None:
    bench = PresenceBench(redis_client)
    forged = f"phone\n{NOW_MS * 9} 3 forged"
    bench.observe(
        NOW_MS, [Change("7", forged, "online", NOW_MS), Change("7", "x" * 70_000, "online", NOW_MS)]
    )
    record = bench.stored().connections["7"]
    assert record.count("\n") == 2
    assert len(record) < 700
    assert bench.look_again(NOW_MS + TTL_MS) == [Told("7", "online", "offline", NOW_MS)]


@pytest.mark.parametrize("time", ["", "-5", "1e400", "nan", "0x10", "later"])
def test_a_time_that_is_none_changes_nothing(redis_client: redis.Redis, time: str) -> None:
    bench = PresenceBench(redis_client)
    assert bench.observe(NOW_MS, [Change("7", None, "online", time)]) == []  # type: ignore[arg-type]
    assert bench.stored() == expected([], NOW_MS)


@pytest.mark.parametrize("record", ["", "x", "9\n1 9 a", "2", "1\n99999999999999999999 2 a", "\xff\n\n5 5 5"])
def test_records_that_somebody_else_wrote_do_no_harm(redis_client: redis.Redis, record: str) -> None:
    bench = PresenceBench(redis_client)
    redis_client.hset("event-router:presence:connections", "7", record)
    bench.observe(NOW_MS, [Change("7", None, "busy", NOW_MS)])
    assert status_in(bench.stored(), "7") == "busy"

"""Pending entries are taken, leased and counted only by whom and as the fence allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from event_router.core.errors import NoGroup
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.claims import NOT_OURS, TRIMMED, Claims
from tests.environment.servers import Server

STREAM, GROUP = "events:x", "event-router-group"
LONG_AGO_MS = 600_000
ClaimsOf = Callable[[str], Claims]


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    link = Link(parse_url(server.url), timeout_s=10, name="claims")
    yield link
    await link.close()


@pytest.fixture
def claims_of(link: Link) -> ClaimsOf:
    """The claims of a consumer, of group and stream."""
    return lambda consumer: Claims(link, GROUP, consumer)


@pytest.fixture
def client(redis_client: redis.Redis) -> redis.Redis:
    redis_client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    return redis_client


def deliver(client: redis.Redis, consumer: str, *ids: str, idle_ms: int = 0) -> None:
    """Add entries and give them to a consumer, with this idle time."""
    for entry_id in ids:
        client.xadd(STREAM, {"n": entry_id}, id=entry_id)
    client.xreadgroup(GROUP, consumer, {STREAM: ">"})
    if idle_ms:
        client.execute_command("XCLAIM", STREAM, GROUP, consumer, 0, *ids, "IDLE", idle_ms, "JUSTID")


def pending(client: redis.Redis) -> Iterator[tuple[str, str, int]]:
    """Id, consumer and delivery count of each pending entry."""
    found: list[dict[str, Any]] = client.xpending_range(STREAM, GROUP, min="-", max="+", count=10_000)
    for entry in found:
        yield entry["message_id"], entry["consumer"], entry["times_delivered"]


def idle_ms(client: redis.Redis, entry_id: str) -> int:
    (entry,) = client.xpending_range(STREAM, GROUP, min=entry_id, max=entry_id, count=1)
    return int(entry["time_since_delivered"])


class TestTake:
    async def test_ids_are_taken_however_large_their_entries_are(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        ids = [f"{number}-0" for number in range(1, 8)]
        for entry_id in ids[:6]:
            client.xadd(STREAM, {"n": "x" * 3_000_000}, id=entry_id)
        client.xreadgroup(GROUP, "me", {STREAM: ">"})
        taken = await claims_of("me").take_ids(STREAM, ids, min_idle_ms=0, own=True)
        assert [entry.id for entry in taken.entries] == ids[:6]
        assert taken.last == ""

    async def test_takes_what_is_idle_for_long_enough_and_counts_nothing(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "gone", "1-0", "2-0", idle_ms=LONG_AGO_MS)
        deliver(client, "alive", "3-0")
        taken = await claims_of("me").take(STREAM, min_idle_ms=LONG_AGO_MS, count=10)
        assert [(entry.id, entry.fields, entry.deliveries) for entry in taken.entries] == [
            ("1-0", [b"n", b"1-0"], 1),
            ("2-0", [b"n", b"2-0"], 1),
        ]
        assert (taken.trimmed, taken.last) == ([], "")
        assert list(pending(client)) == [("1-0", "me", 1), ("2-0", "me", 1), ("3-0", "alive", 1)]
        assert idle_ms(client, "1-0") < LONG_AGO_MS

    async def test_only_one_of_two_takes_an_entry(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        deliver(client, "gone", "1-0", idle_ms=LONG_AGO_MS)
        first = await claims_of("a").take(STREAM, min_idle_ms=LONG_AGO_MS, count=10)
        second = await claims_of("b").take(STREAM, min_idle_ms=LONG_AGO_MS, count=10)
        assert [len(first.entries), len(second.entries)] == [1, 0]

    async def test_own_takes_nobody_else_s(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        deliver(client, "other", "1-0")
        deliver(client, "me", "2-0")
        taken = await claims_of("me").take(STREAM, min_idle_ms=0, count=10, own=True)
        assert [entry.id for entry in taken.entries] == ["2-0"]

    async def test_pages_lead_to_the_end(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        ids = [f"{n}-0" for n in range(1, 26)]
        deliver(client, "gone", *ids, idle_ms=LONG_AGO_MS)
        seen, last = [], ""
        for _ in range(4):
            taken = await claims_of("me").take(STREAM, min_idle_ms=LONG_AGO_MS, after=last, count=10)
            seen += [entry.id for entry in taken.entries]
            last = taken.last
            if not last:
                break
        assert seen == ids
        assert last == ""

    async def test_a_page_ends_where_it_gets_too_large(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        for number in range(1, 8):
            client.xadd(STREAM, {"large": "x" * 4_000_000}, id=f"{number}-0")
        deliver(client, "gone")
        taken = await claims_of("me").take(STREAM, min_idle_ms=0, count=10)
        assert 1 < len(taken.entries) < 7
        assert taken.last == taken.entries[-1].id
        rest = await claims_of("me").take(STREAM, min_idle_ms=0, after=taken.last, count=10)
        assert rest.entries[0].id == f"{len(taken.entries) + 1}-0"

    async def test_trimmed_entries_are_reported_and_stay_pending(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "gone", "1-0", "2-0", "3-0", idle_ms=LONG_AGO_MS)
        client.xdel(STREAM, "1-0", "2-0")
        taken = await claims_of("me").take(STREAM, min_idle_ms=LONG_AGO_MS, count=10)
        assert taken.trimmed == [("1-0", 1), ("2-0", 1)]
        assert [entry.id for entry in taken.entries] == ["3-0"]
        assert list(pending(client)) == [("1-0", "gone", 1), ("2-0", "gone", 1), ("3-0", "me", 1)]

    async def test_ids_that_are_due_are_taken_and_no_others(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0", "2-0", "3-0", "4-0", "5-0", idle_ms=LONG_AGO_MS)
        client.execute_command("XCLAIM", STREAM, GROUP, "other", 0, "4-0", "IDLE", LONG_AGO_MS, "JUSTID")
        client.execute_command("XCLAIM", STREAM, GROUP, "me", 0, "3-0", "JUSTID")
        client.xdel(STREAM, "5-0")
        wanted = ["1-0", "3-0", "4-0", "5-0", "9-9"]
        taken = await claims_of("me").take_ids(STREAM, wanted, min_idle_ms=LONG_AGO_MS, own=True)
        assert [entry.id for entry in taken.entries] == ["1-0"]
        assert taken.trimmed == [("5-0", 1)]
        taken = await claims_of("me").take_ids(STREAM, wanted, min_idle_ms=LONG_AGO_MS)
        assert [entry.id for entry in taken.entries] == ["4-0"]

    async def test_due_says_whether_anything_waits(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        deliver(client, "gone", "1-0")
        assert not await claims_of("me").due(STREAM, LONG_AGO_MS)
        deliver(client, "gone", "2-0", idle_ms=LONG_AGO_MS)
        assert await claims_of("me").due(STREAM, LONG_AGO_MS)

    async def test_a_missing_group_is_said(self, server: Server, claims_of: ClaimsOf) -> None:
        with pytest.raises(NoGroup):
            await claims_of("me").take(STREAM, min_idle_ms=0, count=10)
        with pytest.raises(NoGroup):
            await claims_of("me").count_start(STREAM, [("1-0", 1)])


class TestLease:
    async def test_renewing_sets_the_idle_time_back_and_leaves_the_count(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0", idle_ms=LONG_AGO_MS)
        assert await claims_of("me").set(STREAM, [("1-0", 0, None)]) == [1]
        assert idle_ms(client, "1-0") < LONG_AGO_MS
        assert list(pending(client)) == [("1-0", "me", 1)]

    async def test_a_zombie_neither_renews_nor_steals_back(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "zombie", "1-0", idle_ms=LONG_AGO_MS)
        await claims_of("heir").take(STREAM, min_idle_ms=LONG_AGO_MS, count=10)
        before = list(pending(client))
        zombie = claims_of("zombie")
        assert await zombie.set(STREAM, [("1-0", 0, None)]) == [NOT_OURS]
        assert await zombie.set(STREAM, [("1-0", LONG_AGO_MS, 0)]) == [NOT_OURS]
        assert await zombie.count_start(STREAM, [("1-0", 1)]) == [NOT_OURS]
        assert list(pending(client)) == before == [("1-0", "heir", 1)]
        assert idle_ms(client, "1-0") < LONG_AGO_MS

    async def test_what_is_settled_is_not_leased_again(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0")
        client.xack(STREAM, GROUP, "1-0")
        assert await claims_of("me").set(STREAM, [("1-0", 0, None)]) == [NOT_OURS]
        assert list(pending(client)) == []

    async def test_a_trimmed_entry_is_said_and_stays_pending(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0", "2-0")
        client.xdel(STREAM, "1-0")
        assert await claims_of("me").set(STREAM, [("1-0", 0, None), ("2-0", 0, None)]) == [TRIMMED, 1]
        assert await claims_of("me").count_start(STREAM, [("1-0", 1)]) == [TRIMMED]
        assert list(pending(client)) == [("1-0", "me", 1), ("2-0", "me", 1)]

    async def test_a_start_counts_one_even_if_it_is_sent_twice(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0", "2-0")
        await claims_of("me").set(STREAM, [("2-0", 0, 4)])
        for again in (False, True, True):
            counts = await claims_of("me").count_start(STREAM, [("1-0", 1), ("2-0", 4)], again=again)
            assert counts == [2, 5]
        assert list(pending(client)) == [("1-0", "me", 2), ("2-0", "me", 5)]

    async def test_of_two_loops_that_took_an_entry_one_starts_it(
        self, client: redis.Redis, claims_of: ClaimsOf
    ) -> None:
        deliver(client, "me", "1-0")
        assert await claims_of("me").count_start(STREAM, [("1-0", 1)]) == [2]
        assert await claims_of("me").count_start(STREAM, [("1-0", 1)]) == [NOT_OURS]
        assert await claims_of("me").count_start(STREAM, [("1-0", 0)], again=True) == [NOT_OURS]
        assert list(pending(client)) == [("1-0", "me", 2)]

    async def test_a_schedule_and_a_count_can_be_set(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        deliver(client, "me", "1-0")
        assert await claims_of("me").set(STREAM, [("1-0", 50_000, 0)]) == [0]
        assert list(pending(client)) == [("1-0", "me", 0)]
        assert 50_000 <= idle_ms(client, "1-0") < 60_000

    async def test_thousands_at_once(self, client: redis.Redis, claims_of: ClaimsOf) -> None:
        ids = [f"{n}-0" for n in range(1, 1201)]
        pipeline = client.pipeline(transaction=False)
        for entry_id in ids:
            pipeline.xadd(STREAM, {"n": "x"}, id=entry_id)
        pipeline.execute()
        client.xreadgroup(GROUP, "me", {STREAM: ">"}, count=2000)
        assert await claims_of("me").set(STREAM, [(entry_id, 0, None) for entry_id in ids]) == [1] * 1200
        assert await claims_of("me").own_ids(STREAM) == ids

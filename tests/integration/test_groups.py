"""The group is created where it must begin, the dead leave alone, and retention trims what nobody needs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis

from event_router.core.keys import checkpoint_key
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.groups import GroupCreated, Groups
from event_router.redis_io.retention import retain
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.housekeeper import Housekeeper
from event_router.runtime.observer import Observer
from event_router.runtime.troubles import StreamTroubles
from tests.environment.servers import Server
from tests.environment.streams import group_state, pending

STREAM, GROUP = "events:auth", "event-router-group"


CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, lambda: 0.5)


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    link = Link(parse_url(server.url), timeout_s=10, name="groups")
    yield link
    await link.close()


@pytest.fixture
def groups(link: Link) -> Groups:
    return Groups(link, GROUP)


async def nothing() -> None:
    """There are no figures."""


def add(client: redis.Redis, *ids: str, stream: str = STREAM) -> None:
    for entry_id in ids:
        client.xadd(stream, {"n": entry_id}, id=entry_id)


def fill(client: redis.Redis, count: int, stream: str = STREAM) -> None:
    """Entries 1-0 to {count}-0."""
    pipeline = client.pipeline(transaction=False)
    for number in range(1, count + 1):
        pipeline.xadd(stream, {"n": number}, id=f"{number}-0")
    pipeline.execute()


def first_id(client: redis.Redis, stream: str = STREAM) -> int:
    ((entry_id, _),) = client.xrange(stream, count=1)
    return int(entry_id.partition("-")[0])


class TestEnsure:
    async def test_a_new_group_begins_at_the_beginning(
        self, groups: Groups, redis_client: redis.Redis
    ) -> None:
        assert await groups.ensure(STREAM) == GroupCreated("0-0", 0, known=False)
        assert redis_client.exists(STREAM) == 1
        assert await groups.ensure(STREAM) is None

    async def test_entries_that_stand_before_the_group_are_delivered(
        self, groups: Groups, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0", "2-0")
        assert await groups.ensure(STREAM) == GroupCreated("0-0", 2, known=False)
        assert group_state(redis_client, STREAM)["last-delivered-id"] == "0-0"

    @pytest.mark.parametrize(
        ("checkpoint", "start", "beyond"),
        [
            ("5-0", "5-0", 2),
            ("(5-0", "4-18446744073709551615", 3),
            ("(5-1", "5-0", 2),
            ("(6-7", "6-6", 2),
            ("(6-100", "6-99", 1),
            ("7-0", "7-0", 0),
            ("0-0", "0-0", 5),
            ("(0-1", "0-0", 5),
            ("(5-9007199254740993", "5-9007199254740992", 2),
        ],
    )
    async def test_a_group_that_was_destroyed_goes_on_at_its_checkpoint(
        self, groups: Groups, redis_client: redis.Redis, checkpoint: str, start: str, beyond: int
    ) -> None:
        add(redis_client, "1-0", "4-0", "5-0", "6-7", "7-0")
        redis_client.hset(checkpoint_key(GROUP), STREAM, checkpoint)
        assert await groups.ensure(STREAM) == GroupCreated(start, beyond, known=True)
        assert group_state(redis_client, STREAM)["last-delivered-id"] == start

    @pytest.mark.parametrize("checkpoint", ["9-0", "(9-0", "8-0"])
    async def test_a_checkpoint_ahead_of_the_stream_means_the_beginning(
        self, groups: Groups, redis_client: redis.Redis, checkpoint: str
    ) -> None:
        add(redis_client, "1-0", "7-0")
        redis_client.hset(checkpoint_key(GROUP), STREAM, checkpoint)
        assert await groups.ensure(STREAM) == GroupCreated("0-0", 2, known=True)

    async def test_the_stream_was_deleted(self, groups: Groups, redis_client: redis.Redis) -> None:
        redis_client.hset(checkpoint_key(GROUP), STREAM, "9-0")
        assert await groups.ensure(STREAM) == GroupCreated("0-0", 0, known=True)
        add(redis_client, "1-0")
        assert redis_client.xreadgroup(GROUP, "c", {STREAM: ">"}) == [[STREAM, [("1-0", {"n": "1-0"})]]]

    @pytest.mark.parametrize("checkpoint", ["(18446744073709551615-0", "(x", "", "junk", "5", "(-1-0"])
    async def test_a_checkpoint_that_makes_no_sense_means_the_beginning(
        self, groups: Groups, redis_client: redis.Redis, checkpoint: str
    ) -> None:
        add(redis_client, "1-0")
        redis_client.hset(checkpoint_key(GROUP), STREAM, checkpoint)
        assert await groups.ensure(STREAM) == GroupCreated("0-0", 1, known=True)

    async def test_many_entries_beyond_it_are_counted_up_to_a_bound(
        self, groups: Groups, redis_client: redis.Redis
    ) -> None:
        fill(redis_client, 12_000)
        redis_client.hset(checkpoint_key(GROUP), mapping={STREAM: "11000-0", "other": "1-0"})
        redis_client.xadd("other", {"a": "b"}, id="1-0")
        assert await groups.ensure(STREAM) == GroupCreated("11000-0", 1000, known=True)
        redis_client.xgroup_destroy(STREAM, GROUP)
        redis_client.hset(checkpoint_key(GROUP), STREAM, "1-0")
        assert await groups.ensure(STREAM) == GroupCreated("1-0", 10_000, known=True)

    async def test_other_groups_are_not_taken_for_it(self, groups: Groups, redis_client: redis.Redis) -> None:
        redis_client.xgroup_create(STREAM, "another", id="$", mkstream=True)
        assert await groups.ensure(STREAM) is not None
        assert await groups.ensure(STREAM) is None


class TestConsumers:
    async def test_the_dead_are_removed_unless_something_is_pending(
        self, groups: Groups, redis_client: redis.Redis
    ) -> None:
        await groups.ensure(STREAM)
        add(redis_client, "1-0")
        redis_client.xreadgroup(GROUP, "holds one", {STREAM: ">"})
        for name in ("empty", "me"):
            redis_client.xgroup_createconsumer(STREAM, GROUP, name)
        assert await groups.remove_dead(STREAM, idle_ms=0, keep="me") == ["empty"]
        names = {consumer["name"] for consumer in redis_client.xinfo_consumers(STREAM, GROUP)}
        assert names == {"holds one", "me"}
        assert [entry["message_id"] for entry in pending(redis_client, STREAM)] == ["1-0"]

    async def test_a_name_that_is_no_utf8_is_removed_like_any_other(
        self, groups: Groups, redis_client: redis.Redis
    ) -> None:
        await groups.ensure(STREAM)
        redis_client.execute_command("XGROUP", "CREATECONSUMER", STREAM, GROUP, b"\xff")
        assert await groups.remove_dead(STREAM, idle_ms=0, keep="me") == ["\\xff"]

    async def test_the_living_stay(self, groups: Groups, redis_client: redis.Redis) -> None:
        await groups.ensure(STREAM)
        redis_client.xgroup_createconsumer(STREAM, GROUP, "fresh")
        assert await groups.remove_dead(STREAM, idle_ms=60_000, keep="me") == []

    async def test_leaving_needs_empty_hands(self, groups: Groups, redis_client: redis.Redis) -> None:
        await groups.ensure(STREAM)
        add(redis_client, "1-0")
        redis_client.xreadgroup(GROUP, "me", {STREAM: ">"})
        redis_client.xgroup_createconsumer(STREAM, GROUP, "other")
        assert not await groups.leave(STREAM, "me")
        redis_client.xack(STREAM, GROUP, "1-0")
        assert await groups.leave(STREAM, "me")
        assert [consumer["name"] for consumer in redis_client.xinfo_consumers(STREAM, GROUP)] == ["other"]


class TestRetention:
    COUNT = 2000
    NODE = 100
    """Entries in a node of a stream (stream-node-max-entries): `~` trims whole ones."""

    async def test_what_every_group_settled_goes(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        for name in (GROUP, "slower"):
            redis_client.xgroup_create(STREAM, name, id="0")
        redis_client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=self.COUNT)
        redis_client.xack(STREAM, GROUP, *(f"{n}-0" for n in range(1, self.COUNT + 1)))
        redis_client.xreadgroup("slower", "c", {STREAM: ">"}, count=1000)
        redis_client.xack(STREAM, "slower", *(f"{n}-0" for n in range(1, 701)))
        assert await groups.retain(STREAM, least=0) == 700
        assert first_id(redis_client) == 701
        assert await groups.retain(STREAM, least=0) == 0

    async def test_nothing_that_is_pending_goes(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        redis_client.xgroup_create(STREAM, GROUP, id="0")
        redis_client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=self.COUNT)
        redis_client.xack(STREAM, GROUP, *(f"{n}-0" for n in range(1, self.COUNT + 1) if n != 250))
        await groups.retain(STREAM, least=0)
        assert 250 - self.NODE < first_id(redis_client) <= 250

    async def test_nothing_that_is_unread_goes(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        redis_client.xgroup_create(STREAM, GROUP, id="0")
        assert await groups.retain(STREAM, least=0) == 0
        redis_client.xgroup_setid(STREAM, GROUP, "550-0")
        await groups.retain(STREAM, least=0)
        assert 550 - self.NODE < first_id(redis_client) <= 551

    async def test_ids_of_groups_compare_as_numbers(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        for name, delivered in ((GROUP, "1000-0"), ("slower", "999-0")):
            redis_client.xgroup_create(STREAM, name, id=delivered)
        await groups.retain(STREAM, least=0)
        assert 999 - self.NODE < first_id(redis_client) <= 999

    async def test_it_stops_at_the_floor(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        redis_client.xgroup_create(STREAM, GROUP, id="$")
        await groups.retain(STREAM, least=450)
        assert 450 <= redis_client.xlen(STREAM) < 450 + self.NODE
        assert await groups.retain(STREAM, least=5000) == 0

    async def test_without_a_group_nothing_goes(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, self.COUNT)
        assert await groups.retain(STREAM, least=0) == 0
        assert await groups.retain("absent", least=0) == 0
        assert redis_client.exists("absent") == 0

    async def test_without_its_own_group_nothing_goes(
        self, groups: Groups, link: Link, redis_client: redis.Redis
    ) -> None:
        fill(redis_client, self.COUNT)
        redis_client.xgroup_create(STREAM, GROUP, id="500-0")
        redis_client.xgroup_create(STREAM, "another", id="$")
        redis_client.hset(checkpoint_key(GROUP), STREAM, "500-0")
        redis_client.xgroup_destroy(STREAM, GROUP)
        assert await groups.retain(STREAM, least=0) == 0
        assert await retain(link, STREAM, GROUP, least=0) == 0
        assert await groups.ensure(STREAM) == GroupCreated("500-0", self.COUNT - 500, known=True)
        assert await groups.retain(STREAM, least=0) == 400

    async def test_a_part_at_a_time(self, groups: Groups, redis_client: redis.Redis) -> None:
        fill(redis_client, 15_000)
        redis_client.xgroup_create(STREAM, GROUP, id="$")
        assert 9_900 <= await groups.retain(STREAM, least=0) <= 10_000
        assert 4_900 <= await groups.retain(STREAM, least=0) <= 5_000

    async def test_it_goes_on_until_all_is_trimmed_however_few_entries_a_node_has(
        self, groups: Groups, link: Link, redis_client: redis.Redis
    ) -> None:
        connectivity = Connectivity(CLOCK, Observer())
        housekeeper = Housekeeper(
            CLOCK,
            groups=groups,
            refresh=nothing,
            connectivity=connectivity,
            troubles=StreamTroubles(connectivity, Observer()),
            observer=Observer(),
            streams=(STREAM,),
            consumer="me",
            min_length=1_000,
            dead_after_ms=60_000,
        )
        for trim in (housekeeper.run_once, lambda: retain(link, STREAM, GROUP, least=1_000)):
            pipeline = redis_client.pipeline(transaction=False)
            for _ in range(25_000):  # some 20 in a node, so that no step trims all of its 10,000
                pipeline.xadd(STREAM, {"note": "x" * 165})
            pipeline.execute()
            redis_client.xgroup_create(STREAM, GROUP, id="$")
            await trim()
            assert 1_000 <= redis_client.xlen(STREAM) < 1_000 + self.NODE
            redis_client.delete(STREAM)

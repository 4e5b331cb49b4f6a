"""How far the group is behind: exact where Redis can tell, unknown where it cannot, never a false 0."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from event_router.figures import Figures
from event_router.ops.metrics import RouterMetrics
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.groups import Groups
from event_router.redis_io.lag import StreamStatus, inspect
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.troubles import StreamTroubles
from tests.environment.servers import Server
from tests.environment.streams import group_state

STREAM, GROUP = "events:auth", "event-router-group"


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    link = Link(parse_url(server.url), timeout_s=10, name="lag")
    yield link
    await link.close()


@pytest.fixture
def client(redis_client: redis.Redis) -> redis.Redis:
    """With entries 1-0 to 100-0, of which the group has read ten and settled eight."""
    for number in range(1, 101):
        redis_client.xadd(STREAM, {"n": number}, id=f"{number}-0")
    redis_client.xgroup_create(STREAM, GROUP, id="0")
    redis_client.xreadgroup(GROUP, "a", {STREAM: ">"}, count=10)
    redis_client.xack(STREAM, GROUP, *(f"{n}-0" for n in range(1, 9)))
    return redis_client


async def status(link: Link, stream: str = STREAM) -> StreamStatus:
    return await inspect(link, stream, GROUP)


async def test_the_figures_of_a_group_that_is_behind(link: Link, client: redis.Redis) -> None:
    client.xadd(f"dlq:{STREAM}", {"a": "b"})
    found = await status(link)
    assert (found.length, found.lag, found.pending, found.consumers) == (100, 90, 2, 1)
    assert (found.dead_letters, found.exists, found.last_id) == (1, True, "100-0")
    assert (found.trimmed_unread, found.lag_is_wrong) == (0, False)


async def test_who_holds_pending_entries(link: Link, client: redis.Redis) -> None:
    client.xreadgroup(GROUP, "b", {STREAM: ">"}, count=30)
    client.xgroup_createconsumer(STREAM, GROUP, "idle")
    found = await status(link)
    assert (found.pending_of, found.consumers, found.added) == ({"a": 2, "b": 30}, 3, 100)


async def test_of_many_that_hold_entries_those_with_most_are_listed(link: Link, client: redis.Redis) -> None:
    for number in range(60):
        client.xreadgroup(GROUP, f"c{number}", {STREAM: ">"}, count=2 if number == 59 else 1)
    found = await status(link)
    assert len(found.pending_of) == 50
    assert found.pending_of["c59"] == 2


async def test_nothing_is_known_of_a_stream_that_is_missing(link: Link, client: redis.Redis) -> None:
    found = await status(link, "events:none")
    assert (found.length, found.lag, found.lag_seconds, found.exists) == (0, 0, 0.0, False)


async def test_without_the_group_everything_is_to_be_delivered(link: Link, client: redis.Redis) -> None:
    client.xgroup_destroy(STREAM, GROUP)
    found = await status(link)
    assert (found.lag, found.exists) == (100, False)


async def test_a_group_that_has_read_nothing(link: Link, client: redis.Redis) -> None:
    client.xgroup_destroy(STREAM, GROUP)
    client.xgroup_create(STREAM, GROUP, id="0")
    assert (await status(link)).lag == 100


async def test_unread_entries_that_were_trimmed_are_counted(link: Link, client: redis.Redis) -> None:
    client.xtrim(STREAM, maxlen=50, approximate=False)
    found = await status(link)
    assert (found.lag, found.trimmed_unread) == (50, 40)


async def test_a_gap_is_counted_once_whoever_sees_it(link: Link, client: redis.Redis) -> None:
    one, other = Groups(link, GROUP), Groups(link, GROUP)
    for kept, counted in ((60, [30, 0]), (50, [10, 0])):
        client.xtrim(STREAM, maxlen=kept, approximate=False)
        found = await status(link)
        gap = (STREAM, found.delivered, found.trimmed_unread)
        assert [await one.count_trimmed(*gap), await other.count_trimmed(*gap)] == counted
    client.xreadgroup(GROUP, "a", {STREAM: ">"}, count=10)
    await one.repair_lag(STREAM)
    client.xtrim(STREAM, maxlen=20, approximate=False)
    found = await status(link)
    assert await other.count_trimmed(STREAM, found.delivered, found.trimmed_unread) >= 20, "a new gap"


async def test_what_redis_cannot_tell_is_unknown(link: Link, client: redis.Redis) -> None:
    client.xdel(STREAM, "50-0")
    assert group_state(client, STREAM)["lag"] is None, "as Redis says itself"
    assert (await status(link)).lag is None


async def test_all_delivered_is_0_whatever_redis_says_and_its_figure_is_mended(
    link: Link, client: redis.Redis
) -> None:
    client.xtrim(STREAM, maxlen=50, approximate=False)
    client.xreadgroup(GROUP, "a", {STREAM: ">"}, count=100)
    found = await status(link)
    assert (found.lag, found.pending) == (0, 52)
    groups = Groups(link, GROUP)
    wrong: Any = group_state(client, STREAM)["lag"]
    assert found.lag_is_wrong == bool(wrong)
    assert await groups.repair_lag(STREAM) == (wrong != 0)
    assert group_state(client, STREAM)["lag"] == 0
    assert not await groups.repair_lag(STREAM)
    assert group_state(client, STREAM)["last-delivered-id"] == "100-0"


async def test_a_group_that_is_behind_is_not_mended(link: Link, client: redis.Redis) -> None:
    assert not await Groups(link, GROUP).repair_lag(STREAM)
    assert group_state(client, STREAM)["lag"] == 90


class TestSeconds:
    def now_ms(self, client: redis.Redis) -> int:
        seconds, microseconds = client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def test_the_age_of_the_oldest_that_was_not_delivered(
        self, link: Link, redis_client: redis.Redis
    ) -> None:
        redis_client.xgroup_create("events:s", GROUP, id="0", mkstream=True)
        redis_client.xadd("events:s", {"a": "b"}, id=f"{self.now_ms(redis_client) - 20_000}-0")
        redis_client.xadd("events:s", {"a": "b"})
        seconds = (await status(link, "events:s")).lag_seconds
        assert seconds is not None
        assert 20 <= seconds < 25

    async def test_the_age_of_the_oldest_that_is_pending(self, link: Link, redis_client: redis.Redis) -> None:
        redis_client.xgroup_create("events:s", GROUP, id="0", mkstream=True)
        redis_client.xadd("events:s", {"a": "b"}, id=f"{self.now_ms(redis_client) - 30_000}-0")
        redis_client.xreadgroup(GROUP, "a", {"events:s": ">"})
        redis_client.xadd("events:s", {"a": "b"})
        seconds = (await status(link, "events:s")).lag_seconds
        assert seconds is not None
        assert 30 <= seconds < 35

    async def test_0_when_all_is_settled(self, link: Link, redis_client: redis.Redis) -> None:
        redis_client.xgroup_create("events:s", GROUP, id="0", mkstream=True)
        entry_id = redis_client.xadd("events:s", {"a": "b"}, id="1-0")
        redis_client.xreadgroup(GROUP, "a", {"events:s": ">"})
        redis_client.xack("events:s", GROUP, entry_id)
        assert (await status(link, "events:s")).lag_seconds == 0.0


async def test_a_stream_that_is_none_keeps_no_figures_of_another_back(
    link: Link, client: redis.Redis
) -> None:
    clock, streams = Clock(lambda: 0.0, lambda: 0, lambda: 0.5), ("events:bad", STREAM)
    metrics = RouterMetrics(clock=clock, group=GROUP, consumer="a", streams=streams, types={})
    groups = Groups(link, GROUP)
    figures = Figures(
        clock,
        link=link,
        groups=groups,
        group=GROUP,
        metrics=metrics,
        observer=Observer(),
        troubles=StreamTroubles(Connectivity(clock, Observer()), Observer()),
        streams=streams,
    )
    await figures.refresh()
    assert set(metrics.groups) == set(streams)
    client.set("events:bad", "x")
    client.xack(STREAM, GROUP, "9-0")
    await figures.refresh()
    assert set(metrics.groups) == {STREAM}
    assert metrics.groups[STREAM].pending == 1

"""CacheAside without a Redis that answers: values come all the same, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import RedisRefused, RedisUnavailable
from event_router.patterns import CacheAside
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

KEY = "event-router:cache:number"
DEADLINE_S = 10


class Source:
    """A number, and how often it was asked for."""

    def __init__(self) -> None:
        self.loads = 0

    async def load(self) -> int:
        self.loads += 1
        await asyncio.sleep(0)
        return 7


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def cache(proxy: Proxy) -> AsyncIterator[CacheAside[int]]:
    """A cache behind the proxy, its connection standing and its scripts known."""
    async with Redis(port=proxy.port) as client:
        cache = CacheAside(client, int, clock=Clock())
        await cache.get_or_load("first", Source().load)
        yield cache


class TestDown:
    async def test_values_come_from_the_source(self, source: Source) -> None:
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            cache = CacheAside(client, int)
            found = await asyncio.gather(*(cache.get_or_load("number", source.load) for _ in range(20)))
            assert found == [7] * 20
            assert cache.counts["bypassed"] == 20
            assert source.loads == cache.counts["loads"] < 20, "shared within the process"
            with pytest.raises(RedisUnavailable, match=rf"^{KEY} may stay cached .* invalidate it again"):
                await cache.invalidate("number")

    async def test_an_invalidation_outdates_loads_of_its_process(self, source: Source) -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def hold() -> int:
            begun.set()
            await end.wait()
            return 1

        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            cache = CacheAside(client, int)
            held = asyncio.create_task(cache.get_or_load("number", hold))
            async with asyncio.timeout(DEADLINE_S):
                await begun.wait()
                with pytest.raises(RedisUnavailable):
                    await cache.invalidate("number")
                assert await cache.get_or_load("number", source.load) == 7
                end.set()
                assert await held == 1

    async def test_by_default_redis_py_would_try_for_longer(self, source: Source) -> None:
        async with Redis(port=1) as client:
            cache = CacheAside(client, int, timeout_s=0.1)
            async with asyncio.timeout(DEADLINE_S):
                assert await cache.get_or_load("number", source.load) == 7


class TestFrozen:
    async def test_values_come_from_the_source_in_time(
        self, new_server: ServerFactory, source: Source
    ) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client:
            cache = CacheAside(client, int, timeout_s=0.2)
            await cache.get_or_load("first", source.load)
            server.freeze()
            async with asyncio.timeout(DEADLINE_S):
                found = await asyncio.gather(*(cache.get_or_load("number", source.load) for _ in range(40)))
                assert found == [7] * 40
                with pytest.raises(RedisUnavailable):
                    await cache.invalidate("number")
            server.thaw()

    async def test_redis_is_left_alone_for_a_second(
        self, cache: CacheAside[int], proxy: Proxy, source: Source
    ) -> None:
        proxy.drop_reply("HGET", times=1)
        await cache.get_or_load("number", source.load)
        asked = proxy.requests.total()
        await cache.get_or_load("number", source.load)
        assert (proxy.requests.total(), cache.counts["bypassed"], source.loads) == (asked, 2, 2)
        cache._clock.now += 1.01  # type: ignore[attr-defined]
        for _ in range(2):
            await cache.get_or_load("number", source.load)
        assert (source.loads, cache.counts["hits"]) == (3, 1)

    async def test_a_load_that_ends_meanwhile_gives_its_value(
        self, new_server: ServerFactory, source: Source
    ) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client:
            cache = CacheAside(client, int, timeout_s=0.2)

            async def load() -> int:
                server.freeze()
                return 7

            async with asyncio.timeout(DEADLINE_S):
                assert await cache.get_or_load("number", load) == 7
            assert cache.counts["not_stored"] == 1
            server.thaw()

    async def test_who_waits_for_another_process_loads_himself(
        self, new_server: ServerFactory, source: Source
    ) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client, Redis(port=server.port) as other_client:
            holder, waiter = CacheAside(client, int), CacheAside(other_client, int, timeout_s=0.2)
            begun, end = asyncio.Event(), asyncio.Event()

            async def hold() -> int:
                begun.set()
                await end.wait()
                return 1

            held = asyncio.create_task(holder.get_or_load("number", hold))
            await begun.wait()
            waiting = asyncio.create_task(waiter.get_or_load("number", source.load))
            async with asyncio.timeout(DEADLINE_S):
                while not waiter._flights._flights:  # noqa: ASYNC110 - which sets no event
                    await asyncio.sleep(0.005)
                server.freeze()
                assert await waiting == 7
                end.set()
                assert await held == 1
            server.thaw()


class TestLostReplies:
    async def test_of_a_lease_end_with_it(
        self, server: Server, cache: CacheAside[int], proxy: Proxy, source: Source, redis_client: redis.Redis
    ) -> None:
        drop = proxy.drop_reply("EVALSHA")
        assert await cache.get_or_load("number", source.load) == 7
        assert drop.dropped == 1
        assert redis_client.hget(KEY, "lease")  # given out unseen
        assert 0 < redis_client.pttl(KEY) <= 5_000

    async def test_of_a_value_leave_it_stored(
        self, cache: CacheAside[int], proxy: Proxy, source: Source, redis_client: redis.Redis
    ) -> None:
        drop = proxy.drop_reply("EVALSHA", reply=b":1")
        assert await cache.get_or_load("number", source.load) == 7
        assert drop.dropped == 1
        assert redis_client.hgetall(KEY) == {"value": "7"}

    async def test_of_an_invalidation_are_asked_for_again(
        self, cache: CacheAside[int], proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        drop = proxy.drop_reply("UNLINK", times=1)
        await cache.invalidate("first")
        assert drop.dropped == 1
        assert not redis_client.exists("event-router:cache:first")


class TestRefusals:
    async def test_of_a_read_only_server_leave_what_is_cached(
        self, new_server: ServerFactory, source: Source
    ) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client:
            cache = CacheAside(client, int)
            await cache.get_or_load("cached", source.load)
            await client.replicaof("127.0.0.1", 1)
            assert await cache.get_or_load("cached", source.load) == 7
            assert source.loads == 1
            assert await cache.get_or_load("number", source.load) == 7
            assert cache.counts["bypassed"] == 1
            with pytest.raises(RedisUnavailable):
                await cache.invalidate("cached")

    async def test_of_a_full_server_leave_what_is_cached(
        self, new_server: ServerFactory, source: Source
    ) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client:
            cache = CacheAside(client, int)
            await cache.get_or_load("cached", source.load)
            await client.config_set("maxmemory", "1")
            assert await cache.get_or_load("cached", source.load) == 7
            assert await cache.get_or_load("number", source.load) == 7
            assert (source.loads, cache.counts["bypassed"]) == (2, 1)
            await cache.invalidate("cached")

    @pytest.mark.parametrize("denied", ["-pexpire", "-evalsha", "-hget"])
    async def test_of_permissions_leave_no_lease_that_never_ends(
        self, server: Server, redis_client: redis.Redis, source: Source, denied: str
    ) -> None:
        redis_client.execute_command("ACL", "SETUSER", "c", "on", "nopass", "~*", "+@all", denied)
        try:
            async with Redis(port=server.port, username="c", password="any") as client:
                assert await CacheAside(client, int).get_or_load("number", source.load) == 7
        finally:
            redis_client.execute_command("ACL", "DELUSER", "c")
        assert not redis_client.exists(KEY)

    async def test_of_an_invalidation_are_told(
        self, server: Server, redis_client: redis.Redis, cache: CacheAside[int], proxy: Proxy
    ) -> None:
        redis_client.hset(KEY, "value", "1")
        proxy.replace_in_replies(b":1\r\n", b"-X\r\n")
        with pytest.raises(RedisRefused):
            await cache.invalidate("number")


async def test_flushed_scripts_are_sent_again(
    cache: CacheAside[int], source: Source, redis_client: redis.Redis
) -> None:
    redis_client.script_flush()
    values: list[Any] = [await cache.get_or_load("number", source.load) for _ in range(2)]
    assert (values, source.loads) == ([7, 7], 1)

"""CacheAside: what is loaded when, by whom, and what is never given out again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import redis
from redis.asyncio import Redis

from event_router import ConfigurationError, RedisUnavailable, StateError
from event_router.patterns import CacheAside
from event_router.patterns.cache_entries import CacheEntries, Leased
from tests.environment.servers import Server

KEY = "event-router:cache:article:7"
DEADLINE_S = 20


class Article(msgspec.Struct):
    title: str
    words: int = 0


FIRST, SECOND = Article("Émile", 3), Article("second")


class Source:
    """Where values come from: counts the loads, and holds them until it is opened."""

    def __init__(self, value: Any = FIRST, *, is_open: bool = True) -> None:
        self.value = value
        self.loads = 0
        self.begun = asyncio.Event()
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    async def load(self) -> Any:
        self.loads += 1
        value = self.value
        self.begun.set()
        await self._open.wait()
        if isinstance(value, Exception):
            raise value
        return value

    def open(self) -> None:
        self._open.set()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - of servers, which set no event
            await asyncio.sleep(0.005)


async def ended(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        return await work


def milliseconds(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port) as client:
        yield client


@pytest.fixture
async def other_client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port, decode_responses=True, protocol=2) as client:
        yield client


@pytest.fixture
def cache(client: Redis) -> CacheAside[Article]:
    return CacheAside(client, Article)


@pytest.fixture
def elsewhere(other_client: Redis) -> CacheAside[Article]:
    """The cache of another process: it shares nothing with `cache` but the server."""
    return CacheAside(other_client, Article)


class TestValues:
    async def test_are_loaded_once_and_keep_their_type(
        self, cache: CacheAside[Article], elsewhere: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        source = Source()
        for each in (cache, cache, elsewhere):
            assert await each.get_or_load("article:7", source.load) == FIRST
        assert source.loads == 1
        assert redis_client.hgetall(KEY) == {"value": '{"title":"Émile","words":3}'}
        assert cache.counts == {"loads": 1, "hits": 1}

    async def test_of_any_type(self, client: Redis) -> None:
        cache = CacheAside(client, list[int])
        for _ in range(2):
            assert await cache.get_or_load("numbers", Source([1, 2]).load) == [1, 2]
            assert await cache.get_or_load("empty", Source([]).load) == []
        assert cache.counts["loads"] == 2

    async def test_that_do_not_exist_are_cached_for_a_shorter_time(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        cache = CacheAside(client, Article, negative_ttl=10, jitter=0)
        source = Source(None)
        assert await cache.get_or_load("article:7", source.load) is None
        assert await cache.get_or_load("article:7", source.load) is None
        assert source.loads == 1
        assert 9_000 < redis_client.pttl(KEY) <= 10_000
        await cache.invalidate("article:7")
        await cache.get_or_load("article:7", source.load, ttl=5)
        assert redis_client.pttl(KEY) <= 5_000

    @pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 1000), (0.5, 950), (1.0, 900)])
    async def test_live_for_a_jittered_time(
        self, client: Redis, redis_client: redis.Redis, drawn: float, seconds: int
    ) -> None:
        cache = CacheAside(client, Article, jitter=0.1, random=lambda: drawn)
        await cache.get_or_load("article:7", Source().load, ttl=1000)
        assert seconds - 9 < redis_client.ttl(KEY) <= seconds

    async def test_are_loaded_anew_when_they_have_expired(
        self, cache: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        source = Source()
        await cache.get_or_load("article:7", source.load, ttl=0.001)
        await until(lambda: not redis_client.exists(KEY))
        await cache.get_or_load("article:7", source.load)
        assert source.loads == 2

    @pytest.mark.parametrize("stored", [b"{", b"[1]", b'{"name":"older"}', b"\xff\xfe"])
    async def test_that_cannot_be_decoded_are_loaded_anew(
        self, cache: CacheAside[Article], redis_bytes: redis.Redis, stored: bytes
    ) -> None:
        redis_bytes.hset(KEY, "value", stored)
        assert await ended(cache.get_or_load("article:7", Source().load)) == FIRST
        assert msgspec.json.decode(redis_bytes.hget(KEY, "value") or b"", type=Article) == FIRST
        assert cache.counts["undecodable"] >= 1

    async def test_replace_a_key_of_another_kind(
        self, cache: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        redis_client.set(KEY, "text")
        source = Source()
        assert await cache.get_or_load("article:7", source.load) == FIRST
        assert await cache.get_or_load("article:7", source.load) == FIRST
        assert source.loads == 1

    @pytest.mark.parametrize("loaded", [{"name": 1}, object(), "text", {1: object()}])
    async def test_of_another_type_are_refused(
        self, cache: CacheAside[Article], redis_client: redis.Redis, loaded: Any
    ) -> None:
        with pytest.raises(StateError, match=rf"^{KEY}: what was loaded is no .*Article"):
            await cache.get_or_load("article:7", Source(loaded).load)
        assert not redis_client.exists(KEY)

    async def test_that_are_too_large_are_not_stored(self, client: Redis, redis_client: redis.Redis) -> None:
        cache = CacheAside(client, Article, max_bytes=100)
        assert await cache.get_or_load("article:7", Source(Article("x" * 100)).load) == Article("x" * 100)
        assert not redis_client.exists(KEY)
        assert cache.counts["not_stored"] == 1


class TestOneLoad:
    async def test_serves_a_whole_process(self, cache: CacheAside[Article]) -> None:
        source = Source(is_open=False)
        calls = [asyncio.create_task(cache.get_or_load("article:7", source.load)) for _ in range(60)]
        await ended(source.begun.wait())
        source.open()
        found = await ended(asyncio.gather(*calls))
        assert (found, source.loads) == ([FIRST] * 60, 1)

    async def test_serves_other_processes(
        self, cache: CacheAside[Article], elsewhere: CacheAside[Article]
    ) -> None:
        source = Source(is_open=False)
        first = asyncio.create_task(cache.get_or_load("article:7", source.load))
        await ended(source.begun.wait())
        others = [asyncio.create_task(elsewhere.get_or_load("article:7", source.load)) for _ in range(5)]
        await until(lambda: elsewhere._flights._flights)
        source.open()
        assert await ended(asyncio.gather(first, *others)) == [FIRST] * 6
        assert source.loads == 1

    async def test_reaches_everybody_in_the_process_when_it_raises(
        self, cache: CacheAside[Article], elsewhere: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        failing = Source(LookupError("no such table"), is_open=False)
        calls = [asyncio.create_task(cache.get_or_load("article:7", failing.load)) for _ in range(5)]
        await ended(failing.begun.wait())
        other = asyncio.create_task(elsewhere.get_or_load("article:7", Source(SECOND).load))
        await until(lambda: elsewhere._flights._flights)
        failing.open()
        found = await ended(asyncio.gather(*calls, return_exceptions=True))
        assert [repr(error) for error in found] == ["LookupError('no such table')"] * 5
        assert failing.loads == 1
        assert await ended(other) == SECOND, "the other process loads it itself"
        assert cache.counts["failed"] == 1

    async def test_leaves_nothing_when_it_raises(
        self, cache: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        # An error of the router from the source is no error of the cache.
        failing = Source(RedisUnavailable("the source"))
        with pytest.raises(RedisUnavailable, match=r"^the source$"):
            await cache.get_or_load("article:7", failing.load)
        assert failing.loads == 1
        assert not redis_client.exists(KEY)

    async def test_that_takes_too_long_is_given_up(self, client: Redis, redis_client: redis.Redis) -> None:
        cache = CacheAside(client, Article, load_timeout_s=0.05)
        with pytest.raises(TimeoutError, match=r"article:7: not loaded within 0\.05 s"):
            await ended(cache.get_or_load("article:7", Source(is_open=False).load))
        assert not redis_client.exists(KEY)

    async def test_goes_on_while_anybody_waits(
        self, cache: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        source = Source(is_open=False)
        calls = [asyncio.create_task(cache.get_or_load("article:7", source.load)) for _ in range(3)]
        await until(lambda: [flight.waiting for flight in cache._flights._flights.values()] == [3])
        calls[0].cancel()
        calls[1].cancel()
        await asyncio.wait(calls[:2])
        source.open()
        assert await ended(calls[2]) == FIRST
        assert source.loads == 1

    async def test_is_cancelled_when_nobody_waits_any_more(
        self, cache: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        held = Source(is_open=False)
        call = asyncio.create_task(cache.get_or_load("article:7", held.load))
        await ended(held.begun.wait())
        call.cancel()
        assert await ended(cache.get_or_load("article:7", Source(SECOND).load)) == SECOND
        assert call.cancelled()


class TestLeases:
    async def test_of_a_loader_that_died_end(self, cache: CacheAside[Article], client: Redis) -> None:
        dead = CacheEntries(client, timeout_s=1, lease_ms=300)
        assert isinstance(await dead.claim(KEY, b""), Leased)
        source = Source()
        assert await ended(cache.get_or_load("article:7", source.load)) == FIRST
        assert source.loads == 1

    async def test_are_renewed_while_the_load_runs(
        self, client: Redis, elsewhere: CacheAside[Article], redis_client: redis.Redis
    ) -> None:
        cache = CacheAside(client, Article, lease_s=0.2)
        source = Source(is_open=False)
        first = asyncio.create_task(cache.get_or_load("article:7", source.load))
        await ended(source.begun.wait())
        other = asyncio.create_task(elsewhere.get_or_load("article:7", source.load))
        begin = milliseconds(redis_client)
        await until(lambda: milliseconds(redis_client) > begin + 700)
        source.open()
        assert await ended(asyncio.gather(first, other)) == [FIRST, FIRST]
        assert source.loads == 1

    async def test_that_were_lost_store_nothing(
        self, cache: CacheAside[Article], client: Redis, redis_client: redis.Redis
    ) -> None:
        source = Source(is_open=False)
        call = asyncio.create_task(cache.get_or_load("article:7", source.load))
        await ended(source.begun.wait())
        redis_client.delete(KEY)  # as if it had ended while this process was frozen
        other = CacheEntries(client, timeout_s=1, lease_ms=10_000)
        assert isinstance(await other.claim(KEY, b""), Leased)
        source.open()
        assert await ended(call) == FIRST
        assert redis_client.hget(KEY, "value") is None
        assert cache.counts["not_stored"] == 1

    async def test_are_asked_for_ever_more_rarely(self, cache: CacheAside[Article], client: Redis) -> None:
        other = CacheEntries(client, timeout_s=1, lease_ms=60_000)
        found = await other.claim(KEY, b"")
        assert isinstance(found, Leased)
        asked: list[float] = []
        look = cache._look

        async def counted(name: str) -> Any:
            asked.append(asyncio.get_running_loop().time())
            return await look(name)

        cache._look = counted  # type: ignore[method-assign]
        calls = [asyncio.create_task(cache.get_or_load("article:7", Source().load)) for _ in range(5)]
        await until(lambda: len(asked) >= 5 + 6)
        await other.store(KEY, found.token, msgspec.json.encode(SECOND), 60_000)
        assert await ended(asyncio.gather(*calls)) == [SECOND] * 5
        pauses = (later - earlier for earlier, later in pairwise(asked[5:]))
        for pause, least in zip(pauses, (0.01, 0.02, 0.04, 0.08, 0.125), strict=False):
            assert pause >= least * 0.9  # whatever the machine does, it cannot be shorter


class TestInvalidation:
    async def test_removes_the_value(self, cache: CacheAside[Article]) -> None:
        await cache.get_or_load("article:7", Source(FIRST).load)
        await cache.invalidate("article:7")
        assert await cache.get_or_load("article:7", Source(SECOND).load) == SECOND

    @pytest.mark.parametrize("by", ["this process", "another process"])
    async def test_outdates_a_load_that_is_under_way(
        self, cache: CacheAside[Article], elsewhere: CacheAside[Article], by: str
    ) -> None:
        held = Source(FIRST, is_open=False)
        call = asyncio.create_task(cache.get_or_load("article:7", held.load))
        await ended(held.begun.wait())
        await (cache if by == "this process" else elsewhere).invalidate("article:7")
        assert await ended(cache.get_or_load("article:7", Source(SECOND).load)) == SECOND
        held.open()
        assert await ended(call) == FIRST
        for each in (cache, elsewhere):
            assert await each.get_or_load("article:7", Source(FIRST).load) == SECOND
        assert cache.counts["not_stored"] == 1

    async def test_is_never_followed_by_an_older_value(self, server: Server) -> None:
        """Readers and writers of three processes: nobody gets what was outdated when he asked."""
        chance = random.Random(7)
        keys = [f"article:{number}" for number in range(3)]
        written = dict.fromkeys(keys, 0)
        outdated = dict.fromkeys(keys, 0)
        clients = [Redis(port=server.port) for _ in range(3)]
        caches = [CacheAside(client, int, timeout_s=10, lease_s=0.3) for client in clients]

        async def load(key: str) -> int:
            value = written[key]
            await asyncio.sleep(chance.random() * 0.004)
            return value

        async def read(cache: CacheAside[int]) -> None:
            for _ in range(100):
                key = chance.choice(keys)
                least = outdated[key]
                found = await cache.get_or_load(key, lambda key=key: load(key))  # type: ignore[misc]
                assert found is not None
                assert found >= least

        async def write(cache: CacheAside[int]) -> None:
            for _ in range(60):
                key = chance.choice(keys)
                written[key] += 1
                value = written[key]
                await cache.invalidate(key)
                outdated[key] = max(outdated[key], value)
                await asyncio.sleep(chance.random() * 0.01)

        try:
            await ended(asyncio.gather(*(work(cache) for cache in caches for work in (read, read, write))))
        finally:
            for client in clients:
                await client.aclose()
        assert sum(cache.counts["hits"] for cache in caches) > 0
        assert sum(cache.counts["not_stored"] for cache in caches) > 0


@pytest.mark.parametrize(
    ("key", "ttl", "problem"),
    [
        ("", 1, "empty identifier"),
        ("a\nb", 1, "control characters"),
        ("x" * 513, 1, "at most 512"),
        ("k", 0, "no time to live"),
        ("k", -1, "no time to live"),
        ("k", float("nan"), "no time to live"),
    ],
)
async def test_refuses_keys_and_times_that_are_not_possible(
    cache: CacheAside[Article], key: str, ttl: float, problem: str
) -> None:
    source = Source()
    with pytest.raises(StateError, match=problem):
        await cache.get_or_load(key, source.load, ttl=ttl)
    assert source.loads == 0


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": 1},
        {"jitter": -0.1},
        {"lease_s": 0},
        {"load_timeout_s": 0},
        {"negative_ttl": 0},
        {"timeout_s": 0},
        {"type": list[int] | set[int]},
    ],
)
async def test_refuses_settings_that_are_not_possible(client: Redis, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CacheAside(client, **{"type": Article, **options})

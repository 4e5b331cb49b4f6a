"""RateLimiter: exact whatever the times, whoever calls at once, and whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import ConfigurationError, RedisRefused, RedisUnavailable, StateError
from event_router.patterns import RateLimit, RateLimiter
from event_router.redis_client.script import Script
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

KEY = "event-router:rate-limit:login:7"
SCRIPT = Script("rate_limit", "event_router.patterns")
MANY = 50
IMPOSSIBLE: Any = [
    ("", 1, 1, StateError),
    ("a\nb", 1, 1, StateError),
    ("x" * 513, 1, 1, StateError),
    ("k", 0, 1, ConfigurationError),
    ("k", -1, 1, ConfigurationError),
    ("k", 1.5, 1, ConfigurationError),
    ("k", True, 1, ConfigurationError),
    ("k", 1_000_001, 1, ConfigurationError),
    ("k", 1, 0, ConfigurationError),
    ("k", 1, -1, ConfigurationError),
    ("k", 1, float("nan"), ConfigurationError),
    ("k", 1, float("inf"), ConfigurationError),
    ("k", 1, "1", ConfigurationError),
    ("k", 1, 1e12, ConfigurationError),
]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port) as client:
        yield client


@pytest.fixture
def limiter(client: Redis) -> RateLimiter:
    return RateLimiter(client)


def run_script(client: redis.Redis, limit: int, window_us: int) -> tuple[int, int, int, int]:
    """Check as `RateLimiter` does, but with the server's time in the answer."""
    allowed, remaining, wait_us, now = client.eval(SCRIPT.text, 1, KEY, limit, window_us)
    return allowed, remaining, wait_us, now


def let_pass(client: redis.Redis, microseconds: int) -> None:
    """Make every call that was counted so much older, as if time had passed."""
    times: Any = client.lrange(KEY, 0, -1)
    client.delete(KEY)
    if times:
        client.rpush(KEY, *(int(time) - microseconds for time in times))


class Window:
    """The sliding window as one would write it down: the times of the calls within it."""

    def __init__(self) -> None:
        self.times: list[int] = []

    def check(self, limit: int, window: int, now: int) -> tuple[int, int, int, int]:
        self.times = [min(time, now) for time in self.times]
        self.times = [time for time in self.times if time > now - window]
        waits = sorted(time + window - now for time in self.times)
        if len(self.times) >= limit:
            return 0, 0, waits[len(waits) - limit], now
        self.times.append(now)
        left = limit - len(self.times)
        return 1, left, 0 if left else min([*waits, window]), now

    def let_pass(self, microseconds: int) -> None:
        self.times = [time - microseconds for time in self.times]


WINDOW_US = 60_000_000
checks = st.tuples(st.just("check"), st.integers(1, 6))
pauses = st.tuples(st.just("pass"), st.integers(0, WINDOW_US // 2) | st.just(WINDOW_US))
setbacks = st.tuples(st.just("pass"), st.integers(-2 * WINDOW_US, -1))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(checks | checks | pauses | setbacks, max_size=40))
def test_does_what_the_model_says(redis_client: redis.Redis, steps: list[tuple[str, int]]) -> None:
    redis_client.delete(KEY)
    model = Window()
    for step, number in steps:
        if step == "pass":
            let_pass(redis_client, number)
            model.let_pass(number)
        else:
            found = run_script(redis_client, number, WINDOW_US)
            assert found == model.check(number, WINDOW_US, found[3])


async def test_answers_what_is_left_and_when_to_come_back(limiter: RateLimiter) -> None:
    assert await limiter.check("login:7", 2, 60) == RateLimit(allowed=True, remaining=1, retry_after=0)
    last = await limiter.check("login:7", 2, 60)
    refused = await limiter.check("login:7", 2, 60)
    assert (last.allowed, last.remaining, refused.allowed, refused.remaining) == (True, 0, False, 0)
    assert 0 < refused.retry_after <= last.retry_after <= 60
    assert (await limiter.check("login:8", 2, 60)).allowed
    assert limiter.counts == {"allowed": 3, "refused": 1}


async def test_refused_calls_do_not_count(limiter: RateLimiter, redis_client: redis.Redis) -> None:
    await limiter.check("login:7", 1, 60)
    for _ in range(5):
        assert not (await limiter.check("login:7", 1, 60)).allowed
    assert redis_client.llen(KEY) == 1
    let_pass(redis_client, 60_000_000)
    assert (await limiter.check("login:7", 1, 60)).allowed


async def test_calls_of_one_microsecond_are_several(limiter: RateLimiter, redis_client: redis.Redis) -> None:
    for _ in range(3):
        await limiter.check("login:7", 10, 60)
    times: Any = redis_client.lrange(KEY, 0, -1)
    redis_client.delete(KEY)
    redis_client.rpush(KEY, *[times[-1]] * 3)
    assert (await limiter.check("login:7", 10, 60)).remaining == 6
    with redis_client.pipeline(transaction=True) as pipeline:  # where the server's clock may stand still
        for _ in range(50):
            pipeline.eval(SCRIPT.text, 1, KEY, 1000, 60_000_000)
        remaining = [reply[1] for reply in pipeline.execute()]
    assert remaining == list(range(995, 945, -1))


async def test_keys_expire_with_their_last_call(limiter: RateLimiter, redis_client: redis.Redis) -> None:
    await limiter.check("login:7", 5, 60)
    assert 59_000 < redis_client.pttl(KEY) <= 60_002
    await limiter.check("login:7", 5, 0.0015)
    assert redis_client.pttl(KEY) <= 4


async def test_a_key_takes_ten_bytes_a_call(limiter: RateLimiter, redis_client: redis.Redis) -> None:
    for limit, most in ((100, 1_500), (10_000, 150_000)):
        redis_client.delete(KEY)
        with redis_client.pipeline(transaction=False) as pipeline:
            for _ in range(limit):
                pipeline.eval(SCRIPT.text, 1, KEY, limit, 60_000_000)
            pipeline.execute()
        assert redis_client.llen(KEY) == limit
        assert 10 * limit < int(redis_client.memory_usage(KEY) or 0) <= most


class TestConcurrentCallers:
    async def test_never_exceed_the_limit(self, server: Server) -> None:
        clients = [Redis(port=server.port) for _ in range(5)]
        try:
            limiters = [RateLimiter(client) for client in clients]
            found = await asyncio.gather(
                *(limiters[n % 5].check("login:7", MANY, 60) for n in range(4 * MANY))
            )
        finally:
            for client in clients:
                await client.aclose()
        assert sum(limit.allowed for limit in found) == MANY
        assert sorted(limit.remaining for limit in found if limit.allowed) == list(range(MANY))

    async def test_never_exceed_it_in_any_window_while_time_passes(self, server: Server) -> None:
        limit, window = 20, 10_000
        counted: list[int] = []

        async def call(client: Redis) -> None:
            while len(counted) < 10 * limit:
                allowed, _, _, now = await client.eval(SCRIPT.text, 1, KEY, limit, window)
                if allowed:
                    counted.append(now)

        clients = [Redis(port=server.port) for _ in range(5)]
        try:
            async with asyncio.timeout(30):
                await asyncio.gather(*(call(client) for client in clients))
        finally:
            for client in clients:
                await client.aclose()
        counted.sort()
        assert all(
            later - earlier >= window for earlier, later in zip(counted, counted[limit:], strict=False)
        )


@pytest.mark.parametrize(("key", "limit", "window", "error"), IMPOSSIBLE)
async def test_refuses_what_is_not_possible(
    key: Any, limit: Any, window: Any, error: type[Exception]
) -> None:
    async with Redis(port=1) as client:
        with pytest.raises(error, match=r"limit|window"):
            await RateLimiter(client).check(key, limit, window)


async def test_refuses_settings_that_are_not_possible() -> None:
    async with Redis(port=1) as client:
        with pytest.raises(ConfigurationError, match="possible are raise, allow and refuse"):
            RateLimiter(client, when_down="ignore")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="timeout_s"):
            RateLimiter(client, timeout_s=0)


class TestFaults:
    async def test_a_lost_reply_counts_once(self, server: Server, redis_client: redis.Redis) -> None:
        with Proxy(server.port) as proxy:
            async with Redis(port=proxy.port) as client:  # with redis-py's own retries
                limiter = RateLimiter(client)
                await limiter.check("login:7", 5, 60)
                drop = proxy.drop_reply("EVALSHA", times=5)
                with pytest.raises(RedisUnavailable, match=r"^event-router:rate-limit:login:7: no reply"):
                    await limiter.check("login:7", 5, 60)
        assert drop.dropped == 1
        assert redis_client.llen(KEY) == 2

    async def test_a_frozen_server_is_given_up_in_time(self, new_server: ServerFactory) -> None:
        server = new_server().start()
        async with Redis(port=server.port) as client:
            limiter = RateLimiter(client, timeout_s=0.2)
            await limiter.check("login:7", 5, 60)
            server.freeze()
            async with asyncio.timeout(10):  # 20 seconds, were each left to redis-py alone
                found = await asyncio.gather(
                    *(limiter.check("login:7", 5, 60) for _ in range(40)), return_exceptions=True
                )
            assert all(isinstance(error, RedisUnavailable) for error in found)
            server.thaw()
            assert (await RateLimiter(client).check("login:7", 100, 60)).allowed

    @pytest.mark.parametrize(("when_down", "allowed"), [("allow", True), ("refuse", False)])
    async def test_a_server_that_is_down_leaves_it_to_the_caller(self, when_down: Any, allowed: bool) -> None:
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            limiter = RateLimiter(client, when_down=when_down)
            found = await limiter.check("login:7", 5, 60)
            assert (found.allowed, found.decided, limiter.counts) == (allowed, False, {"undecided": 1})
            with pytest.raises(RedisUnavailable):
                await RateLimiter(client).check("login:7", 5, 60)

    async def test_a_read_only_server_refuses_for_now(self, new_server: ServerFactory) -> None:
        server = new_server(options=["--replicaof", "127.0.0.1 1"]).start()
        async with Redis(port=server.port) as client:
            with pytest.raises(RedisUnavailable, match=r"READONLY|read only"):
                await RateLimiter(client).check("login:7", 5, 60)

    @pytest.mark.parametrize("when_down", ["raise", "allow"])
    async def test_a_key_of_another_kind_is_named(
        self, client: Redis, redis_client: redis.Redis, when_down: Any
    ) -> None:
        redis_client.set(KEY, "text")
        with pytest.raises(RedisRefused, match=rf"^{KEY}: .*wrong kind"):
            await RateLimiter(client, when_down=when_down).check("login:7", 5, 60)

    async def test_a_list_of_something_else_is_named(
        self, limiter: RateLimiter, redis_client: redis.Redis
    ) -> None:
        redis_client.rpush(KEY, "text")
        with pytest.raises(RedisRefused, match=rf"^{KEY}: .*holds no times"):
            await limiter.check("login:7", 5, 60)
        assert redis_client.lrange(KEY, 0, -1) == ["text"]

    async def test_a_missing_permission_leaves_no_key_that_never_expires(
        self, server: Server, redis_client: redis.Redis
    ) -> None:
        redis_client.execute_command("ACL", "SETUSER", "caller", "on", "nopass", "~*", "+@all", "-pexpire")
        try:
            async with Redis(port=server.port, username="caller", password="any") as client:
                with pytest.raises(RedisUnavailable, match="PEXPIRE"):
                    await RateLimiter(client).check("login:7", 5, 60)
        finally:
            redis_client.execute_command("ACL", "DELUSER", "caller")
        assert not redis_client.exists(KEY)

    async def test_flushed_scripts_are_sent_again(
        self, limiter: RateLimiter, redis_client: redis.Redis
    ) -> None:
        await limiter.check("login:7", 5, 60)
        redis_client.script_flush()
        assert (await limiter.check("login:7", 5, 60)).remaining == 3

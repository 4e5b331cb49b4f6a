"""Far more calls at once than the client's pool has connections: they wait their turn, within their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import CompositeEventBus, EventPublisher, RedisUnavailable, StateKVStore, StreamProducer
from event_router.redis_client.sent_once import SentOnce
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

# It is about the client, not about the server.
pytestmark = pytest.mark.once

CALLS = 300
Call = Callable[[int], Awaitable[Any]]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port, max_connections=20) as made:
        yield made


def produced(client: Redis) -> Call:
    producer = StreamProducer(client)
    return lambda n: producer.produce("orders", {"type": "paid", "cents": n})


def emitted(client: Redis) -> Call:
    bus = CompositeEventBus(client, client)
    return lambda n: bus.emit("scan", "j", {"stage": "s", "status": "running", "seq": n}, direct=True)


def published(client: Redis) -> Call:
    publisher = EventPublisher(client)
    return lambda n: publisher.publish("updates", {"n": n})


def incremented(client: Redis) -> Call:
    store = StateKVStore(client)
    return lambda n: store.increment("user", "7", "seen", 1)


@pytest.mark.parametrize("made", [produced, emitted, published, incremented])
async def test_calls_wait_for_each_other_and_none_fails(client: Redis, made: Callable[[Redis], Call]) -> None:
    call = made(client)
    found = await asyncio.gather(*(call(n) for n in range(CALLS)), return_exceptions=True)
    assert [answer for answer in found if isinstance(answer, Exception)] == []


async def test_none_waits_for_the_others_longer_than_for_a_reply(server: Server) -> None:
    with Proxy(server.port) as proxy:
        patient = Redis(port=proxy.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
        async with patient as client:
            once = SentOnce(client)
            await once.call("PING")
            proxy.freeze()
            calls = [asyncio.create_task(once.call("GET", "k", timeout_s=0.3)) for _ in range(CALLS)]
            async with asyncio.timeout(10):
                found = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(answer, Exception) for answer in found)
            unsent = [answer for answer in found if "calls before it" in str(answer)]
            assert unsent
            assert {type(answer) for answer in unsent} == {RedisUnavailable}
            proxy.thaw()
            assert await once.call("PING") == b"PONG"

"""EventSubscriber while the Pub/Sub Redis restarts, freezes, cuts it off, or is not there yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router import EventPublisher, EventSubscriber, Gap, RedisUnavailable
from event_router.messaging.on_error import OnError
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.pubsub_cases import Noted, following, until


@contextlib.asynccontextmanager
async def subscribed(
    server: Server | Proxy, *names: str, **options: Any
) -> AsyncIterator[tuple[EventSubscriber, Noted]]:
    """A subscriber, and what it told."""
    noted = Noted()
    given = {"timeout_s": 1.0, "heartbeat_s": 0.1, "observer": noted} | options
    async with Redis(port=server.port) as client, EventSubscriber(client, **given) as subscriber:
        await subscriber.subscribe(*names)
        yield subscriber, noted


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


async def publish(server: Server, channel: str, *numbers: int) -> None:
    async with Redis(port=server.port) as client:
        for number in numbers:
            await EventPublisher(client).publish(channel, {"n": number})


async def test_a_restart_is_a_gap_and_everything_is_subscribed_again(
    new_server: ServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_server().start()
    async with subscribed(server, "a", "events:*") as (subscriber, noted):
        await publish(server, "a", 1)
        messages = subscriber.listen()
        assert await following(messages, 1) == [1]
        server.kill()
        await until(lambda: noted.counts["outages begun",])
        assert not subscriber.connected
        with pytest.raises(RedisUnavailable):
            await subscriber.subscribe("b")
        server.start()
        assert await following(messages, 1) == [Gap(reconnected=True)]
        assert subscriber.connected
        await publish(server, "a", 2)
        await publish(server, "events:login", 3)
        await publish(server, "b", 4)
        await publish(server, "a", 5)
        assert await following(messages, 3) == [2, 3, 5]
    assert noted.counts["outages begun",] == noted.counts["outages ended",] == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.once
async def test_a_frozen_server_is_noticed_and_left(new_server: ServerFactory) -> None:
    server = new_server().start()
    async with subscribed(server, "a", timeout_s=0.3) as (subscriber, noted):
        messages = subscriber.listen()
        server.freeze()
        await until(lambda: noted.counts["outages begun",])
        with pytest.raises(RedisUnavailable):
            await asyncio.wait_for(subscriber.subscribe("b"), 10)
        await asyncio.wait_for(subscriber.unsubscribe("b"), 10)
        assert not (await asyncio.wait_for(subscriber.health(), 10)).up
        server.thaw()
        assert await following(messages, 1) == [Gap(reconnected=True)]
        await publish(server, "a", 1)
        assert await following(messages, 1) == [1]
        server.freeze()
        await asyncio.wait_for(subscriber.close(), 10)
        server.thaw()


@pytest.mark.once
async def test_a_quiet_server_is_not_left(server: Server) -> None:
    async with subscribed(server, "a", heartbeat_s=0.02) as (subscriber, noted):
        with server.client() as client:

            def pings() -> int:
                found = client.info("commandstats").get("cmdstat_ping", {})  # type: ignore[union-attr]
                return int(found.get("calls", 0))

            before = pings()
            await until(lambda: pings() >= before + 5)
        await publish(server, "a", 1)
        assert await following(subscriber.listen(), 1) == [1]
    assert not noted.counts["outages begun",]


@pytest.mark.once
async def test_a_half_open_connection_is_noticed(proxy: Proxy, server: Server) -> None:
    async with subscribed(proxy, "a", timeout_s=0.3) as (subscriber, noted):
        proxy.freeze()
        await until(lambda: noted.counts["outages begun",])
        proxy.cut()
        proxy.thaw()
        assert await following(subscriber.listen(), 1) == [Gap(reconnected=True)]
        await publish(server, "a", 1)
        assert await following(subscriber.listen(), 1) == [1]


@pytest.mark.once
async def test_what_was_on_its_way_when_unsubscribed_is_not_given(proxy: Proxy, server: Server) -> None:
    async with subscribed(proxy, "a", "b", heartbeat_s=60) as (subscriber, _):
        proxy.freeze()
        await publish(server, "a", 1)
        await subscriber.unsubscribe("a")
        proxy.thaw()
        await publish(server, "b", 2)
        assert await following(subscriber.listen(), 1) == [2]


@pytest.mark.once
async def test_whoever_stops_reading_is_cut_off_and_learns_it(
    new_server: ServerFactory, proxy: Proxy
) -> None:
    """The server cuts off a client whose output buffer is full; this one's process did not read."""
    server = new_server(options=["--client-output-buffer-limit", "pubsub 64kb 0 0"]).start()
    with Proxy(server.port) as slow:
        async with subscribed(slow, "a", heartbeat_s=60, timeout_s=5) as (subscriber, noted):
            slow.freeze()  # nothing is read from the server's side any more
            with server.client() as client:
                payload = '{"text": "' + "x" * 100_000 + '"}'
                await until(lambda: client.publish("a", payload) == 0, within=20)
            slow.thaw()
            messages = subscriber.listen()
            async with asyncio.timeout(20):
                while not isinstance(item := await anext(messages), Gap):
                    pass
            assert item.reconnected
            await publish(server, "a", 7)
            async with asyncio.timeout(20):
                while (await anext(messages)).data.get("n") != 7:  # type: ignore[union-attr]
                    pass
        assert noted.counts["outages begun",] == 1


@pytest.mark.once
async def test_a_flood_leaves_the_loop_to_others_and_the_memory_bounded(
    server: Server, redis_bytes: redis.Redis
) -> None:
    async with subscribed(server, "user:1", buffer_size=1000) as (subscriber, noted):
        with redis_bytes.pipeline(transaction=False) as pipe:
            for number in range(20_000):
                pipe.publish("user:1", b'{"n": %d}' % number)
            pipe.execute()
        await until(lambda: noted.counts["dropped", "user:{user_id}"] == 19_000)
        first, second = await following(subscriber.listen(), 2)
        assert (first, second) == (Gap(19_000), 19_000)


async def test_a_lost_connection_can_end_it(new_server: ServerFactory) -> None:
    server = new_server().start()
    async with subscribed(server, "a", on_error=OnError(connection="stop")) as (subscriber, _):
        await publish(server, "a", 1)
        await until(lambda: len(subscriber._buffer) == 1)
        server.kill()
        messages = subscriber.listen()
        assert await following(messages, 1) == [1]
        with pytest.raises(RedisUnavailable):
            await asyncio.wait_for(anext(messages), 10)
        server.start()
        await subscriber.subscribe("a")
        await publish(server, "a", 2)
        assert await following(subscriber.listen(), 2) == [Gap(reconnected=True), 2]


async def test_handlers_wait_for_a_server_that_is_not_there_yet(new_server: ServerFactory) -> None:
    server = new_server()
    heard: list[int] = []
    async with Redis(port=server.port) as client, EventSubscriber(client, timeout_s=1) as subscriber:
        with pytest.raises(RedisUnavailable):
            await subscriber.subscribe("a")

        @subscriber.on("a")
        async def handler(message: dict[str, Any]) -> None:
            heard.append(message["n"])

        task = asyncio.create_task(subscriber.run())
        server.start()
        await until(lambda: subscriber.connected)
        await publish(server, "a", 1)
        await until(lambda: heard == [1])
        await subscriber.close()
        await asyncio.wait_for(task, 10)


async def test_closing_while_the_server_is_away_ends_at_once(new_server: ServerFactory) -> None:
    server = new_server().start()
    async with subscribed(server, "a") as (subscriber, noted):
        server.kill()
        await until(lambda: noted.counts["outages begun",])
        await asyncio.wait_for(subscriber.close(), 5)
    never_there = EventSubscriber(Redis(port=server.port))

    @never_there.on("a")
    async def handler(message: dict[str, Any]) -> None: ...

    task = asyncio.create_task(never_there.run())
    await asyncio.sleep(0)
    await never_there.close()
    await asyncio.wait_for(task, 10)


async def test_rights_that_are_taken_away_are_waited_for(server: Server, redis_client: redis.Redis) -> None:
    def acl(*rules: str) -> None:
        redis_client.execute_command("ACL", "SETUSER", "some", *rules)

    acl("on", "nopass", "~*", "+@all", "resetchannels", "&a")
    try:
        noted = Noted()
        async with (
            Redis(port=server.port, username="some", password="any") as client,
            EventSubscriber(client, observer=noted) as subscriber,
        ):
            await subscriber.subscribe("a")
            acl("resetchannels")  # Redis ends the connection
            await until(lambda: noted.counts["outages begun",])
            acl("&a")
            assert await following(subscriber.listen(), 1) == [Gap(reconnected=True)]
            await publish(server, "a", 1)
            assert await following(subscriber.listen(), 1) == [1]
    finally:
        redis_client.execute_command("ACL", "DELUSER", "some")


@pytest.mark.once
async def test_names_may_be_added_while_the_connection_is_still_being_made(proxy: Proxy) -> None:
    async with (
        Redis(port=proxy.port, client_name="service", db=1) as client,
        EventSubscriber(client, timeout_s=5) as subscriber,
    ):
        proxy.freeze()
        first = asyncio.create_task(subscriber.subscribe("a"))
        await until(lambda: proxy.requests["CLIENT"])  # the handshake waits for its reply
        others = [asyncio.create_task(subscriber.subscribe(name)) for name in ("b", "events:*")]
        await asyncio.sleep(0)
        proxy.thaw()
        await asyncio.gather(first, *others)
        assert subscriber.connected
        assert await client.pubsub_numsub("a", "b") == [(b"a", 1), (b"b", 1)]
    assert await still_subscribed(proxy, "a") == 0


@pytest.mark.once
async def test_a_subscription_given_up_while_connecting_leaves_no_connection(proxy: Proxy) -> None:
    async with Redis(port=proxy.port, client_name="service") as client:
        proxy.freeze()
        subscriber = EventSubscriber(client, timeout_s=5)
        subscribing = asyncio.create_task(subscriber.subscribe("a"))
        await until(lambda: proxy.requests["CLIENT"])
        subscribing.cancel()
        await asyncio.wait([subscribing])
        proxy.thaw()
        await until(lambda: not proxy.connections)


async def still_subscribed(proxy: Proxy, channel: str) -> int:
    async with Redis(port=proxy.port) as client:
        ((_, count),) = await client.pubsub_numsub(channel)
        return int(count)

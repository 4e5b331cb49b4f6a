"""EventPublisher: what it sends, that it tries again, and that it never hangs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import EventPublisher, OutcomeUnknown, RedisRefused, RedisUnavailable
from event_router.core.errors import InvalidMessage
from event_router.core.pubsub_observer import PubSubObserver
from event_router.messaging.channels import Channels
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server


class Noted(PubSubObserver):
    """Keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def published(self, channel: str, type: str, receivers: int) -> None:
        self.heard.append(("published", channel, type, receivers))

    def dropped(self, channel: str, count: int) -> None:
        self.heard.append(("dropped", channel, count))


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    made = Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol))
    yield made
    await made.aclose()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


class Listening:
    """A listener that is subscribed already, without any code of the product."""

    def __init__(self, client: redis.Redis, *channels: str) -> None:
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(*channels)
        for _ in channels:
            assert self._pubsub.get_message(timeout=5)

    def next(self) -> tuple[str, dict[str, Any]]:
        message: Any = self._pubsub.get_message(timeout=5)
        assert message is not None
        return message["channel"], json.loads(message["data"])

    def nothing(self) -> bool:
        return self._pubsub.get_message(timeout=0) is None

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def listening(redis_client: redis.Redis) -> Iterator[Listening]:
    heard = Listening(redis_client, "notifications", "sse:events:1", "events:login")
    yield heard
    heard.close()


async def test_answers_how_many_received_it(client: Redis, listening: Listening) -> None:
    noted = Noted()
    publisher = EventPublisher(client, observer=noted)
    assert await publisher.publish("notifications", {"type": "hello", "text": "안녕"}) == 1
    assert await publisher.publish("nobody", {"text": "hi"}) == 0
    channel, message = listening.next()
    assert (channel, message["text"]) == ("notifications", "안녕")
    assert len(message["id"]) == 32
    assert message["timestamp"].endswith("Z")
    assert noted.heard == [("published", "notifications", "hello", 1), ("published", "other", "", 0)]


async def test_names_the_channel_of_a_job(client: Redis, listening: Listening) -> None:
    assert await EventPublisher(client).publish_to_job(1, {"seq": 3}) == 1
    assert listening.next()[0] == "sse:events:1"
    older = EventPublisher(client, channels=Channels("events:{job_id}"))
    assert await older.publish_to_job("login", {"seq": 3}) == 1
    assert listening.next()[0] == "events:login"


async def test_takes_the_dotted_name_of_an_event_channel(client: Redis, listening: Listening) -> None:
    assert await EventPublisher(client).publish("events.login", {"user_id": "1"}) == 1
    assert listening.next()[0] == "events:login"


@pytest.mark.parametrize(
    ("channel", "event", "why"),
    [
        ("", {}, "empty"),
        ("a\nb", {}, "control characters"),
        ("notifications", [1], "must be a JSON object"),
        ("notifications", {"text": "x" * 200}, "at most 100"),
    ],
)
async def test_refuses_before_it_sends(
    client: Redis, listening: Listening, channel: str, event: Any, why: str
) -> None:
    noted = Noted()
    publisher = EventPublisher(client, max_message_bytes=100, observer=noted)
    with pytest.raises(InvalidMessage, match=why):
        await publisher.publish(channel, event)
    assert listening.nothing()
    assert noted.heard == []


async def test_a_lost_reply_is_tried_again_with_the_same_id(proxy: Proxy, listening: Listening) -> None:
    async with Redis(port=proxy.port) as client:
        drop = proxy.drop_reply("PUBLISH", times=2)
        assert await EventPublisher(client).publish("notifications", {"text": "hi"}) == 1
    assert drop.dropped == 2
    messages = [listening.next()[1] for _ in range(3)]
    assert len({message["id"] for message in messages}) == 1
    assert listening.nothing()


async def test_gives_up_after_three_attempts_and_says_that_it_may_have_been_sent(
    proxy: Proxy, listening: Listening
) -> None:
    noted = Noted()
    async with Redis(port=proxy.port) as client:
        drop = proxy.drop_reply("PUBLISH", times=99)
        with pytest.raises(OutcomeUnknown, match=r"^channel 'notifications', 3 attempts: "):
            await EventPublisher(client, observer=noted).publish("notifications", {"text": "hi"})
    assert drop.dropped == 3
    assert noted.heard == [("dropped", "notifications", 1)]


@pytest.mark.once
async def test_says_that_nothing_was_sent_where_nobody_answers(new_server: ServerFactory) -> None:
    server = new_server()  # not started
    async with Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(RedisUnavailable, match=rf"3 attempts: .*{server.port}"):
            await EventPublisher(client).publish("notifications", {"text": "hi"})
    async with Redis(port=server.port) as stubborn:  # goes on connecting by itself
        with pytest.raises(OutcomeUnknown, match=r"no reply to PUBLISH within 0\.1 s"):
            await EventPublisher(stubborn, timeout_s=0.3).publish("notifications", {"text": "hi"})


@pytest.mark.once
async def test_a_frozen_server_holds_a_call_no_longer_than_its_timeout(new_server: ServerFactory) -> None:
    server = new_server().start()
    async with Redis(port=server.port, socket_timeout=None, socket_connect_timeout=None) as client:
        publisher = EventPublisher(client, timeout_s=0.6)
        assert await publisher.publish("notifications", {"text": "hi"}) == 0
        server.freeze()
        begin = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(publisher.publish("notifications", {"text": "hi"}), 10)
        health = await asyncio.wait_for(publisher.health(), 10)
        assert time.monotonic() - begin < 9, "a call hung"
        assert not health.up
        assert "0.6 s" in health.error
        server.thaw()
        assert await publisher.publish("notifications", {"text": "hi"}) == 0
        assert (await publisher.health()).up


async def test_a_refusal_is_not_tried_again(server: Server, redis_client: redis.Redis) -> None:
    redis_client.execute_command("ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "resetchannels")
    try:
        async with Redis(port=server.port, username="mute", password="any") as client:
            with pytest.raises((RedisUnavailable, RedisRefused), match=r"NOPERM|permission"):
                await EventPublisher(client).publish("notifications", {"text": "hi"})
    finally:
        redis_client.execute_command("ACL", "DELUSER", "mute")


async def test_health_counts_channels_patterns_and_subscribers(
    client: Redis, redis_client: redis.Redis, listening: Listening
) -> None:
    pubsub = redis_client.pubsub()
    pubsub.psubscribe("events:*")
    assert pubsub.get_message(timeout=5)
    health = await EventPublisher(client).health()
    pubsub.close()
    assert health.as_dict() == {"up": True, "channels": 3, "patterns": 1, "subscribers": 2}


async def test_health_does_not_know_what_it_may_not_ask(server: Server, redis_client: redis.Redis) -> None:
    redis_client.execute_command("ACL", "SETUSER", "small", "on", "nopass", "+info", "+publish", "&*")
    try:
        async with Redis(port=server.port, username="small", password="any") as client:
            health = await EventPublisher(client).health()
    finally:
        redis_client.execute_command("ACL", "DELUSER", "small")
    assert health.up
    assert (health.channels, health.patterns) == (0, 0)
    assert health.subscribers in (0, None)

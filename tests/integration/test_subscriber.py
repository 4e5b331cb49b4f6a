"""EventSubscriber as an iterator: what arrives, what does not, and what stands in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis
from redis.asyncio import Redis

from event_router import (
    EventPublisher,
    EventSubscriber,
    Gap,
    InvalidMessage,
    Message,
    NotSubscribed,
    RedisUnavailable,
    UndecodableMessage,
)
from event_router.messaging.channels import Channels
from event_router.messaging.on_error import OnError
from tests.environment.servers import Server
from tests.integration.pubsub_cases import Noted, following, until


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    made = Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol))
    yield made
    await made.aclose()


async def test_gets_channels_and_patterns(client: Redis) -> None:
    publisher, noted = EventPublisher(client), Noted()
    async with EventSubscriber(client, observer=noted) as subscriber:
        await subscriber.subscribe("notifications", "events.*")
        assert await publisher.publish("notifications", {"n": 1, "text": "안녕"}) == 1
        assert await publisher.publish("events:login", {"n": 2, "type": "login"}) == 1
        messages = subscriber.listen()
        first, second = [await anext(messages) for _ in range(2)]
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        assert (first.channel, first.pattern, first.data["text"]) == ("notifications", None, "안녕")
        assert first.id == first.data["id"]
        assert (second.channel, second.pattern, second.type) == ("events:login", "events:*", "login")
        assert subscriber.connected
        assert noted.gauge == {"notifications": 1, "events:{type}": 1}
    assert noted.counts["received", "notifications", ""] == 1
    assert noted.counts["received", "events:{type}", "login"] == 1
    assert noted.gauge == {"notifications": 0, "events:{type}": 0}


async def test_subscribed_means_that_what_follows_arrives(client: Redis) -> None:
    publisher = EventPublisher(client)
    async with EventSubscriber(client) as subscriber:
        for number in range(20):
            await subscriber.subscribe(f"room-{number}")
            assert await publisher.publish(f"room-{number}", {"n": number}) == 1
        assert await following(subscriber.listen(), 20) == list(range(20))


async def test_unsubscribed_means_that_nothing_arrives(client: Redis, redis_client: redis.Redis) -> None:
    publisher = EventPublisher(client)
    async with EventSubscriber(client) as subscriber:
        await subscriber.subscribe("a", "b")
        await publisher.publish("a", {"n": 1})
        await publisher.publish("b", {"n": 2})
        await subscriber.unsubscribe("a")
        await publisher.publish("a", {"n": 3})
        await publisher.publish("b", {"n": 4})
        assert await following(subscriber.listen(), 2) == [2, 4]
        await until(lambda: redis_client.pubsub_numsub("a") == [("a", 0)])
        await subscriber.subscribe("a")
        await publisher.publish("a", {"n": 5})
        assert await following(subscriber.listen(), 1) == [5]


async def test_listening_unsubscribed_is_an_error(client: Redis) -> None:
    subscriber = EventSubscriber(client)
    with pytest.raises(NotSubscribed, match="subscribe"):
        subscriber.listen()
    with pytest.raises(NotSubscribed, match="handlers"):
        await subscriber.run()
    with pytest.raises(NotSubscribed, match="named"):
        await subscriber.subscribe()
    await subscriber.subscribe("a")
    await subscriber.unsubscribe()
    with pytest.raises(NotSubscribed):
        subscriber.listen()
    await subscriber.close()
    await subscriber.close()


async def test_closing_ends_who_listens_and_the_connection(client: Redis, redis_client: redis.Redis) -> None:
    subscriber = EventSubscriber(client)
    await subscriber.subscribe("a")
    listening = asyncio.create_task(following(subscriber.listen(), 1))
    await until(lambda: redis_client.pubsub_numsub("a") == [("a", 1)])
    await subscriber.close()
    with pytest.raises(StopAsyncIteration):
        await listening
    await until(lambda: redis_client.pubsub_numsub("a") == [("a", 0)])
    await subscriber.subscribe("a")
    assert await EventPublisher(client).publish("a", {"n": 1}) == 1
    assert await following(subscriber.listen(), 1) == [1]
    await subscriber.close()


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 1025, "chat:[ab", "chat:*\\", "*" * 9])
async def test_bad_names_are_refused_whole(client: Redis, redis_client: redis.Redis, bad: str) -> None:
    subscriber = EventSubscriber(client)
    with pytest.raises(InvalidMessage):
        await subscriber.subscribe("good", bad)
    assert redis_client.pubsub_numsub("good") == [("good", 0)]
    with pytest.raises(NotSubscribed):
        subscriber.listen()


async def test_an_id_with_a_star_hears_nobody_else(client: Redis) -> None:
    publisher, names = EventPublisher(client), Channels()
    async with EventSubscriber(client) as subscriber:
        await subscriber.subscribe(names.user("*"))
        assert await publisher.publish(names.user("123"), {"n": 1}) == 0
        assert await publisher.publish(names.user("*"), {"n": 2}) == 1
        assert await following(subscriber.listen(), 1) == [2]
        await subscriber.subscribe("user:*")  # the pattern of the same text is another subscription
        assert await publisher.publish(names.user("123"), {"n": 3}) == 1
        assert await following(subscriber.listen(), 1) == [3]


class Greeting(msgspec.Struct):
    text: str
    n: int = 0


async def test_messages_are_typed(client: Redis) -> None:
    async with EventSubscriber(client, data_type=Greeting) as subscriber:
        await subscriber.subscribe("a")
        await EventPublisher(client).publish("a", Greeting("hi"))
        (message,) = await following(subscriber.listen(), 1)
        assert message.data == Greeting("hi")
        assert message.id


UNDECODABLE = [b"", b"no JSON", b"[1]", b"\xff", b'{"n": ', b'{"n": 1, "text": 7}', b'{"a":"' + b"x" * 999]


async def test_undecodable_messages_are_skipped_and_counted(
    client: Redis, redis_bytes: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    noted = Noted()
    async with EventSubscriber(
        client, data_type=Greeting, max_message_bytes=100, observer=noted
    ) as subscriber:
        await subscriber.subscribe("notifications")
        for payload in UNDECODABLE:
            redis_bytes.publish("notifications", payload)
        redis_bytes.publish("notifications", b'{"text": "hi"}')
        (message,) = await following(subscriber.listen(), 1)
        assert message.data == Greeting("hi")
    assert noted.counts["undecodable", "notifications"] == len(UNDECODABLE)
    assert noted.counts["dropped", "notifications"] == len(UNDECODABLE)
    assert len([record for record in caplog.records if "undecodable" in record.message]) == 1


async def test_undecodable_messages_can_stop_it(client: Redis, redis_bytes: redis.Redis) -> None:
    async with EventSubscriber(client, on_error=OnError(undecodable="stop")) as subscriber:
        await subscriber.subscribe("a")
        redis_bytes.publish("a", b'{"n": 1}')
        redis_bytes.publish("a", b"no JSON")
        messages = subscriber.listen()
        assert await following(messages, 1) == [1]
        with pytest.raises(UndecodableMessage, match=r"^channel 'a': .*no JSON"):
            await anext(messages)


async def test_a_slow_listener_loses_the_oldest_and_learns_how_many(
    client: Redis, redis_bytes: redis.Redis
) -> None:
    noted = Noted()
    async with EventSubscriber(client, buffer_size=5, observer=noted) as subscriber:
        await subscriber.subscribe("user:1")
        for number in range(12):
            redis_bytes.publish("user:1", b'{"n": %d}' % number)
        await until(lambda: noted.counts["dropped", "user:{user_id}"] == 7)
        assert await following(subscriber.listen(), 6) == [Gap(7), 7, 8, 9, 10, 11]


async def test_what_comes_again_is_left_out_if_wished(client: Redis, redis_bytes: redis.Redis) -> None:
    noted = Noted()
    payload = b'{"id": "1-0", "n": 1}'
    async with EventSubscriber(client, drop_seen=100, observer=noted) as subscriber:
        await subscriber.subscribe("a", "b")
        redis_bytes.publish("a", payload)
        redis_bytes.publish("a", payload)
        redis_bytes.publish("b", payload)
        redis_bytes.publish("a", b'{"id": "1-0", "n": 2}')  # another outbox's
        assert await following(subscriber.listen(), 3) == [1, 1, 2]
    assert noted.counts["duplicate", "other"] == 1


async def test_a_refused_subscription_leaves_the_others(server: Server, redis_client: redis.Redis) -> None:
    rules = ("on", "nopass", "~*", "+@all", "resetchannels", "&mine", "&other")
    redis_client.execute_command("ACL", "SETUSER", "some", *rules)
    try:
        async with (
            Redis(port=server.port, username="some", password="any") as client,
            EventSubscriber(client) as subscriber,
        ):
            with pytest.raises(RedisUnavailable, match=r"NOPERM|permission"):
                await subscriber.subscribe("theirs")
            await subscriber.subscribe("mine")
            with pytest.raises(RedisUnavailable, match=r"NOPERM|permission"):
                await subscriber.subscribe("theirs", "other")
            redis_client.publish("mine", '{"n": 1}')
            await subscriber.subscribe("other")
            redis_client.publish("other", '{"n": 2}')
            assert await following(subscriber.listen(), 2) == [1, 2]
    finally:
        redis_client.execute_command("ACL", "DELUSER", "some")


async def test_many_names_at_once(client: Redis) -> None:
    names = [f"room-{number}" for number in range(2500)]
    async with EventSubscriber(client) as subscriber:
        await subscriber.subscribe(*names)
        for name in (names[0], names[1500], names[-1]):
            assert await EventPublisher(client).publish(name, {"n": name}) == 1
        assert await following(subscriber.listen(), 3) == [names[0], names[1500], names[-1]]
        health = await subscriber.health()
        assert (health.channels, health.subscribers) == (2500, 1)


@pytest.mark.parametrize(
    "wrong", [{"buffer_size": 0}, {"handler_timeout_s": 0}, {"timeout_s": -1}, {"buffer_bytes": 0}]
)
async def test_sizes_and_times_must_be_positive(client: Redis, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        EventSubscriber(client, **wrong)


async def test_who_listened_before_the_close_hears_nothing_of_what_is_subscribed_after_it(
    client: Redis,
) -> None:
    publisher = EventPublisher(client)
    async with EventSubscriber(client) as subscriber:
        await subscriber.subscribe("a")
        await publisher.publish("a", {"n": 1})
        between = subscriber.listen()
        assert await following(between, 1) == [1]
        waiting = asyncio.ensure_future(anext(subscriber.listen(), "ended"))
        await asyncio.sleep(0)
        await subscriber.close()
        await subscriber.subscribe("a")
        await publisher.publish("a", {"n": 2})
        assert await asyncio.wait_for(waiting, 10) == "ended"
        assert await anext(between, "ended") == "ended"
        assert await following(subscriber.listen(), 1) == [2]


async def test_leaving_the_last_channel_while_another_is_joined_ends_neither(client: Redis) -> None:
    publisher = EventPublisher(client)
    async with EventSubscriber(client) as subscriber:
        for n in range(20):
            await subscriber.subscribe("old")
            async with asyncio.timeout(10):
                await asyncio.gather(subscriber.unsubscribe("old"), subscriber.subscribe("new"))
            messages = subscriber.listen()
            assert await publisher.publish("new", {"n": n}) == 1
            assert await following(messages, 1) == [n]
            assert subscriber.connected
            await subscriber.unsubscribe()


async def test_a_name_that_is_left_before_it_was_joined_is_told_at_once(client: Redis) -> None:
    async with EventSubscriber(client, timeout_s=30) as subscriber:
        await subscriber.subscribe("a")
        joining = asyncio.create_task(subscriber.subscribe("b"))
        await asyncio.sleep(0)
        await subscriber.unsubscribe("b")
        with pytest.raises(NotSubscribed, match="'b' was unsubscribed before"):
            await asyncio.wait_for(joining, 10)
        assert subscriber.connected


async def test_who_gives_up_takes_no_name_from_others_who_wait_for_it(client: Redis) -> None:
    async with EventSubscriber(client) as subscriber:
        first, second = (asyncio.create_task(subscriber.subscribe("a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 10)
        assert subscriber.connected
        assert await EventPublisher(client).publish("a", {"n": 1}) == 1

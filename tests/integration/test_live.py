"""Notifications, chat rooms, live updates and events by type, as applications use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from event_router import EventPublisher, EventSubscriber, InvalidMessage, Message, NotSubscribed
from event_router.messaging.live import (
    ChatMessage,
    ChatRoom,
    ConfigUpdate,
    DataUpdate,
    LiveUpdate,
    StatusUpdate,
    broadcast_event,
    broadcast_update,
    notify_user,
)
from tests.environment.servers import Server
from tests.integration.pubsub_cases import until


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port) as made:
        yield made


async def next_messages(subscriber: EventSubscriber, count: int) -> list[Message]:
    items = subscriber.listen()
    async with asyncio.timeout(10):
        found = [await anext(items) for _ in range(count)]
    assert all(isinstance(item, Message) for item in found)
    return found  # type: ignore[return-value]


async def test_a_notification_goes_to_its_user_and_to_all_with_one_id(client: Redis) -> None:
    async with EventSubscriber(client) as user, EventSubscriber(client) as everyone:
        await user.subscribe(user.channels.user(123))
        await everyone.subscribe("notifications")
        notification = {"type": "login_streak", "streak": 7}
        assert await notify_user(EventPublisher(client), 123, notification) == (1, 1)
        (own,) = await next_messages(user, 1)
        (general,) = await next_messages(everyone, 1)
        assert own.data == general.data
        assert own.data == notification | {"id": own.id, "timestamp": own.timestamp, "user_id": "123"}
        assert own.id


async def test_an_event_goes_to_the_channel_of_its_type(client: Redis) -> None:
    publisher = EventPublisher(client)
    async with EventSubscriber(client) as subscriber:
        await subscriber.subscribe("events.*")
        assert await broadcast_event(publisher, {"type": "login", "user_id": "1"}) == 1
        (message,) = await next_messages(subscriber, 1)
        assert (message.channel, message.type) == ("events:login", "login")
    with pytest.raises(InvalidMessage, match="type"):
        await broadcast_event(publisher, {"user_id": "1"})


async def test_updates_are_told_apart_by_their_type(client: Redis) -> None:
    updates: list[LiveUpdate] = [
        DataUpdate(resource="article:1", data={"title": "안녕"}),
        ConfigUpdate(name="limit", value=5),
        StatusUpdate(component="search", status="degraded"),
    ]
    heard: list[Any] = []
    subscriber = EventSubscriber(client)

    @subscriber.on("updates", data_type=LiveUpdate)
    async def update(update: LiveUpdate) -> None:
        match update:
            case DataUpdate(resource=resource):
                heard.append(resource)
            case ConfigUpdate(name=name, value=value):
                heard.append((name, value))
            case StatusUpdate(component=component, status=status):
                heard.append((component, status))

    running = asyncio.create_task(subscriber.run())
    await until(lambda: subscriber.connected)
    for update in updates:
        assert await broadcast_update(EventPublisher(client), update) == 1
    await until(lambda: len(heard) == 3)
    await subscriber.close()
    await running
    assert heard == ["article:1", ("limit", 5), ("search", "degraded")]


class TestChatRoom:
    async def test_from_joining_to_leaving(self, client: Redis) -> None:
        async with ChatRoom(client, "garden", 1) as ann, ChatRoom(client, "garden", 2) as bob:
            assert await ann.send("안녕") == 2
            heard_by_ann, heard_by_bob = ann.messages(), bob.messages()
            async with asyncio.timeout(10):
                by_ann = [await anext(heard_by_ann) for _ in range(3)]
                by_bob = [await anext(heard_by_bob) for _ in range(2)]
            assert [plain(item) for item in by_ann] == [
                ("joined", "1", ""),
                ("joined", "2", ""),
                ("message", "1", "안녕"),
            ]
            assert [plain(item) for item in by_bob] == [("joined", "2", ""), ("message", "1", "안녕")]
            await bob.leave()
            assert await ann.send("still there?") == 1
            async with asyncio.timeout(10):
                assert plain(await anext(heard_by_ann)) == ("left", "2", "")
                with pytest.raises(StopAsyncIteration):
                    await anext(heard_by_bob)
            with pytest.raises(NotSubscribed):
                await anext(bob.messages())

    async def test_who_could_not_tell_the_room_is_not_in_it(self, client: Redis) -> None:
        tasks = asyncio.all_tasks()
        with pytest.raises(InvalidMessage):
            async with ChatRoom(client, "garden", 1, publisher=EventPublisher(client, max_message_bytes=1)):
                pass
        assert asyncio.all_tasks() == tasks

    async def test_rooms_are_apart(self, client: Redis) -> None:
        async with ChatRoom(client, "*", 1) as star, ChatRoom(client, "garden", 2) as garden:
            assert await garden.send("hi") == 1
            assert await star.send("hi") == 1

    async def test_leaving_works_without_the_server(self, client: Redis) -> None:
        room = ChatRoom(client, "garden", 1, publisher=EventPublisher(client, timeout_s=0.3))
        await room.leave()
        assert repr(room) == "<ChatRoom chat:garden 1 not joined>"


def plain(item: object) -> tuple[str, str, str]:
    assert isinstance(item, ChatMessage)
    assert item.id
    assert item.timestamp
    return item.type, item.user_id, item.text

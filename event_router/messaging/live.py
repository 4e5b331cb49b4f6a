"""What Pub/Sub is used for most: notifications, chat rooms, live updates, events by type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import msgspec
from redis.asyncio import Redis

from event_router.core.channels import NOTIFICATIONS, UPDATES
from event_router.core.errors import InvalidMessage
from event_router.messaging.channels import Channel
from event_router.messaging.messages import Gap, Message
from event_router.messaging.publisher import Event, EventPublisher
from event_router.messaging.subscriber import EventSubscriber


class DataUpdate(msgspec.Struct, tag="data", kw_only=True):
    """Data that changed: what of, and its new content or where it stands."""

    resource: str
    data: Any = None
    id: str = ""
    timestamp: str = ""


class ConfigUpdate(msgspec.Struct, tag="config", kw_only=True):
    """Configuration that changed."""

    name: str
    value: Any = None
    id: str = ""
    timestamp: str = ""


class StatusUpdate(msgspec.Struct, tag="status", kw_only=True):
    """A component's status that changed."""

    component: str
    status: str
    message: str = ""
    id: str = ""
    timestamp: str = ""


LiveUpdate = DataUpdate | ConfigUpdate | StatusUpdate
"""What goes over the channel `updates`: one of three, told apart by the member `type`."""


class ChatMessage(msgspec.Struct, kw_only=True):
    """A message in a chat room; `type` is `message`, `joined` or `left`."""

    user_id: str
    text: str = ""
    type: str = "message"
    id: str = ""
    timestamp: str = ""


async def notify_user(publisher: EventPublisher, user_id: str | int, notification: Event) -> tuple[int, int]:
    """Publish a notification to `user:{user_id}` and to `notifications`, with one id.

    Returns:
        The receivers of each. Nothing is stored: `event_router.patterns.Notifications` keeps them too.

    Raises:
        InvalidMessage and what `EventPublisher.publish` raises.
    """
    message = {"user_id": str(user_id), **_members(notification)}
    stamped = publisher.stamped(message)
    own = await publisher.publish(publisher.channels.user(user_id), stamped)
    return own, await publisher.publish(NOTIFICATIONS, stamped)


async def broadcast_event(publisher: EventPublisher, event: Event) -> int:
    """Publish an event to `events:{type}`, by its member `type`; return the receivers.

    Raises:
        InvalidMessage: it has no `type`.
    """
    members = _members(event)
    event_type = members.get("type")
    if not isinstance(event_type, str):
        raise InvalidMessage("an event that is broadcast must have a `type`, which names its channel")
    return await publisher.publish(publisher.channels.event(event_type), members)


async def broadcast_update(publisher: EventPublisher, update: LiveUpdate) -> int:
    """Publish a live update to `updates`; return the receivers."""
    return await publisher.publish(UPDATES, update)


class ChatRoom:
    """A user in a chat room, `chat:{room_id}`, from joining to leaving.

        async with ChatRoom(redis, "garden", "123") as room:
            await room.send("hello")
            async for message in room.messages():
                ...

    Joining subscribes first and then tells the room, so that the joiner misses nothing that follows, its
    own `joined` included. Messages are `ChatMessage`s; a `Gap` where some are missing. Others who only
    publish need `EventPublisher` and `Channels().room(room_id)` alone.

    Args:
        redis: a client of the Pub/Sub Redis.
        publisher, options: another publisher, and what `EventSubscriber` takes.
    """

    def __init__(
        self,
        redis: Redis,
        room_id: str | int,
        user_id: str | int,
        *,
        publisher: EventPublisher | None = None,
        **options: Any,
    ) -> None:
        self._publisher = publisher or EventPublisher(redis)
        self._subscriber = EventSubscriber(redis, data_type=ChatMessage, **options)
        self._joined = False
        self.channel: Channel = self._publisher.channels.room(room_id)
        self.user_id = str(user_id)

    def __repr__(self) -> str:
        return f"<ChatRoom {self.channel} {self.user_id} {'joined' if self._joined else 'not joined'}>"

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def join(self) -> None:
        """Subscribe to the room and tell it.

        Raises what `subscribe` and `publish` raise; the user has not joined then, and may try again.
        """
        await self._subscriber.subscribe(self.channel)
        try:
            await self._publish("joined")
        except BaseException:
            await asyncio.shield(self._subscriber.close())
            raise
        self._joined = True

    async def send(self, text: str) -> int:
        """Say something; return how many received it, the sender among them while joined."""
        return await self._publish("message", text)

    async def leave(self) -> None:
        """Tell the room and unsubscribe, which happens even if telling fails. May be called again."""
        joined, self._joined = self._joined, False
        try:
            if joined:
                await self._publish("left")
        finally:
            await asyncio.shield(self._subscriber.close())

    async def messages(self) -> AsyncIterator[ChatMessage | Gap]:
        """Iterate over what is said, until `leave`. Raises NotSubscribed if not joined."""
        async for item in self._subscriber.listen():
            yield item.data if isinstance(item, Message) else item

    async def _publish(self, kind: str, text: str = "") -> int:
        message = ChatMessage(user_id=self.user_id, text=text, type=kind)
        return await self._publisher.publish(self.channel, message)


def _members(event: Event) -> dict[str, Any]:
    if isinstance(event, msgspec.Struct):
        found: dict[str, Any] = msgspec.to_builtins(event)
        return found
    if not isinstance(event, Mapping):
        raise InvalidMessage(f"a message must be a JSON object, not {type(event).__name__}")
    return dict(event)

"""Messages of a fan-out log on their way to Pub/Sub, several in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from event_router.core.errors import EventRouterError, InvalidMessage
from event_router.core.fan_out import Record, published_form, record
from event_router.messaging.outbox import Entries
from event_router.runtime.fan_out import FanOutObserver


class Pipeline(Protocol):
    """What sends several commands at once: a link to the Pub/Sub Redis."""

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands; an error reply stands in the list as an exception."""


class Publishing:
    """Publishes entries of one fan-out log in their order."""

    def __init__(self, pipeline: Pipeline, observer: FanOutObserver, *, domain: str, outbox: str) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._domain = domain
        self._outbox = outbox

    def messages(self, entries: Entries) -> list[Record]:
        """Return what is to be published; an entry that can never be is told and left out."""
        return [made for entry_id, fields in entries if (made := self._made(entry_id, fields))]

    async def publish(self, messages: list[Record]) -> list[Record]:
        """Publish messages; return what has to be sent again, in order.

        Raises:
            RedisUnavailable, RedisRefused: none is known to be published.
        """
        commands = [("PUBLISH", message.channel, message.message) for message in messages]
        return self._accepted(messages, await self._pipeline.pipeline(commands))

    def _accepted(self, sent: list[Record], replies: list[Any]) -> list[Record]:
        for place, (found, reply) in enumerate(zip(sent, replies, strict=True)):
            if not isinstance(reply, EventRouterError):
                self._observer.message_published(found.channel, found.type, reply)
            elif _of_the_channel(reply):
                self._observer.message_dropped(self._outbox, found.channel, str(reply))
            elif place:
                return sent[place:]
            else:
                raise reply
        return []

    def _made(self, entry_id: str, fields: list[bytes]) -> Record | None:
        try:
            found = record(entry_id, fields)
        except InvalidMessage as error:
            self._observer.message_dropped(self._outbox, b"", str(error))
            return None
        try:
            message = published_form(found.message, entry_id, self._domain)
        except InvalidMessage as error:
            self._observer.message_dropped(self._outbox, found.channel, str(error))
            return None
        return Record(entry_id, found.channel, found.type, message)


def _of_the_channel(error: EventRouterError) -> bool:
    """Whether the user may publish, but not on this channel: waiting would hold up all others."""
    return "NOPERM" in str(error) and "channel" in str(error)

"""Listening for services: channels and patterns, an iterator or handlers, through lost connections."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self, TypeVar

from redis.asyncio import Redis

from event_router.core.channels import Channels
from event_router.core.errors import ConfigurationError, NotSubscribed, RedisUnavailable
from event_router.core.pubsub_observer import PubSubObserver
from event_router.core.retry import RetryPolicy
from event_router.messaging.buffer import Arrived, Buffer
from event_router.messaging.channels import channel_or_pattern
from event_router.messaging.handlers import GapHandler, Handler, HandlerFunction, Handlers
from event_router.messaging.health import PubSubHealth, read_health
from event_router.messaging.messages import MAX_MESSAGE_BYTES, Gap, Message, MessageDecoder
from event_router.messaging.on_error import OnError
from event_router.messaging.receiving import Receiving
from event_router.messaging.seen import Seen
from event_router.messaging.subscriptions import Subscriptions
from event_router.redis_client.sent_once import SentOnce
from event_router.runtime.connectivity import Clock

BUFFER_SIZE = 1000
BUFFER_BYTES = 32 * 1024 * 1024
FIRST_PAUSE_MS = 100
LONGEST_PAUSE_MS = 5000
SYSTEM_CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, random.random)

F = TypeVar("F", bound=HandlerFunction)
_log = logging.getLogger("event_router")


class EventSubscriber:
    """Gets the messages of channels and patterns, by an iterator or by handlers.

        async with EventSubscriber(redis) as subscriber:
            await subscriber.subscribe("notifications", "events.*")
            async for message in subscriber.listen():
                ...

        subscriber = EventSubscriber(redis)

        @subscriber.on("events.*")
        async def event(message: dict, channel: str) -> None: ...

        await subscriber.run()

    A name with `*`, `?` or `[` is a pattern, `events.*` means `events:*`; a `Channel`, such as
    `Channels().user(user_id)`, is one channel whatever is in it. A message that matches several
    subscriptions comes once for each, as Redis sends it.

    Pub/Sub keeps nothing. A full buffer drops its oldest message; a lost connection is made anew, and
    subscribed again. In both cases a `Gap` stands where messages are missing. Undecodable messages are
    skipped and counted. What happens on an error is `on_error`'s to say.

    Args:
        redis: a client of the Pub/Sub Redis; its address and user are used, for a connection of its own.
        data_type: what messages are decoded to, any type msgspec knows; None for a dict.
        buffer_size, buffer_bytes: what may have arrived and not been taken yet.
        handler_timeout_s: how long a handler may run for one message, in seconds.
        timeout_s: how long the server may take to connect, confirm or answer a PING, in seconds.
        heartbeat_s: after so many seconds of silence the server is asked with a PING.
        drop_seen: how many of the latest messages are remembered, to leave out those that come again on
            the same subscription byte for byte, `id` included; 0 for none. The relay repeats itself so.
        on_error: what happens on an error.
        channels: the names of channels, for the labels of metrics.
        observer: hears what happens.
        clock: time and chance.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        data_type: Any = None,
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        handler_timeout_s: float = 30.0,
        timeout_s: float = 5.0,
        heartbeat_s: float = 10.0,
        drop_seen: int = 0,
        on_error: OnError | None = None,
        channels: Channels | None = None,
        observer: PubSubObserver | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if buffer_size < 1 or buffer_bytes < 1 or min(handler_timeout_s, timeout_s, heartbeat_s) <= 0:
            raise ValueError("sizes and times must be positive")
        self.channels = channels or Channels()
        self._observer = observer or PubSubObserver()
        self._on_error = on_error or OnError()
        self._clock = clock
        self._data_type = data_type
        self._max_bytes = max_message_bytes
        self._decoder = MessageDecoder(data_type, max_bytes=max_message_bytes)
        pauses = RetryPolicy(self._on_error.attempts, FIRST_PAUSE_MS, 2.0, LONGEST_PAUSE_MS, clock.random)
        self._pauses = pauses
        self._receiving = Receiving(self.channels, self._on_error, self._observer, clock.monotonic)
        self._handlers = Handlers(
            self._receiving, timeout_s=handler_timeout_s, pauses=pauses, monotonic=clock.monotonic
        )
        self._timeout_s = timeout_s
        self._seen = Seen(drop_seen)
        self._labels: set[str] = set()
        self._closed = False
        self._once = SentOnce(redis)
        self._buffer = Buffer(buffer_size, buffer_bytes, self._overflown)
        self._subscriptions = Subscriptions(
            redis.connection_pool,
            buffer=self._buffer,
            timeout_s=timeout_s,
            heartbeat_s=heartbeat_s,
            pauses=pauses,
            keep_trying=lambda error: self._on_error.action("connection", error) == "retry",
            monotonic=clock.monotonic,
            observer=self._observer,
        )

    def __repr__(self) -> str:
        return f"<EventSubscriber {self._subscriptions!r} {self._buffer!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether everything that was asked for is subscribed, as far as is known."""
        return self._subscriptions.up

    def on(self, *names: str, data_type: Any = None) -> Callable[[F], F]:
        """Make a coroutine function the handler of channels and patterns; `run` calls it.

        It takes the message, and the channel if it has a second parameter; see `Handler` for the types.

        Raises:
            InvalidMessage: a name cannot be a channel or pattern.
            ConfigurationError: the function cannot be a handler.
        """
        kinds = [channel_or_pattern(name) for name in names]
        if not kinds:
            raise ConfigurationError('name a channel or pattern: @subscriber.on("notifications")')

        def register(function: F) -> F:
            self._handlers.add(kinds, Handler(function, data_type, self._data_type, self._max_bytes))
            return function

        return register

    def on_gap(self, function: GapHandler) -> GapHandler:
        """Make a coroutine function the one that `run` tells of gaps."""
        self._handlers.for_gaps.append(function)
        return function

    async def subscribe(self, *names: str) -> None:
        """Subscribe to channels and patterns; what is published after this returns arrives.

        Raises:
            InvalidMessage: a name cannot be a channel or pattern; nothing is subscribed.
            RedisUnavailable: Redis does not confirm it in time, or refuses; these names are not subscribed,
                but for those that somebody else has subscribed, or waits for.
            NotSubscribed: somebody has unsubscribed one of them meanwhile.
        """
        kinds = [channel_or_pattern(name) for name in names]
        if not kinds:
            raise NotSubscribed("no channel or pattern is named")
        self._closed = False
        self._buffer.resume()
        await self._subscriptions.add(kinds)
        self._tell_subscribed()

    async def unsubscribe(self, *names: str) -> None:
        """Unsubscribe from these, or from everything; nothing that arrived for them is given out any more."""
        kinds = [channel_or_pattern(name) for name in names] or list(self._subscriptions.names.values())
        await self._subscriptions.remove(kinds)
        self._tell_subscribed()

    def listen(self) -> AsyncGenerator[Message | Gap, None]:
        """Iterate over what arrives, until `close` or until nothing is subscribed any more.

        Raises:
            NotSubscribed: nothing is subscribed.
            UndecodableMessage, RedisUnavailable: while iterating, where `on_error` says `stop`.
        """
        if not self._subscriptions.names:
            raise NotSubscribed("nothing is subscribed: await subscribe(…) before listening")
        return self._listen(self._buffer.session)

    async def run(self) -> None:
        """Subscribe to what the handlers are for, and run them until `close`, one message after another.

        Raises:
            NotSubscribed: there are no handlers.
            Exception: what `on_error` says `stop` for, such as a handler's own error.
        """
        if not self._handlers.names:
            raise NotSubscribed('there are no handlers: decorate them with @subscriber.on("notifications")')
        self._closed = False
        await self._subscribe_patiently()
        session = self._buffer.session
        while (item := await self._buffer.take(session)) is not None:
            if isinstance(item, Gap):
                await self._handlers.tell_gap(item)
            elif not self._is_repeated(item):
                await self._handlers.handle(item)

    async def close(self) -> None:
        """Unsubscribe from everything; listeners and `run` end. May be called again, and subscribed after."""
        self._closed = True
        self._buffer.discard()
        await self._subscriptions.close()
        self._tell_subscribed()

    async def health(self) -> PubSubHealth:
        """Return whether the Pub/Sub Redis answers, and its channels, patterns and subscribers."""
        return await read_health(self._once, timeout_s=self._timeout_s)

    async def _listen(self, session: int) -> AsyncGenerator[Message | Gap, None]:
        while (item := await self._buffer.take(session)) is not None:
            if isinstance(item, Gap):
                yield item
            elif not self._is_repeated(item):
                message = self._receiving.decoded(item, self._decoder)
                if message is not None:
                    self._observer.received(self.channels.label(item.channel), message.type)
                    yield message

    async def _subscribe_patiently(self) -> None:
        failures = 0
        while not self._closed:
            try:
                await self.subscribe(*self._handlers.names.values())
                return
            except RedisUnavailable as error:
                if self._on_error.action("connection", error) == "stop":
                    raise
                failures += 1
                if failures == 1:
                    _log.warning("Pub/Sub is not there yet, trying again: %s", error)
                await asyncio.sleep(self._pauses.delay_ms(failures) / 1000)

    def _is_repeated(self, arrived: Arrived) -> bool:
        if not self._seen.is_repeated(arrived):
            return False
        self._observer.duplicate(self.channels.label(arrived.channel))
        return True

    def _overflown(self, channel: str) -> None:
        self._observer.dropped(self.channels.label(channel), 1)

    def _tell_subscribed(self) -> None:
        counts = Counter(self.channels.label(name) for name in self._subscriptions.names.values())
        for label in self._labels | counts.keys():
            self._observer.subscribed(label, counts[label])
        self._labels |= counts.keys()

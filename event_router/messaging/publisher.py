"""Publishing from services: one message at a time, tried again, refused before it is sent."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping

import msgspec
from redis.asyncio import Redis

from event_router.core.channels import Channels, check_channel
from event_router.core.errors import EventRouterError, InvalidMessage, OutcomeUnknown, RedisUnavailable
from event_router.core.pubsub_observer import PubSubObserver
from event_router.core.retry import RetryPolicy
from event_router.messaging.health import PubSubHealth, read_health
from event_router.messaging.messages import MAX_MESSAGE_BYTES, encode_message
from event_router.redis_client.sent_once import SentOnce

ATTEMPTS = 3
FIRST_BACKOFF_MS = 100
LONGEST_BACKOFF_MS = 10_000

Event = Mapping[str, object] | msgspec.Struct


class EventPublisher:
    """Publishes messages to whoever listens now.

        publisher = EventPublisher(redis)
        receivers = await publisher.publish("notifications", {"type": "hello", "text": "…"})

    A message is a JSON object in UTF-8 that always has an `id` and a `timestamp`: those it has are kept.
    It is sent up to three times where no reply comes, after 100 and 200 ms: subscribers may get it more
    than once, with the same `id`. Pub/Sub keeps nothing: who does not listen misses it, and 0 receivers
    is no error.

    Args:
        redis: a client of the Pub/Sub Redis; its address, user and connections are used, its retries not.
        timeout_s: how long a call may take in all, its repetitions included, in seconds.
        attempts: how often a message is sent at most.
        max_message_bytes: the largest message.
        channels: the names of channels; another job channel by `Channels(job_template)`.
        observer: hears what was published and what was given up.
        new_id, now_ms, random: where ids, times (epoch milliseconds) and jitter (0 to 1) come from.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        timeout_s: float = 5.0,
        attempts: int = ATTEMPTS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        channels: Channels | None = None,
        observer: PubSubObserver | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[], float] = random.random,
    ) -> None:
        if attempts < 1 or timeout_s <= 0 or max_message_bytes < 1:
            raise ValueError("attempts, timeout_s and max_message_bytes must be positive")
        self._once = SentOnce(redis)
        self._timeout_s = timeout_s
        self._policy = RetryPolicy(attempts, FIRST_BACKOFF_MS, 2.0, LONGEST_BACKOFF_MS, random)
        self._max_bytes = max_message_bytes
        self._observer = observer or PubSubObserver()
        self._new_id = new_id
        self._now_ms = now_ms
        self.channels = channels or Channels()

    def __repr__(self) -> str:
        return f"<EventPublisher attempts={self._policy.max_deliveries} timeout={self._timeout_s} s>"

    def stamped(self, event: Event) -> dict[str, object]:
        """Return the members of a message with its `id` and `timestamp`, to publish it more than once.

        Raises:
            InvalidMessage: it is no JSON object.
        """
        found: dict[str, object] = msgspec.json.decode(self._encoded(event))
        return found

    async def publish(self, channel: str, event: Event) -> int:
        """Publish a message and return how many received it.

        Args:
            channel: any name of up to 1,024 bytes without control characters; `events.login` means
                `events:login`.
            event: a mapping or a msgspec struct.

        Raises:
            InvalidMessage: the channel or the message cannot be sent; nothing was.
            RedisUnavailable: it was not sent.
            OutcomeUnknown: it may have been sent; publishing it again with its `id` is safe.
            RedisRefused: Redis refuses, and trying again will not mend it.
        """
        name = check_channel(channel)
        payload = self._encoded(event)
        if len(payload) > self._max_bytes:
            raise InvalidMessage(
                f"a message of {len(payload)} bytes for channel {name!r}; at most {self._max_bytes}:"
                " publish where its content stands, not the content"
            )
        label = self.channels.label(name)
        try:
            receivers = await self._send(name, payload)
        except EventRouterError:
            self._observer.dropped(label, 1)
            raise
        self._observer.published(label, _type_of(event), receivers)
        return receivers

    async def publish_to_job(self, job_id: str | int, event: Event) -> int:
        """Publish a message on the channel of a job; as `publish`."""
        return await self.publish(self.channels.job(job_id), event)

    async def health(self) -> PubSubHealth:
        """Return whether the Pub/Sub Redis answers, and its channels, patterns and subscribers."""
        return await read_health(self._once, timeout_s=self._timeout_s)

    def _encoded(self, event: Event) -> bytes:
        return encode_message(event, id=self._new_id(), time_ms=self._now_ms())

    async def _send(self, channel: str, payload: bytes) -> int:
        attempt, maybe_sent = 0, False
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        error: EventRouterError
        while True:
            attempt += 1
            try:
                return await self._attempt(channel, payload, deadline)
            except (RedisUnavailable, OutcomeUnknown) as failure:
                error = failure
                maybe_sent = maybe_sent or isinstance(failure, OutcomeUnknown)
            pause_s = self._policy.delay_ms(attempt) / 1000
            if (
                self._policy.exhausted(attempt)
                or asyncio.get_running_loop().time() + pause_s >= deadline - 0.001
            ):
                kind = OutcomeUnknown if maybe_sent else RedisUnavailable
                raise kind(f"channel {channel!r}, {attempt} attempts: {error}") from error
            await asyncio.sleep(pause_s)

    async def _attempt(self, channel: str, payload: bytes, deadline: float) -> int:
        """Send it once, within its share of the time: the next attempt may find a better connection."""
        share_s = self._timeout_s / self._policy.max_deliveries
        at = min(deadline, asyncio.get_running_loop().time() + share_s)
        try:
            async with asyncio.timeout_at(at):
                return int(await self._once.call("PUBLISH", channel.encode(), payload, timeout_s=share_s))
        except TimeoutError:  # connecting, or waiting for a connection of the pool, took too long
            raise OutcomeUnknown(f"no reply to PUBLISH within {share_s:.3g} s") from None


def _type_of(event: Event) -> str:
    found = event.get("type") if isinstance(event, Mapping) else getattr(event, "type", None)
    if isinstance(event, msgspec.Struct) and found is None:
        found = event.__struct_config__.tag
    return found if isinstance(found, str) else ""

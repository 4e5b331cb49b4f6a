"""Notifications of users: kept in a stream always, and shown to who is there."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis

from event_router.core.channels import NOTIFICATIONS, Channels
from event_router.core.encoding import Encoder, members_of
from event_router.core.errors import (
    ConfigurationError,
    EventRouterError,
    InvalidEvent,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
)
from event_router.core.keys import OWN_PREFIX
from event_router.core.payloads import check_identifier
from event_router.core.timestamps import format_time
from event_router.patterns.bounded import BoundedCalls
from event_router.patterns.rate_limiter import RateLimiter
from event_router.redis_client.script import Script

STREAM, MAXLEN = "events:notification", 10_000
MAX_BYTES = 64 * 1024
DEDUPE_S, RESEND_S = 3600, 60
"""How long an id is known: one that the caller gave, and one of our own, which only we send again."""


@dataclass(frozen=True, slots=True)
class Notified:
    """What became of a notification. It stands in the stream in any case.

    Attributes:
        stream_id: its id in the stream.
        id: its own, the same in the entry and in the message.
        live: `delivered` (published), `limited` (the user had too many lately), or `undelivered` (the Pub/Sub
            Redis did not answer or refused; it may have been published).
        receivers: how many received it on `user:{user_id}`.
        retry_after: where it was limited, the seconds until the user can be notified live again.
    """

    stream_id: str
    id: str
    live: Literal["delivered", "limited", "undelivered"]
    receivers: int = 0
    retry_after: float = 0.0


class Notifications:
    """Notifies users: durably in `events:notification`, live on `user:{user_id}` and `notifications`.

    The entry comes first, so that nothing is shown that is not kept. It is added once even where a reply is
    lost: it is sent again with its id, which the script knows (`notify_add.lua`). Live messages are limited
    for each user, and sent at least once; a repetition has the same `id`.

    Args:
        streams_redis: a client of the Redis with the streams.
        pubsub_redis: a client of the Pub/Sub Redis, which also keeps the limits.
        limit, window: how many live messages a user gets at most in how many seconds.
        stream, maxlen: the stream, and about how many notifications, of all users, it keeps.
        dedupe_s: for how long a notification that is sent again with its `id` counts once, in seconds.
        timeout_s: how long adding an entry may take each of the two times, in seconds.
        live_timeout_s: how long each of at most three calls of the Pub/Sub Redis may take, in seconds.
        now_ms, new_id: where times (epoch milliseconds) and ids come from.

    Attributes:
        counts: how many were `delivered`, `limited` and `undelivered` live.

    Raises:
        ConfigurationError: an argument is not possible.
    """

    def __init__(
        self,
        streams_redis: Redis,
        pubsub_redis: Redis,
        *,
        limit: int = 20,
        window: float = 60.0,
        stream: str = STREAM,
        maxlen: int = MAXLEN,
        dedupe_s: float = DEDUPE_S,
        timeout_s: float = 5.0,
        live_timeout_s: float = 1.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        RateLimiter.check_limit(limit, window)
        if maxlen < 1 or not dedupe_s >= 1:
            raise ConfigurationError("maxlen must be 1 or more, dedupe_s 1 s or more")
        self.counts: Counter[str] = Counter()
        self._limit, self._window = limit, window
        self._stream, self._maxlen = stream, maxlen
        self._dedupe_ms = int(dedupe_s * 1000)
        self._now_ms = now_ms
        self._new_id = new_id
        self._streams = BoundedCalls(streams_redis, timeout_s)
        self._pubsub = BoundedCalls(pubsub_redis, live_timeout_s)
        self._limiter = RateLimiter(pubsub_redis, timeout_s=live_timeout_s)
        self._channels = Channels()
        self._encoder = Encoder()
        self._add = Script("notify_add", "event_router.patterns")
        self._publish = Script("notify_publish", "event_router.patterns")

    def __repr__(self) -> str:
        return f"<Notifications {self._limit} in {self._window} s, {dict(self.counts)}>"

    async def notify_user(
        self, user_id: str | int, notification: Mapping[str, object] | msgspec.Struct
    ) -> Notified:
        """Keep a notification and show it to the user if he is there.

        Args:
            user_id: who is notified.
            notification: its members. Added where they are missing: `type` (`notification`), `id`,
                `timestamp`, and `user_id`. Members that are None are left out; objects and lists are JSON in
                the entry. With an `id` of your own, notifying again is safe for `dedupe_s` seconds.

        Raises:
            InvalidEvent: the user or the notification is not possible; nothing was sent.
            RedisUnavailable: the streams Redis does not answer or refuses for now; nothing was sent.
            OutcomeUnknown: it may stand in the stream, and was not shown. Notifying again is safe with the
                `id` that the message names: for a minute, or for `dedupe_s` seconds if it is your own.
            RedisRefused: the stream is none; nothing was sent.
        """
        user_id = check_identifier("user_id", user_id)
        members = dict(members_of(notification))
        known_ms = RESEND_S * 1000 if members.get("id") is None else self._dedupe_ms
        members = _completed(members, user_id, self._new_id(), self._now_ms())
        fields, _ = self._encoder.encode("notification", members, now_ms=self._now_ms())
        message = _message(members)
        found = str(members["id"])
        stream_id = await self._keep(user_id, found, fields, known_ms)
        notified = await self._show(user_id, message, Notified(stream_id, found, "undelivered"))
        self.counts[notified.live] += 1
        return notified

    async def _keep(self, user_id: str, id: str, fields: list[bytes], known_ms: int) -> str:
        # With its length, no user's id runs into that of his notification.
        mark = f"{OWN_PREFIX}:mark:notification:{len(user_id)}:{user_id}:{id}"
        keys, arguments = (mark, self._stream), (self._maxlen, known_ms, *fields)
        maybe_added = False
        while True:
            try:
                reply: bytes = await self._add.run(self._streams, keys, arguments)
                return reply.decode()
            except OutcomeUnknown as error:
                if maybe_added:
                    raise OutcomeUnknown(f"{self._stream}, notification with id {id!r}: {error}") from error
                maybe_added = True
            except (RedisRefused, RedisUnavailable) as error:
                kind = OutcomeUnknown if maybe_added else type(error)
                raise kind(f"{self._stream}, notification with id {id!r}: {error}") from error

    async def _show(self, user_id: str, message: bytes, kept: Notified) -> Notified:
        channels = (self._channels.user(user_id), NOTIFICATIONS)
        try:
            allowed = await self._limiter.check(_limit_key(user_id), self._limit, self._window)
            if not allowed.allowed:
                return Notified(kept.stream_id, kept.id, "limited", 0, allowed.retry_after)
            try:
                receivers = await self._publish.run(self._pubsub, (), (message, *channels))
            except OutcomeUnknown:
                receivers = await self._publish.run(self._pubsub, (), (message, *channels))
        except EventRouterError:
            return kept
        return Notified(kept.stream_id, kept.id, "delivered", receivers[0])


def _completed(members: dict[str, object], user_id: str, id: str, now_ms: int) -> dict[str, Any]:
    """Return the members with those that every notification has, and without those that are None."""
    named = members.pop("user_id", None)
    if named is not None and check_identifier("user_id", named) != user_id:
        raise InvalidEvent(f"field 'user_id' is {named!r}, but {user_id!r} is to be notified")
    given = {name: value for name, value in members.items() if value is not None}
    head = {
        "id": check_identifier("id", given.pop("id", id)),
        "timestamp": given.pop("timestamp", format_time(now_ms)),
        "type": check_identifier("type", given.pop("type", "notification")),
        "user_id": user_id,
    }
    return {**head, **given}


def _message(members: dict[str, Any]) -> bytes:
    try:
        message = msgspec.json.encode(members)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the notification is no JSON: {error}") from None
    if len(message) > MAX_BYTES:
        raise InvalidEvent(f"a notification of {len(message)} bytes; at most {MAX_BYTES}", "too_large")
    return message


def _limit_key(user_id: str) -> str:
    """Return the key of a user's limit, which has room for 512 bytes too."""
    key = f"notification:{user_id}"
    return key if len(key.encode()) <= 512 else f"notification:{hashlib.sha256(user_id.encode()).hexdigest()}"

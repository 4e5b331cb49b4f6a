"""The cache in Redis: values, and leases to load them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from event_router.core.errors import InvalidEvent, OutcomeUnknown, RedisRefused, RedisUnavailable, StateError
from event_router.core.keys import OWN_PREFIX
from event_router.core.payloads import check_identifier
from event_router.patterns.bounded import BoundedCalls
from event_router.redis_client.script import Script


@dataclass(frozen=True, slots=True)
class Leased:
    """Whoever has this token, and nobody else, is to load the value."""

    token: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else loads the value, under this token."""

    token: str


class CacheEntries:
    """The hashes `event-router:cache:{key}`: each has a value, or the lease of who loads it.

    Every method but `invalidate` raises RedisUnavailable, OutcomeUnknown or RedisRefused; all end within
    `timeout_s` seconds.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        timeout_s: float,
        lease_ms: int,
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._calls = BoundedCalls(redis, timeout_s)
        self._lease_ms = lease_ms
        self._new_token = new_token
        self._claim = Script("cache_claim", "event_router.patterns")
        self._lease = Script("cache_lease", "event_router.patterns")

    @staticmethod
    def name(key: str) -> str:
        """Return the name of the hash. Raises StateError for a key that is no identifier."""
        try:
            return f"{OWN_PREFIX}:cache:{check_identifier('key', key)}"
        except InvalidEvent as error:
            raise StateError(f"cache: {error}") from None

    async def value(self, name: str) -> bytes | None:
        """Return the value, also where Redis is read-only or full; None where there is none."""
        try:
            found: bytes | None = await self._calls.call("HGET", name, "value")
        except RedisRefused:
            return None  # a key of another type, which `claim` removes
        return found

    async def claim(self, name: str, unwanted: bytes) -> bytes | Leased | Busy:
        """Return the value unless it is the unwanted one, or else the lease to load it or who has it."""
        arguments = (self._new_token(), self._lease_ms, unwanted)
        kind, found = await self._claim.run(self._calls, (name,), arguments)
        if kind == b"value":
            value: bytes = found
            return value
        return Leased(found.decode()) if kind == b"leased" else Busy(found.decode())

    async def renew(self, name: str, token: str) -> bool:
        """Lengthen the lease; False where it is lost."""
        return bool(await self._lease.run(self._calls, (name,), (token, self._lease_ms)))

    async def store(self, name: str, token: str, value: bytes, ttl_ms: int) -> bool:
        """Store the value and end the lease; False, and nothing done, where the lease is lost."""
        return bool(await self._lease.run(self._calls, (name,), (token, ttl_ms, value)))

    async def release(self, name: str, token: str) -> None:
        """End the lease without a value."""
        await self._lease.run(self._calls, (name,), (token, ""))

    async def invalidate(self, name: str) -> None:
        """Remove the value, or the lease, so that what is being loaded now is not stored.

        Raises:
            RedisUnavailable: it may still be there.
            RedisRefused: Redis refuses, and trying again will not mend it.
        """
        try:
            try:
                await self._calls.call("UNLINK", name)
            except OutcomeUnknown:
                await self._calls.call("UNLINK", name)  # removing twice is safe
        except (OutcomeUnknown, RedisUnavailable) as error:
            raise RedisUnavailable(
                f"{name} may stay cached until its time to live ends, invalidate it again: {error}"
            ) from error

"""A cache beside a source: what is not cached is loaded once, whoever asks for it at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.asyncio import Redis

from event_router.core.errors import ConfigurationError, EventRouterError, OutcomeUnknown
from event_router.core.values import ttl_in_ms
from event_router.patterns.cache_entries import Busy, CacheEntries, Leased
from event_router.patterns.cache_values import CacheValues
from event_router.patterns.flights import Flights

T = TypeVar("T")

FIRST_POLL_S, LONGEST_POLL_S = 0.01, 0.25
"""How often a process asks for what another one loads: first after 10 ms, then ever more rarely."""
REST_S = 1.0
"""How long Redis is left alone after it has not answered: who waits for each call waits twice."""


@dataclass(frozen=True, slots=True)
class _Cached(Generic[T]):
    value: T | None


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    name: str
    load: Callable[[], Awaitable[T | None]]
    ttl: float


class CacheAside(Generic[T]):
    """Values of one type under `event-router:cache:{key}`, loaded from their source when they are not there.

    - One load of a key at a time: callers of this process share it, other processes wait for it. Who loads
      has a lease in Redis, renewed while the load runs. If its process dies, another one loads after
      `lease_s` seconds.
    - `invalidate` also has the load that is under way not stored. Who asks later never gets its value.
    - What the source does not have (None) is cached too, for `negative_ttl` seconds at most.
    - Redis is never needed: down, frozen, read-only or full, values come from the source, after `timeout_s`
      seconds at the latest, and are shared within the process only.
    - A value that cannot be decoded as `type`, from an older version of a program say, is loaded anew.

    Args:
        redis: a client of either Redis.
        type: what values are: a msgspec struct, or anything else that msgspec decodes from JSON. All who use
            a key use one type, so put its name into the key: `article:7`.
        negative_ttl: the longest time to live of None, in seconds.
        jitter: by which part a time to live is shortened at most, at random, so that what was cached together
            does not expire together.
        lease_s: after how long a loader that died is replaced, in seconds.
        load_timeout_s: how long a load may take, in seconds.
        timeout_s: how long a call may wait for Redis each time, in seconds.
        max_bytes: larger values are returned but not cached.
        random, clock: where jitter (0 to 1) and the seconds of a monotonic clock come from.

    Attributes:
        counts: `hits`, `loads`, `failed` (loads that raised), `bypassed` (calls that did without Redis),
            `undecodable` values, and `not_stored` (loaded, but invalidated meanwhile, too large, or Redis
            did not answer).

    Raises:
        ConfigurationError: an argument is not possible.
    """

    def __init__(
        self,
        redis: Redis,
        type: type[T],
        *,
        negative_ttl: float = 60.0,
        jitter: float = 0.1,
        lease_s: float = 5.0,
        load_timeout_s: float = 60.0,
        timeout_s: float = 0.5,
        max_bytes: int = 1024 * 1024,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= jitter < 1:
            raise ConfigurationError(f"jitter {jitter!r} is not possible: give a part from 0 to below 1")
        times = {"lease_s": lease_s, "load_timeout_s": load_timeout_s, "negative_ttl": negative_ttl}
        for name, seconds in times.items():
            if not seconds >= 0.001:
                raise ConfigurationError(f"{name} {seconds!r} is not possible: give 0.001 s or more")
        self.counts: Counter[str] = Counter()
        self._values = CacheValues(type)
        self._ttl_of_none = negative_ttl
        self._jitter = jitter
        self._renew_every_s = lease_s / 3
        self._load_timeout_s = load_timeout_s
        self._max_bytes = max_bytes
        self._random = random
        self._clock = clock
        self._rests_until = 0.0
        self._entries = CacheEntries(redis, timeout_s=timeout_s, lease_ms=int(lease_s * 1000))
        self._flights: Flights[T | None] = Flights()

    def __repr__(self) -> str:
        return f"<CacheAside of {self._values.type!r} {dict(self.counts)}>"

    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[T | None]], ttl: float = 3600.0
    ) -> T | None:
        """Return the cached value, or load and cache it.

        Whoever waits for the same load gets the same object: do not change it.

        Args:
            key: text of 1 to 512 bytes without control characters.
            load: gets the value from the source; None where there is none. Whatever it raises reaches
                everybody in this process who waits for it, and nothing is cached. It is cancelled when
                nobody waits any more.
            ttl: the time to live in seconds, 0.001 s to 100 years.

        Raises:
            StateError: the key or time to live is not possible, or what was loaded is not of the type.
            TimeoutError: `load` took longer than `load_timeout_s`.
        """
        request = _Request(self._entries.name(key), load, ttl)
        ttl_in_ms(ttl, request.name)
        found = await self._look(request.name)
        if isinstance(found, _Cached):
            self.counts["hits"] += 1
        return await self._follow(request, found)

    async def invalidate(self, key: str) -> None:
        """Remove the value, since the source has another one now. Call it after the source was changed.

        Raises:
            StateError: the key is not possible.
            RedisUnavailable: the value may stay cached until its time to live ends; invalidate it again.
            RedisRefused: Redis refuses, and trying again will not mend it.
        """
        name = self._entries.name(key)
        self._flights.forget(name)
        await self._entries.invalidate(name)

    async def _look(self, name: str) -> _Cached[T] | Leased | Busy | None:
        """Return the value, or who is to load it; None where Redis does not say."""
        if self._clock() < self._rests_until:
            self.counts["bypassed"] += 1
            return None
        unwanted = b""
        try:
            raw = await self._entries.value(name)
            while True:
                if raw is not None:
                    try:
                        return _Cached(self._values.decode(raw))
                    except ValueError:
                        self.counts["undecodable"] += 1
                        unwanted = raw
                found = await self._entries.claim(name, unwanted)
                if not isinstance(found, bytes):
                    return found
                raw = found
        except EventRouterError as error:
            self._note(error)
            self.counts["bypassed"] += 1
            return None

    async def _follow(self, request: _Request[T], found: _Cached[T] | Leased | Busy | None) -> T | None:
        match found:
            case _Cached(value):
                return value
            case Leased(token):
                return await self._flights.run(token, lambda: self._load_leased(request, token))
            case Busy(token):
                return await self._flights.run(token, lambda: self._wait(request, token))
            case _:
                return await self._flights.run(request.name, lambda: self._load_alone(request))

    async def _wait(self, request: _Request[T], token: str) -> T | None:
        """Wait for the value that another process loads, or load it should that one fail."""
        pause_s = FIRST_POLL_S
        while True:
            await asyncio.sleep(pause_s * (1 + self._random()) / 2)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)
            found = await self._look(request.name)
            if not isinstance(found, Busy) or (found.token != token and found.token in self._flights):
                return await self._follow(request, found)

    async def _load_leased(self, request: _Request[T], token: str) -> T | None:
        renewing = asyncio.create_task(self._renew(request.name, token))
        try:
            value, raw = await self._load(request)
        except BaseException:
            renewing.cancel()
            await self._release(request.name, token)
            raise
        renewing.cancel()
        if len(raw) > self._max_bytes:
            self.counts["not_stored"] += 1
            await self._release(request.name, token)
            return value
        ttl = request.ttl if value is not None else min(request.ttl, self._ttl_of_none)
        ttl_ms = max(1, int(ttl * 1000 * (1 - self._jitter * self._random())))
        try:
            stored = await self._entries.store(request.name, token, raw, ttl_ms)
        except EventRouterError as error:
            self._note(error)
            stored = False
        if not stored:
            self.counts["not_stored"] += 1
        return value

    async def _load_alone(self, request: _Request[T]) -> T | None:
        value, _ = await self._load(request)
        return value

    async def _load(self, request: _Request[T]) -> tuple[T | None, bytes]:
        """Load the value; return it as the cache would, and its bytes."""
        self.counts["loads"] += 1
        limit = asyncio.timeout(self._load_timeout_s)
        try:
            async with limit:
                loaded = await request.load()
        except BaseException as error:
            self.counts["failed"] += 1
            if isinstance(error, TimeoutError) and limit.expired():
                raise TimeoutError(f"{request.name}: not loaded within {self._load_timeout_s} s") from error
            raise
        return self._values.encode(request.name, loaded)

    async def _renew(self, name: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            with contextlib.suppress(EventRouterError):
                if not await self._entries.renew(name, token):
                    return

    async def _release(self, name: str, token: str) -> None:
        try:
            await self._entries.release(name, token)
        except EventRouterError as error:  # the lease ends by itself
            self._note(error)

    def _note(self, error: EventRouterError) -> None:
        if isinstance(error, OutcomeUnknown):  # it cost time
            self._rests_until = self._clock() + REST_S

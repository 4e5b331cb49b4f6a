"""Sees to it that the consumer group exists, at the start and whenever it disappears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.observer import Observer
from event_router.runtime.ports import GroupCreation, GroupPort
from event_router.runtime.troubles import GROUP, StreamTroubles

LEAST_INTERVAL_S = 1.0
"""A group that keeps disappearing is created at most once a second."""
REFUSED_PAUSE_S = 0.2
"""Who misses a group that cannot be created would at once miss it again."""


class GroupKeeper:
    """Creates missing groups, one at a time, and reports what that may have lost or doubled."""

    def __init__(
        self,
        *,
        groups: GroupPort,
        in_flight: InFlight,
        connectivity: Connectivity,
        observer: Observer,
        troubles: StreamTroubles,
        clock: Clock,
        streams: Sequence[str],
    ) -> None:
        self._groups = groups
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._troubles = troubles
        self._clock = clock
        self._streams = streams
        self._lock = asyncio.Lock()
        self._seen: set[str] = set()
        self._last: dict[str, float] = {}

    async def recreate(self, _stream: str = "") -> None:
        """Create the group wherever it is missing: what took one stream often took them all.

        Waits for a Redis that is away. What is refused (the key is no stream) or denied keeps no other
        stream back.
        """
        for stream in self._streams:
            with self._troubles.apart(GROUP, stream):
                await self._ensure(stream)
        if self._troubles.of(GROUP):
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def _ensure(self, stream: str) -> None:
        async with self._lock:
            last = self._last.get(stream)
            if last is not None:
                await asyncio.sleep(max(0.0, min(0.2, last + LEAST_INTERVAL_S - self._clock.monotonic())))
            created = await self._ensured(stream)
            if created is not None and (created.known or stream in self._seen):
                held = sum(delivery.entry.stream == stream for delivery in self._in_flight)
                self._observer.group_created(stream, created.start, created.entries + held, True)
                self._last[stream] = self._clock.monotonic()
            self._seen.add(stream)

    async def _ensured(self, stream: str) -> GroupCreation | None:
        while True:
            try:
                created = await self._groups.ensure(stream)
            except (RedisRefused, RedisDenied):
                self._connectivity.answered("control", "groups")
                raise
            except (RedisUnavailable, NoGroup) as error:
                await self._connectivity.failed("control", error, "groups")
            else:
                self._connectivity.answered("control", "groups")
                return created

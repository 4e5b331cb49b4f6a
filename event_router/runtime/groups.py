"""Sees to it that the consumer group exists, at the start and whenever it disappears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from event_router.core.errors import NoGroup, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.observer import Observer
from event_router.runtime.ports import GroupCreation, GroupPort

LEAST_INTERVAL_S = 1.0
"""A group that keeps disappearing is created at most once a second."""
REFUSED_PAUSE_S = 0.2


class GroupKeeper:
    """Creates missing groups, one at a time, and reports what that may have lost or doubled."""

    def __init__(
        self,
        *,
        groups: GroupPort,
        in_flight: InFlight,
        connectivity: Connectivity,
        observer: Observer,
        clock: Clock,
        streams: Sequence[str],
    ) -> None:
        self._groups = groups
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._clock = clock
        self._streams = streams
        self._lock = asyncio.Lock()
        self._seen: set[str] = set()
        self._last: dict[str, float] = {}

    async def recreate(self, _stream: str = "") -> None:
        """Create the group wherever it is missing: what took one stream often took them all.

        What is refused (the key is no stream) is reported, and keeps no other stream back.
        """
        for stream in self._streams:
            try:
                await self._ensure(stream)
            except RedisRefused as error:
                self._connectivity.answered("control", "groups")
                self._observer.refused(f"group on {stream}", str(error))
                await asyncio.sleep(REFUSED_PAUSE_S)

    async def ensure(self, stream: str) -> None:
        """Create the group of a stream if it is missing, however long Redis takes to answer, or refuses."""
        while True:
            try:
                await self._ensure(stream)
                return
            except RedisRefused as error:
                self._observer.refused(f"group on {stream}", str(error))
                await self._connectivity.failed("control", error, "groups")

    async def _ensure(self, stream: str) -> None:
        async with self._lock:
            last = self._last.get(stream)
            if last is not None:
                await asyncio.sleep(max(0.0, min(0.2, last + LEAST_INTERVAL_S - self._clock.monotonic())))
            created = await self._ensured(stream)
            self._connectivity.answered("control", "groups")
            if created is not None and (created.known or stream in self._seen):
                held = sum(delivery.entry.stream == stream for delivery in self._in_flight)
                self._observer.group_created(stream, created.start, created.entries + held, True)
                self._last[stream] = self._clock.monotonic()
            self._seen.add(stream)

    async def _ensured(self, stream: str) -> GroupCreation | None:
        while True:
            try:
                return await self._groups.ensure(stream)
            except (RedisUnavailable, NoGroup) as error:
                await self._connectivity.failed("control", error, "groups")

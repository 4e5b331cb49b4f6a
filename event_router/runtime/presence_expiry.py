"""Clients that vanish go offline by themselves: somebody has to notice, and tell the others."""

from __future__ import annotations

import asyncio
from typing import Protocol

from event_router.core.errors import RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.services import Service

INTERVAL_S = 1.0
AT_ONCE = 250
"""Users one step looks at, so that Redis is blocked for a few milliseconds at most."""


class Taken(Protocol):
    """What one step did."""

    @property
    def taken(self) -> int:
        """How many users were due."""


class ExpiryPort(Protocol):
    """Where presence is kept."""

    async def expire(self, *, limit: int) -> Taken:
        """Announce status changes of those whose connections lapsed; at most so many users."""


class PresenceExpiry(Service):
    """Has lapsed connections noticed each second.

    Every pod does it; each step is one atomic script, so that a change is announced once.
    """

    name = "presence"

    def __init__(
        self, clock: Clock, *, presence: ExpiryPort, connectivity: Connectivity, observer: Observer
    ) -> None:
        super().__init__(clock)
        self._presence = presence
        self._connectivity = connectivity
        self._observer = observer

    async def run(self) -> None:
        """Work every second until cancelled."""
        while True:
            self.beat()
            try:
                await self.run_once()
                self._connectivity.answered("control")
            except RedisUnavailable as error:
                await self._connectivity.failed("control", error)
                continue
            except RedisRefused as error:
                self._observer.refused("presence", str(error))
            self.rest()
            await asyncio.sleep(INTERVAL_S * (0.8 + 0.4 * self.clock.random()))

    async def run_once(self) -> None:
        """Take everything that is due."""
        while (await self._presence.expire(limit=AT_ONCE)).taken >= AT_ONCE:
            self.beat()

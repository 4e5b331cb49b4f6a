"""Clients that vanish go offline by themselves: somebody has to notice, and tell the others."""

from __future__ import annotations

from typing import Protocol

from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.periodic import Periodic

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


class PresenceExpiry(Periodic):
    """Has lapsed connections noticed each second.

    Every pod does it; each step is one atomic script, so that a change is announced once.
    """

    name = "presence"

    def __init__(
        self, clock: Clock, *, presence: ExpiryPort, connectivity: Connectivity, observer: Observer
    ) -> None:
        super().__init__(clock, connectivity=connectivity, observer=observer)
        self._presence = presence

    async def run_once(self) -> None:
        """Take everything that is due."""
        while (await self._presence.expire(limit=AT_ONCE)).taken >= AT_ONCE:
            self.beat()

"""Looks at the Pub/Sub Redis every few seconds, so that whoever asks for its health need not wait."""

from __future__ import annotations

import asyncio

from event_router.core.errors import RedisUnavailable
from event_router.messaging.health import PubSubHealth, read_health
from event_router.redis_client.sent_once import SentOnce
from event_router.runtime.connectivity import Clock
from event_router.runtime.fan_out import Patience
from event_router.runtime.services import Service

INTERVAL_S = 2.0


class PubSubWatch(Service):
    """Keeps the latest health of the Pub/Sub Redis.

    Where that is the router's own Redis, it is away as soon as the router says so, and not asked until
    it answers the router again.
    """

    name = "pubsub-watch"

    def __init__(self, clock: Clock, once: SentOnce, patience: Patience, *, timeout_s: float) -> None:
        super().__init__(clock)
        self._once = once
        self._patience = patience
        self._timeout_s = timeout_s
        self._latest = PubSubHealth(False, error="not asked yet")

    @property
    def health(self) -> PubSubHealth:
        """How it was when last asked, or that it is away for the whole router."""
        away = self._patience.away
        return self._latest if away is None else PubSubHealth(False, error=away)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._patience.ready()
            await self.run_once()
            if self._latest.up:
                self._patience.answered("watch")
                await asyncio.sleep(INTERVAL_S * (0.8 + 0.4 * self.clock.random()))
            else:
                await self._patience.failed("watch", RedisUnavailable(self._latest.error))

    async def run_once(self) -> None:
        """Look once."""
        self._latest = await read_health(self._once, timeout_s=self._timeout_s)

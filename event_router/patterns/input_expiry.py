"""Requests for input expire by themselves, also when nobody waits for them any more."""

from __future__ import annotations

import asyncio

from event_router.core.errors import OutcomeUnknown, RedisRefused, RedisUnavailable
from event_router.patterns.input_store import InputStore
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.services import Service

INTERVAL_S = 1.0


class InputExpiry(Service):
    """Has requests expire whose time is over, each second.

    Every pod does it; each expiry is one atomic script together with its event, so that there is one.
    """

    name = "input-expiry"

    def __init__(
        self, clock: Clock, *, store: InputStore, connectivity: Connectivity, observer: Observer
    ) -> None:
        super().__init__(clock)
        self._store = store
        self._connectivity = connectivity
        self._observer = observer

    async def run(self) -> None:
        """Work every second until cancelled."""
        while True:
            self.beat()
            try:
                await self.run_once()
                self._connectivity.answered("control")
            except (RedisUnavailable, OutcomeUnknown) as error:
                await self._connectivity.failed("control", error)
                continue
            except RedisRefused as error:
                self._observer.refused("input expiry", str(error))
            self.rest()
            await asyncio.sleep(INTERVAL_S * (0.8 + 0.4 * self.clock.random()))

    async def run_once(self) -> int:
        """Let expire what is due; return how many did here."""
        return await self._store.expire_due(self.beat)

"""Work that is done now and then, by a service of its own."""

from __future__ import annotations

import asyncio

from event_router.core.errors import NoGroup, OutcomeUnknown, RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.services import Service


class Periodic(Service):
    """Does its work every `interval_s` seconds, with jitter, over the control connection.

    Subclasses implement `run_once`, which must be safe to repeat: without a reply it is done again. For want
    of a permission it is reported, and nothing else waits for it.
    """

    interval_s = 1.0

    def __init__(self, clock: Clock, *, connectivity: Connectivity, observer: Observer) -> None:
        super().__init__(clock)
        self._connectivity = connectivity
        self._observer = observer

    async def run(self) -> None:
        """Work now and then until cancelled."""
        while True:
            self.beat()
            try:
                await self.run_once()
            except (RedisRefused, RedisDenied) as error:
                self._observer.refused(self.name, str(error))
            except (RedisUnavailable, OutcomeUnknown) as error:
                await self._connectivity.failed("control", error, self.name)
                continue
            except NoGroup:
                pass  # the claimer creates it anew
            self._connectivity.answered("control", self.name)
            self.rest()
            await asyncio.sleep(self.interval_s * (0.8 + 0.4 * self.clock.random()))

    async def run_once(self) -> object:
        """Do the work once."""
        raise NotImplementedError

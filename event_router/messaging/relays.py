"""All relays of a router as one service: run, started again when one fails, ended within a second or two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from event_router.core.retry import jittered
from event_router.messaging.relay import Relay
from event_router.runtime.connectivity import Clock
from event_router.runtime.fan_out import FanOutObserver
from event_router.runtime.services import Service

DRAIN_S = 1.5
"""How long a stop may publish what is still in the logs."""
GIVE_BACK_S = 0.5
"""How long a stop waits for the leases to be free when publishing did not end; they end by themselves."""
ASK_AGAIN_S = 0.05
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class Relays(Service):
    """Runs relays beside the router: none of their failures ends it, or makes it unready."""

    name = "relays"

    def __init__(self, clock: Clock, relays: Sequence[Relay], observer: FanOutObserver) -> None:
        super().__init__(clock)
        self._relays = relays
        self._observer = observer
        self._running: list[asyncio.Task[None]] = []

    def roles(self) -> dict[str, str]:
        """Return, for each fan-out log, whether this process publishes it: `leads` or `stands by`."""
        return {relay.outbox: "leads" if relay.leads else "stands by" for relay in self._relays}

    async def run(self) -> None:
        """Run every relay until cancelled or asked to stop."""
        keepers = [asyncio.create_task(self._kept_up(relay, relay.keep)) for relay in self._relays]
        self._running = [asyncio.create_task(self._kept_up(relay, relay.run)) for relay in self._relays]
        try:
            await asyncio.gather(*self._running)
        finally:
            for task in (*self._running, *keepers):
                task.cancel()

    async def stop(self) -> None:
        """Publish what is in the logs, give the leases back, and end, all within two seconds."""
        if self._task is not None and not self._task.done():
            await self._end_quietly()
        await super().stop()
        if any(relay.leads for relay in self._relays):
            given_back = [asyncio.create_task(relay.give_back()) for relay in self._relays]
            _, late = await asyncio.wait(given_back, timeout=GIVE_BACK_S)
            for task in late:
                task.cancel()

    async def _end_quietly(self) -> None:
        deadline = self.clock.monotonic() + DRAIN_S
        asking: set[asyncio.Task[None]] = set()
        running: set[asyncio.Task[None]] = set(self._running)
        while running and self.clock.monotonic() < deadline:
            # Again and again: a read that was just about to begin is not ended by the first time.
            if not any(task for task in asking if not task.done()):
                asking = {asyncio.create_task(relay.quiet()) for relay in self._relays}
            _, running = await asyncio.wait(running, timeout=ASK_AGAIN_S)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _kept_up(self, relay: Relay, work: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await work()
            except Exception as error:
                self._observer.relay_failed(relay.outbox, error)
                await asyncio.sleep(jittered(pause, self.clock.random()))
                pause = min(LONGEST_PAUSE_S, 2 * pause)

"""What relays and the watch over the Pub/Sub Redis share: whom they tell, and how they wait for Redis."""

from __future__ import annotations

import asyncio

from event_router.core.errors import EventRouterError
from event_router.runtime.connectivity import FIRST_PAUSE_S, Connectivity
from event_router.runtime.observer import Observer

SETTLING_S = 1.0
"""How long calls may fail on the router's own server, each on a connection that an outage broke."""


class FanOutObserver(Observer):
    """Ignores everything; what relays tell. No method may raise or await."""

    def leads(self, outbox: str, token: int, *, outage: bool = False) -> None:
        """This process publishes the fan-out log from now on; `outage`: nobody else did meanwhile."""

    def stands_by(self, outbox: str, reason: str, *, outage: bool = False) -> None:
        """This process no longer publishes it; `outage`: for want of Redis, and nobody else does yet."""

    def message_published(self, channel: bytes, type: str, receivers: int) -> None:
        """The Pub/Sub Redis has taken a message, and passed it to so many."""

    def message_dropped(self, outbox: str, channel: bytes, why: str) -> None:
        """A message can never be published."""

    def trimmed_unpublished(self, outbox: str, count: int) -> None:
        """So many messages were trimmed from the log before they were published."""

    def relay_failed(self, outbox: str, error: Exception) -> None:
        """A relay ended by an error that nobody expected; it starts again."""


class Gate(Observer):
    """Open unless the router finds that the streams Redis does not answer.

    What only waits for a permission does not close it: others need not wait for that.
    """

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.error = ""
        self.outages = 0

    @property
    def is_open(self) -> bool:
        """Whether Redis answers, as far as the router knows."""
        return self._open.is_set()

    def unreachable(self, error: str) -> None:
        """Close."""
        self.error = error
        self.outages += 1
        self._open.clear()

    def reachable_again(self) -> None:
        """Open."""
        self._open.set()

    async def opened(self) -> None:
        """Wait until it is open."""
        await self._open.wait()


class Patience:
    """What one caller does when a call to Redis fails: wait, ever longer, and tell of it once.

    With a gate, the server is the router's own as well: while that is away for the whole router,
    nothing is asked and nothing is told, since a second voice would only ask the server more often.
    Nor is told what fails within a moment, since an outage breaks connections that are first used after
    it, or before the router has heard of it.
    """

    def __init__(self, connectivity: Connectivity, gate: Gate | None = None) -> None:
        self._connectivity = connectivity
        self._gate = gate
        self._failing: tuple[int, float] | None = None
        """The outages that the router had had, and the time, when calls began to fail."""

    def __repr__(self) -> str:
        return f"<Patience {self._connectivity!r}>"

    @property
    def away(self) -> str | None:
        """Why the router holds the server for away; None while it makes sense to ask."""
        return None if self._gate is None or self._gate.is_open else self._gate.error

    async def ready(self) -> None:
        """Wait until it makes sense to ask."""
        if self._gate is not None:
            await self._gate.opened()

    def answered(self, role: str) -> None:
        """Note that a role's call was answered."""
        self._failing = None
        self._connectivity.answered(role)

    async def failed(self, role: str, error: EventRouterError) -> None:
        """Note that a role's call failed, and wait before it tries again."""
        if self._gate is None or self._goes_on(self._gate):
            await self._connectivity.failed(role, error)
        else:
            await asyncio.sleep(FIRST_PAUSE_S)
        await self.ready()

    def _goes_on(self, gate: Gate) -> bool:
        """Whether calls have failed for more than a moment while the router finds nothing wrong."""
        now = self._connectivity.clock.monotonic()
        if self._failing is None or self._failing[0] != gate.outages:
            self._failing = gate.outages, now
        return gate.is_open and now - self._failing[1] >= SETTLING_S

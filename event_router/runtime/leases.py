"""Keeps the leases of everything this process works on or waits for, so that nobody takes it over."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from event_router.core.errors import NoGroup, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures
from event_router.runtime.ports import ClaimPort
from event_router.runtime.services import Service
from event_router.runtime.suspects import Suspects
from event_router.runtime.troubles import StreamTroubles

NOT_OURS = -1
RENEWALS_A_LEASE = 3
RENEWAL = "renewal of leases"
OVERDUE_CHECKS_A_SECOND = 4


class Leases(Service):
    """Renews leases three times in the claim idle time. Fenced: it never takes an entry back.

    What somebody else took over meanwhile (we were frozen) and has not started here is dropped.
    """

    name = "leases"

    def __init__(
        self,
        clock: Clock,
        *,
        claims: ClaimPort,
        in_flight: InFlight,
        suspects: Suspects,
        failures: Failures,
        connectivity: Connectivity,
        troubles: StreamTroubles,
        min_idle_ms: int,
    ) -> None:
        super().__init__(clock)
        self._claims = claims
        self._in_flight = in_flight
        self._suspects = suspects
        self._failures = failures
        self._connectivity = connectivity
        self._troubles = troubles
        self._interval_s = min_idle_ms / 1000 / RENEWALS_A_LEASE

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.rest()
            await asyncio.sleep(self._interval_s)
            while not await self._answered():
                pass  # at once when Redis is back: leases grew old meanwhile
            self._connectivity.answered("control", self.name)

    async def _answered(self) -> bool:
        """Renew once; return whether Redis answered."""
        self.beat()
        try:
            await self.renew()
        except RedisUnavailable as error:
            await self._connectivity.failed("control", error, self.name)
            return False
        return True

    async def renew(self) -> int:
        """Renew every lease once; return how many there were."""
        by_stream: dict[str, dict[str, None]] = defaultdict(dict)
        deliveries = {delivery.key: delivery for delivery in self._in_flight}
        held = [key for items in self._failures.held.values() for key in items]
        for stream, entry_id in (*deliveries, *self._suspects.keys(), *held):
            by_stream[stream][entry_id] = None
        for stream, ids in by_stream.items():
            with contextlib.suppress(NoGroup), self._troubles.apart(RENEWAL, stream):
                counts = await self._claims.set(stream, [(entry_id, 0, None) for entry_id in ids])
                for entry_id, count in zip(ids, counts, strict=True):
                    if count == NOT_OURS:
                        delivery = deliveries.get((stream, entry_id))
                        if delivery is not None and delivery.started is None:
                            delivery.lost = True
                        self._suspects.drop((stream, entry_id))
        self._troubles.only(RENEWAL, by_stream)
        return sum(map(len, by_stream.values()))


class Overdue(Service):
    """Cancels handlers that ran out of time."""

    name = "timeouts"

    def __init__(self, clock: Clock, *, dispatcher: Dispatcher, timeout_s: float) -> None:
        super().__init__(clock)
        self._dispatcher = dispatcher
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Look several times a second until cancelled."""
        while True:
            await asyncio.sleep(min(1 / OVERDUE_CHECKS_A_SECOND, self._timeout_s / 4))
            self._dispatcher.cancel_overdue(self._timeout_s)

"""Requests for input expire by themselves, also when nobody waits for them any more."""

from __future__ import annotations

from event_router.patterns.input_store import InputStore
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.periodic import Periodic


class InputExpiry(Periodic):
    """Has requests expire whose time is over, each second.

    Every pod does it; each expiry is one atomic script together with its event, so that there is one.
    """

    name = "input-expiry"

    def __init__(
        self, clock: Clock, *, store: InputStore, connectivity: Connectivity, observer: Observer
    ) -> None:
        super().__init__(clock, connectivity=connectivity, observer=observer)
        self._store = store

    async def run_once(self) -> int:
        """Let expire what is due; return how many did here."""
        return await self._store.expire_due(self.beat)

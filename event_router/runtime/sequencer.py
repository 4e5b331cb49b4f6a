"""The order of events that touch one entity, within this process, and their batched reads.

A handler's read of an entity waits for the earlier handlers that touched it and still run, and then
sees their effects, committed or not. Only ever earlier ones are waited for, so there is no deadlock.
The commit checks what was read, so this is about speed, not correctness: one hot user costs 1.0
handler runs an event instead of hundreds.
"""

from __future__ import annotations

import asyncio

from event_router.core.effects import UnitOfWork
from event_router.core.errors import InvalidState, RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.denied import Denied
from event_router.runtime.ports import StateReadPort
from event_router.runtime.recent import RecentState
from event_router.runtime.services import Service
from event_router.runtime.turns import Place, Turn
from event_router.runtime.views import View

Wanted = tuple[Place, asyncio.Future[str | None]]
"""A place, and who waits for the value there."""


class Sequencer(Service):
    """Hands out turns, and reads what their handlers ask for, everything asked at once together."""

    name = "state-reads"

    def __init__(self, clock: Clock, reads: StateReadPort, connectivity: Connectivity) -> None:
        super().__init__(clock)
        self._reads = reads
        self._connectivity = connectivity
        self._wanted: list[Wanted] = []
        self._denied = Denied(connectivity, "denied reads", self._want, lambda one: one[1].done())
        self._wake = asyncio.Event()
        self.latest = 0
        self.loop = asyncio.get_running_loop()
        self.recent: RecentState[View] = RecentState(clock.monotonic)
        self.views: dict[str, View] = {}

    def turn(self) -> Turn:
        """Return the next turn."""
        self.latest += 1
        return Turn(self, self.latest, UnitOfWork())

    def fetch(self, place: Place) -> asyncio.Future[str | None]:
        """Return a future of the field's value in Redis."""
        future: asyncio.Future[str | None] = self.loop.create_future()
        self._wanted.append((place, future))
        if not self._wake.is_set():
            self._wake.set()
        return future

    def _want(self, again: list[Wanted]) -> None:
        self._wanted += again
        self._wake.set()

    async def run(self) -> None:
        """Answer reads, a batch at a time, until cancelled."""
        try:
            while True:
                while not self._wanted:
                    self.rest()
                    self._wake.clear()
                    await self._wake.wait()
                self.beat()
                wanted, self._wanted = self._wanted, []
                await self._answer(wanted)
        finally:
            self._denied.stop()

    async def _answer(self, wanted: list[Wanted]) -> None:
        try:
            values = await self._values([place for place, _ in wanted])
        except RedisRefused as error:
            for _, future in wanted:
                if not future.done():
                    future.set_exception(RedisRefused(str(error)))
            self._denied.settle(wanted, [], None)
            return
        denied: list[Wanted] = []
        denial: RedisDenied | None = None
        for one, value in zip(wanted, values, strict=True):
            future = one[1]
            if future.done():
                continue
            if value is None or isinstance(value, str):
                future.set_result(value)
            elif isinstance(value, InvalidState):
                future.set_exception(value)
            else:
                denied.append(one)
                denial = value
        self._denied.settle(wanted, denied, denial)

    async def _values(self, places: list[Place]) -> list[str | InvalidState | RedisDenied | None]:
        """Read, however long Redis takes to answer."""
        while True:
            try:
                values = await self._reads.read(places)
            except RedisUnavailable as error:
                self.beat()
                await self._connectivity.failed("state", error)
            except RedisRefused:
                self._connectivity.answered("state")
                raise
            else:
                self._connectivity.answered("state")
                return values

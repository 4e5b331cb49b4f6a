"""The place of a handler's run in the order of what it touches."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import KeysView
from typing import Any, Protocol

import msgspec

from event_router.core.effects import UnitOfWork
from event_router.core.entity import UNKNOWN
from event_router.core.errors import StateError
from event_router.core.values import check_names
from event_router.runtime.connectivity import Clock
from event_router.runtime.recent import RecentState
from event_router.runtime.views import View, carry_over, is_open, is_small

Place = tuple[str, str]
"""A key and a field."""


class Order(Protocol):
    """What turns have in common.

    Attributes:
        latest: the number of the newest turn.
        views: what is known of each hash that is worked on, by key.
    """

    clock: Clock
    loop: asyncio.AbstractEventLoop
    latest: int
    recent: RecentState[View]
    views: dict[str, View]

    def fetch(self, place: Place) -> asyncio.Future[str | None]:
        """Return a future of the field's value in Redis."""


class Turn(msgspec.Struct, eq=False):
    """One handler run's place in the order of each entity it touches: a `StateReader`.

    Attributes:
        unit: what the handler read and recorded.
        stale: what it read was built on something that was not applied.
        recent: it read something from `RecentState`.
        waited_s: seconds it waited for its turn or for Redis; these are not the handler's.
        waits_since: since when it waits now (monotonic seconds), None if it does not.
    """

    _order: Order
    number: int
    unit: UnitOfWork
    _views: dict[str, View] = {}
    finished: bool = False
    succeeded: bool = False
    stale: bool = False
    recent: bool = False
    _open_reads: int = 0
    waited_s: float = 0.0
    waits_since: float | None = None

    def keys(self) -> KeysView[str]:
        """Return the entities it touched."""
        return self._views.keys()

    def touch(self, key: str) -> None:
        """Take a place in the entity's order."""
        if key in self._views:
            return
        if self.finished:
            raise StateError(f"{key}: the handler has ended; nothing can be added to what it did")
        views = self._order.views
        view = views.get(key)
        if view is None:
            view = self._order.recent.take(key)
            if view is None:
                view = View()
            else:
                view.recent = True
            views[key] = view
        view.turns[self] = None
        running = view.running
        if not running or running[-1] < self.number:
            running.append(self.number)
        else:
            insort(running, self.number)
        self._views[key] = view

    def known(self, key: str, field: str) -> Any:
        """Return a field if no earlier turn runs and its value is known here, else `UNKNOWN`."""
        view = self._views.get(key)
        if view is None or view.running[0] != self.number:
            return UNKNOWN
        if view.recent:
            self.recent = True
        return view.values.get(field, UNKNOWN)

    async def read(self, key: str, field: str) -> str | None:
        """Return a field as the earlier turns leave it. Raises InvalidState for a key that is no hash."""
        clock = self._order.clock.monotonic
        if not self._open_reads:
            self.waits_since = clock()
        self._open_reads += 1
        try:
            return await self._read(key, field)
        finally:
            self._open_reads -= 1
            if not self._open_reads and self.waits_since is not None:
                self.waited_s += clock() - self.waits_since
                self.waits_since = None

    async def _read(self, key: str, field: str) -> str | None:
        self.touch(key)
        view = self._views[key]
        loop = self._order.loop
        latest = self._order.latest  # later ones are not waited for: they may never end coming
        while True:
            if view.running[0] != self.number:
                if view.waiting is None:
                    view.waiting = {}
                turn_comes = view.waiting.get(self.number)
                if turn_comes is None:
                    turn_comes = view.waiting[self.number] = loop.create_future()
                await asyncio.shield(turn_comes)
            elif field in view.values:
                self.recent = self.recent or view.recent
                return view.values[field]
            elif len(view.turns) > 1 and is_open(view, key, field, latest):
                if view.changed is None:
                    view.changed = loop.create_future()
                await asyncio.shield(view.changed)
            else:
                check_names(key, field)  # it is read together with what others ask for
                epoch, left = view.epoch, view.left
                value = await self._order.fetch((key, field))
                if view.epoch == epoch:
                    now = self._order.latest
                    if view.left == left and not (len(view.turns) > 1 and is_open(view, key, field, now)):
                        view.values[field] = value
                    return value

    def finish(self, *, succeeded: bool) -> None:
        """The handler has ended: later ones go on, and see its effects if it succeeded."""
        self.finished = True
        self.succeeded = succeeded
        for key, view in self._views.items():
            view.running.remove(self.number)
            if view.values and succeeded:
                if self.stale:  # whether it is applied is open
                    view.values = {}
                else:
                    carry_over(self.unit, key, view.values)
            if view.waiting:
                view.waiting.pop(self.number, None)  # left behind by a read that was cancelled
                if view.running:
                    comes = view.waiting.pop(view.running[0], None)
                    if comes is not None and not comes.done():
                        comes.set_result(None)
        if not succeeded:
            self.release(applied=False)  # what it read may be why: the next attempt shall read anew

    def release(self, *, applied: bool) -> None:
        """The delivery has left; unless its effects were applied, what was built on them is wrong."""
        views = self._order.views
        if self.recent and not applied and self.succeeded:
            self._order.recent.wrong()
        for key, view in self._views.items():
            view.turns.pop(self, None)
            view.left += 1
            if not applied:
                view.epoch += 1
                view.values = {}
                view.recent = False
                for turn in view.turns:
                    own = turn.unit.hashes.get(key)
                    if own is not None and own.reads:
                        turn.stale = True
            if view.changed is not None:
                view.changed.set_result(None)
                view.changed = None
            if not view.turns and views.get(key) is view:
                del views[key]
                if view.values and is_small(view.values):
                    self._order.recent.keep(key, view)
        self._views = {}

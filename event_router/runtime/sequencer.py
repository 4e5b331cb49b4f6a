"""The order of events that touch one entity, within this process, and their batched reads.

A handler's read of an entity waits for the earlier handlers that touched it and still run, and then
sees their effects, committed or not. Only ever earlier ones are waited for, so there is no deadlock.
The commit checks what was read, so this is about speed, not correctness: one hot user costs 1.0
handler runs an event instead of hundreds.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import KeysView
from typing import Any

import msgspec

from event_router.core.effects import Effects, Newest, UnitOfWork
from event_router.core.entity import UNKNOWN
from event_router.core.errors import InvalidState, RedisDenied, RedisRefused, RedisUnavailable, StateError
from event_router.core.hash_effects import added, is_canonical
from event_router.core.values import check_names
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.denied import Denied
from event_router.runtime.ports import StateReadPort
from event_router.runtime.recent import RecentState
from event_router.runtime.services import Service

MOST_KEPT = 64
MOST_KEPT_TEXT = 4_096
"""Fields of one hash and characters in them that are kept once all is committed; 20,000 hashes are kept."""


Place = tuple[str, str]
"""A key and a field."""
Wanted = tuple[Place, asyncio.Future[str | None]]
"""A place, and who waits for the value there."""


class _View(msgspec.Struct, eq=False):
    """What this process knows of one hash while deliveries that touch it are in flight.

    Attributes:
        values: fields as the finished handlers leave them, as far as is known.
        turns: those deliveries' turns, in the order in which they touched it.
        running: sequence numbers of the turns whose handlers still run, lowest first.
        left: how many of the turns have left.
        recent: the first of the values came from `RecentState`.
        epoch: raised whenever what is known turned out wrong.
    """

    values: dict[str, str | None] = {}
    turns: dict[Turn, None] = {}
    running: list[int] = []
    recent: bool = False
    epoch: int = 0
    left: int = 0
    waiting: dict[int, asyncio.Future[None]] | None = None
    changed: asyncio.Future[None] | None = None


class Turn(msgspec.Struct, eq=False):
    """One handler run's place in the order of each entity it touches: a `StateReader`.

    Attributes:
        unit: what the handler read and recorded.
        stale: what it read was built on something that was not applied.
        recent: it read something from `RecentState`.
        waited_s: seconds it waited for its turn or for Redis; these are not the handler's.
        waits_since: since when it waits now (monotonic seconds), None if it does not.
    """

    _sequencer: Sequencer
    number: int
    unit: UnitOfWork
    _views: dict[str, _View] = {}
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
        views = self._sequencer.views
        view = views.get(key)
        if view is None:
            view = self._sequencer.recent.take(key)
            if view is None:
                view = _View()
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
        clock = self._sequencer.clock.monotonic
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
        loop = self._sequencer.loop
        latest = self._sequencer.latest  # later ones are not waited for: they may never end coming
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
            elif len(view.turns) > 1 and _is_open(view, key, field, latest):
                if view.changed is None:
                    view.changed = loop.create_future()
                await asyncio.shield(view.changed)
            else:
                check_names(key, field)  # it is read together with what others ask for
                epoch, left = view.epoch, view.left
                value = await self._sequencer.fetch((key, field))
                if view.epoch == epoch:
                    now = self._sequencer.latest
                    if view.left == left and not (len(view.turns) > 1 and _is_open(view, key, field, now)):
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
                    _carry_over(self.unit, key, view.values)
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
        views = self._sequencer.views
        if self.recent and not applied and self.succeeded:
            self._sequencer.recent.wrong()
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
                if view.values and _is_small(view.values):
                    self._sequencer.recent.keep(key, view)
        self._views = {}


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
        self.recent: RecentState[_View] = RecentState(clock.monotonic)
        self.views: dict[str, _View] = {}

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
            else:
                self._connectivity.answered("state")
                return values


def _carry_over(unit: UnitOfWork, key: str, values: dict[str, str | None]) -> None:
    """Bring known values up to what the unit leaves; forget those only Redis can work out."""
    effects = unit.hashes.get(key)
    if effects is not None and effects:
        for field in tuple(values):  # only what was read once is worth following
            change = effects.changes.get(field)
            if effects.cleared:
                values[field] = None
            if type(change) is str:
                values[field] = change
            elif change is False:
                values[field] = None
            elif change is not None:
                stored, amount = values.pop(field) or "0", added(change)
                if amount is not None and is_canonical(stored):
                    values[field] = str(int(stored) + amount)
            elif effects.versioned and field.endswith(":version"):
                del values[field]
    for branch in unit.branches:
        _forget_branch(branch, key, values)


def _forget_branch(branch: Effects, key: str, values: dict[str, str | None]) -> None:
    if isinstance(branch, Newest) and branch.key == key:
        values.clear()
    if key in branch.hashes:
        values.clear()
    for inner in branch.branches:
        _forget_branch(inner, key, values)


def _is_open(view: _View, key: str, field: str, latest: int) -> bool:
    """Whether an uncommitted turn up to this number changes the field in a way only Redis can work out."""
    return any(
        turn.finished and turn.number <= latest and _changes_blindly(turn.unit, key, field)
        for turn in view.turns
    )


def _is_small(values: dict[str, str | None]) -> bool:
    """Whether the values may be kept: thousands of hashes are."""
    if len(values) > MOST_KEPT:
        return False
    return sum([len(value) for value in values.values() if value]) <= MOST_KEPT_TEXT


def _changes_blindly(unit: UnitOfWork, key: str, field: str) -> bool:
    effects = unit.hashes.get(key)
    if effects is not None and (
        effects.cleared or field in effects.changes or (effects.versioned and field.endswith(":version"))
    ):
        return True
    return any(_branch_touches(branch, key) for branch in unit.branches)


def _branch_touches(branch: Effects, key: str) -> bool:
    if isinstance(branch, Newest) and branch.key == key:
        return True
    return key in branch.hashes or any(_branch_touches(inner, key) for inner in branch.branches)

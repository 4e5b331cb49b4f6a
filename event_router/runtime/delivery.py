"""Entries between read and commit: each is a delivery, all of them are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from event_router.core.breaker import EntryKey
from event_router.core.event import AnyEvent, Entry
from event_router.core.handler import Route
from event_router.core.outcome import DeadLetter


class Barrier:
    """Waits until a group of deliveries has left."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = asyncio.Event()

    def left(self) -> None:
        """Note that one of the group has left."""
        self._count -= 1
        if self._count <= 0:
            self._done.set()

    async def wait(self) -> None:
        """Wait for the whole group."""
        if self._count > 0:
            await self._done.wait()


class Delivery(msgspec.Struct, eq=False):
    """One entry on its way through this process.

    Attributes:
        key: the entry's stream and id.
        label: event type for logs and metrics, `other` until it is known to be registered.
        probe: it runs although the domain's breaker is open.
        conflicts: commits that found its reads changed.
        previous_failure: when its last attempt in this process failed (monotonic seconds).
        started: when its handler started (monotonic seconds); None while it waits.
        task: the worker its handler runs in.
        cancellations: how often its handler was cancelled because it ran out of time.
        lost: another consumer took it over before it was started here.
        turn: its handler's place in the order of the entities it touches.
        prepared: its part of the next commit.
        letter: the dead letter it becomes, if it does.
        barrier: the group it belongs to, if somebody waits for that.
    """

    entry: Entry
    domain: str
    key: EntryKey
    label: str = "other"
    route: Route | None = None
    event: AnyEvent | None = None
    probe: bool = False
    conflicts: int = 0
    previous_failure: float | None = None
    started: float | None = None
    task: asyncio.Task[None] | None = None
    cancellations: int = 0
    lost: bool = False
    turn: Any = None
    prepared: Any = None
    letter: DeadLetter | None = None
    barrier: Barrier | None = None

    def __repr__(self) -> str:
        state = "ready" if self.prepared else "running" if self.started is not None else "waiting"
        return f"<Delivery {self.label} {self.entry.stream} {self.entry.id} {state}>"

    @property
    def attempt(self) -> int:
        """Handler starts counted so far, this one included once it has started."""
        return self.entry.deliveries


class InFlight:
    """Every delivery between read and commit, and how many more there is room for.

    Attributes:
        limit: how many there may be.
        departures: how many have left since the start.
    """

    def __init__(self, limit: int) -> None:
        self._deliveries: dict[EntryKey, Delivery] = {}
        self._changed = asyncio.Event()
        self._awaited = False
        self.limit = limit
        self.departures = 0

    def __len__(self) -> int:
        return len(self._deliveries)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(tuple(self._deliveries.values()))

    def __contains__(self, key: EntryKey) -> bool:
        return key in self._deliveries

    def __repr__(self) -> str:
        return f"<InFlight {len(self)} of {self.limit}>"

    @property
    def free(self) -> int:
        """Places left."""
        return max(0, self.limit - len(self._deliveries))

    def add(self, delivery: Delivery) -> bool:
        """Take a delivery in; False if the entry is in flight already."""
        if delivery.key in self._deliveries:
            return False
        self._deliveries[delivery.key] = delivery
        return True

    def remove(self, delivery: Delivery) -> None:
        """Let a delivery go: it is settled, or left to the pending list."""
        if self._deliveries.get(delivery.key) is delivery:
            del self._deliveries[delivery.key]
            if delivery.barrier is not None:
                delivery.barrier.left()
            self.departures += 1
            if self._awaited:
                self._awaited = False
                self._changed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on what is in flight holds; it is asked after each departure."""
        while not condition():
            self._changed.clear()
            self._awaited = True
            await self._changed.wait()

    def notify(self) -> None:
        """Have waiting conditions asked again."""
        self._changed.set()

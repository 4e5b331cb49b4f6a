"""What waits for its commit, and how much of it goes into the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from event_router.runtime.delivery import Delivery

ALONE_AFTER_CONFLICTS = 3
BLOCKED_S = 0.008
"""How long a commit should keep Redis from doing anything else; 10 ms is the most it may."""
LEAST_EVENTS = 10
WORTH_A_SECOND = 100
"""A second commit is begun before the first is answered only for so many events: each has its own cost."""


class CommitQueue:
    """Deliveries whose part of the commit is prepared, shared by the committers.

    Entries that conflicted three times are committed by themselves, right after they ran: only those
    of one entity, of which each saw the effects of the one before, go together.

    Attributes:
        limit: the most a batch may weigh now: as much as Redis can take in less than 10 ms, judging by the
            batches before.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = self.limit = max_events
        self._ready: deque[Delivery] = deque()
        self._alone: deque[Delivery] = deque()
        self._under_way: list[list[Delivery]] = []
        self._holding = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._behind: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<CommitQueue {len(self._ready) + len(self._alone)} ready, {len(self._under_way)} under way>"

    def offer(self, delivery: Delivery) -> None:
        """Take a delivery whose part of the commit is prepared."""
        queue = self._alone if delivery.conflicts >= ALONE_AFTER_CONFLICTS else self._ready
        queue.append(delivery)
        if self._waiting and self._due():
            self._wake()

    def offer_again(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries that were offered before, and denied."""
        for delivery in deliveries:
            self.offer(delivery)

    def take(self) -> list[Delivery]:
        """Take out the next batch, empty if none is due. `settled` must be called for it."""
        batch: list[Delivery] = []
        if not self._due():
            return batch
        queue = self._alone or self._ready
        weight = 0
        while queue and (not batch or weight + queue[0].prepared.weight <= self.limit):
            if batch and queue is self._alone and not _meet(batch[0], queue[0]):
                break
            delivery = queue.popleft()
            weight += delivery.prepared.weight
            batch.append(delivery)
        self._under_way.append(batch)
        return batch

    def settled(self, batch: list[Delivery]) -> None:
        """Note that a batch that was taken out is no longer under way."""
        self._under_way = [other for other in self._under_way if other is not batch]
        if not self._under_way:
            self._holding = False
        _release(self._behind)
        if self._waiting and self._due():
            self._wake()

    def hold(self) -> None:
        """Give out no batch until all are settled that are under way: one of them is sent again."""
        self._holding = bool(self._under_way)

    def is_behind(self, batch: list[Delivery]) -> bool:
        """Whether a batch that was taken out before this one is still under way."""
        return any(other is batch for other in self._under_way[1:])

    async def those_before(self, batch: list[Delivery]) -> None:
        """Wait until no batch that was taken out before this one is under way."""
        while self.is_behind(batch):
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._behind.append(settled)
            await settled

    async def wait(self) -> None:
        """Wait until a batch may be due."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(due)
        await due

    def adjust(self, weight: int, blocked_s: float) -> None:
        """Fit the limit of a batch to what this one cost: at once downwards, slowly upwards."""
        if blocked_s > 0 and weight >= LEAST_EVENTS:
            fitting = int(weight * BLOCKED_S / blocked_s)
            self.limit = min(self._max_events, max(LEAST_EVENTS, min(fitting, self.limit + LEAST_EVENTS)))

    def _due(self) -> bool:
        if not self._under_way:
            return bool(self._ready or self._alone)
        if self._holding:
            return False
        return bool(self._alone) or len(self._ready) >= min(WORTH_A_SECOND, self.limit)

    def _wake(self) -> None:
        while self._waiting:
            due = self._waiting.popleft()
            if not due.done():
                due.set_result(None)
                return


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for settled in waiting:
        if not settled.done():
            settled.set_result(None)
    waiting.clear()


def _meet(one: Delivery, other: Delivery) -> bool:
    """Whether two deliveries work on a common entity."""
    if one.turn is None or other.turn is None:
        return False
    return not one.turn.keys().isdisjoint(other.turn.keys())

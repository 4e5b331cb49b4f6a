"""Entries that were in a handler when a process ended run apart, until it is known which one kills."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.core.event import Entry
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import Barrier
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.observer import Observer
from event_router.runtime.services import Service
from event_router.runtime.starts import Starts

TOGETHER = 16


class Suspects(Service):
    """Runs suspects one group at a time, those started least often first.

    Entries started once run in groups of at most 16, those started more often alone: an entry that
    ends the process takes few others with it, and none of them far enough to be convicted.
    """

    name = "suspects"

    def __init__(
        self,
        clock: Clock,
        *,
        starts: Starts,
        dispatcher: Dispatcher,
        connectivity: Connectivity,
        observer: Observer,
        paused: Callable[[str], bool] = lambda stream: False,
    ) -> None:
        super().__init__(clock)
        self._starts = starts
        self._dispatcher = dispatcher
        self._observer = observer
        self._connectivity = connectivity
        self._paused = paused
        self._queue: dict[tuple[str, str], Entry] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._queue

    @property
    def runnable(self) -> int:
        """How many suspects wait whose stream is not paused."""
        return sum(not self._paused(stream) for stream, _ in self._queue)

    def keys(self) -> list[tuple[str, str]]:
        """Return stream and id of every suspect that waits."""
        return list(self._queue)

    def add(self, entries: list[Entry]) -> None:
        """Queue entries whose last start had no outcome."""
        for entry in entries:
            self._queue[entry.stream, entry.id] = entry
        self._wake.set()

    def look_again(self) -> None:
        """Run what may run now: a stream was paused, or goes on."""
        self._wake.set()

    def drop(self, key: tuple[str, str]) -> None:
        """Forget a suspect that somebody else took over."""
        self._queue.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            while not self.runnable:
                self._connectivity.answered("control", self.name)
                self.rest()
                self._wake.clear()
                await self._wake.wait()
            self.beat()
            try:
                await self.run_once()
            except RedisUnavailable as error:
                await self._connectivity.failed("control", error, self.name)

    async def run_once(self) -> None:
        """Run the next group and wait until each of it has left."""
        group = self._next_group()
        by_stream: dict[str, list[Entry]] = defaultdict(list)
        for entry in group:
            by_stream[entry.stream].append(entry)
        for stream, entries in by_stream.items():
            barrier = Barrier(len(entries))
            try:
                await self._starts.start(stream, entries, barrier=barrier)
            except (NoGroup, RedisRefused, RedisDenied) as error:
                if not isinstance(error, NoGroup):
                    self._observer.refused(f"suspects of {stream}", str(error))
                self._forget(stream)  # the sweep finds what still is there once it may, and tells till then
                continue
            for entry in entries:  # only now: until then it must be known who has them
                self._queue.pop((entry.stream, entry.id), None)
            self.rest()  # as long as its handlers take; they have a timeout of their own
            await barrier.wait()

    def _forget(self, stream: str) -> None:
        for key in [key for key in self._queue if key[0] == stream]:
            del self._queue[key]

    def _next_group(self) -> list[Entry]:
        waiting = [entry for entry in self._queue.values() if not self._paused(entry.stream)]
        ordered = sorted(waiting, key=lambda entry: entry.deliveries)
        least = ordered[0].deliveries
        size = max(1, min(TOGETHER, self._dispatcher.room)) if least <= 1 else 1
        return [entry for entry in ordered[:size] if entry.deliveries == least]

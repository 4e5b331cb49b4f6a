"""Takes over pending entries whose consumer went away, or lost them: its own included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence

from event_router.core.errors import NoGroup, RedisUnavailable
from event_router.core.event import Entry
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ClaimPort, TakenEntries
from event_router.runtime.services import Service
from event_router.runtime.starts import Starts
from event_router.runtime.suspects import Suspects
from event_router.runtime.troubles import GROUP, StreamTroubles

OWN, LEFT, LOST, SWEEP = "own entries", "entries left", "lost reads", "claiming"
PAGE = 100
PROBE_INTERVAL_S = 1.0
SUSPECTS_AT_ONCE = 200
"""More are left to other pods, or to a later sweep."""


class Claimer(Service):
    """Its duties:

    1. at the start, take this consumer's own pending entries;
    2. once a second ask whether anything is due, and sweep if so;
    3. every claim interval sweep anyway, the cursor walked to its end;
    4. after a lost read, look for entries that were delivered to us without our knowing.

    A paused stream is left alone, and made up for when it goes on; so is one that Redis refuses or denies.
    """

    name = "claim"

    def __init__(
        self,
        clock: Clock,
        *,
        claims: ClaimPort,
        starts: Starts,
        suspects: Suspects,
        failures: Failures,
        dispatcher: Dispatcher,
        in_flight: InFlight,
        connectivity: Connectivity,
        observer: Observer,
        troubles: StreamTroubles,
        recreate: Callable[[str], Awaitable[None]],
        streams: Sequence[str],
        min_idle_ms: int,
        interval_s: float,
        paused: Callable[[str], bool] = lambda stream: False,
    ) -> None:
        super().__init__(clock)
        self._claims = claims
        self._starts = starts
        self._suspects = suspects
        self._failures = failures
        self._dispatcher = dispatcher
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._troubles = troubles
        self._recreate = recreate
        self._streams = streams
        self._min_idle_ms = min_idle_ms
        self._interval_s = interval_s
        self._paused = paused
        self._read_lost = asyncio.Event()
        self._lost: set[str] = set()
        self._left: dict[str, list[str]] = {}
        self._untaken = list(streams)
        self.own_taken = asyncio.Event()

    def read_lost(self) -> None:
        """Note that a read's reply was lost: entries may be pending that we never saw."""
        self._lost.update(self._streams)
        self._read_lost.set()

    def knows_own(self, stream: str) -> bool:
        """Whether what this consumer had pending at its start is known: until then nothing new is read."""
        return stream not in self._untaken

    async def run(self) -> None:
        """Work until cancelled."""
        next_sweep = 0.0
        while True:
            self.beat()
            try:
                if self._troubles.of(GROUP):
                    await self._recreate("")
                await self.take_own()
                self.own_taken.set()
                await self.take_left()
                self._read_lost.clear()
                self._lost.difference_update(self._untaken)  # of which nothing was read
                if self._open(self._lost):
                    await self.recover_lost()
                now = self.clock.monotonic()
                full = now >= next_sweep
                if full:
                    next_sweep = now + self._interval_s
                for stream in self._streams:
                    if self._takes(stream):
                        await self._sweep_if_due(stream, full)
                self._forget_what_is_not_asked()
            except RedisUnavailable as error:
                self.read_lost()
                await self._connectivity.failed("control", error, self.name)
                continue
            except NoGroup as error:
                self._connectivity.answered("control", self.name)
                await self._recreate(error.stream)  # the reader begins only after us, and may be waiting
                continue
            self._connectivity.answered("control", self.name)
            self.rest()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(PROBE_INTERVAL_S, self._interval_s)):
                    await self._read_lost.wait()

    async def _sweep_if_due(self, stream: str, full: bool) -> None:
        with self._troubles.apart(SWEEP, stream):
            if full or await self._claims.due(stream, self._min_idle_ms):
                await self.sweep(stream)

    async def take_own(self) -> None:
        """Take what this consumer left pending before it was started anew, of each stream once."""
        for stream in tuple(self._untaken):
            with self._troubles.apart(OWN, stream):
                if self._paused(stream):
                    self._left[stream] = await self._claims.own_ids(stream)
                else:
                    await self._take_all(stream)
                self._untaken.remove(stream)
                self._in_flight.notify()

    async def _take_all(self, stream: str) -> None:
        after = ""
        while True:
            taken = await self._claims.take(stream, min_idle_ms=0, after=after, count=PAGE, own=True)
            self._connectivity.answered("control", self.name)
            await self._bring(stream, taken)
            after = taken.last
            if not after:
                break

    async def take_left(self) -> None:
        """Take what this consumer left pending of streams that were paused when it was started."""
        for stream in self._open(self._left):
            ids = self._left[stream]
            with self._troubles.apart(LEFT, stream):
                for first in range(0, len(ids), PAGE):
                    page = ids[first : first + PAGE]
                    taken = await self._claims.take_ids(stream, page, min_idle_ms=0, own=True)
                    await self._bring(stream, taken)
                del self._left[stream]

    async def recover_lost(self) -> None:
        """Take what is pending for this consumer and not known here: the reply to a read was lost."""
        for stream in self._open(self._lost):
            self._lost.discard(stream)  # before the first wait: it may be lost again meanwhile
            with self._troubles.apart(LOST, stream):
                await self._recover(stream)
            if (LOST, stream) in self._troubles:
                self._lost.add(stream)

    async def _recover(self, stream: str) -> None:
        waiting = {entry_id for name, entry_id in self._failures.waiting() if name == stream}
        unknown = [
            entry_id
            for entry_id in await self._claims.own_ids(stream)
            if (stream, entry_id) not in self._in_flight
            and (stream, entry_id) not in self._suspects
            and entry_id not in waiting
        ]
        for first in range(0, len(unknown), PAGE):
            ids = unknown[first : first + PAGE]
            taken = await self._claims.take_ids(stream, ids, min_idle_ms=0, own=True)
            self._starts.trimmed(stream, taken.trimmed)
            never_started = [entry for entry in taken.entries if entry.deliveries <= 1]
            self._dispatcher.accept(map(self._dispatcher.delivery, never_started))
            self._suspects.add(
                self._starts.convict([entry for entry in taken.entries if entry.deliveries > 1])
            )

    async def sweep(self, stream: str) -> int:
        """Take over entries that were idle for long enough; return how many."""
        after, count = "", 0
        while self._takes(stream):
            taken = await self._claims.take(
                stream, min_idle_ms=self._min_idle_ms, after=after, count=self._page()
            )
            self._connectivity.answered("control", self.name)
            count += await self._bring(stream, taken)
            after = taken.last
            if not after:
                break
        if count:
            self._observer.claimed(stream, count)
        return count

    async def _bring(self, stream: str, taken: TakenEntries) -> int:
        """Bring a page of entries on their way; return how many were not known here."""
        self._starts.trimmed(stream, taken.trimmed)
        entries = [entry for entry in taken.entries if not self._is_known(entry)]
        innocent = self._starts.convict(entries)
        # Those handed over unstarted are no suspects. Sorted before any start is counted.
        unstarted = [entry for entry in innocent if entry.deliveries == 0]
        self._suspects.add([entry for entry in innocent if entry.deliveries > 0])
        if unstarted:
            await self._starts.start(stream, unstarted)
        return len(entries)

    def _page(self) -> int:
        return min(PAGE, self._in_flight.free, self._dispatcher.room)

    def _is_known(self, entry: Entry) -> bool:
        key = (entry.stream, entry.id)
        return key in self._in_flight or key in self._suspects or key in self._failures

    def _takes(self, stream: str) -> bool:
        """Whether there is room, and entries of the stream may start."""
        room = self._in_flight.free > 0 and self._dispatcher.room > 0
        few_suspects = self._suspects.runnable < SUSPECTS_AT_ONCE
        return room and few_suspects and self._is_served(stream)

    def _is_served(self, stream: str) -> bool:
        """Whether its domain does not wait for an outage to end, and nobody has paused it."""
        breaker = self._failures.breakers[self._dispatcher.domain(stream)]
        return not breaker.open and not self._paused(stream)

    def _forget_what_is_not_asked(self) -> None:
        if self._troubles:
            self._troubles.only(LEFT, self._open(self._left))
            self._troubles.only(LOST, self._open(self._lost))
            self._troubles.only(SWEEP, [stream for stream in self._streams if self._is_served(stream)])

    def _open(self, streams: Collection[str]) -> list[str]:
        """Return those of the streams that are not paused, in the order of the settings."""
        return [stream for stream in self._streams if stream in streams and not self._paused(stream)]

"""Carries out what was decided on failures: schedules in the pending list, timers, probes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

from event_router.core.breaker import EntryKey
from event_router.core.errors import NoGroup, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures, Scheduled
from event_router.runtime.ports import ClaimPort, ReadPort
from event_router.runtime.services import Service
from event_router.runtime.starts import Starts
from event_router.runtime.troubles import StreamTroubles

SCHEDULES, RETRIES, PROBE = "schedules of retries", "retries", "probe"
PROBE_INTERVAL_S = 2.0
ONCE_AT_MOST = 200
REFUSED_PAUSE_S = 1.0
PAUSED_INTERVAL_S = 1.0
"""How often entries that are due are looked at while their stream is paused."""


class Retries(Service):
    """Keeps the timers of failed entries. Its duties:

    1. write each decision into the pending list, where it survives this process;
    2. start entries whose time has come, unless somebody else took them over;
    3. while a domain's breaker is open, send one probe every few seconds.
    """

    name = "retry"

    def __init__(
        self,
        clock: Clock,
        *,
        failures: Failures,
        claims: ClaimPort,
        reads: ReadPort,
        starts: Starts,
        dispatcher: Dispatcher,
        connectivity: Connectivity,
        recreate: Callable[[str], Awaitable[None]],
        troubles: StreamTroubles,
        in_flight: InFlight,
        streams: dict[str, tuple[str, ...]],
        paused: Callable[[str], bool] = lambda stream: False,
    ) -> None:
        super().__init__(clock)
        self._failures = failures
        self._claims = claims
        self._reads = reads
        self._starts = starts
        self._dispatcher = dispatcher
        self._connectivity = connectivity
        self._recreate = recreate
        self._troubles = troubles
        self._in_flight = in_flight
        self._streams = streams
        self._paused = paused
        self._wake = asyncio.Event()
        self._next_probe = 0.0
        self._probes: Counter[str] = Counter()
        failures.wake = self._wake.set

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._wake.clear()
            self.beat()
            try:
                await self.run_once()
            except RedisUnavailable as error:
                await self._connectivity.failed("control", error, self.name)
                continue
            except NoGroup as error:
                self._connectivity.answered("control", self.name)
                await self._recreate(error.stream)  # the reader may have paused every domain
                continue
            self._connectivity.answered("control", self.name)
            self.rest()
            await self._sleep()

    async def run_once(self) -> None:
        """Write leases, start what is due, probe."""
        await self.write_leases()
        now = self.clock.monotonic()
        due = self._failures.due(now, min(ONCE_AT_MOST, self._dispatcher.room, self._in_flight.free))
        paused = [item for item in due if self._paused(item.key[0])]
        self._failures.put_back(paused, now + PAUSED_INTERVAL_S)
        if len(due) > len(paused):
            await self._start([item for item in due if not self._paused(item.key[0])])
        open_domains = [domain for domain, breaker in self._failures.breakers.items() if breaker.open]
        if open_domains and now >= self._next_probe:
            self._next_probe = now + PROBE_INTERVAL_S
            for domain in open_domains:
                await self._probe(domain)
        if self._troubles:
            self._forget_what_is_not_asked(open_domains)

    async def write_leases(self) -> None:
        """Write the decisions made since the last time into the pending list."""
        leases = self._failures.leases
        by_stream: dict[str, dict[EntryKey, tuple[int, int]]] = defaultdict(dict)
        for key, decided in leases.items():
            by_stream[key[0]][key] = decided
        for stream, several in by_stream.items():
            with self._troubles.apart(SCHEDULES, stream):
                await self._claims.set(stream, [(key[1], *decided) for key, decided in several.items()])
                for key, decided in several.items():
                    if leases.get(key) == decided:
                        del leases[key]

    async def _start(self, items: list[Scheduled], *, probe: bool = False) -> int:
        by_stream: dict[str, list[Scheduled]] = defaultdict(list)
        for item in items:
            # What was decided of its last attempt must not be written over the next.
            self._failures.leases.pop(item.key, None)
            by_stream[item.key[0]].append(item)
        started = 0
        unsent = dict(by_stream)
        try:
            for stream, several in by_stream.items():
                with self._troubles.apart(RETRIES, stream):
                    started += await self._start_of(stream, several, probe)
                if (RETRIES, stream) in self._troubles:
                    self._failures.put_back(several, self.clock.monotonic() + REFUSED_PAUSE_S)
                del unsent[stream]
        except BaseException:
            for several in unsent.values():
                self._failures.put_back(several, self.clock.monotonic() + 1.0)
            raise
        return started

    async def _start_of(self, stream: str, items: list[Scheduled], probe: bool) -> int:
        ids = [item.key[1] for item in items]
        taken = await self._claims.take_ids(stream, ids, min_idle_ms=0, own=True)
        failures = {item.key: item.previous_failure for item in items}
        self._starts.trimmed(stream, taken.trimmed)
        entries = self._starts.convict(taken.entries)
        if not entries:
            return 0
        return await self._starts.start(stream, entries, failures=failures, probe=probe)

    async def _probe(self, domain: str) -> None:
        """Start one entry of the domain: in turn one that failed and one that is new."""
        self._probes[domain] += 1
        held = self._failures.held[domain]
        first = next((key for key in held if not self._paused(key[0])), None)
        if first and self._probes[domain] % 2:
            if await self._start([held.pop(first)], probe=True):
                return
            first = next((key for key in held if not self._paused(key[0])), None)
        for stream in self._streams[domain]:
            if self._paused(stream):
                continue
            with self._troubles.apart(PROBE, stream):
                entries = await self._reads.read((stream,), count=1, block_ms=None)
                if entries:
                    self._starts.probe(entries[0])
                    return
        if first in held:
            await self._start([held.pop(first)], probe=True)

    def _forget_what_is_not_asked(self, open_domains: list[str]) -> None:
        waiting = {stream for stream, _ in self._failures.waiting() if not self._paused(stream)}
        probed = {stream for domain in open_domains for stream in self._streams[domain]}
        self._troubles.only(SCHEDULES, {stream for stream, _ in self._failures.leases})
        self._troubles.only(RETRIES, waiting)
        self._troubles.only(PROBE, {stream for stream in probed if not self._paused(stream)})

    async def _sleep(self) -> None:
        now = self.clock.monotonic()
        waits = [1.0]
        due = self._failures.next_due()
        if due is not None:
            room = self._dispatcher.room and self._in_flight.free
            waits.append(due - now if room else max(due - now, 0.05))
        if any(breaker.open for breaker in self._failures.breakers.values()):
            waits.append(self._next_probe - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(waits))):
                await self._wake.wait()

"""Reads new entries as long as there is room for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures
from event_router.runtime.flow import Measured, next_limit
from event_router.runtime.left_out import LeftOut
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ReadPort
from event_router.runtime.services import Service
from event_router.runtime.troubles import GROUP, StreamTroubles

READ = "read"
ADJUST_EVERY_S = 0.25
ROTATION_BLOCK_MS = 50
LONGEST_WITHOUT_ALL_MS = 500
"""How long a read may wait that leaves out streams which may be readable by then."""
ALL_STREAMS_EVERY_S = 0.02
"""Between two reads of all streams, those with a backlog get every free place."""
WASTED_READ_PAUSE_S = 1.0

Refusal = RedisRefused | RedisDenied | NoGroup
"""Of one stream, as it seems: the others are worth a read."""


class Consumer(Service):
    """The reading loop. Its duties:

    1. read from every stream whose domain takes events, no more than there is room for;
    2. stop reading a domain while its breaker is open;
    3. have a missing group created anew, and leave out for a while a stream that Redis refuses or denies;
    4. adjust how much may be in flight to what the handlers manage.
    """

    name = "read"

    def __init__(
        self,
        clock: Clock,
        *,
        reads: ReadPort,
        dispatcher: Dispatcher,
        failures: Failures,
        in_flight: InFlight,
        connectivity: Connectivity,
        observer: Observer,
        troubles: StreamTroubles,
        recreate: Callable[[str], Awaitable[None]],
        read_lost: Callable[[], None],
        streams: Mapping[str, Sequence[str]],
        read_count: int,
        block_ms: int,
        max_in_flight: int,
        paused: Callable[[str], bool] = lambda stream: False,
        knows_own: Callable[[str], bool] = lambda stream: True,
    ) -> None:
        super().__init__(clock)
        self._reads = reads
        self._dispatcher = dispatcher
        self._failures = failures
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._troubles = troubles
        self._recreate = recreate
        self._read_lost = read_lost
        self._streams = streams
        self._read_count = read_count
        self._block_ms = block_ms
        self._max_in_flight = max_in_flight
        self._paused = paused
        self._knows_own = knows_own
        self._rotation = 0
        self._backlogged: list[str] = []
        self._all_read_at = float("-inf")
        self._full = False
        self._adjusted = (clock.monotonic(), time.process_time(), 0)
        self._reading = False
        self._interrupted = False
        self._knows_not_all = False
        self._left_out = LeftOut(clock)
        self.quiet = False

    async def run(self) -> None:
        """Read until `quiet` is called."""
        while not self.quiet:
            self.rest()
            streams, asked_again = self._open_streams()
            if not streams and not asked_again:
                self._answered()
                await self._wait(self._has_streams, self._left_out.due_in_s())
                continue
            if not self._has_room():
                self._answered()
                self._full = True
                await self._wait(self._has_room)
                continue
            self.beat()
            self.adjust()
            await self._read_apart(asked_again, self._count(len(streams) + len(asked_again)))
            if streams and self._has_room() and not self.quiet:
                await self._read(streams)

    async def be_quiet(self) -> None:
        """Read no more; end a read that is blocked. What it returned is dispatched."""
        self.quiet = True
        self._in_flight.notify()
        while self._reading and self._task is not None and not self._task.done():
            try:
                await self._reads.unblock()
            except (RedisUnavailable, RedisRefused):
                await self.stop()
                return
            await asyncio.wait([self._task], timeout=0.1)

    def adjust(self) -> None:
        """Fit the limit of what is in flight to what was measured since the last time."""
        now = self.clock.monotonic()
        since, cpu, departures = self._adjusted
        elapsed = now - since
        if elapsed >= ADJUST_EVERY_S:
            cpu_now, departed = time.process_time(), self._in_flight.departures
            measured = Measured((departed - departures) / elapsed, self._full, (cpu_now - cpu) / elapsed)
            self._in_flight.limit = next_limit(self._in_flight.limit, measured, self._max_in_flight)
            self._adjusted = (now, cpu_now, departed)
            self._full = False

    async def _read(self, streams: Sequence[str]) -> None:
        """Read once and dispatch what came; of streams that cannot be read together, each by itself."""
        streams, count, block_ms = self._share(streams)
        # After an outage without waiting, so that it is known at once that Redis answers.
        error = await self._try_to_read(streams, count, None if self._interrupted else block_ms)
        if error is None:
            return
        if len(streams) == 1:
            self._leave_out(streams[0], error)
        elif await self._read_apart(streams, count) and isinstance(error, RedisRefused):
            self._observer.refused(f"read of {', '.join(streams)}", str(error))
            await asyncio.sleep(WASTED_READ_PAUSE_S)

    async def _read_apart(self, streams: Sequence[str], count: int) -> bool:
        """Read each stream by itself, and leave out what Redis refuses; return whether it refused none."""
        none_refused = True
        for stream in streams:
            if not self.quiet and (error := await self._try_to_read([stream], count, None)) is not None:
                self._leave_out(stream, error)
                none_refused = False
        return none_refused

    def _leave_out(self, stream: str, error: Refusal) -> None:
        self._left_out.leave(stream)
        if not isinstance(error, NoGroup):  # which is told where it cannot be created
            self._troubles.met(READ, stream, error)

    async def _try_to_read(self, streams: Sequence[str], count: int, block_ms: int | None) -> Refusal | None:
        """Read and dispatch what came. Returns why not, if that is the matter of one of the streams."""
        self._reading = True
        try:
            self.rest()  # blocked; the socket's timeout bounds it
            entries = await self._reads.read(streams, count=count, block_ms=block_ms)
        except NoGroup as error:
            self._answered()
            await self._recreate(error.stream)
            if (GROUP, error.stream) in self._troubles:
                return error
        except (RedisRefused, RedisDenied) as error:
            self._answered()
            return error
        except RedisUnavailable as error:
            self._read_lost()
            self._interrupted = True
            await self._connectivity.failed("read", error)
        else:
            self._answered()
            if self._left_out:
                self._take_back(streams)
            found = Counter(entry.stream for entry in entries)
            self._backlogged = [stream for stream in streams if found[stream] == count]
            self._dispatcher.accept(map(self._dispatcher.delivery, entries))
        finally:
            self._reading = False
        return None

    def _answered(self) -> None:
        """Note that Redis answers, or that nothing is asked of it."""
        self._interrupted = False
        self._connectivity.answered("read")

    def _share(self, streams: Sequence[str]) -> tuple[Sequence[str], int, int | None]:
        """Return which streams to read now, how many entries of each, and how long to wait.

        COUNT is per stream. A read that leaves streams out must not wait for long.
        """
        block_ms: int | None = self._block_ms
        free = self._in_flight.free
        now = self.clock.monotonic()
        backlogged = [stream for stream in self._backlogged if stream in streams]
        if backlogged and now < self._all_read_at + ALL_STREAMS_EVERY_S:
            if len(backlogged) < len(streams):
                block_ms = None
            streams = backlogged
        else:
            self._all_read_at = now
        if block_ms is not None and (self._left_out or self._knows_not_all):
            block_ms = min(block_ms, LONGEST_WITHOUT_ALL_MS)
        if free < len(streams):  # not a place each: take turns
            streams = [streams[(self._rotation + index) % len(streams)] for index in range(free)]
            self._rotation += free
            block_ms = min(self._block_ms, ROTATION_BLOCK_MS)
        return streams, self._count(len(streams)), block_ms

    def _count(self, streams: int) -> int:
        """Return how many entries to read of each of so many streams."""
        return max(1, min(self._read_count, self._in_flight.free // streams))

    async def _wait(self, condition: Callable[[], bool], at_most_s: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._in_flight.wait_until(condition)

    def _has_room(self) -> bool:
        return self.quiet or self._in_flight.free * 4 >= self._in_flight.limit

    def _has_streams(self) -> bool:
        return self.quiet or any(self._open_streams())

    def _open_streams(self) -> tuple[list[str], list[str]]:
        """Return which streams to read together, and which of those that are left out to ask for again."""
        read = [
            stream
            for domain, streams in self._streams.items()
            if not self._failures.breakers[domain].open
            for stream in streams
            if not self._paused(stream)
        ]
        known = [stream for stream in read if self._knows_own(stream)]
        self._knows_not_all = len(known) < len(read)
        if not self._left_out:
            return known, []
        self._left_out.keep(known)
        self._troubles.only(READ, known)
        return [stream for stream in known if stream not in self._left_out], self._left_out.due()

    def _take_back(self, streams: Sequence[str]) -> None:
        """Read with the others again what was left out: it was answered."""
        self._left_out.take_back(streams)
        for stream in streams:
            self._troubles.over(READ, stream)

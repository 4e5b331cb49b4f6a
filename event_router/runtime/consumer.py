"""Reads new entries as long as there is room for them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from event_router.core.errors import NoGroup, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures
from event_router.runtime.flow import Measured, next_limit
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ReadPort
from event_router.runtime.services import Service

ADJUST_EVERY_S = 0.25
ROTATION_BLOCK_MS = 50
ALL_STREAMS_EVERY_S = 0.02
"""Between two reads of all streams, those with a backlog get every free place."""
WASTED_READ_PAUSE_S = 1.0


class Consumer(Service):
    """The reading loop. Its duties:

    1. read from every stream whose domain takes events, no more than there is room for;
    2. stop reading a domain while its breaker is open;
    3. have a missing group created anew, and leave out for a while a stream that Redis refuses to read;
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
        recreate: Callable[[str], Awaitable[None]],
        read_lost: Callable[[], None],
        streams: Mapping[str, Sequence[str]],
        read_count: int,
        block_ms: int,
        max_in_flight: int,
        paused: Callable[[str], bool] = lambda stream: False,
    ) -> None:
        super().__init__(clock)
        self._reads = reads
        self._dispatcher = dispatcher
        self._failures = failures
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._recreate = recreate
        self._read_lost = read_lost
        self._streams = streams
        self._read_count = read_count
        self._block_ms = block_ms
        self._max_in_flight = max_in_flight
        self._paused = paused
        self._rotation = 0
        self._backlogged: list[str] = []
        self._all_read_at = float("-inf")
        self._full = False
        self._adjusted = (clock.monotonic(), time.process_time(), 0)
        self._reading = False
        self._interrupted = False
        self._left_out: dict[str, float] = {}  # refused, until when (monotonic seconds)
        self.quiet = False

    async def run(self) -> None:
        """Read until `quiet` is called."""
        while not self.quiet:
            self.rest()
            streams = self._open_streams()
            if not streams:
                self._answered()
                if self._left_out:
                    await asyncio.sleep(WASTED_READ_PAUSE_S)
                else:
                    await self._wait(lambda: self.quiet or bool(self._open_streams()))
                continue
            if self._in_flight.free * 4 < self._in_flight.limit:
                self._answered()
                self._full = True
                await self._wait(self._has_room)
                continue
            self.beat()
            self.adjust()
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
        refused = {streams[0]: error} if len(streams) == 1 else await self._read_one_by_one(streams, count)
        for stream, its_own in refused.items():
            self._observer.refused(f"read of {stream}", str(its_own))
            self._left_out[stream] = self.clock.monotonic() + WASTED_READ_PAUSE_S
        if not refused:
            self._observer.refused(f"read of {', '.join(streams)}", str(error))
            await asyncio.sleep(WASTED_READ_PAUSE_S)

    async def _read_one_by_one(self, streams: Sequence[str], count: int) -> dict[str, RedisRefused]:
        """Read each stream by itself; return those that were refused, each with its error."""
        refused = {}
        for stream in streams:
            if not self.quiet and (error := await self._try_to_read([stream], count, None)) is not None:
                refused[stream] = error
        return refused

    async def _try_to_read(
        self, streams: Sequence[str], count: int, block_ms: int | None
    ) -> RedisRefused | None:
        """Read and dispatch what came. Returns what Redis refused it for, if it did."""
        self._reading = True
        try:
            self.rest()  # blocked; the socket's timeout bounds it
            entries = await self._reads.read(streams, count=count, block_ms=block_ms)
        except NoGroup as error:
            self._answered()
            await self._recreate(error.stream)
        except RedisUnavailable as error:
            self._read_lost()
            self._interrupted = True
            await self._connectivity.failed("read", error)
        except RedisRefused as error:
            self._answered()
            return error
        else:
            self._answered()
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
        if free < len(streams):  # not a place each: take turns
            streams = [streams[(self._rotation + index) % len(streams)] for index in range(free)]
            self._rotation += free
            block_ms = min(self._block_ms, ROTATION_BLOCK_MS)
        return streams, max(1, min(self._read_count, free // len(streams))), block_ms

    async def _wait(self, condition: Callable[[], bool]) -> None:
        await self._in_flight.wait_until(condition)

    def _has_room(self) -> bool:
        return self.quiet or self._in_flight.free * 4 >= self._in_flight.limit

    def _open_streams(self) -> list[str]:
        if self._left_out:
            now = self.clock.monotonic()
            self._left_out = {stream: until for stream, until in self._left_out.items() if until > now}
        return [
            stream
            for domain, streams in self._streams.items()
            if not self._failures.breakers[domain].open
            for stream in streams
            if not self._paused(stream) and stream not in self._left_out
        ]

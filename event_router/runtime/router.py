"""The router's life: prepare, run, quiet, stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from event_router.core.breaker import EntryKey
from event_router.core.errors import EventRouterError, NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.claimer import Claimer
from event_router.runtime.committer import Committer
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.consumer import Consumer
from event_router.runtime.delivery import Delivery, InFlight
from event_router.runtime.denied import Denied
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.failures import Failures
from event_router.runtime.groups import GroupKeeper
from event_router.runtime.housekeeper import Housekeeper
from event_router.runtime.leases import Leases, Overdue
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ClaimPort, GroupPort
from event_router.runtime.retries import Retries
from event_router.runtime.sequencer import Sequencer
from event_router.runtime.services import Service
from event_router.runtime.signals import StopRequest
from event_router.runtime.suspects import Suspects
from event_router.runtime.troubles import StreamTroubles

STUCK_AFTER_S = 60.0
HANDOVER_S = 3.0
"""Part of the grace period kept for handing over what is left."""
FORCED_S = 0.5
"""How long a forced stop waits when nothing is in hand, so that leaving the group takes but a moment."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The pieces a router is made of; `app` builds them."""

    groups: GroupKeeper
    group_port: GroupPort
    claims: ClaimPort
    in_flight: InFlight
    connectivity: Connectivity
    dispatcher: Dispatcher
    failures: Failures
    sequencer: Sequencer
    committers: tuple[Committer, ...]
    denied: Denied[Delivery]
    troubles: StreamTroubles
    suspects: Suspects
    retries: Retries
    leases: Leases
    overdue: Overdue
    claimer: Claimer
    consumer: Consumer
    housekeeper: Housekeeper


class Router:
    """Runs the parts until it is asked to stop.

    Stopping: read no more, start no handler, finish and commit what runs within the grace period,
    hand the rest over so that others take it up at once, leave the group. What runs `beside` the
    stream path is stopped after it.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        check: Callable[[], Awaitable[None]],
        observer: Observer,
        clock: Clock,
        streams: Mapping[str, Sequence[str]],
        consumer: str,
        min_idle_ms: int,
        grace_s: float,
        beside: Sequence[Service] = (),
    ) -> None:
        self._parts = parts
        self._beside = beside
        self._check = check
        self._observer = observer
        self._clock = clock
        self._streams = [stream for several in streams.values() for stream in several]
        self._consumer = consumer
        self._min_idle_ms = min_idle_ms
        self._grace_s = grace_s
        self._joined = False
        self._draining = False
        self._read_ended = False

    def __repr__(self) -> str:
        state = "draining" if self._draining else "joined" if self._joined else "starting"
        return f"<Router {self._consumer} {state}, {self._parts.in_flight!r}>"

    @property
    def services(self) -> tuple[Service, ...]:
        """Every background service, in the order of their start."""
        parts = self._parts
        return (
            parts.sequencer,
            *parts.committers,
            parts.suspects,
            parts.retries,
            parts.leases,
            parts.overdue,
            parts.claimer,
            parts.consumer,
            parts.housekeeper,
            *self._beside,
        )

    def stuck(self) -> list[str]:
        """Return the names of services that make no progress."""
        connectivity = self._parts.connectivity
        if not connectivity.reachable:
            return []  # it waits for Redis, and an outage must not kill pods
        reachable_for = self._clock.monotonic() - connectivity.ended_at
        return [
            service.name
            for service in self.services
            if min(service.stuck_for(), reachable_for, connectivity.failed_for(service.task)) > STUCK_AFTER_S
        ]

    def readiness(self) -> dict[str, object]:
        """Return what makes the router ready or not, for `/readyz`."""
        connectivity = self._parts.connectivity
        return {
            "ready": self._joined and connectivity.up and not self._draining,
            "redis": "up" if connectivity.up else f"down: {connectivity.error}",
            "group": "joined" if self._joined else "not joined",
            "draining": self._draining,
            "in_flight": len(self._parts.in_flight),
            "refused": self._parts.troubles.reasons(),
        }

    async def run(self, request: StopRequest) -> bool:
        """Run until asked to stop. Returns whether everything was settled or handed over.

        Raises:
            EventRouterError: a service failed; its error is the cause.
        """
        stop = asyncio.create_task(request.graceful.wait())
        prepare = asyncio.create_task(self._prepare())
        tasks: list[asyncio.Task[None]] = []
        try:
            await asyncio.wait([stop, prepare], return_when=asyncio.FIRST_COMPLETED)
            if not prepare.done():
                return True
            prepare.result()
            tasks = [service.start() for service in self.services if service is not self._parts.consumer]
            taken = asyncio.create_task(self._parts.claimer.own_taken.wait())
            await asyncio.wait([stop, taken, *tasks], return_when=asyncio.FIRST_COMPLETED)
            taken.cancel()
            if not stop.done():
                self._joined = True
                self._observer.joined(self._streams)
                tasks.append(self._parts.consumer.start())
                await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in tasks if task.done()), None)
            clean = await self._stop(request)
            if failed is not None:
                raise EventRouterError(f"the service {failed.get_name()!r} ended") from failed.exception()
            return clean
        finally:
            for task in (stop, prepare):
                task.cancel()
            for service in reversed(self.services):
                await service.stop()
            await self._parts.dispatcher.cancel_running()

    async def _prepare(self) -> None:
        """Look at the server and create the groups, however long Redis takes to appear."""
        while True:
            try:
                await self._check()
                break
            except RedisUnavailable as error:
                await self._parts.connectivity.failed("control", error, "start-up")
        self._parts.connectivity.answered("control", "start-up")
        await self._parts.groups.recreate()

    async def _stop(self, request: StopRequest) -> bool:
        """Stop within the grace period, or at once if forced. Returns whether nothing was left."""
        self._draining = True
        deadline = self._clock.monotonic() + self._grace_s
        forced = asyncio.create_task(request.forced.wait())
        graceful = asyncio.create_task(self._quiet_finish_hand_over(deadline))
        try:
            await asyncio.wait([graceful, forced], timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
            if graceful.done():
                return graceful.result()
            if not forced.done() or self._has_in_hand():
                return False
            await asyncio.wait([graceful], timeout=FORCED_S)
            if graceful.done():
                return graceful.result()
            return self._read_ended and not self._has_in_hand()
        finally:
            forced.cancel()
            graceful.cancel()

    def _has_in_hand(self) -> bool:
        """Whether there is anything to settle or to hand over, as far as is known here."""
        parts = self._parts
        return bool(len(parts.in_flight) or len(parts.suspects) or any(parts.failures.waiting()))

    async def _quiet_finish_hand_over(self, deadline: float) -> bool:
        parts = self._parts
        finish_by = deadline - min(HANDOVER_S, self._grace_s / 2)
        parts.dispatcher.quiet = True
        await parts.consumer.be_quiet()
        self._read_ended = True
        for service in (parts.housekeeper, parts.claimer, parts.suspects, parts.retries):
            await service.stop()
        unstarted = parts.dispatcher.unstarted()
        finished = asyncio.create_task(parts.in_flight.wait_until(lambda: not len(parts.in_flight)))
        await asyncio.wait([finished], timeout=max(0.0, finish_by - self._clock.monotonic()))
        finished.cancel()
        cancelled = await parts.dispatcher.cancel_running()
        counts: dict[EntryKey, int | None] = {}
        denied = [one for one in parts.denied if one.letter is None]
        for delivery in (*unstarted, *cancelled, *denied):
            counts[delivery.key] = max(0, delivery.attempt - 1)
        for delivery in parts.in_flight:
            counts.setdefault(delivery.key, None)  # its commit may still be under way
        return await self._hand_over(counts) and not len(parts.in_flight)

    async def _hand_over(self, counts: dict[EntryKey, int | None]) -> bool:
        """Let others take up at once what is pending for us, and leave the group.

        Entries that wait for their next attempt keep their schedule. Pending entries that are not
        known here were delivered by a read that was cut off: their handler never started.
        """
        parts = self._parts
        try:
            await parts.retries.write_leases()
        except NoGroup:
            pass  # nothing of that stream is pending any more
        except RedisUnavailable:
            return False
        complete = True
        waiting = set(parts.failures.scheduled())
        known = set(parts.suspects.keys()) | set(parts.failures.waiting())
        for stream in self._streams:
            try:
                leases: list[tuple[str, int, int | None]] = []
                for entry_id in await parts.claims.own_ids(stream):
                    key = (stream, entry_id)
                    if key not in waiting:
                        unknown = None if key in known else 0
                        leases.append((entry_id, self._min_idle_ms, counts.get(key, unknown)))
                if leases:
                    await parts.claims.set(stream, leases)
                await parts.group_port.leave(stream, self._consumer)
            except NoGroup:
                continue
            except (RedisRefused, RedisDenied) as error:
                self._observer.refused(f"hand-over of {stream}", str(error))
                complete = False
            except RedisUnavailable:
                return False
        return complete

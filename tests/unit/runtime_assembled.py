"""A whole runtime as `app` assembles it, on the fakes; a test starts the services it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from event_router.core.decoding import Decoder
from event_router.core.event import Entry, Event, Identifier
from event_router.core.handler import EventHandler, on
from event_router.core.keys import KeyNames
from event_router.core.registry import HandlerRegistry
from event_router.core.retry import RetryPolicy
from event_router.core.state import StateTransaction
from event_router.ops.tracing import NoTracing, Tracing
from event_router.runtime.claimer import Claimer
from event_router.runtime.commit_queue import CommitQueue
from event_router.runtime.committer import Committer
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.consumer import Consumer
from event_router.runtime.delivery import Delivery, InFlight
from event_router.runtime.denied import Denied
from event_router.runtime.dispatcher import Dispatcher, HandlingPolicy
from event_router.runtime.failures import Failures
from event_router.runtime.groups import GroupKeeper
from event_router.runtime.housekeeper import Housekeeper
from event_router.runtime.leases import Leases, Overdue
from event_router.runtime.retries import Retries
from event_router.runtime.router import Parts, Router
from event_router.runtime.sequencer import Sequencer
from event_router.runtime.services import Service
from event_router.runtime.starts import Starts
from event_router.runtime.suspects import Suspects
from event_router.runtime.troubles import StreamTroubles
from tests.unit.runtime_fakes import (
    BIKES,
    CARS,
    ME,
    FakeClaims,
    FakeCommits,
    FakeGroups,
    FakeReads,
    FakeState,
    Reports,
    Time,
)

STREAMS: dict[str, tuple[str, ...]] = {"bikes": (BIKES,), "cars": (CARS,)}
EVERY_STREAM = (BIKES, CARS)
DOMAIN_OF = {BIKES: "bikes", CARS: "cars"}
MIN_IDLE_MS = 60_000

Handle = Callable[[Event[Any], StateTransaction], Awaitable[None]]


class Ride(msgspec.Struct):
    """A payload with an ordering key and something to vary."""

    bike_id: Identifier
    note: str = ""


async def ride(event: Event[Any], state: StateTransaction) -> None:
    """Count the ride."""
    state.entity("bike", event.data.bike_id).increment("rides")


class Rides(EventHandler):
    """Passes every event to a function that the test gives."""

    def __init__(self, domain: str, handle: Handle) -> None:
        self.domain = domain  # type: ignore[misc]
        self.handle = handle

    @on("ridden")
    async def ridden(self, event: Event[Ride], state: StateTransaction) -> None:
        await self.handle(event, state)


class Runtime:
    """Every part of the router on fakes. As a context: some services run, all are stopped at its end."""

    def __init__(
        self,
        handle: Handle = ride,
        *,
        concurrency: int = 1_000,
        acknowledge_unknown: bool = False,
        max_deliveries: int = 5,
        max_events: int = 500,
        limit: int = 500,
        grace_s: float = 1.0,
        services: tuple[str, ...] = ("sequencer", "committer"),
        tracing: Callable[[Clock], Tracing] = lambda clock: NoTracing(),
    ) -> None:
        self.time = Time()
        clock = self.time.clock
        traced = tracing(clock)
        self.reports = Reports(traced.observer)
        self.commits, self.state, self.reads = FakeCommits(), FakeState(), FakeReads()
        reads = traced.reads(self.reads)
        self.claims, self.group_port = FakeClaims(), FakeGroups()
        self._services = services
        self.paused: set[str] = set()
        pausing: dict[str, Any] = {"paused": self.paused.__contains__}
        registry = HandlerRegistry()
        for domain in STREAMS:
            registry.register(Rides(domain, handle))
        self.in_flight = InFlight(limit)
        self.connectivity = Connectivity(clock, self.reports)
        told: dict[str, Any] = {"connectivity": self.connectivity, "observer": self.reports}
        shared: dict[str, Any] = {**told, "in_flight": self.in_flight}
        policy = RetryPolicy(max_deliveries, 1_000, 2, MIN_IDLE_MS, lambda: 1.0)
        self.troubles = StreamTroubles(self.connectivity, self.reports)
        troubles: dict[str, Any] = {"troubles": self.troubles}
        self.groups = GroupKeeper(
            groups=self.group_port, clock=clock, streams=EVERY_STREAM, **troubles, **shared
        )
        self.sequencer = Sequencer(clock, self.state, self.connectivity)
        self.queue = CommitQueue(max_events)
        self.denied = Denied(self.connectivity, "denied commits", self.queue.offer_again)
        self.committers = tuple(
            Committer(
                clock,
                commits=self.commits,
                queue=self.queue,
                denied=self.denied,
                caller=caller,
                recreate=self.groups.recreate,
                postpone=lambda delivery, reason: self.failures.postpone(delivery, reason),
                **shared,
            )
            for caller in ("first", "second")
        )
        self.committer, self.second_committer = self.committers
        self.dispatcher = Dispatcher(
            decoder=Decoder(traced.registry(registry)),
            domains=DOMAIN_OF,
            names=KeyNames(),
            sequencer=self.sequencer,
            commits=self.commits,
            ready=self.queue.offer,
            policy=HandlingPolicy(concurrency, acknowledge_unknown, ME),
            clock=clock,
            **shared,
        )
        self.failures = Failures(
            policy=policy,
            dispatcher=self.dispatcher,
            in_flight=self.in_flight,
            observer=self.reports,
            clock=clock,
            domains=STREAMS,
        )
        self.dispatcher.failures = self.failures
        for committer in self.committers:
            committer.returns = self.dispatcher
        self.starts = Starts(claims=self.claims, dispatcher=self.dispatcher, policy=policy, **told)
        connected: dict[str, Any] = {"connectivity": self.connectivity}
        held: dict[str, Any] = {**connected, "claims": self.claims, "in_flight": self.in_flight}
        self.suspects = Suspects(clock, starts=self.starts, dispatcher=self.dispatcher, **told, **pausing)
        self.retries = Retries(
            clock,
            failures=self.failures,
            claims=self.claims,
            reads=reads,
            starts=self.starts,
            dispatcher=self.dispatcher,
            recreate=self.groups.recreate,
            streams=STREAMS,
            connectivity=self.connectivity,
            in_flight=self.in_flight,
            **troubles,
            **pausing,
        )
        self.leases = Leases(
            clock,
            suspects=self.suspects,
            failures=self.failures,
            min_idle_ms=MIN_IDLE_MS,
            **held,
            **troubles,
        )
        self.overdue = Overdue(clock, dispatcher=self.dispatcher, timeout_s=30)
        self.claimer = Claimer(
            clock,
            starts=self.starts,
            suspects=self.suspects,
            failures=self.failures,
            dispatcher=self.dispatcher,
            observer=self.reports,
            recreate=self.groups.recreate,
            streams=EVERY_STREAM,
            min_idle_ms=MIN_IDLE_MS,
            interval_s=15,
            **held,
            **troubles,
            **pausing,
        )
        self.consumer = Consumer(
            clock,
            reads=reads,
            dispatcher=self.dispatcher,
            failures=self.failures,
            recreate=self.groups.recreate,
            read_lost=self.claimer.read_lost,
            streams=STREAMS,
            read_count=500,
            block_ms=5_000,
            max_in_flight=2_000,
            **shared,
            **troubles,
            **pausing,
        )
        self.housekeeper = Housekeeper(
            clock,
            groups=self.group_port,
            refresh=self._refresh,
            observer=self.reports,
            streams=EVERY_STREAM,
            consumer=ME,
            min_length=10,
            dead_after_ms=3 * MIN_IDLE_MS,
            **connected,
            **troubles,
        )
        self.router = Router(
            Parts(**{name: getattr(self, name) for name in Parts.__slots__}),
            check=self._check,
            observer=self.reports,
            clock=clock,
            streams=STREAMS,
            consumer=ME,
            min_idle_ms=MIN_IDLE_MS,
            grace_s=grace_s,
        )
        self.unexpected: list[dict[str, Any]] = []
        self.refreshed = 0
        self.check_errors: list[Exception] = []

    async def _refresh(self) -> None:
        self.refreshed += 1

    async def _check(self) -> None:
        if self.check_errors:
            raise self.check_errors.pop(0)

    async def __aenter__(self) -> Runtime:
        # A worker that ended with an error says so only when it is collected, in some later test.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.unexpected.append(context))
        for name in self._services:
            service: Service = getattr(self, name)
            service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in self.router.services:
            await service.stop()
        await self.dispatcher.cancel_running()

    def accept(self, *entries: Entry) -> list[Delivery]:
        """Dispatch entries as if they had just been read; they are pending for this consumer."""
        deliveries = [self.dispatcher.delivery(entry) for entry in entries]
        for one in entries:
            self.claims.add(one, owner=ME, idle_ms=0)
        self.dispatcher.accept(deliveries)
        return deliveries

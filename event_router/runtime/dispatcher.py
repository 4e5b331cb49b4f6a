"""From a delivery to its outcome: decode, run the handler, hand the result on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from event_router.core.decoding import Decoder
from event_router.core.effects import UnitOfWork
from event_router.core.errors import InvalidEvent, InvalidState, RedisUnavailable, Reject, StateError
from event_router.core.event import Entry
from event_router.core.keys import KeyNames
from event_router.core.outcome import DeadLetter, Reason, Settlement
from event_router.core.state import StateTransaction
from event_router.core.timestamps import format_time
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import Delivery, InFlight
from event_router.runtime.observer import Observer
from event_router.runtime.ports import CommitPort
from event_router.runtime.sequencer import Sequencer

ERROR_BYTES = 2_000


class FailureSink(Protocol):
    """Decides what becomes of deliveries whose handler failed or must not run now."""

    def succeeded(self, delivery: Delivery) -> None:
        """The handler ran; its effects are to be committed."""

    def failed(self, delivery: Delivery, error: str) -> None:
        """The attempt failed in a way that may pass."""

    def holds(self, delivery: Delivery) -> bool:
        """Whether the delivery must wait for its domain's breaker; then it is taken off our hands."""


@dataclass(frozen=True, slots=True)
class HandlingPolicy:
    """How entries are handled.

    Attributes:
        concurrency: handlers that run at once.
        acknowledge_unknown: settle events nobody handles instead of dead-lettering them.
        consumer: this process's name in the group, for dead letters.
    """

    concurrency: int
    acknowledge_unknown: bool
    consumer: str


class Dispatcher:
    """Runs handlers: fresh, claimed and retried deliveries all take this one path."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        domains: dict[str, str],
        names: KeyNames,
        sequencer: Sequencer,
        commits: CommitPort,
        ready: Callable[[Delivery], None],
        in_flight: InFlight,
        policy: HandlingPolicy,
        connectivity: Connectivity,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._decoder = decoder
        self._domains = domains
        self._names = names
        self._sequencer = sequencer
        self._commits = commits
        self._ready = ready
        self._in_flight = in_flight
        self._policy = policy
        self._connectivity = connectivity
        self._observer = observer
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._again: deque[Delivery] = deque()
        self._running: dict[Delivery, None] = {}
        self.failures: FailureSink
        self.quiet = False

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._running)} running, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """Deliveries whose handler has not started."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Handlers that run, or wait to run again after a conflict."""
        return len(self._running) + len(self._again)

    def domain(self, stream: str) -> str:
        """Return the domain whose events stand in a stream."""
        return self._domains[stream]

    def delivery(self, entry: Entry) -> Delivery:
        """Return a delivery of an entry from one of the router's streams."""
        return Delivery(entry, self._domains[entry.stream])

    def accept(self, deliveries: Iterable[Delivery]) -> int:
        """Take in deliveries; those in flight already are left out. Returns how many were new."""
        accepted = 0
        for delivery in deliveries:
            if self._in_flight.add(delivery):
                self._waiting.append(delivery)
                accepted += 1
            elif delivery.barrier is not None:
                delivery.barrier.left()
        self._pump()
        return accepted

    def accept_letter(self, delivery: Delivery, reason: Reason, error: str) -> None:
        """Take in a delivery whose handler shall not run: it becomes a dead letter."""
        if self._in_flight.add(delivery):
            self.reject(delivery, reason, error)

    def run_again(self, delivery: Delivery) -> None:
        """Run a handler again whose reads were changed by somebody else; no new attempt."""
        self._again.append(delivery)
        self._pump()

    def reject(self, delivery: Delivery, reason: Reason, error: str) -> None:
        """Make the delivery a dead letter."""
        entry = delivery.entry
        if len(error) > ERROR_BYTES:
            error = f"{error[:ERROR_BYTES]}…"
        delivery.letter = DeadLetter(
            reason=reason,
            error=error,
            deliveries=entry.deliveries,
            consumer=self._policy.consumer,
            time=format_time(self._clock.wall_ms()),
            fields=entry.fields,
        )
        if delivery.label == "other" and reason != "unknown_type":
            delivery.label = self._decoder.label(delivery.domain, entry)
        delivery.prepared = self._commits.prepare(Settlement(entry.stream, entry.id, delivery.letter))
        self._ready(delivery)

    def cancel_overdue(self, timeout_s: float) -> None:
        """Cancel handlers that ran out of time: a failed attempt. An outage of Redis stops the clock."""
        if not self._connectivity.up:
            return
        now = self._clock.monotonic()
        restarted = self._connectivity.ended_at
        for delivery in tuple(self._running):
            begun = max(delivery.started or now, restarted)
            if now - begun <= timeout_s:
                break  # the others started later
            if delivery.task is not None and not delivery.expired:
                delivery.expired = True
                delivery.task.cancel()

    def unstarted(self) -> list[Delivery]:
        """Take back every delivery whose handler has not started."""
        taken = list(self._waiting)
        self._waiting.clear()
        for delivery in taken:
            self._in_flight.remove(delivery)
        return taken

    async def cancel_running(self) -> list[Delivery]:
        """Cancel every handler that still runs and return the deliveries."""
        unfinished = [*self._running, *self._again]
        self._again.clear()
        tasks = [delivery.task for delivery in self._running if delivery.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        return unfinished

    def _pump(self) -> None:
        room = self._policy.concurrency - len(self._running)
        while room > 0 and self._again:
            self._start(self._again.popleft())
            room -= 1
        if self.quiet:
            return
        while room > 0 and self._waiting:
            delivery = self._waiting.popleft()
            if delivery.lost:
                self._in_flight.remove(delivery)
            elif self._begin(delivery):
                room -= 1

    def _begin(self, delivery: Delivery) -> bool:
        """Decode and start a delivery; return whether a handler runs now."""
        entry = delivery.entry
        try:
            delivery.route, delivery.event = self._decoder.decode(delivery.domain, entry)
        except InvalidEvent as error:
            if error.reason == "unknown_type" and self._policy.acknowledge_unknown:
                self._observer.unknown_acknowledged(delivery, str(error))
                delivery.prepared = self._commits.prepare(Settlement(entry.stream, entry.id, UnitOfWork()))
                self._ready(delivery)
            else:
                self.reject(delivery, error.reason, str(error))  # type: ignore[arg-type]  # decoding's own reasons
            return False
        delivery.label = delivery.route.type
        if self.failures.holds(delivery):
            return False
        self._start(delivery)
        return True

    def _start(self, delivery: Delivery) -> None:
        delivery.started = self._clock.monotonic()
        delivery.prepared = None
        self._running[delivery] = None
        delivery.turn = self._sequencer.turn()
        delivery.task = self._sequencer.loop.create_task(self._handle(delivery))

    async def _handle(self, delivery: Delivery) -> None:
        turn, route, event = delivery.turn, delivery.route, delivery.event
        assert route is not None and event is not None
        entry = delivery.entry
        letter: tuple[Reason, str] | None = None
        failure: str | None = None
        abandoned = False
        try:
            await route.call(event, StateTransaction(event, self._names, turn.unit, turn))
            delivery.prepared = self._commits.prepare(Settlement(entry.stream, entry.id, turn.unit))
        except Reject as error:
            letter = ("rejected", str(error) or "rejected by its handler")
        except (InvalidState, StateError) as error:
            letter = ("invalid", str(error))
        except RedisUnavailable as error:
            failure = f"Redis: {error}"
        except asyncio.CancelledError:
            if delivery.expired:
                failure = "the handler ran longer than HANDLER_TIMEOUT_S and was cancelled"
            else:
                abandoned = True
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._running.pop(delivery, None)
            delivery.task = None
            turn.finish(succeeded=delivery.prepared is not None)
        assert delivery.started is not None
        self._observer.handled(delivery, self._clock.monotonic() - delivery.started)
        if abandoned:
            return
        if letter is not None:
            self.reject(delivery, *letter)
        elif failure is not None:
            self.failures.failed(delivery, failure)
        elif delivery.expired:  # it finished while it was being cancelled: its effects count
            delivery.expired = False
            self._succeed(delivery)
        else:
            self._succeed(delivery)
        if self._waiting or self._again:
            self._pump()

    def _succeed(self, delivery: Delivery) -> None:
        self.failures.succeeded(delivery)
        self._ready(delivery)

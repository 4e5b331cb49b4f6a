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
MOST_IN_A_ROW = 64
"""Handlers that follow one another before others in this process get their turn."""


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
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._cancelling = False
        self.failures: FailureSink
        self.quiet = False

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._running)} running, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """Deliveries whose handler has not started."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """Handlers that could start right now: an entry's start is counted when it really starts."""
        return max(0, self._policy.concurrency - self.running - self.waiting)

    @property
    def running(self) -> int:
        """Handlers that run, or wait to run again after a conflict."""
        return len(self._running) + len(self._again)

    def domain(self, stream: str) -> str:
        """Return the domain whose events stand in a stream."""
        return self._domains[stream]

    def delivery(self, entry: Entry) -> Delivery:
        """Return a delivery of an entry from one of the router's streams."""
        return Delivery(entry, self._domains[entry.stream], (entry.stream, entry.id))

    def accept(self, deliveries: Iterable[Delivery]) -> int:
        """Take in deliveries; those in flight already are left out. Returns how many were new."""
        accepted = 0
        for delivery in deliveries:
            if self._in_flight.add(delivery):
                self._waiting.append(delivery)
                accepted += 1
            elif delivery.barrier is not None:
                delivery.barrier.left()
        self._wake()
        return accepted

    def accept_letter(self, delivery: Delivery, reason: Reason, error: str) -> None:
        """Take in a delivery whose handler shall not run: it becomes a dead letter."""
        if self._in_flight.add(delivery):
            self.reject(delivery, reason, error)

    def run_again(self, delivery: Delivery) -> None:
        """Run a handler again whose reads were changed by somebody else; no new attempt."""
        self._again.append(delivery)
        self._wake()

    def reject(
        self, delivery: Delivery, reason: Reason, error: str, decided_on: UnitOfWork | None = None
    ) -> None:
        """Make the delivery a dead letter, if what its handler decided on still stands."""
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
        unique_id = None if delivery.event is None else delivery.event.unique_id
        letter = Settlement(entry.stream, entry.id, delivery.letter, decided_on, unique_id)
        delivery.prepared = self._commits.prepare(letter)
        self._ready(delivery)

    def cancel_overdue(self, timeout_s: float) -> None:
        """Cancel handlers that ran out of time: a failed attempt. An outage of Redis stops the clock."""
        if not self._connectivity.reachable:
            return
        now = self._clock.monotonic()
        restarted = self._connectivity.ended_at
        for delivery in tuple(self._running):
            turn, begun = delivery.turn, max(delivery.started or now, restarted)
            # Again after as long again: what it awaits may have swallowed the cancellation.
            allowed_s = timeout_s * (1 + delivery.cancellations)
            if turn.waits_since is not None or now - begun - turn.waited_s <= allowed_s:
                continue
            if delivery.task is not None:
                delivery.cancellations += 1
                delivery.task.cancel()

    def unstarted(self) -> list[Delivery]:
        """Take back every delivery whose handler has not started."""
        taken = list(self._waiting)
        self._waiting.clear()
        for delivery in taken:
            self._in_flight.remove(delivery)
        return taken

    async def cancel_running(self) -> list[Delivery]:
        """Cancel every handler that still runs, for good, and return the deliveries."""
        self._cancelling = True
        unfinished = [*self._running, *self._again]
        self._again.clear()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=1.0)
        for delivery in unfinished:
            self._in_flight.remove(delivery)
        return unfinished

    def _wake(self) -> None:
        """Have a worker look for work; it wakes the next one if its handler has to wait for something."""
        if self._cancelling or not (self._waiting or self._again):
            return
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return
        if len(self._workers) < self._policy.concurrency:
            worker = self._sequencer.loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        """Run one handler after the other: a worker's whole life.

        Handlers that need not wait follow one another without a turn of the event loop, except that
        now and then others get theirs.
        """
        loop = self._sequencer.loop
        worker = asyncio.current_task(loop)
        in_a_row = 0
        while True:
            if in_a_row == MOST_IN_A_ROW:
                in_a_row = 0
                await asyncio.sleep(0)
            delivery = self._next()
            if delivery is None:
                in_a_row = 0
                idle: asyncio.Future[None] = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            if not in_a_row:
                loop.call_soon(self._wake)
            in_a_row += 1
            delivery.task = worker
            await self._handle(delivery)

    def _next(self) -> Delivery | None:
        """Return the next delivery whose handler shall run now."""
        if self._again:
            return self._again.popleft()
        waiting = self._waiting
        while waiting and not self.quiet:
            delivery = waiting.popleft()
            if delivery.lost:
                self._in_flight.remove(delivery)
            elif self._decoded(delivery):
                return delivery
        return None

    def _decoded(self, delivery: Delivery) -> bool:
        """Decode a delivery; return whether its handler shall run now."""
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
        except Exception as error:  # a payload type's own code may raise anything
            self.reject(delivery, "invalid", f"decoding failed: {type(error).__name__}: {error}")
            return False
        delivery.label = delivery.route.type
        return not self.failures.holds(delivery)

    async def _handle(self, delivery: Delivery) -> None:
        self._running[delivery] = None
        delivery.started = started = self._clock.monotonic()
        delivery.prepared = delivery.letter = None
        delivery.turn = turn = self._sequencer.turn()
        entry, route, event = delivery.entry, delivery.route, delivery.event
        letter: tuple[Reason, str] | None = None
        failure: str | None = None
        worker = delivery.task
        try:
            await route.call(event, StateTransaction(event, self._names, turn.unit, turn))  # type: ignore[union-attr, arg-type]  # decoded
            settlement = Settlement(entry.stream, entry.id, turn.unit, None, event.unique_id)  # type: ignore[union-attr]  # decoded
            delivery.prepared = self._commits.prepare(settlement)
        except Reject as error:
            letter = ("rejected", str(error) or "rejected by its handler")
        except (InvalidState, StateError) as error:
            letter = ("invalid", str(error))
        except RedisUnavailable as error:
            failure = f"Redis: {error}"
        except asyncio.CancelledError:
            if self._cancelling:
                raise
            if delivery.cancellations:
                failure = "the handler ran longer than HANDLER_TIMEOUT_S and was cancelled"
            else:
                failure = "the handler awaited something that was cancelled"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also what is no Exception must not leave the entry in flight
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._running.pop(delivery, None)
            delivery.task = None
            turn.finish(succeeded=delivery.prepared is not None)
        while delivery.cancellations:
            delivery.cancellations -= 1
            worker.uncancel()  # type: ignore[union-attr]  # a worker is a task; it goes on with the next
        self._observer.handled(delivery, self._clock.monotonic() - started)
        if letter is not None:
            self.reject(delivery, *letter, decided_on=turn.unit)
        elif failure is not None:
            self.failures.failed(delivery, failure)
        else:  # also if it finished while it was being cancelled: its effects count
            self.failures.succeeded(delivery)
            self._ready(delivery)

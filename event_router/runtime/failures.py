"""What becomes of a failed attempt: another one later, a dead letter, or waiting for an outage to end."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from event_router.core.breaker import CircuitBreaker, EntryKey
from event_router.core.retry import RetryPolicy
from event_router.runtime.connectivity import Clock
from event_router.runtime.delivery import Delivery, InFlight
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.observer import Observer

MOST_REMEMBERED = 100_000
"""Retries and held entries kept in memory; beyond it they are left to the sweep of the pending list."""


@dataclass(slots=True)
class Scheduled:
    """An entry that waits in the pending list for its next attempt.

    Attributes:
        due: monotonic seconds.
        deliveries: the delivery count it shall have meanwhile.
    """

    key: EntryKey
    domain: str
    due: float
    deliveries: int
    previous_failure: float | None


class Failures:
    """Decides on each failed attempt, and keeps what waits. Its duties:

    1. schedule another attempt, with back-off;
    2. dead-letter an entry whose attempts are used up;
    3. watch each domain's breaker; while it is open, hold the domain's entries and give them back
       the attempts that the outage used up.

    Changes to the pending list are left in `leases` for the retry service to carry out.
    """

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        dispatcher: Dispatcher,
        in_flight: InFlight,
        observer: Observer,
        clock: Clock,
        domains: Iterable[str],
    ) -> None:
        self._policy = policy
        self._dispatcher = dispatcher
        self._in_flight = in_flight
        self._observer = observer
        self._clock = clock
        self._scheduled: dict[EntryKey, Scheduled] = {}
        self._heap: list[tuple[float, EntryKey]] = []
        self._opened_at: dict[str, float] = {}
        self.breakers = {domain: CircuitBreaker(clock.monotonic) for domain in domains}
        self.held: dict[str, dict[EntryKey, Scheduled]] = {domain: {} for domain in self.breakers}
        self.leases: dict[EntryKey, tuple[int, int]] = {}
        self.wake: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        held = sum(map(len, self.held.values()))
        return f"<Failures {len(self._scheduled)} scheduled, {held} held>"

    def __contains__(self, key: EntryKey) -> bool:
        return key in self._scheduled or any(key in held for held in self.held.values())

    def waiting(self) -> Iterator[EntryKey]:
        """Yield every entry that waits here for its next attempt."""
        yield from self._scheduled
        for held in self.held.values():
            yield from held

    def scheduled(self) -> Iterator[EntryKey]:
        """Yield every entry whose next attempt has a time."""
        yield from self._scheduled

    def succeeded(self, delivery: Delivery) -> None:
        """Record an attempt whose handler ran to its end."""
        breaker = self.breakers[delivery.domain]
        breaker.succeeded()
        if breaker.open and delivery.probe:
            self._close(delivery.domain)

    def failed(self, delivery: Delivery, error: str) -> None:
        """Decide on an attempt that failed in a way that may pass."""
        breaker = self.breakers[delivery.domain]
        opened = breaker.failed(delivery.key, _ordering_key(delivery), delivery.previous_failure)
        if delivery.previous_failure is None:
            delivery.previous_failure = self._clock.monotonic()
        if breaker.open:
            self._observer.failed(delivery, error, 0.0)
            if opened:
                self._open(delivery.domain, error)
            self._hold(delivery)
        elif self._policy.exhausted(delivery.attempt):
            self._observer.failed(delivery, error, None)
            self._dispatcher.reject(delivery, "max_deliveries", error)
        else:
            delay_s = self._policy.delay_ms(delivery.attempt) / 1000
            self._observer.failed(delivery, error, delay_s)
            self._schedule(delivery, delay_s, delivery.attempt)

    def holds(self, delivery: Delivery) -> bool:
        """Take a delivery that must not start because its domain's breaker is open."""
        if delivery.probe or not self.breakers[delivery.domain].open:
            return False
        self._hold(delivery, unstarted=1)
        return True

    def postpone(self, delivery: Delivery, _reason: str) -> None:
        """Try a delivery again later, through no fault of its own."""
        self._schedule(delivery, self._policy.longest_ms / 1000, max(0, delivery.attempt - 1))

    def due(self, now: float, most: int) -> list[Scheduled]:
        """Take out the entries whose time has come, at most so many."""
        found: list[Scheduled] = []
        while self._heap and self._heap[0][0] <= now and len(found) < most:
            due, key = heapq.heappop(self._heap)
            item = self._scheduled.get(key)
            if item is not None and item.due == due:
                del self._scheduled[key]
                found.append(item)
        return found

    def next_due(self) -> float | None:
        """Return when the next entry's time comes, None if none waits."""
        return self._heap[0][0] if self._heap else None

    def put_back(self, items: Iterable[Scheduled], due: float) -> None:
        """Let entries wait that could not be started."""
        for item in items:
            item.due = due
            self._add(item)

    def _schedule(self, delivery: Delivery, delay_s: float, deliveries: int) -> None:
        item = self._leave(delivery, deliveries)
        item.due = self._clock.monotonic() + delay_s
        idle_ms = max(0, self._policy.longest_ms - int(delay_s * 1000))
        self.leases[item.key] = (idle_ms, deliveries)
        self._add(item)

    def _hold(self, delivery: Delivery, unstarted: int = 0) -> None:
        """Hold a delivery, with the attempts back that the outage used up: failed ones and this start."""
        used_up = self.breakers[delivery.domain].failures()[delivery.key]
        item = self._leave(delivery, max(0, delivery.attempt - max(1, used_up + unstarted)))
        self.leases[item.key] = (0, item.deliveries)
        held = self.held[delivery.domain]
        if len(held) < MOST_REMEMBERED:
            held[item.key] = item
        self.wake()

    def _leave(self, delivery: Delivery, deliveries: int) -> Scheduled:
        self._in_flight.remove(delivery)
        return Scheduled(delivery.key, delivery.domain, 0.0, deliveries, delivery.previous_failure)

    def _add(self, item: Scheduled) -> None:
        if len(self._scheduled) < MOST_REMEMBERED:
            self._scheduled[item.key] = item
            heapq.heappush(self._heap, (item.due, item.key))
        self.wake()

    def _open(self, domain: str, error: str) -> None:
        """Hold what was scheduled, and give back the attempts that failed in the breaker's window."""
        self._opened_at[domain] = self._clock.monotonic()
        self._observer.breaker_opened(domain, error)
        used_up = self.breakers[domain].failures()
        for key in [key for key, item in self._scheduled.items() if item.domain == domain]:
            item = self._scheduled.pop(key)
            item.deliveries = max(0, item.deliveries - used_up[key])
            self.leases[key] = (0, item.deliveries)
            self.held[domain][key] = item

    def _close(self, domain: str) -> None:
        self.breakers[domain].close()
        now = self._clock.monotonic()
        self._observer.breaker_closed(domain, now - self._opened_at.pop(domain, now))
        held, self.held[domain] = self.held[domain], {}
        for item in held.values():
            item.previous_failure = None  # that was the outage, not the entry
        self.put_back(held.values(), now)
        self._in_flight.notify()


def _ordering_key(delivery: Delivery) -> str:
    return (delivery.event.key if delivery.event is not None else "") or delivery.entry.id

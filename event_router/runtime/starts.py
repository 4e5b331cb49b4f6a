"""Starting entries that were taken over: convict, count the start, hand to the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from event_router.core.breaker import EntryKey
from event_router.core.errors import NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.core.event import Entry
from event_router.core.retry import RetryPolicy
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.delivery import Barrier, Delivery
from event_router.runtime.dispatcher import Dispatcher
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ClaimPort


class Starts:
    """Brings taken entries onto the one path that every delivery takes."""

    def __init__(
        self,
        *,
        claims: ClaimPort,
        dispatcher: Dispatcher,
        policy: RetryPolicy,
        connectivity: Connectivity,
        observer: Observer,
    ) -> None:
        self._claims = claims
        self._dispatcher = dispatcher
        self._policy = policy
        self._connectivity = connectivity
        self._observer = observer

    def trimmed(self, stream: str, entries: Sequence[tuple[str, int]]) -> None:
        """Settle pending entries that no longer stand in their stream: a dead letter without fields."""
        for entry_id, deliveries in entries:
            delivery = self._dispatcher.delivery(Entry(stream, entry_id, [], deliveries))
            error = "the entry was trimmed from its stream before it was settled"
            self._dispatcher.accept_letter(delivery, "trimmed", error)

    def convict(self, entries: Sequence[Entry]) -> list[Entry]:
        """Dead-letter entries that used up their starts without an outcome; return the others."""
        innocent = []
        for entry in entries:
            if self._policy.exhausted(entry.deliveries):
                error = (
                    f"its handler was started {entry.deliveries} times and the process ended each time "
                    "before there was an outcome"
                )
                self._dispatcher.accept_letter(self._dispatcher.delivery(entry), "poison", error)
            else:
                innocent.append(entry)
        return innocent

    def probe(self, entry: Entry) -> None:
        """Dispatch a new entry although its domain's breaker is open."""
        delivery = self._dispatcher.delivery(entry)
        delivery.probe = True
        self._dispatcher.accept([delivery])

    async def start(
        self,
        stream: str,
        entries: Sequence[Entry],
        *,
        barrier: Barrier | None = None,
        failures: Mapping[EntryKey, float | None] | None = None,
        probe: bool = False,
    ) -> int:
        """Count a start for each entry that is still this consumer's, and dispatch it.

        Returns how many were dispatched. Raises NoGroup, RedisRefused and RedisDenied.
        """
        counts = await self._counted(stream, [(entry.id, entry.deliveries) for entry in entries])
        deliveries: list[Delivery] = []
        for entry, count in zip(entries, counts, strict=True):
            if count < 0:
                if barrier is not None:
                    barrier.left()
                continue
            entry.deliveries = count
            delivery = self._dispatcher.delivery(entry)
            delivery.barrier = barrier
            delivery.probe = probe
            if failures:
                delivery.previous_failure = failures.get(delivery.key)
                self._observer.retried(delivery)
            deliveries.append(delivery)
        return self._dispatcher.accept(deliveries)

    async def _counted(self, stream: str, entries: Sequence[tuple[str, int]]) -> list[int]:
        """Count until answered: sent again it counts no further start, so a lost reply uses up no attempt."""
        again = False
        while True:
            try:
                counts = await self._claims.count_start(stream, entries, again=again)
            except (NoGroup, RedisRefused, RedisDenied):
                self._connectivity.answered("control", "start")
                raise
            except RedisUnavailable as error:
                again = True
                await self._connectivity.failed("control", error, "start")
            else:
                self._connectivity.answered("control", "start")
                return counts

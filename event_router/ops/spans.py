"""The spans of an event's way: received, processed, committed, or made a dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanContext, set_span_in_context

from event_router.core.breaker import EntryKey
from event_router.core.event import AnyEvent, Entry
from event_router.core.handler import Call, Route
from event_router.core.registry import HandlerRegistry
from event_router.core.state import StateTransaction
from event_router.ops.span_maker import MOST_LINKS, Attributes, SpanMaker, fail
from event_router.ops.trace_context import creation_context, written_in
from event_router.runtime.delivery import Delivery
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ReadPort

MOST_REMEMBERED = 10_000
"""Attempts remembered until their commit; beyond it the commits of the oldest do not link to them."""

EVENT_TYPE = "event_router.event.type"
ATTEMPT = "event_router.event.attempt"
REASON = "event_router.dead_letter.reason"


class Spans(Observer):
    """Tracing with OpenTelemetry.

    An error in it is logged and costs a span; what becomes of the event does not depend on it.

    Args:
        join: attempts and dead letters continue the producer's trace; otherwise they begin traces of their
            own. They link to where the event was created in either case.
        flush: sends off what waits to be sent, within a bounded time.
    """

    def __init__(self, make: SpanMaker, *, join: bool, flush: Callable[[], Awaitable[None]]) -> None:
        self._make = make
        self._join = join
        self._flush = flush
        self._attempts: dict[EntryKey, SpanContext] = {}

    def __repr__(self) -> str:
        return f"<Spans {len(self._attempts)} attempts remembered>"

    @property
    def observer(self) -> Observer:
        """What hears of commits: this object."""
        return self

    def registry(self, registry: HandlerRegistry) -> HandlerRegistry:
        """Return the same handlers, each run of which has a span that is the current one meanwhile."""
        return registry.wrapped(self._processing)

    def reads(self, reads: ReadPort) -> ReadPort:
        """Return the same reads, with a span for each that brought entries or failed."""
        return _TracedReads(reads, self._make)

    async def close(self) -> None:
        """Send off what waits to be sent."""
        await self._flush()

    def _processing(self, route: Route) -> Call:
        call = route.call
        attributes = {**self._make.attributes("process", "process"), EVENT_TYPE: route.type}

        async def traced(event: AnyEvent, state: StateTransaction) -> None:
            span = self._begin(event, attributes)
            if span is None:
                await call(event, state)
                return
            token = attach(set_span_in_context(span))
            try:
                await call(event, state)
            except BaseException as error:
                self._make.failed(span, error)
                raise
            finally:
                detach(token)
                self._make.guarded(span.end)

        return traced

    def _begin(self, event: AnyEvent, attributes: Attributes) -> Span | None:
        try:
            created = creation_context(event.traceparent)
            span = self._make.start(
                event.stream,
                {**attributes, "messaging.message.id": event.id, ATTEMPT: event.attempt},
                parent=created if self._join else None,
                links=[created],
            )
            self._remember((event.stream, event.id), span.get_span_context())
        except Exception as error:
            self._make.warn(error)
            return None
        return span

    def committed(self, batch: Sequence[Delivery], seconds: float) -> None:
        """Make the span of a commit, and one of each dead letter in it."""
        self._make.guarded(self._committed, batch, int(seconds * 1e9))

    def failed(self, delivery: Delivery, error: str, retry_in_s: float | None) -> None:
        """Forget an attempt that failed, unless its dead letter shall link to it."""
        if retry_in_s is not None:
            self._attempts.pop(delivery.key, None)

    def duplicate(self, delivery: Delivery) -> None:
        """Forget an attempt that came too late."""
        self._attempts.pop(delivery.key, None)

    def _remember(self, key: EntryKey, attempt: SpanContext) -> None:
        self._attempts.pop(key, None)
        if attempt.trace_flags.sampled:
            self._attempts[key] = attempt
            if len(self._attempts) > MOST_REMEMBERED:
                del self._attempts[next(iter(self._attempts))]

    def _committed(self, batch: Sequence[Delivery], length_ns: int) -> None:
        end_ns = self._make.now_ns()
        since_ns = end_ns - length_ns
        attempts = [self._attempts.pop(delivery.key, None) for delivery in batch]
        span = self._make.start_batch(
            [delivery.entry.stream for delivery in batch],
            self._make.attributes("commit", "settle"),
            count=len(batch),
            links=attempts,
            since_ns=since_ns,
        )
        span.end(end_ns)
        for delivery, attempt in zip(batch, attempts, strict=True):
            if delivery.letter is not None:
                self._dead_letter(delivery, attempt, since_ns, end_ns)

    def _dead_letter(
        self, delivery: Delivery, attempt: SpanContext | None, since_ns: int, end_ns: int
    ) -> None:
        letter, entry, event = delivery.letter, delivery.entry, delivery.event
        if letter is None:
            return
        created = creation_context(written_in(entry) if event is None else event.traceparent)
        about: Attributes = {
            "messaging.message.id": entry.id,
            EVENT_TYPE: delivery.label,
            ATTEMPT: letter.deliveries,
            REASON: letter.reason,
        }
        span = self._make.start(
            entry.stream,
            {**self._make.attributes("dead-letter", "settle"), **about},
            parent=created if self._join else None,
            links=[created, attempt],
            since_ns=since_ns,
        )
        fail(span, letter.reason, letter.error)
        span.end(end_ns)


class _TracedReads:
    """Reads, each with a span."""

    def __init__(self, reads: ReadPort, make: SpanMaker) -> None:
        self._reads = reads
        self._make = make

    async def read(self, streams: Sequence[str], *, count: int, block_ms: int | None) -> list[Entry]:
        """Read; a read that found nothing has no span."""
        since_ns = self._make.now_ns()
        try:
            entries = await self._reads.read(streams, count=count, block_ms=block_ms)
        except Exception as error:
            self._make.guarded(self._read, streams, (), since_ns, error)
            raise
        if entries:
            self._make.guarded(self._read, [entry.stream for entry in entries], entries, since_ns, None)
        return entries

    async def unblock(self) -> None:
        """End a read that is blocked."""
        await self._reads.unblock()

    def _read(
        self, streams: Sequence[str], entries: Sequence[Entry], since_ns: int, error: Exception | None
    ) -> None:
        span = self._make.start_batch(
            streams,
            self._make.attributes("receive", "receive"),
            count=len(entries),
            links=(creation_context(written_in(entry)) for entry in entries[:MOST_LINKS]),
            since_ns=since_ns,
        )
        if error is not None:
            self._make.failed(span, error)
        span.end(self._make.now_ns())

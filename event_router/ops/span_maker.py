"""Making spans as OpenTelemetry's conventions for messaging want them, without ever failing the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from event_router.ops.logs import RateLimit
from event_router.ops.trace_context import below
from event_router.runtime.connectivity import Clock

MOST_LINKS = 128
"""Links of one span, as many as the SDK keeps by default."""
DESCRIPTION_LENGTH = 2_000

_KINDS = {"receive": SpanKind.CLIENT, "process": SpanKind.CONSUMER, "settle": SpanKind.CLIENT}

Attributes = Mapping[str, str | int]


class SpanMaker:
    """Starts spans and records errors on them.

    Names, kinds and attributes: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
    (version 1.44, which calls itself "development").

    Args:
        common: attributes that every span has: who reads, and where.
        now_ns: the time of day in epoch nanoseconds.
    """

    def __init__(
        self, tracer: Tracer, clock: Clock, *, common: Attributes, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._tracer = tracer
        self._common = {"messaging.system": "redis", **common}
        self._warnings = RateLimit(clock, 1)
        self.now_ns = now_ns

    def attributes(self, name: str, kind: str) -> dict[str, str | int]:
        """Return the attributes of an operation: its name, and its type `receive`, `process` or `settle`."""
        return self._common | {"messaging.operation.name": name, "messaging.operation.type": kind}

    def start(
        self,
        stream: str | None,
        attributes: Attributes,
        *,
        parent: SpanContext | None = None,
        links: Iterable[SpanContext | None] = (),
        since_ns: int | None = None,
    ) -> Span:
        """Start the span of an operation on a stream, None for several streams."""
        name = str(attributes["messaging.operation.name"])
        if stream is not None:
            attributes = {**attributes, "messaging.destination.name": stream}
        return self._tracer.start_span(
            name if stream is None else f"{name} {stream}",
            below(parent),
            _KINDS[str(attributes["messaging.operation.type"])],
            attributes,
            [Link(context) for context in links if context is not None][:MOST_LINKS],
            since_ns,
        )

    def start_batch(
        self,
        streams: Sequence[str],
        attributes: Attributes,
        *,
        count: int,
        links: Iterable[SpanContext | None],
        since_ns: int,
    ) -> Span:
        """Start the span of an operation on so many entries; `streams` may repeat themselves."""
        return self.start(
            streams[0] if len(set(streams)) == 1 else None,
            {**attributes, "messaging.batch.message_count": count},
            links=links,
            since_ns=since_ns,
        )

    def failed(self, span: Span, error: BaseException) -> None:
        """Record what an operation failed with."""
        if span.is_recording():
            self.guarded(_record, span, error)

    def guarded(self, do: Callable[..., object], *args: object) -> None:
        """Do something whose failure must not become anybody else's; it is logged."""
        try:
            do(*args)
        except Exception as error:
            self.warn(error)

    def warn(self, error: Exception) -> None:
        """Log that a span could not be made, at most once a second."""
        left_out = self._warnings.passes()
        if left_out is not None:
            log = structlog.get_logger("event_router")
            log.warning("tracing_failed", error=f"{type(error).__name__}: {error}", left_out=left_out)


def fail(span: Span, error_type: str, description: str) -> None:
    """Set a span's status to error."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, description[:DESCRIPTION_LENGTH]))


def _record(span: Span, error: BaseException) -> None:
    cls = type(error)
    fail(
        span,
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}",
        f"{cls.__name__}: {error}",
    )
    span.record_exception(error)

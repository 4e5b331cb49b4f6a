"""The context that a producer gave its event: the W3C `traceparent` of https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from event_router.core.decoding import TRACEPARENT_BYTES
from event_router.core.event import Entry

_PROPAGATOR = TraceContextTextMapPropagator()
_FIELDS = (b"traceparent", b"ce_traceparent")


def creation_context(traceparent: str | None) -> SpanContext | None:
    """Return the context in which an event was created; None where there is none, or no valid one."""
    if traceparent is None:
        return None
    found = _PROPAGATOR.extract({"traceparent": traceparent}, Context())
    context = get_current_span(found).get_span_context()
    return context if context.is_valid else None


def written_in(entry: Entry) -> str | None:
    """Return the traceparent in an entry that is not decoded, if it is a field of its own."""
    names = entry.fields[::2]
    for name in _FIELDS:
        if name in names:
            value = entry.fields[2 * names.index(name) + 1]
            return value.decode("ascii", "replace") if len(value) <= TRACEPARENT_BYTES else None
    return None


def below(parent: SpanContext | None) -> Context:
    """Return the context for a span below another one; without one it begins a trace of its own."""
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())

"""Spans as a collector gets them: names, kinds, attributes, parents, links and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog.testing
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, Tracer, format_span_id, format_trace_id

import event_router.ops.spans
from event_router.core.errors import RedisUnavailable, Reject
from event_router.core.event import Entry, Event
from event_router.core.outcome import Verdict
from event_router.core.state import StateTransaction
from event_router.ops.span_maker import MOST_LINKS, SpanMaker
from event_router.ops.spans import Spans
from event_router.runtime.connectivity import Clock
from tests.unit.runtime_assembled import Runtime, ride
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, entry, entry_id, settled, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
COMMON = {"messaging.consumer.group.name": "g", "messaging.client.id": "consumer-a"}
READ = ("sequencer", "committer", "consumer")


class Traced:
    """A runtime whose spans are kept."""

    def __init__(
        self,
        handle: Any = ride,
        *,
        join: bool = False,
        sampler: Sampler | None = None,
        wrap: Callable[[Tracer], Tracer] = lambda tracer: tracer,
        **options: Any,
    ) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(
            sampler=sampler, shutdown_on_exit=False, span_limits=SpanLimits(max_links=1_000)
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("a test")
        self.flushed = 0

        async def flush() -> None:
            self.flushed += 1

        def spans(clock: Clock) -> Spans:
            make = SpanMaker(wrap(self.tracer), clock, common=COMMON, now_ns=lambda: 5_000_000_000)
            self.spans = Spans(make, join=join, flush=flush)
            return self.spans

        self.runtime = Runtime(handle, tracing=spans, **options)

    async def run(self, *entries: Entry) -> None:
        """Run the events to their end."""
        async with self.runtime as runtime:
            runtime.accept(*entries)
            await until(lambda: not len(runtime.in_flight))

    async def read(self, *entries: Entry) -> None:
        """Have the events read and run."""
        self.runtime.reads.add(*entries)
        async with self.runtime as runtime:
            await until(lambda: runtime.commits.batches and not len(runtime.in_flight))

    def of(self, operation: str) -> list[ReadableSpan]:
        """The spans of an operation, the oldest first."""
        return [
            span
            for span in self.exporter.get_finished_spans()
            if about(span).get("messaging.operation.name", span.name) == operation
        ]

    def one(self, operation: str) -> ReadableSpan:
        (span,) = self.of(operation)
        return span


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def place(span: Any) -> tuple[str, str]:
    """Trace and span id of a span, a link or a context."""
    context = span if hasattr(span, "trace_id") else span.context
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def links(span: ReadableSpan) -> list[tuple[str, str]]:
    return [place(link) for link in span.links]


def raising(error: BaseException) -> Any:
    async def handle(event: Event[Any], state: StateTransaction) -> None:
        raise error

    return handle


class TestProcess:
    async def test_name_kind_and_attributes(self) -> None:
        traced = Traced()
        await traced.run(entry(1, deliveries=2))
        span = traced.one("process")
        assert (span.name, span.kind) == (f"process {BIKES}", SpanKind.CONSUMER)
        assert about(span) == COMMON | {
            "messaging.system": "redis",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": BIKES,
            "messaging.message.id": entry_id(1),
            "event_router.event.type": "ridden",
            "event_router.event.attempt": 2,
        }
        assert span.status.status_code is StatusCode.UNSET

    async def test_it_links_to_the_producer_from_a_trace_of_its_own(self) -> None:
        traced = Traced()
        await traced.run(entry(1, traceparent=TRACEPARENT))
        span = traced.one("process")
        assert span.parent is None
        assert links(span) == [(TRACE, PARENT)]
        assert place(span)[0] != TRACE

    async def test_it_continues_the_producers_trace_where_that_is_wanted(self) -> None:
        traced = Traced(join=True)
        await traced.run(entry(1, traceparent=TRACEPARENT))
        span = traced.one("process")
        assert place(span.parent) == (TRACE, PARENT)
        assert span.parent is not None
        assert span.parent.is_remote
        assert links(span) == [(TRACE, PARENT)]
        assert place(span)[0] == TRACE

    @pytest.mark.parametrize("join", [False, True])
    @pytest.mark.parametrize(
        "traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"]
    )
    async def test_what_is_no_trace_context_is_none(self, traceparent: str, join: bool) -> None:
        traced = Traced(join=join)
        await traced.run(entry(1, traceparent=traceparent))
        assert (traced.one("process").parent, links(traced.one("process"))) == (None, [])

    async def test_a_span_around_the_router_is_not_its_parent(self) -> None:
        traced = Traced()
        with traced.tracer.start_as_current_span("around"):
            await traced.run(entry(1))
        assert traced.one("process").parent is None
        assert traced.one("commit").parent is None

    async def test_a_handlers_own_spans_nest_in_that_of_its_event(self) -> None:
        async def handle(event: Event[Any], state: StateTransaction) -> None:
            await asyncio.sleep(0)
            with traced.tracer.start_as_current_span(event.id):
                await asyncio.sleep(0)

        traced = Traced(handle)
        await traced.run(*(entry(number, f"b{number}") for number in range(20)))
        processed = {about(span)["messaging.message.id"]: place(span) for span in traced.of("process")}
        assert len(processed) == 20
        for number in range(20):
            assert place(traced.one(entry_id(number)).parent) == processed[entry_id(number)]

    async def test_each_attempt_has_a_span_and_an_error_is_recorded(self) -> None:
        traced = Traced(raising(ValueError("no such bike")))
        async with traced.runtime as runtime:
            runtime.accept(entry(1))
            await until(lambda: runtime.reports.of("failed"))
        span = traced.one("process")
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "ValueError: no such bike"
        assert about(span)["error.type"] == "ValueError"
        (event,) = span.events
        assert event.name == "exception"
        assert (event.attributes or {})["exception.type"] == "ValueError"
        assert "no such bike" in str((event.attributes or {})["exception.stacktrace"])
        assert "0 attempts" in repr(traced.spans)

    async def test_a_handler_that_is_cancelled_for_its_time_failed(self) -> None:
        async def handle(event: Event[Any], state: StateTransaction) -> None:
            await asyncio.Event().wait()

        traced = Traced(handle)
        async with traced.runtime as runtime:
            runtime.accept(entry(1))
            await settled()
            runtime.time.pass_(31)
            runtime.dispatcher.cancel_overdue(30)
            await until(lambda: runtime.reports.of("failed"))
            assert "HANDLER_TIMEOUT_S" in runtime.reports.of("failed")[0][1]
        assert about(traced.one("process"))["error.type"] == "asyncio.exceptions.CancelledError"

    async def test_a_run_again_after_a_conflict_has_a_span_of_its_own(self) -> None:
        traced = Traced()
        traced.runtime.commits.steps = [[Verdict.CONFLICT]]
        await traced.run(entry(1))
        first, second = traced.of("process")
        assert about(first) == about(second)
        assert links(traced.one("commit")) == [place(second)]

    async def test_what_is_not_sampled_is_not_recorded_but_done(self) -> None:
        traced = Traced(sampler=ALWAYS_OFF)
        await traced.run(entry(1))
        assert traced.exporter.get_finished_spans() == ()
        assert len(traced.runtime.reports.of("committed")) == 1
        assert "0 attempts" in repr(traced.spans)


class TestCommit:
    async def test_one_span_a_batch_links_to_the_attempts(self) -> None:
        traced = Traced()
        await traced.run(*(entry(number, f"b{number}") for number in range(3)))
        span = traced.one("commit")
        assert (span.name, span.kind, span.parent) == (f"commit {BIKES}", SpanKind.CLIENT, None)
        assert about(span) == COMMON | {
            "messaging.system": "redis",
            "messaging.operation.name": "commit",
            "messaging.operation.type": "settle",
            "messaging.destination.name": BIKES,
            "messaging.batch.message_count": 3,
        }
        assert links(span) == [place(attempt) for attempt in traced.of("process")]
        assert "0 attempts" in repr(traced.spans)

    async def test_it_is_as_long_as_the_commit_was(self) -> None:
        traced = Traced()
        async with traced.runtime as runtime:
            runtime.commits.gate.clear()
            runtime.accept(entry(1))
            await until(lambda: runtime.commits.sent)
            runtime.time.pass_(0.25)
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
        span = traced.one("commit")
        assert (span.start_time, span.end_time) == (4_750_000_000, 5_000_000_000)

    async def test_several_streams_are_not_named(self) -> None:
        traced = Traced()
        await traced.run(entry(1), entry(2, stream=CARS))
        span = traced.one("commit")
        assert span.name == "commit"
        assert "messaging.destination.name" not in about(span)

    async def test_its_links_are_bounded(self) -> None:
        traced = Traced()
        async with traced.runtime as runtime:
            runtime.commits.gate.clear()
            runtime.accept(*(entry(number, f"b{number}") for number in range(300)))
            await until(lambda: len(traced.of("process")) == 300)
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
        assert max(about(span)["messaging.batch.message_count"] for span in traced.of("commit")) > MOST_LINKS
        assert max(len(span.links) for span in traced.of("commit")) == MOST_LINKS

    async def test_what_somebody_else_settled_is_in_no_commit_and_forgotten(self) -> None:
        traced = Traced()
        traced.runtime.commits.steps = [[Verdict.SETTLED]]
        await traced.run(entry(1))
        assert traced.of("commit") == []
        assert "0 attempts" in repr(traced.spans)

    async def test_what_is_never_committed_is_remembered_within_a_bound(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_router.ops.spans, "MOST_REMEMBERED", 100)
        traced = Traced()
        traced.runtime.commits.gate.clear()
        async with traced.runtime as runtime:
            runtime.accept(*(entry(number, f"b{number}") for number in range(105)))
            await until(lambda: len(traced.of("process")) == 105)
            assert "100 attempts" in repr(traced.spans)


class TestDeadLetters:
    @pytest.mark.parametrize("join", [False, True])
    async def test_a_rejected_event_has_a_span_with_the_reason(self, join: bool) -> None:
        traced = Traced(raising(Reject("not ours")), join=join)
        await traced.run(entry(1, traceparent=TRACEPARENT))
        attempt, letter = traced.one("process"), traced.one("dead-letter")
        assert about(attempt)["error.type"] == "event_router.core.errors.Reject"
        assert (letter.name, letter.kind) == (f"dead-letter {BIKES}", SpanKind.CLIENT)
        assert about(letter) == COMMON | {
            "messaging.system": "redis",
            "messaging.operation.name": "dead-letter",
            "messaging.operation.type": "settle",
            "messaging.destination.name": BIKES,
            "messaging.message.id": entry_id(1),
            "event_router.event.type": "ridden",
            "event_router.event.attempt": 1,
            "event_router.dead_letter.reason": "rejected",
            "error.type": "rejected",
        }
        assert (letter.status.status_code, letter.status.description) == (StatusCode.ERROR, "not ours")
        assert links(letter) == [(TRACE, PARENT), place(attempt)]
        assert (place(letter)[0] == TRACE) is join

    async def test_attempts_that_are_used_up(self) -> None:
        traced = Traced(raising(ValueError("no")), max_deliveries=1)
        await traced.run(entry(1))
        letter = traced.one("dead-letter")
        assert about(letter)["event_router.dead_letter.reason"] == "max_deliveries"
        assert links(letter) == [place(traced.one("process"))]

    @pytest.mark.parametrize("name", ["traceparent", "ce_traceparent"])
    async def test_an_event_that_cannot_be_decoded_leads_to_its_producer(self, name: str) -> None:
        traced = Traced(join=True)
        fields = [b"type", b"nonsense", name.encode(), TRACEPARENT.encode()]
        await traced.run(Entry(BIKES, entry_id(1), fields))
        letter = traced.one("dead-letter")
        assert about(letter)["event_router.dead_letter.reason"] == "unknown_type"
        assert about(letter)["event_router.event.type"] == "other"
        assert place(letter.parent) == (TRACE, PARENT)
        assert traced.of("process") == []

    @pytest.mark.parametrize(
        "value", [b"\xff\xfe", b"0" * 100_000, f"01-{TRACE}-{PARENT}-01-{'x' * 500}".encode(), b""]
    )
    async def test_hostile_trace_contexts_change_nothing(self, value: bytes) -> None:
        traced = Traced(join=True)
        await traced.run(Entry(BIKES, entry_id(1), [b"type", b"nonsense", b"traceparent", value]))
        assert traced.one("dead-letter").parent is None
        assert len(traced.runtime.reports.of("dead_lettered")) == 1


class TestReceive:
    async def test_a_read_has_a_span_that_links_to_the_producers(self) -> None:
        traced = Traced(services=READ)
        await traced.read(entry(1, traceparent=TRACEPARENT), entry(2))
        span = traced.of("receive")[0]
        assert (span.name, span.kind, span.parent) == (f"receive {BIKES}", SpanKind.CLIENT, None)
        assert about(span) == COMMON | {
            "messaging.system": "redis",
            "messaging.operation.name": "receive",
            "messaging.operation.type": "receive",
            "messaging.destination.name": BIKES,
            "messaging.batch.message_count": 2,
        }
        assert links(span) == [(TRACE, PARENT)]

    async def test_a_read_of_nothing_has_none(self) -> None:
        traced = Traced(services=READ)
        async with traced.runtime as runtime:
            await until(lambda: runtime.reads.calls)
            await runtime.consumer.be_quiet()
            await settled()
        assert runtime.reads.unblocked
        assert traced.exporter.get_finished_spans() == ()

    async def test_a_read_that_fails_has_one_with_the_error(self) -> None:
        traced = Traced(services=READ)
        traced.runtime.reads.errors.append(AWAY)
        await traced.read(entry(1))
        failed, read = traced.of("receive")
        assert failed.name == "receive"
        assert about(failed)["error.type"] == f"event_router.core.errors.{RedisUnavailable.__name__}"
        assert failed.status.status_code is StatusCode.ERROR
        assert read.status.status_code is StatusCode.UNSET


class Broken(NoOpTracer):
    """A tracer that fails, as somebody's sampler or processor may."""

    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("sampling")


class TestFaults:
    async def test_broken_tracing_costs_spans_but_no_event(self) -> None:
        traced = Traced(wrap=lambda tracer: Broken(), services=READ)
        traced.runtime.reads.add(entry(1), entry(2, type="nonsense"))
        with structlog.testing.capture_logs() as said:
            async with traced.runtime as runtime:
                await until(lambda: len(runtime.reports.of("committed")) == 1)
                runtime.reads.add(entry(3))
                await until(lambda: len(runtime.reports.of("committed")) == 2)
        assert len(traced.runtime.reports.of("dead_lettered")) == 1
        committed = [
            delivery.entry.id for batch, _ in traced.runtime.reports.of("committed") for delivery in batch
        ]
        assert sorted(committed) == [entry_id(1), entry_id(2), entry_id(3)]
        assert traced.runtime.reports.of("failed") == []
        (failure,) = [line for line in said if line["event"] == "tracing_failed"]
        assert failure["error"] == "ZeroDivisionError: sampling"

    async def test_closing_sends_off_what_waits(self) -> None:
        traced = Traced()
        await traced.spans.close()
        assert traced.flushed == 1

"""Without tracing nothing is wrapped, told or imported; with it, everything else of a route stays."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, get_current_span

from event_router.core.errors import ConfigurationError
from event_router.core.event import Event
from event_router.core.registry import HandlerRegistry
from event_router.ops.span_maker import SpanMaker
from event_router.ops.spans import Spans
from event_router.ops.trace_context import creation_context
from event_router.ops.tracing import NoTracing
from event_router.redis_client.address import parse_url
from event_router.runtime.observer import Observer, Observers
from event_router.tracing import _server, check_tracing, tracing
from tests.unit.runtime_assembled import Rides, ride
from tests.unit.runtime_fakes import FakeReads, Reports, Time


def registry(handle: Any = ride) -> HandlerRegistry:
    found = HandlerRegistry()
    found.register(Rides("bikes", handle))
    found.register(Rides("cars", handle))
    return found


def spans() -> Spans:
    async def flush() -> None:
        """Nothing waits."""

    make = SpanMaker(TracerProvider(shutdown_on_exit=False).get_tracer("a test"), Time().clock, common={})
    return Spans(make, join=False, flush=flush)


async def test_off_wraps_nothing_and_is_told_nothing() -> None:
    off = tracing(
        "off", Time().clock, group="g", consumer="c", address=parse_url("redis://redis"), version="1"
    )
    assert isinstance(off, NoTracing)
    handlers, reads, metrics = registry(), FakeReads(), Reports()
    assert off.registry(handlers) is handlers
    assert off.reads(reads) is reads
    await off.close()

    class Counting(Observer):
        def committed(self, batch: Any, seconds: float) -> None:
            metrics.committed(batch, seconds)

    counting = Counting()
    assert Observers([counting, off.observer]).committed == counting.committed


def test_off_imports_no_spans() -> None:
    # The Redis client imports OpenTelemetry's metrics where they are installed.
    program = (
        "import sys, event_router.app, event_router.cli.commands\n"
        "from event_router.tracing import check_tracing\n"
        "check_tracing('off')\n"
        "print({'event_router.ops.spans', 'opentelemetry.sdk.trace'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_missing_opentelemetry_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"TRACING is 'parent'.*pip install 'event-router\[otel\]'"):
        check_tracing("parent")


def test_traced_routes_are_the_same_routes() -> None:
    handlers = registry()
    traced = spans().registry(handlers)
    assert traced.domains == handlers.domains
    for domain in handlers.domains:
        assert set(traced.names(domain)) == set(handlers.names(domain))
        for name, route in traced.names(domain).items():
            assert route is traced.routes(domain)[route.type]
            before = handlers.names(domain)[name]
            assert route.call != before.call
            assert (route.type, route.payload, route.handler) == (before.type, before.payload, before.handler)


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_the_span_is_current_only_while_the_handler_runs(error: Exception | None) -> None:
    current: list[object] = []

    async def handle(event: Any, state: Any) -> None:
        current.append(get_current_span())
        if error is not None:
            raise error

    event = Event(
        id="1-0", stream="events:bikes", domain="bikes", type="ridden", key="b", data=None, time_ms=1
    )
    route = spans().registry(registry(handle)).names("bikes")["ridden"]
    state: Any = None
    if error is None:
        await route.call(event, state)
    else:
        with pytest.raises(ValueError, match=r"^no$"):
            await route.call(event, state)
    assert current != [INVALID_SPAN]
    assert get_current_span() is INVALID_SPAN


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("redis://redis.example:6380/0", {"server.address": "redis.example", "server.port": 6380}),
        ("redis://redis.example", {"server.address": "redis.example", "server.port": 6379}),
        ("unix:///run/redis.sock", {"server.address": "/run/redis.sock"}),
        ("redis+sentinel://one,two/main/0", {}),
    ],
)
def test_where_the_server_is(url: str, attributes: dict[str, object]) -> None:
    assert _server(parse_url(url)) == attributes


def test_a_context_of_a_later_version_is_understood() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    context = creation_context(f"01-{trace}-{parent}-01-more")
    assert context is not None
    assert f"{context.trace_id:032x}" == trace

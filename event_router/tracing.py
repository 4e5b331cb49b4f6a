"""Puts tracing together: nothing at all, or OpenTelemetry where it is asked for."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Literal

from event_router.core.errors import ConfigurationError
from event_router.ops.tracing import NoTracing, Tracing
from event_router.redis_client.address import RedisAddress
from event_router.runtime.connectivity import Clock

Mode = Literal["off", "links", "parent"]

_NEEDED = "opentelemetry.sdk.trace"


def tracing(
    mode: Mode, clock: Clock, *, group: str, consumer: str, address: RedisAddress, version: str
) -> Tracing:
    """Return the tracing that a mode names; OpenTelemetry is imported only where it is not `off`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed, or its variables ask for what is not there.
    """
    if mode == "off":
        return NoTracing()
    _check_installed(mode)
    from event_router.ops.span_export import flusher, tracer_provider
    from event_router.ops.span_maker import SpanMaker
    from event_router.ops.spans import Spans

    provider = tracer_provider(os.environ, version)
    common = {
        "messaging.consumer.group.name": group,
        "messaging.client.id": consumer,
        **_server(address),
    }
    maker = SpanMaker(provider.get_tracer("event_router", version), clock, common=common)
    return Spans(maker, join=mode == "parent", flush=flusher(provider))


def check_tracing(mode: Mode) -> None:
    """Raise ConfigurationError unless what a mode and OpenTelemetry's variables need is installed."""
    if mode == "off":
        return
    _check_installed(mode)
    from event_router.ops.span_export import exporters

    for exporter in exporters(os.environ):
        exporter.shutdown()


def _check_installed(mode: Mode) -> None:
    try:
        import_module(_NEEDED)
    except ImportError as error:
        raise ConfigurationError(
            f"EVENT_ROUTER_TRACING is {mode!r}, but OpenTelemetry is not installed ({error}): run"
            " `pip install 'event-router[otel]'`, or set EVENT_ROUTER_TRACING=off"
        ) from None


def _server(address: RedisAddress) -> dict[str, str | int]:
    """Return where the server is, unless only its Sentinels know."""
    if address.sentinels:
        return {}
    options = address.options
    if path := options.get("path"):
        return {"server.address": str(path)}
    return {
        "server.address": str(options.get("host", "localhost")),
        "server.port": int(options.get("port", 6379)),
    }

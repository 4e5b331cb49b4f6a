"""Where spans go: the program's own tracer provider, or one made as the OTEL_* variables say.

The SDK reads most of them itself: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
OTEL_BSP_*, OTEL_EXPORTER_OTLP_*, OTEL_SDK_DISABLED. Which exporter is asked for is read here, since the
SDK leaves that to `opentelemetry-instrument`:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import entry_points

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import ProxyTracerProvider

from event_router.core.errors import ConfigurationError

FLUSH_S = 2.0
"""How long the end of the router waits for its last spans to be sent off."""
LONGEST_VALUE = 4_096
"""Characters of an attribute, an exception's stack trace for one, where no OTEL_* variable says otherwise."""

_GROUP = "opentelemetry_traces_exporter"
_LENGTH_LIMITS = ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def tracer_provider(environment: Mapping[str, str], version: str) -> trace.TracerProvider:
    """Return the tracer provider of the program, made and set as the global one if there is none.

    Handlers get tracers from the global one: their spans go the same way.

    Raises:
        ConfigurationError: a variable is wrong, or names an exporter that is not installed.
    """
    found = trace.get_tracer_provider()
    if not isinstance(found, ProxyTracerProvider):
        return found
    made = exporters(environment)
    try:
        provider = _provider(environment, version, made)
    except ValueError as error:
        raise ConfigurationError(f"OTEL_*: a variable of OpenTelemetry is wrong: {error}") from error
    trace.set_tracer_provider(provider)
    return provider


def _provider(environment: Mapping[str, str], version: str, made: Iterable[SpanExporter]) -> TracerProvider:
    limited = any(environment.get(name) for name in _LENGTH_LIMITS)
    provider = TracerProvider(
        resource=_resource(version),
        # At the end of the process a collector that does not answer must not hold it up: see `flusher`.
        shutdown_on_exit=False,
        span_limits=SpanLimits() if limited else SpanLimits(max_attribute_length=LONGEST_VALUE),
    )
    for exporter in made:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def exporters(environment: Mapping[str, str]) -> list[SpanExporter]:
    """Return the exporters that OTEL_TRACES_EXPORTER asks for, OTLP over HTTP if it does not say.

    Raises:
        ConfigurationError: a variable is wrong, or names an exporter that is not installed.
    """
    asked = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    names = [name.strip() for name in asked.split(",") if name.strip()]
    return [_exporter(_otlp(environment) if name == "otlp" else name) for name in names if name != "none"]


def _otlp(environment: Mapping[str, str]) -> str:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(variable):
            if protocol not in _OTLP:
                raise ConfigurationError(f"{variable}: {protocol!r} is unknown; take {' or '.join(_OTLP)}")
            return _OTLP[protocol]
    return _OTLP["http/protobuf"]


def _exporter(name: str) -> SpanExporter:
    points = entry_points(group=_GROUP)
    if name not in points.names:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed; there are"
            f" {', '.join(sorted(points.names))} and none"
        )
    try:
        exporter: SpanExporter = points[name].load()()
    except Exception as error:  # whatever an exporter has to say of its own variables
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER: exporter {name!r} cannot be made: {type(error).__name__}: {error}"
        ) from error
    return exporter


def _resource(version: str) -> Resource:
    """Return what the variables say of this process, with a name and a version if they say none."""
    said = Resource.create()
    added = {} if SERVICE_VERSION in said.attributes else {SERVICE_VERSION: version}
    if str(said.attributes[SERVICE_NAME]).startswith("unknown_service"):
        added[SERVICE_NAME] = "event-router"
    return said.merge(Resource(added))


def flusher(provider: trace.TracerProvider, within_s: float = FLUSH_S) -> Callable[[], Awaitable[None]]:
    """Return what has the provider send off what waits, in a thread that nobody waits for longer."""

    async def flush() -> None:
        force: Callable[[], object] | None = getattr(provider, "force_flush", None)
        if force is None:
            return
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def send() -> None:
            try:
                force()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(done.set)

        threading.Thread(target=send, name="span-flush", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), within_s)
        except TimeoutError:
            structlog.get_logger("event_router").warning("spans_not_sent", waited_s=within_s)

    return flush

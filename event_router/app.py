"""The composition root: from settings to a running router."""

from __future__ import annotations

import asyncio
import gc
import os

import structlog
import uvloop

from event_router.assembly import assemble, package_version
from event_router.core.errors import ConfigurationError, EventRouterError
from event_router.core.handler import EventHandler
from event_router.core.registry import HandlerRegistry
from event_router.embedded import EmbeddedServer
from event_router.handler_loading import check_domains
from event_router.handler_loading import load_handlers as load_handlers
from event_router.ops.logs import configure
from event_router.redis_client.address import parse_url
from event_router.runtime.signals import StopRequest, caught_signals
from event_router.settings import Settings, SettingsError

EMBEDDED_CONSUMER = "consumer-embedded"


class EventRouter:
    """The router, to be embedded in a program or run as the daemon.

    `EventRouter(settings).register(handler)`, then `run()` until SIGTERM, or `await serve(stop)`.
    """

    def __init__(self, settings: Settings, registry: HandlerRegistry | None = None) -> None:
        self._settings = settings
        self._registry = registry or HandlerRegistry()

    def register(self, handler: EventHandler) -> EventRouter:
        """Add a handler. Raises ConfigurationError if another takes the same domain and type."""
        self._registry.register(handler)
        return self

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code. Starts an event loop of its own."""

        async def until_signalled() -> int:
            request = StopRequest()
            with caught_signals(request):
                return await self.serve(request)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(until_signalled())

    async def serve(self, request: StopRequest) -> int:
        """Run in the current event loop until asked to stop; return the exit code.

        Raises:
            ConfigurationError: the Redis server cannot be used, or the HTTP port is taken.
        """
        if not self._settings.redis_streams_url:
            raise SettingsError(
                "EVENT_ROUTER_REDIS_STREAMS_URL is not set: give the Redis URL, or use --embedded"
            )
        check_domains(self._settings.domains, self._registry)
        assembled = assemble(self._settings, self._registry, parse_url(self._settings.redis_streams_url))
        log = structlog.get_logger("event_router")
        try:
            await assembled.http.start()
        except OSError as error:
            place = f"{self._settings.http_host}:{self._settings.http_port}"
            raise ConfigurationError(
                f"EVENT_ROUTER_HTTP_PORT: cannot listen on {place}: {error.strerror or error}"
            ) from None
        log.info(
            "starting",
            version=package_version(),
            consumer=assembled.consumer,
            streams=list(assembled.streams),
            redis=assembled.address.redacted,
            http_port=assembled.http.port,
        )
        try:
            clean = await assembled.router.run(request)
            log.info("stopped", everything_settled_or_handed_over=clean)
            return 0
        except ConfigurationError:
            raise
        except EventRouterError as error:
            log.critical("service_failed", error=str(error), exc_info=error.__cause__)
            return 1
        finally:
            await assembled.http.stop()
            for link in assembled.links:
                await link.close()
            await assembled.live.close()
            await assembled.tracing.close()


def _calm_garbage_collection() -> None:
    """Leave what was imported out of collections, and collect less often.

    With thousands of events in flight the default thresholds took a third of the time (measured).
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run(settings: Settings) -> int:
    """Run the daemon; return its exit code.

    Raises:
        ConfigurationError: a setting or a handler is wrong, the Redis server cannot be used, or the
            HTTP port is taken.
    """
    configure(settings.log_level, settings.log_format)
    _calm_garbage_collection()
    registry = load_handlers(settings)
    if not settings.embedded:
        return EventRouter(settings, registry).run()
    server = EmbeddedServer(settings.data_dir)
    url = server.start()
    structlog.get_logger("event_router").warning(
        "embedded_server",
        url=url,
        data_dir=str(settings.data_dir.resolve()),
        started="by this process" if server.owned else "by another process",
        use="for development only",
    )
    changed: dict[str, object] = {"redis_streams_url": url, "embedded": False}
    if server.owned and settings.consumer is None and "POD_NAME" not in os.environ:
        # The only router of its server: after a crash it finds its own pending entries at once.
        changed["consumer"] = EMBEDDED_CONSUMER
    try:
        return EventRouter(settings.model_copy(update=changed), registry).run()
    finally:
        server.stop()

"""The composition root: from settings to a running router."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import structlog
import uvloop

from event_router.core.channels import PRESENCE
from event_router.core.decoding import Decoder
from event_router.core.errors import ConfigurationError, EventRouterError
from event_router.core.handler import EventHandler
from event_router.core.input_request import DOMAIN as HUMAN_INPUT_DOMAIN
from event_router.core.registry import HandlerRegistry
from event_router.core.retry import RetryPolicy
from event_router.embedded import EmbeddedServer
from event_router.fan_out import FanOut, fan_out
from event_router.handler_loading import check_domains
from event_router.handler_loading import load_handlers as load_handlers
from event_router.ops.http import HttpServer
from event_router.ops.logs import LogObserver, configure
from event_router.ops.metrics import GroupFigures, RouterMetrics, new_registry
from event_router.ops.pauses import PauseReports
from event_router.ops.tracing import Tracing
from event_router.patterns.input_expiry import InputExpiry
from event_router.patterns.input_store import InputStore
from event_router.patterns.presence import Presence
from event_router.redis_client.address import RedisAddress, parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.claims import Claims
from event_router.redis_io.commits import Commits
from event_router.redis_io.groups import Groups
from event_router.redis_io.lag import inspect
from event_router.redis_io.pauses import StoredPauses
from event_router.redis_io.reader import StreamReader
from event_router.redis_io.server import check_server
from event_router.redis_io.state_reads import StateReads
from event_router.runtime.claimer import Claimer
from event_router.runtime.committer import Committer
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.consumer import Consumer
from event_router.runtime.delivery import InFlight
from event_router.runtime.dispatcher import Dispatcher, HandlingPolicy
from event_router.runtime.failures import Failures
from event_router.runtime.flow import FIRST_LIMIT
from event_router.runtime.groups import GroupKeeper
from event_router.runtime.housekeeper import Housekeeper
from event_router.runtime.leases import Leases, Overdue
from event_router.runtime.observer import Observer, Observers
from event_router.runtime.pauses import Pauses
from event_router.runtime.presence_expiry import PresenceExpiry
from event_router.runtime.retries import Retries
from event_router.runtime.router import Parts, Router
from event_router.runtime.sequencer import Sequencer
from event_router.runtime.services import Service
from event_router.runtime.signals import StopRequest, caught_signals
from event_router.runtime.starts import Starts
from event_router.runtime.suspects import Suspects
from event_router.settings import Settings, SettingsError
from event_router.tracing import tracing

READ_TIMEOUT_MARGIN_S = 1.5
"""A blocked read that has not ended this long after its block is lost: the connection is half open."""
EMBEDDED_CONSUMER = "consumer-embedded"
DEAD_AFTER_LEASES = 3
"""A consumer without pending entries is dead after this many claim idle times of silence."""

SYSTEM_CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, random.random)


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
        assembled = _assemble(self._settings, self._registry, parse_url(self._settings.redis_streams_url))
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


@dataclass(frozen=True, slots=True)
class _Assembled:
    router: Router
    http: HttpServer
    links: Sequence[Link]
    live: FanOut
    tracing: Tracing
    address: RedisAddress
    consumer: str
    streams: Sequence[str]


def _assemble(settings: Settings, registry: HandlerRegistry, address: RedisAddress) -> _Assembled:
    """Build every part and connect them; nothing is started."""
    clock = SYSTEM_CLOCK
    names = settings.key_names
    consumer, group = settings.consumer_name, settings.group
    domains = settings.domains or registry.domains
    streams = {domain: names.streams(domain) for domain in domains}
    every_stream = [stream for several in streams.values() for stream in several]
    domain_of = {stream: domain for domain, several in streams.items() for stream in several}

    traced = tracing(
        settings.tracing, clock, group=group, consumer=consumer, address=address, version=package_version()
    )
    metrics = RouterMetrics(
        clock=clock,
        group=group,
        consumer=consumer,
        streams=every_stream,
        types={stream: tuple(registry.routes(domain)) for stream, domain in domain_of.items()},
    )
    metrics.circuits.update(dict.fromkeys(domains, False))
    live = fan_out(
        clock,
        streams=address,
        pubsub=parse_url(settings.redis_pubsub_url) if settings.redis_pubsub_url else address,
        timeout_s=settings.redis_timeout_s,
        names=names,
        types={domain: tuple(registry.routes(domain)) for domain in domains},
        consumer=consumer,
        connected=metrics.connected,
    )
    pause_reports = PauseReports(every_stream)
    observer: Observer = Observers(
        [metrics, LogObserver(clock, consumer), live.streams_observer, pause_reports, traced.observer]
    )
    connectivity = Connectivity(clock, observer)

    def link(role: str, timeout_s: float = settings.redis_timeout_s) -> Link:
        return Link(address, timeout_s=timeout_s, name=f"event-router-{role}")

    block_s = settings.read_block_ms / 1000
    links = {
        "read": link("read", block_s + min(settings.redis_timeout_s, READ_TIMEOUT_MARGIN_S)),
        "commit": link("commit"),
        "state": link("state"),
        "control": link("control"),
    }
    control = links["control"]
    claims = Claims(control, group, consumer)
    group_port = Groups(control, group)
    commits = Commits(
        links["commit"],
        group,
        names=names,
        presence_ttl_ms=int(settings.presence_ttl_s * 1000),
        dedupe_ttl_ms=settings.dedupe_window_s * 1000,
    )
    reads = traced.reads(StreamReader(links["read"], control, group, consumer))
    pauses = Pauses(
        clock,
        pauses=StoredPauses(control, group),
        connectivity=connectivity,
        observer=observer,
        streams=every_stream,
    )

    in_flight = InFlight(min(FIRST_LIMIT, settings.max_in_flight))
    metrics.in_flight = lambda: len(in_flight)
    groups = GroupKeeper(
        groups=group_port,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        clock=clock,
        streams=every_stream,
    )
    policy = RetryPolicy(
        max_deliveries=settings.max_deliveries,
        backoff_ms=settings.retry_backoff_ms,
        factor=settings.retry_factor,
        longest_ms=settings.claim_min_idle_ms,
        random=clock.random,
    )
    sequencer = Sequencer(clock, StateReads(links["state"]), connectivity)
    committer = Committer(
        clock,
        commits=commits,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        recreate=groups.recreate,
        postpone=lambda delivery, reason: failures.postpone(delivery, reason),
        max_events=settings.commit_max_events,
    )
    dispatcher = Dispatcher(
        decoder=Decoder(traced.registry(registry), max_entry_bytes=settings.max_entry_bytes),
        domains=domain_of,
        names=names,
        sequencer=sequencer,
        commits=commits,
        ready=committer.offer,
        in_flight=in_flight,
        policy=HandlingPolicy(settings.concurrency, settings.unknown_events == "ack", consumer),
        connectivity=connectivity,
        observer=observer,
        clock=clock,
    )
    failures = Failures(
        policy=policy,
        dispatcher=dispatcher,
        in_flight=in_flight,
        observer=observer,
        clock=clock,
        domains=domains,
    )
    dispatcher.failures = failures
    committer.returns = dispatcher
    starts = Starts(
        claims=claims, dispatcher=dispatcher, policy=policy, connectivity=connectivity, observer=observer
    )
    suspects = Suspects(
        clock,
        starts=starts,
        dispatcher=dispatcher,
        connectivity=connectivity,
        observer=observer,
        paused=pauses.paused,
    )
    retries = Retries(
        clock,
        failures=failures,
        claims=claims,
        reads=traced.reads(StreamReader(control, control, group, consumer)),
        starts=starts,
        dispatcher=dispatcher,
        connectivity=connectivity,
        recreate=groups.recreate,
        observer=observer,
        in_flight=in_flight,
        streams=streams,
        paused=pauses.paused,
    )
    claimer = Claimer(
        clock,
        claims=claims,
        starts=starts,
        suspects=suspects,
        failures=failures,
        dispatcher=dispatcher,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        streams=every_stream,
        min_idle_ms=settings.claim_min_idle_ms,
        interval_s=settings.claim_interval_ms / 1000,
        paused=pauses.paused,
    )
    consumer_loop = Consumer(
        clock,
        reads=reads,
        dispatcher=dispatcher,
        failures=failures,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        recreate=groups.recreate,
        read_lost=claimer.read_lost,
        streams=streams,
        read_count=settings.read_count,
        block_ms=settings.read_block_ms,
        max_in_flight=settings.max_in_flight,
        paused=pauses.paused,
    )

    async def pauses_changed() -> None:
        in_flight.notify()
        suspects.look_again()
        await reads.unblock()

    pauses.changed = pauses_changed

    async def refresh() -> None:
        for stream in every_stream:
            status = await inspect(control, stream, group)
            metrics.groups[stream] = GroupFigures(
                status.lag,
                status.lag_seconds,
                status.pending,
                status.dead_letters,
                length=status.length,
                added=status.added,
                consumers=status.consumers,
                pending_of=status.pending_of,
            )
            metrics.clock_offset_ms = status.server_ms - clock.wall_ms()
            if status.lag_is_wrong:
                await group_port.repair_lag(stream)
            if status.trimmed_unread and (
                uncounted := await group_port.count_trimmed(stream, status.delivered, status.trimmed_unread)
            ):
                observer.unread_trimmed(stream, uncounted)

    async def check() -> None:
        for warning in await check_server(control):
            structlog.get_logger("event_router").warning("server_configuration", problem=warning)
        await pauses.run_once()  # before anything is claimed or read

    parts = Parts(
        groups=groups,
        group_port=group_port,
        claims=claims,
        in_flight=in_flight,
        connectivity=connectivity,
        dispatcher=dispatcher,
        failures=failures,
        sequencer=sequencer,
        committer=committer,
        suspects=suspects,
        retries=retries,
        leases=Leases(
            clock,
            claims=claims,
            in_flight=in_flight,
            suspects=suspects,
            failures=failures,
            connectivity=connectivity,
            observer=observer,
            min_idle_ms=settings.claim_min_idle_ms,
        ),
        overdue=Overdue(clock, dispatcher=dispatcher, timeout_s=settings.handler_timeout_s),
        claimer=claimer,
        consumer=consumer_loop,
        housekeeper=Housekeeper(
            clock,
            groups=group_port,
            refresh=refresh,
            connectivity=connectivity,
            observer=observer,
            streams=every_stream,
            consumer=consumer,
            min_length=settings.stream_min_length,
            dead_after_ms=max(
                DEAD_AFTER_LEASES * settings.claim_min_idle_ms, DEAD_AFTER_LEASES * settings.read_block_ms
            ),
        ),
    )
    presence = PresenceExpiry(
        clock,
        presence=Presence(
            control,
            ttl_s=settings.presence_ttl_s,
            last_seen_s=settings.presence_last_seen_s,
            outbox=names.outbox(PRESENCE),
            outbox_maxlen=names.outbox_maxlen,
        ),
        connectivity=connectivity,
        observer=observer,
    )
    router = Router(
        parts,
        check=check,
        observer=observer,
        clock=clock,
        streams=streams,
        consumer=consumer,
        min_idle_ms=settings.claim_min_idle_ms,
        grace_s=settings.shutdown_grace_s,
        beside=(
            *live.services,
            presence,
            pauses,
            *_input_expiry(clock, domains, InputStore(control, names), connectivity, observer),
        ),
    )
    http = HttpServer(
        host=settings.http_host,
        port=settings.http_port,
        stuck=router.stuck,
        readiness=lambda: router.readiness() | pauses.readiness() | live.readiness(),
        registry=new_registry(package_version(), metrics, pause_reports, live.metrics),
    )
    return _Assembled(router, http, tuple(links.values()), live, traced, address, consumer, every_stream)


def _input_expiry(
    clock: Clock, domains: Sequence[str], store: InputStore, connectivity: Connectivity, observer: Observer
) -> list[Service]:
    """Return what has requests for input expire, where the domain is served that is told of it."""
    if HUMAN_INPUT_DOMAIN not in domains:
        return []
    return [InputExpiry(clock, store=store, connectivity=connectivity, observer=observer)]


def package_version() -> str:
    """Return the installed version."""
    try:
        return version("event-router")
    except PackageNotFoundError:
        return "unknown"


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

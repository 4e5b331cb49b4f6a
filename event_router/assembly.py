"""From settings to the parts of a router, connected: nothing is started."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import structlog

from event_router.core.channels import PRESENCE
from event_router.core.decoding import Decoder
from event_router.core.input_request import DOMAIN as HUMAN_INPUT_DOMAIN
from event_router.core.registry import HandlerRegistry
from event_router.fan_out import FanOut, fan_out
from event_router.figures import Figures
from event_router.handler_loading import load_handlers as load_handlers
from event_router.ops.http import HttpServer
from event_router.ops.logs import LogObserver
from event_router.ops.metrics import RouterMetrics, new_registry
from event_router.ops.pauses import PauseReports
from event_router.ops.refused_streams import RefusedStreams
from event_router.ops.tracing import Tracing
from event_router.parts import Ports, connected_parts
from event_router.patterns.input_expiry import InputExpiry
from event_router.patterns.input_store import InputStore
from event_router.patterns.presence import Presence
from event_router.redis_client.address import RedisAddress, parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.claims import Claims
from event_router.redis_io.commits import Commits
from event_router.redis_io.groups import Groups
from event_router.redis_io.pauses import StoredPauses
from event_router.redis_io.reader import StreamReader
from event_router.redis_io.server import check_server
from event_router.redis_io.state_reads import StateReads
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import InFlight
from event_router.runtime.flow import FIRST_LIMIT
from event_router.runtime.observer import Observer, Observers
from event_router.runtime.pauses import Pauses
from event_router.runtime.presence_expiry import PresenceExpiry
from event_router.runtime.router import Router
from event_router.runtime.services import Service
from event_router.runtime.troubles import StreamTroubles
from event_router.settings import Settings
from event_router.tracing import tracing

READ_TIMEOUT_MARGIN_S = 1.5
"""A blocked read that has not ended this long after its block is lost: the connection is half open."""

SYSTEM_CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, random.random)


@dataclass(frozen=True, slots=True)
class Assembled:
    """A router that can be started, and what has to be closed when it has ended."""

    router: Router
    http: HttpServer
    links: Sequence[Link]
    live: FanOut
    tracing: Tracing
    address: RedisAddress
    consumer: str
    streams: Sequence[str]


def assemble(settings: Settings, registry: HandlerRegistry, address: RedisAddress) -> Assembled:
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
    troubles = StreamTroubles(connectivity, observer)
    refused = RefusedStreams(every_stream, troubles.reasons)

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
    groups = Groups(control, group)
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
    ports = Ports(
        claims=Claims(control, group, consumer),
        groups=groups,
        commits=Commits(
            links["commit"],
            group,
            names=names,
            presence_ttl_ms=int(settings.presence_ttl_s * 1000),
            dedupe_ttl_ms=settings.dedupe_window_s * 1000,
        ),
        reads=reads,
        probes=traced.reads(StreamReader(control, control, group, consumer)),
        state=StateReads(links["state"]),
    )
    figures = Figures(
        clock,
        link=control,
        groups=groups,
        group=group,
        metrics=metrics,
        observer=observer,
        troubles=troubles,
        streams=every_stream,
    )
    parts = connected_parts(
        clock,
        settings=settings,
        ports=ports,
        decoder=Decoder(traced.registry(registry), max_entry_bytes=settings.max_entry_bytes),
        streams=streams,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        troubles=troubles,
        paused=pauses.paused,
        refresh=figures.refresh,
    )

    async def pauses_changed() -> None:
        in_flight.notify()
        parts.suspects.look_again()
        await reads.unblock()

    pauses.changed = pauses_changed

    async def check() -> None:
        for warning in await check_server(control):
            structlog.get_logger("event_router").warning("server_configuration", problem=warning)
        await pauses.run_once()  # before anything is claimed or read

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
        registry=new_registry(package_version(), metrics, pause_reports, refused, live.metrics),
    )
    return Assembled(router, http, tuple(links.values()), live, traced, address, consumer, every_stream)


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

"""The parts of a running router, connected to one another and to what they need of Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from event_router.core.decoding import Decoder
from event_router.core.retry import RetryPolicy
from event_router.handler_loading import load_handlers as load_handlers
from event_router.runtime.claimer import Claimer
from event_router.runtime.commit_queue import CommitQueue
from event_router.runtime.committer import Committer
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.consumer import Consumer
from event_router.runtime.delivery import InFlight
from event_router.runtime.denied import Denied
from event_router.runtime.dispatcher import Dispatcher, HandlingPolicy
from event_router.runtime.failures import Failures
from event_router.runtime.groups import GroupKeeper
from event_router.runtime.housekeeper import Housekeeper
from event_router.runtime.leases import Leases, Overdue
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ClaimPort, CommitPort, GroupPort, ReadPort, StateReadPort
from event_router.runtime.retries import Retries
from event_router.runtime.router import Parts
from event_router.runtime.sequencer import Sequencer
from event_router.runtime.starts import Starts
from event_router.runtime.suspects import Suspects
from event_router.runtime.troubles import StreamTroubles
from event_router.settings import Settings

DEAD_AFTER_LEASES = 3
"""A consumer without pending entries is dead after this many claim idle times of silence."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the parts need of Redis.

    Attributes:
        probes: reads single entries of a domain whose breaker is open, on another connection than `reads`.
    """

    claims: ClaimPort
    groups: GroupPort
    commits: CommitPort
    reads: ReadPort
    probes: ReadPort
    state: StateReadPort


def connected_parts(
    clock: Clock,
    *,
    settings: Settings,
    ports: Ports,
    decoder: Decoder,
    streams: dict[str, tuple[str, ...]],
    in_flight: InFlight,
    connectivity: Connectivity,
    observer: Observer,
    troubles: StreamTroubles,
    paused: Callable[[str], bool],
    refresh: Callable[[], Awaitable[None]],
) -> Parts:
    """Build the parts and connect them; nothing is started.

    Args:
        streams: the streams of each domain.
        paused: whether an operator has paused a stream.
        troubles: what is refused or denied on which stream.
        refresh: reads the groups' figures.
    """
    names, consumer = settings.key_names, settings.consumer_name
    domains = tuple(streams)
    every_stream = [stream for several in streams.values() for stream in several]
    domain_of = {stream: domain for domain, several in streams.items() for stream in several}
    groups = GroupKeeper(
        groups=ports.groups,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        troubles=troubles,
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
    sequencer = Sequencer(clock, ports.state, connectivity)
    queue = CommitQueue(settings.commit_max_events)
    denied = Denied(connectivity, "denied commits", queue.offer_again)
    committers = tuple(
        Committer(
            clock,
            commits=ports.commits,
            queue=queue,
            denied=denied,
            caller=caller,
            in_flight=in_flight,
            connectivity=connectivity,
            observer=observer,
            recreate=groups.recreate,
            postpone=lambda delivery, reason: failures.postpone(delivery, reason),
        )
        for caller in ("first", "second")
    )
    dispatcher = Dispatcher(
        decoder=decoder,
        domains=domain_of,
        names=names,
        sequencer=sequencer,
        commits=ports.commits,
        ready=queue.offer,
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
    for committer in committers:
        committer.returns = dispatcher
    starts = Starts(
        claims=ports.claims,
        dispatcher=dispatcher,
        policy=policy,
        connectivity=connectivity,
        observer=observer,
    )
    suspects = Suspects(
        clock,
        starts=starts,
        dispatcher=dispatcher,
        connectivity=connectivity,
        observer=observer,
        paused=paused,
    )
    retries = Retries(
        clock,
        failures=failures,
        claims=ports.claims,
        reads=ports.probes,
        starts=starts,
        dispatcher=dispatcher,
        connectivity=connectivity,
        recreate=groups.recreate,
        troubles=troubles,
        in_flight=in_flight,
        streams=streams,
        paused=paused,
    )
    claimer = Claimer(
        clock,
        claims=ports.claims,
        starts=starts,
        suspects=suspects,
        failures=failures,
        dispatcher=dispatcher,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        troubles=troubles,
        recreate=groups.recreate,
        streams=every_stream,
        min_idle_ms=settings.claim_min_idle_ms,
        interval_s=settings.claim_interval_ms / 1000,
        paused=paused,
    )
    consumer_loop = Consumer(
        clock,
        reads=ports.reads,
        dispatcher=dispatcher,
        failures=failures,
        in_flight=in_flight,
        connectivity=connectivity,
        observer=observer,
        troubles=troubles,
        recreate=groups.recreate,
        read_lost=claimer.read_lost,
        streams=streams,
        read_count=settings.read_count,
        block_ms=settings.read_block_ms,
        max_in_flight=settings.max_in_flight,
        paused=paused,
        knows_own=claimer.knows_own,
    )

    return Parts(
        groups=groups,
        group_port=ports.groups,
        claims=ports.claims,
        in_flight=in_flight,
        connectivity=connectivity,
        dispatcher=dispatcher,
        failures=failures,
        sequencer=sequencer,
        committers=committers,
        denied=denied,
        troubles=troubles,
        suspects=suspects,
        retries=retries,
        leases=Leases(
            clock,
            claims=ports.claims,
            in_flight=in_flight,
            suspects=suspects,
            failures=failures,
            connectivity=connectivity,
            troubles=troubles,
            min_idle_ms=settings.claim_min_idle_ms,
        ),
        overdue=Overdue(clock, dispatcher=dispatcher, timeout_s=settings.handler_timeout_s),
        claimer=claimer,
        consumer=consumer_loop,
        housekeeper=Housekeeper(
            clock,
            groups=ports.groups,
            refresh=refresh,
            connectivity=connectivity,
            observer=observer,
            troubles=troubles,
            streams=every_stream,
            consumer=consumer,
            min_length=settings.stream_min_length,
            dead_after_ms=max(
                DEAD_AFTER_LEASES * settings.claim_min_idle_ms, DEAD_AFTER_LEASES * settings.read_block_ms
            ),
        ),
    )

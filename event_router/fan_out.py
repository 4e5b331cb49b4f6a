"""Puts the fan-out together: a relay for each domain's log, the watch over Pub/Sub, what both report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.registry import Collector
from redis.asyncio import Redis

from event_router.core.channels import Channels
from event_router.core.keys import KeyNames
from event_router.messaging.outbox import Outbox
from event_router.messaging.publishing import Publishing
from event_router.messaging.pubsub_watch import PubSubWatch
from event_router.messaging.relay import BLOCK_MS, LEASE_S, Relay
from event_router.messaging.relay_lease import RelayLease
from event_router.messaging.relays import Relays
from event_router.ops.fan_out import FanOutReports, OutageReports, SharedConnected
from event_router.redis_client.address import RedisAddress
from event_router.redis_client.connections import Link, open_client
from event_router.redis_client.sent_once import SentOnce
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.fan_out import Gate, Patience
from event_router.runtime.observer import Observer, Observers
from event_router.runtime.services import Service

READ_TIMEOUT_MARGIN_S = 1.5
PRESENCE = "presence"
"""A log of its own beside those of the domains: `Presence` announces there, whoever uses it."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """The fan-out of a router.

    Attributes:
        services: what runs beside the router.
        streams_observer: has to hear of outages of the streams Redis.
        metrics: for the registry.
    """

    services: Sequence[Service]
    streams_observer: Observer
    metrics: Collector
    _relays: Relays
    _watch: PubSubWatch
    _links: Sequence[Link]
    _client: Redis

    def readiness(self) -> dict[str, object]:
        """Return what `/readyz` shows of it; none of it makes a router unready."""
        return {"pubsub": self._watch.health.as_dict(), "relays": self._relays.roles()}

    async def close(self) -> None:
        """Close the connections."""
        for link in self._links:
            await link.close()
        # A pool of its own, which the client would leave open.
        await self._client.aclose(close_connection_pool=True)


def fan_out(
    clock: Clock,
    *,
    streams: RedisAddress,
    pubsub: RedisAddress,
    timeout_s: float,
    names: KeyNames,
    types: Mapping[str, Iterable[str]],
    consumer: str,
    connected: dict[str, bool],
) -> FanOut:
    """Build the fan-out of these domains; nothing is started.

    Args:
        types: of each domain the registered event types.
        consumer: who this process is.
        connected: whether Redis answers, by role, for the metrics.
    """
    links: list[Link] = []

    def link(role: str, address: RedisAddress, reply_s: float = timeout_s) -> Link:
        links.append(Link(address, timeout_s=reply_s, name=f"event-router-{role}"))
        return links[-1]

    domains = list(dict.fromkeys((*types, PRESENCE)))
    reports = FanOutReports(
        clock,
        channel_label=Channels(names.job_channel_template).label,
        types={PRESENCE}.union(*types.values()),
        outboxes=map(names.outbox, domains),
    )
    gate = Gate()
    to_log = Connectivity(clock, OutageReports("streams"))
    to_pubsub = Connectivity(clock, OutageReports("pubsub", connected))
    streams_observer: Observer = gate
    pubsub_gate = None
    if pubsub == streams:
        # One server for both roles has one outage, and the router tells it.
        pubsub_gate = gate
        streams_observer = Observers([gate, SharedConnected("pubsub", connected, lambda: to_pubsub.up)])
    control = link("relay", streams)
    read_s = BLOCK_MS / 1000 + min(timeout_s, READ_TIMEOUT_MARGIN_S)
    holder = f"{consumer}#{int(clock.random() * 2**32):08x}"
    relays = [
        Relay(
            clock,
            outbox=Outbox(link("outbox", streams, read_s), control, domain, names.outbox(domain)),
            lease=RelayLease(control, names.outbox(domain), holder, lasts_s=LEASE_S),
            publishing=Publishing(
                link("publish", pubsub), reports, domain=domain, outbox=names.outbox(domain)
            ),
            log_patience=Patience(to_log, gate),
            publish_patience=Patience(to_pubsub, pubsub_gate),
            observer=reports,
        )
        for domain in domains
    ]
    client = open_client(pubsub, timeout_s=timeout_s, name="event-router-watch")
    service = Relays(clock, relays, reports)
    watch = PubSubWatch(clock, SentOnce(client), Patience(to_pubsub, pubsub_gate), timeout_s=timeout_s)
    return FanOut((service, watch), streams_observer, reports, service, watch, links, client)

"""Relays in the test's own process, on real servers, with short leases; and a subscriber that keeps all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio

from event_router.core.fan_out import relay_key
from event_router.messaging.outbox import Outbox
from event_router.messaging.publishing import Publishing
from event_router.messaging.relay import Relay
from event_router.messaging.relay_lease import RelayLease
from event_router.messaging.relays import Relays
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.fan_out import FanOutObserver, Gate, Patience
from event_router.runtime.observer import Observer

DOMAIN, OUTBOX = "chat", "outbox:chat"
KEY = relay_key(OUTBOX)
LEASE_S, LOOK_S = 0.5, 0.1
CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, lambda: 0.5)


async def until(condition: Callable[[], Any], within: float = 8.0, what: str = "") -> Any:
    """The condition's first true value, while everything else goes on."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {what or condition}"
        await asyncio.sleep(0.005)


@dataclass
class Told(FanOutObserver):
    """Remembers what a relay tells."""

    leading: list[int] = field(default_factory=list)
    steps_down: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    trimmed: int = 0
    refusals: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def leads(self, outbox: str, token: int, *, outage: bool = False) -> None:
        self.leading.append(token)
        self.news += [] if outage else ["leads"]

    def stands_by(self, outbox: str, reason: str, *, outage: bool = False) -> None:
        self.steps_down.append(reason)
        self.news += [] if outage else [f"stands by: {reason}"]

    def message_published(self, channel: bytes, type: str, receivers: int) -> None:
        self.published.append((channel.decode(), type))

    def message_dropped(self, outbox: str, channel: bytes, why: str) -> None:
        self.dropped.append((channel.decode(), why))

    def trimmed_unpublished(self, outbox: str, count: int) -> None:
        self.trimmed += count

    def refused(self, what: str, error: str) -> None:
        self.refusals.append(error)

    def relay_failed(self, outbox: str, error: Exception) -> None:
        self.failures.append(error)


@dataclass
class Outages(Observer):
    """Remembers when an outage begins and ends."""

    lines: list[str] = field(default_factory=list)

    def outage_began(self, role: str, error: str) -> None:
        self.lines.append(f"began {role}")

    def outage_ended(self, seconds: float) -> None:
        self.lines.append("ended")


class Pod:
    """One relay with connections of its own, as a router has it."""

    def __init__(self, name: str, streams_url: str, pubsub_url: str, *, timeout_s: float = 1.0) -> None:
        self.told = Told()
        self.outages = Outages()
        self.gate = Gate()
        streams, pubsub = parse_url(streams_url), parse_url(pubsub_url)
        self.control = Link(streams, timeout_s=timeout_s, name=f"{name}-control")
        self.reading = Link(streams, timeout_s=3.5, name=f"{name}-outbox")
        self.publishing = Link(pubsub, timeout_s=timeout_s, name=f"{name}-publish")
        self.lease = RelayLease(self.control, OUTBOX, name, lasts_s=LEASE_S)
        self.relay = Relay(
            CLOCK,
            outbox=Outbox(self.reading, self.control, DOMAIN, OUTBOX),
            lease=self.lease,
            publishing=Publishing(self.publishing, self.told, domain=DOMAIN, outbox=OUTBOX),
            log_patience=Patience(Connectivity(CLOCK, Observer()), self.gate),
            publish_patience=Patience(Connectivity(CLOCK, self.outages)),
            observer=self.told,
            lease_s=LEASE_S,
            look_s=LOOK_S,
        )
        self.service = Relays(CLOCK, [self.relay], self.told)

    async def close(self) -> None:
        """Stop, and close the connections."""
        await self.service.stop()
        for link in (self.control, self.reading, self.publishing):
            await link.close()


class Watcher:
    """Subscribes to every channel and keeps what arrives, in order."""

    def __init__(self, port: int) -> None:
        self._client = redis.asyncio.Redis(port=port, protocol=2, decode_responses=True)
        self._pubsub = self._client.pubsub()
        self._task: asyncio.Task[None] | None = None
        self.messages: list[dict[str, Any]] = []

    async def __aenter__(self) -> Watcher:
        await self._pubsub.psubscribe("*")
        await self._pubsub.get_message(timeout=5)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pubsub.aclose()
        await self._client.aclose()

    async def _listen(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] == "pmessage":
                self.messages.append(json.loads(message["data"]) | {"channel": message["channel"]})

    def ns(self) -> list[int]:
        """The numbers in the messages as they came."""
        return [message["n"] for message in self.messages]

    def first_times(self) -> list[int]:
        """The numbers without repetitions: a message with an id that came before is left out."""
        seen: set[str] = set()
        return [m["n"] for m in self.messages if not (m["id"] in seen or seen.add(m["id"]))]  # type: ignore[func-returns-value]


def lease_is_over(client: redis.Redis) -> bool:
    """Whether the last leader's lease has run out."""
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds / 1000 > int(client.hget(KEY, "until") or 0)


def log(client: redis.Redis, first: int, last: int, *, maxlen: int | None = None) -> list[str]:
    """Append messages with these numbers to the fan-out log as a commit does; their ids."""
    pipeline = client.pipeline(transaction=False)
    for n in range(first, last):
        message = json.dumps({"timestamp": "2026-01-01T00:00:00.000Z", "n": n})
        fields: Any = {"channel": f"chat:{n % 3}", "type": "progress", "message": message}
        pipeline.xadd(OUTBOX, fields, maxlen=maxlen, approximate=False)
    return [str(entry_id) for entry_id in pipeline.execute()]

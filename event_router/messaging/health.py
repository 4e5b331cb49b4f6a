"""How the Pub/Sub Redis is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from event_router.core.errors import EventRouterError, RedisRefused, RedisUnavailable
from event_router.redis_client.sent_once import SentOnce


@dataclass(frozen=True, slots=True)
class PubSubHealth:
    """What the server says; unknown is None, never 0.

    Attributes:
        up: whether it answers.
        channels: channels with at least one subscriber.
        patterns: patterns with at least one subscriber.
        subscribers: connections that have subscribed to anything.
        error: why it is not up.
    """

    up: bool
    channels: int | None = None
    patterns: int | None = None
    subscribers: int | None = None
    error: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        known = {"channels": self.channels, "patterns": self.patterns, "subscribers": self.subscribers}
        return {"up": self.up, **known} | ({"error": self.error} if self.error else {})


async def read_health(once: SentOnce, *, timeout_s: float) -> PubSubHealth:
    """Ask the server; it never raises for a server that is away. Sources: INFO stats, INFO clients.

    `pubsub_clients` is there from Redis 7.4 and Valkey 8.0 on; before, the list of clients is counted.
    """
    try:
        async with asyncio.timeout(timeout_s):
            info = await _info(once, "stats") | await _info(once, "clients")
            subscribers = _number(info.get("pubsub_clients"))
            if subscribers is None:
                subscribers = await _listed(once)
    except TimeoutError:
        return PubSubHealth(False, error=f"no answer within {timeout_s:g} s")
    except EventRouterError as error:
        return PubSubHealth(False, error=str(error))
    return PubSubHealth(
        True, _number(info.get("pubsub_channels")), _number(info.get("pubsub_patterns")), subscribers
    )


async def _info(once: SentOnce, section: str) -> dict[str, str]:
    reply: bytes = await once.call("INFO", section)
    pairs = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


async def _listed(once: SentOnce) -> int | None:
    try:
        clients: bytes = await once.call("CLIENT", "LIST", "TYPE", "pubsub")
    except (RedisRefused, RedisUnavailable):  # no permission to list clients
        return None
    return len(clients.splitlines())


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None

"""What the tests of Pub/Sub share: an observer that keeps what it heard, and waiting in the loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from event_router import Gap, Message
from event_router.core.pubsub_observer import PubSubObserver


class Noted(PubSubObserver):
    """Counts what it heard, by what it was and its labels."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.gauge: dict[str, int] = {}

    def published(self, channel: str, type: str, receivers: int) -> None:
        self.counts["published", channel, type] += 1

    def received(self, channel: str, type: str) -> None:
        self.counts["received", channel, type] += 1

    def processed(self, channel: str, handler: str, seconds: float) -> None:
        self.counts["processed", channel, handler.rpartition(".")[2]] += 1

    def handler_failed(self, channel: str, handler: str) -> None:
        self.counts["failed", channel, handler.rpartition(".")[2]] += 1

    def dropped(self, channel: str, count: int) -> None:
        self.counts["dropped", channel] += count

    def undecodable(self, channel: str) -> None:
        self.counts["undecodable", channel] += 1

    def duplicate(self, channel: str) -> None:
        self.counts["duplicate", channel] += 1

    def subscribed(self, channel: str, count: int) -> None:
        self.gauge[channel] = count

    def outage_began(self, error: str) -> None:
        self.counts["outages begun",] += 1

    def outage_ended(self, seconds: float) -> None:
        self.counts["outages ended",] += 1


async def until(condition: Callable[[], Any], *, within: float = 10, what: str = "") -> Any:
    """Return the condition's first true value; the loop runs meanwhile."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or condition}; last: {found!r}"
        await asyncio.sleep(0.01)
    return found


async def following(items: AsyncIterator[Message | Gap], count: int, *, within: float = 10) -> list[Any]:
    """Return the next items, messages by their data's `n` where it has one."""
    found: list[Any] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            item = await anext(items)
            plain = isinstance(item, Message) and isinstance(item.data, dict) and "n" in item.data
            found.append(item.data["n"] if plain else item)  # type: ignore[union-attr]
    return found

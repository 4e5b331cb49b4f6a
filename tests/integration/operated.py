"""A stream as an operator finds it: settled, pending and undelivered entries, put there without a router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

STREAM = "events:auth"
GROUP = "event-router-group"
FIRST_MS = 1_767_225_600_000


def fill(client: redis.Redis, count: int, stream: str = STREAM, **fields: str) -> list[str]:
    """Add entries a second apart, and the group at the beginning; return their ids."""
    ids = [f"{FIRST_MS + 1000 * number}-0" for number in range(count)]
    for entry_id in ids:
        client.xadd(stream, {"type": "login", "user_id": "7", **fields}, id=entry_id)  # type: ignore[arg-type]
    client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    return ids


def deliver(client: redis.Redis, count: int, *, settle: bool = True, consumer: str = "consumer-a") -> None:
    """Deliver the next entries to a consumer, and settle them or leave them pending."""
    read: Any = client.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=count)
    [(_, entries)] = read
    assert len(entries) == count
    if settle:
        client.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])


def group_of(client: redis.Redis, stream: str = STREAM) -> dict[str, Any]:
    """XINFO GROUPS of the one group."""
    groups: Any = client.xinfo_groups(stream)
    [found] = [one for one in groups if one["name"] == GROUP]
    return dict(found)


def pending_ids(client: redis.Redis, stream: str = STREAM) -> list[str]:
    """The ids of all pending entries."""
    found: Any = client.xpending_range(stream, GROUP, "-", "+", 1000)
    return [one["message_id"] for one in found]


def rest(client: redis.Redis, stream: str = STREAM, consumer: str = "consumer-b") -> Sequence[str]:
    """What the group delivers next: the ids of everything."""
    read: Any = client.xreadgroup(GROUP, consumer, {stream: ">"}, count=1000)
    return [entry_id for _, entries in read for entry_id, _ in entries]

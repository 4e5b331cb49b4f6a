"""How a stream and its groups are at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from event_router.core.errors import NoGroup, RedisRefused
from event_router.redis_client.connections import Link
from event_router.redis_io.lag import StreamStatus, inspect


@dataclass(frozen=True, slots=True)
class ConsumerHealth:
    """A consumer of the group: pending entries, and milliseconds since it last asked for anything."""

    name: str
    pending: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class OtherGroup:
    """Another group of the stream.

    Attributes:
        lag: entries not delivered to it; None where Redis cannot tell.
        idle_ms: since the last of its consumers asked for anything; None without consumers.
    """

    name: str
    lag: int | None
    pending: int
    idle_ms: int | None


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """A stream at one time.

    Attributes:
        stale: id and milliseconds of an entry that nobody took although it was due; None if there is none.
    """

    status: StreamStatus
    consumers: Sequence[ConsumerHealth]
    others: Sequence[OtherGroup]
    stale: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Patience:
    """What is too long, in milliseconds.

    Attributes:
        dead_ms: a consumer is dead after so much silence.
        due_ms: a pending entry is taken over at the latest after so much idle time.
        silent_ms: a router that holds nothing asks for entries more often than that.
        renewed_ms: a router that is busy renews what it holds more often than that.
    """

    dead_ms: int
    due_ms: int
    silent_ms: int
    renewed_ms: int


async def read_health(link: Link, stream: str, group: str, patience: Patience) -> StreamHealth:
    """Read a stream that is one, or does not exist. Raises RedisUnavailable or RedisRefused."""
    status = await inspect(link, stream, group)
    consumers: list[ConsumerHealth] = []
    stale = None
    if status.exists:
        try:
            consumers = await _consumers(link, stream, group)
            due = await link.call("XPENDING", stream, group, "IDLE", patience.due_ms, "-", "+", 1)
            stale = (due[0][0].decode(), int(due[0][2])) if due else None
        except NoGroup:
            pass  # destroyed this very moment
    return StreamHealth(status, consumers, await _others(link, stream, group), stale)


async def _consumers(link: Link, stream: str, group: str) -> list[ConsumerHealth]:
    listed = [_fields(one) for one in await link.call("XINFO", "CONSUMERS", stream, group)]
    return [ConsumerHealth(_text(one["name"]), one["pending"], one["idle"]) for one in listed]


async def _others(link: Link, stream: str, group: str) -> list[OtherGroup]:
    found: list[OtherGroup] = []
    try:
        listed = [_fields(one) for one in await link.call("XINFO", "GROUPS", stream)]
        for one in listed:
            name = _text(one["name"])
            if name != group:
                idle = [consumer.idle_ms for consumer in await _consumers(link, stream, name)]
                found.append(OtherGroup(name, one.get("lag"), one["pending"], min(idle, default=None)))
    except NoGroup:
        pass
    except RedisRefused as refused:
        if "no such key" not in str(refused):
            raise
    return found


def _fields(flat: Sequence[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")

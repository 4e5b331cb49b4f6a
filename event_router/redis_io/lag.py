"""How far a group is behind, read in one step. Unknown is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from event_router.core.entry_id import parse_id
from event_router.core.keys import dead_letter_stream
from event_router.redis_client.connections import ClientCaller, Link
from event_router.redis_client.script import Script


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A group on a stream at one moment.

    Attributes:
        length: entries in the stream.
        lag: entries not yet delivered to the group; None where Redis cannot tell.
        lag_seconds: age of the oldest unsettled entry; 0.0 when all are settled.
        pending: delivered entries that are not settled.
        consumers: consumers the group knows.
        dead_letters: entries in the stream's dead-letter stream.
        exists: whether the group exists.
        last_id: the id of the newest entry ever added.
        delivered: the last id delivered to the group.
        trimmed_unread: entries that were trimmed before the group read them, as far as is known.
        server_ms: epoch milliseconds on the server.
        lag_is_wrong: Redis reports a lag although everything was delivered.
        added: entries ever added to the stream; None where Redis cannot tell.
        pending_of: pending entries by consumer, of the 50 consumers that hold most.
    """

    stream: str
    group: str
    length: int
    lag: int | None
    lag_seconds: float | None
    pending: int
    consumers: int
    dead_letters: int
    exists: bool
    last_id: str
    trimmed_unread: int
    server_ms: int
    lag_is_wrong: bool
    added: int | None = None
    delivered: str = "0-0"
    pending_of: Mapping[str, int] = field(default_factory=dict)


async def inspect(client: Redis | Link, stream: str, group: str) -> StreamStatus:
    """Return the group's figures on a stream.

    Raises:
        RedisUnavailable: no reply.
        RedisRefused: the key is no stream.
    """
    caller = client if isinstance(client, Link) else ClientCaller(client)
    script = Script("inspect", fragments=("fields",))
    reply = await script.run(caller, (stream, dead_letter_stream(stream)), (group,))
    texts = [part.decode() if isinstance(part, bytes) else part for part in reply]
    return _status(stream, group, texts)


def _status(stream: str, group: str, reply: list[Any]) -> StreamStatus:
    now_ms, length, last_id, added, first_id, exists = reply[:6]
    pending, lowest, delivered, read, reported, next_id, consumers, dead, holders = reply[6:]
    oldest = min((parse_id(found) for found in (lowest, next_id) if found), default=None)
    seconds = 0.0 if oldest is None else max(0.0, (int(now_ms) - oldest[0]) / 1000)
    lag: int | None
    trimmed = 0
    if exists and delivered == last_id:
        lag = 0
    elif not next_id:
        lag = 0 if length == 0 or exists else length
    elif first_id == next_id:
        lag = length  # nothing that still stands was delivered
        if read >= 0 and added >= 0:
            trimmed = max(0, added - read - length)
    else:
        lag = min(reported, length) if reported >= 0 else None
    return StreamStatus(
        stream=stream,
        group=group,
        length=length,
        lag=lag,
        lag_seconds=seconds,
        pending=pending,
        consumers=consumers,
        dead_letters=dead,
        exists=bool(exists),
        last_id=last_id,
        delivered=delivered,
        trimmed_unread=trimmed,
        server_ms=int(now_ms),
        lag_is_wrong=bool(exists and delivered == last_id and reported > 0),
        added=added if added >= 0 else None,
        pending_of={
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name: int(count)
            for name, count in zip(holders[::2], holders[1::2], strict=True)
        },
    )

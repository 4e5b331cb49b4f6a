"""The consumers of a group, for those who look after it."""

from __future__ import annotations

from typing import Any, NamedTuple

from event_router.core.errors import NoGroup, RedisRefused
from event_router.redis_client.script import Caller, Script


class KnownConsumer(NamedTuple):
    """A consumer as Redis knows it: its name, its pending entries, and the ms since it was last heard of."""

    name: str
    pending: int
    idle_ms: int


async def consumers_of(caller: Caller, stream: str, group: str) -> list[KnownConsumer]:
    """Return the consumers by name; none without the stream or the group. Raises what `Link.call` raises."""
    try:
        reply = await caller.call("XINFO", "CONSUMERS", stream, group)
    except NoGroup:
        return []
    except RedisRefused as error:
        if "no such key" in str(error):
            return []
        raise
    found = [dict(zip(one[::2], one[1::2], strict=True)) for one in reply]
    return sorted(map(_consumer, found))


def _consumer(fields: dict[bytes, Any]) -> KnownConsumer:
    return KnownConsumer(
        fields[b"name"].decode("utf-8", "backslashreplace"), fields[b"pending"], fields[b"idle"]
    )


async def remove_consumer(caller: Caller, stream: str, group: str, consumer: str) -> bool:
    """Remove a consumer if it has nothing pending; return whether it was there and is gone.

    Raises what `Link.call` raises.
    """
    if not consumer:
        raise ValueError("an empty name would mean every consumer")
    try:
        return bool(
            await Script("remove_consumers", fragments=("fields",)).run(
                caller, (stream,), (group, 0, consumer, "")
            )
        )
    except NoGroup:
        return False
    except RedisRefused as error:
        if "no such key" in str(error):
            return False
        raise

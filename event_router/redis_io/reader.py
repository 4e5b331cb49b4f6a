"""New entries, read on a connection of its own because the read blocks."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.core.event import Entry
from event_router.redis_client.connections import Link


class StreamReader:
    """Reads entries that no consumer of the group has seen.

    The link's socket timeout must exceed the block: redis-py would send the read again (measured).
    """

    def __init__(self, link: Link, control: Link, group: str, consumer: str) -> None:
        self._link = link
        self._control = control
        self._group = group
        self._consumer = consumer
        self._client_id: int | None = None

    async def read(self, streams: Sequence[str], *, count: int, block_ms: int | None) -> list[Entry]:
        """Return up to `count` new entries of each stream; empty after `block_ms` without any.

        Without `block_ms` it does not wait.

        Raises:
            NoGroup: a group or stream is missing; the error names the stream.
            RedisUnavailable: what was read may be lost to us: it sits in our pending list.
        """
        if not self._link.connected:
            self._client_id = None
        if self._client_id is None:
            self._client_id = await self._link.call("CLIENT", "ID")
        reply = await self._link.call(
            "XREADGROUP",
            "GROUP",
            self._group,
            self._consumer,
            "COUNT",
            count,
            *(() if block_ms is None else ("BLOCK", block_ms)),
            "STREAMS",
            *streams,
            *([">"] * len(streams)),
        )
        if not reply:
            return []
        entries: list[Entry] = []
        for raw_stream, records in reply:
            stream = raw_stream.decode()
            entries += [Entry(stream, entry_id.decode(), fields or []) for entry_id, fields in records]
        return entries

    async def unblock(self) -> None:
        """End a blocked read at once, as if its time were over."""
        client_id = self._client_id
        if client_id is not None and self._link.connected:
            await self._control.call("CLIENT", "UNBLOCK", client_id)

"""A domain's fan-out log, read on a connection of its own because the read blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_router.core.errors import RedisRefused
from event_router.core.fan_out import Extent
from event_router.redis_client.connections import Link

Entries = list[tuple[str, list[bytes]]]
"""Ids and flat fields."""


class Outbox:
    """Reads what lies behind an entry of a fan-out log.

    The link's socket timeout must exceed the longest block.
    """

    def __init__(self, link: Link, control: Link, domain: str, name: str) -> None:
        self._link = link
        self._control = control
        self._client_id: int | None = None
        self.domain = domain
        self.name = name

    def __repr__(self) -> str:
        return f"<Outbox {self.name}>"

    async def wait(self, after: str, *, count: int, block_ms: int) -> Entries:
        """Return up to `count` entries behind `after`, waiting for the first; empty after `block_ms`.

        Raises:
            RedisUnavailable: no reply.
            RedisRefused: the key is no stream.
        """
        if not self._link.connected:
            self._client_id = None
        if self._client_id is None:
            self._client_id = await self._link.call("CLIENT", "ID")
        command = ("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", self.name, after)
        return _entries(await self._link.call(*command))

    async def survey(self, after: str, *, count: int) -> tuple[Extent, Entries]:
        """Return what the log holds, and up to `count` entries behind `after`, without waiting.

        The extent is never newer than the entries. Raises as `wait`.
        """
        info, reply = await self._link.pipeline(
            (
                ("XINFO", "STREAM", self.name),
                ("XREAD", "COUNT", count, "STREAMS", self.name, after),
            )
        )
        if isinstance(reply, Exception):
            raise reply
        return _extent(info), _entries(reply)

    async def unblock(self) -> None:
        """End a blocked read at once, as if its time were over."""
        client_id = self._client_id
        if client_id is not None and self._link.connected:
            await self._control.call("CLIENT", "UNBLOCK", client_id)


def _entries(reply: Sequence[Any] | None) -> Entries:
    if not reply:
        return []
    return [(entry_id.decode(), fields or []) for entry_id, fields in reply[0][1]]


def _extent(info: Any) -> Extent:
    if isinstance(info, RedisRefused) and "no such key" in str(info):
        return Extent()
    if isinstance(info, Exception):
        raise info
    found = dict(zip(info[::2], info[1::2], strict=True))
    first = found[b"first-entry"]
    return Extent(
        added=found[b"entries-added"],
        length=found[b"length"],
        first=first[0].decode() if first else "",
        last=found[b"last-generated-id"].decode(),
    )

"""The consumer group and its consumers: creating, removing the dead, retention."""

from __future__ import annotations

from dataclasses import dataclass

from event_router.core.keys import checkpoint_key
from event_router.redis_client.connections import Link
from event_router.redis_client.script import Script
from event_router.runtime.housekeeper import TRIM_AT_ONCE


@dataclass(frozen=True, slots=True)
class GroupCreated:
    """A group was missing and has been created.

    Attributes:
        start: it delivers what lies beyond this id.
        entries: entries beyond it, at most 10,000 counted: these may count a second time if the
            group was destroyed.
        known: whether a checkpoint says the group existed before.
    """

    start: str
    entries: int
    known: bool


class Groups:
    """Housekeeping of one group on its streams."""

    def __init__(self, link: Link, group: str) -> None:
        self._link = link
        self._group = group
        self._ensure = Script("ensure_group", fragments=("entry_ids",))
        self._remove = Script("remove_consumers", fragments=("fields",))
        self._retain = Script("retain", fragments=("fields", "entry_ids"))
        self._repair = Script("repair_lag", fragments=("fields",))
        self._trimmed = Script("count_trimmed")

    async def ensure(self, stream: str) -> GroupCreated | None:
        """Create the group where it is missing: at its checkpoint, else at 0. None if it exists."""
        reply = await self._ensure.run(self._link, (stream, checkpoint_key(self._group)), (self._group,))
        if reply[0] == b"exists":
            return None
        return GroupCreated(reply[1].decode(), reply[2], bool(reply[3]))

    async def remove_dead(self, stream: str, *, idle_ms: int, keep: str) -> list[str]:
        """Remove consumers idle for so long that have nothing pending; return their names."""
        reply = await self._remove.run(self._link, (stream,), (self._group, idle_ms, "", keep))
        return [name.decode("utf-8", "backslashreplace") for name in reply]

    async def leave(self, stream: str, consumer: str) -> bool:
        """Remove a consumer if it has nothing pending; return whether it had nothing."""
        return bool(await self._remove.run(self._link, (stream,), (self._group, 0, consumer, "")))

    async def retain(self, stream: str, *, least: int) -> int:
        """Trim what every group has settled, never below `least` entries; return how many went.

        Nothing where this group is missing: what it will get again must stand.
        """
        trimmed: int = await self._retain.run(self._link, (stream,), (least, TRIM_AT_ONCE, self._group))
        return trimmed

    async def count_trimmed(self, stream: str, delivered: str, entries: int) -> int:
        """Count entries that were trimmed unread behind an id; return how many no router has counted yet."""
        arguments = (stream, delivered, entries)
        counted: int = await self._trimmed.run(self._link, (checkpoint_key(self._group),), arguments)
        return counted

    async def repair_lag(self, stream: str) -> bool:
        """Mend the group's count of read entries where it has read everything."""
        return bool(await self._repair.run(self._link, (stream,), (self._group,)))

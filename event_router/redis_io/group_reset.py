"""Setting a group's position: first what it would do, then doing it in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from event_router.core.entry_id import parse_id
from event_router.core.errors import NoGroup
from event_router.core.keys import checkpoint_key
from event_router.redis_client.script import Caller, Script
from event_router.redis_io.counting import count_entries

PAGE = 1000


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What setting a group's position would do.

    Attributes:
        position: the id that would be the last delivered one.
        delivered: the last delivered id now.
        last_id: the newest id of the stream.
        first_id: the oldest id that still stands; empty without any.
        entries_read: entries ever added up to the position; None where Redis cannot tell.
        again: entries that would be delivered although they were before.
        pending: entries that are pending now, which stay so.
        pending_again: those of `again` that are pending: each of them counts once whatever happens.
        skipped: entries not delivered so far that never would be.
    """

    stream: str
    group: str
    position: str
    delivered: str
    last_id: str
    first_id: str
    entries_read: int | None
    again: int
    pending: int
    pending_again: int
    skipped: int

    @property
    def counted_twice_at_most(self) -> int:
        """Settled entries that would be handled again: their acknowledgement no longer protects them."""
        return self.again - self.pending_again


@dataclass(frozen=True, slots=True)
class Reset:
    """What came of it; `moved` and `active` have changed nothing.

    Attributes:
        detail: the last delivered id where it has moved, names where consumers are active.
    """

    outcome: Literal["done", "moved", "active"]
    detail: Sequence[str] = ()


class GroupPosition:
    """The position of one group on a stream. Methods raise what `Link.call` raises."""

    def __init__(self, caller: Caller, stream: str, group: str) -> None:
        self._caller = caller
        self._stream = stream
        self._group = group

    async def plan(self, position: str | None) -> ResetPlan:
        """Return what setting the position would do; None means behind the newest entry."""
        if not await self._caller.call("EXISTS", self._stream):
            raise NoGroup(self._stream)
        info = _fields(await self._caller.call("XINFO", "STREAM", self._stream))
        groups = map(_fields, await self._caller.call("XINFO", "GROUPS", self._stream))
        group = next((one for one in groups if one[b"name"] == self._group.encode()), None)
        if group is None:
            raise NoGroup(self._stream)
        delivered, last = group[b"last-delivered-id"].decode(), info[b"last-generated-id"].decode()
        position = last if position is None else position
        first = info[b"first-entry"][0].decode() if info[b"first-entry"] else ""
        back, ahead = parse_id(position) < parse_id(delivered), parse_id(position) > parse_id(delivered)
        return ResetPlan(
            self._stream,
            self._group,
            position,
            delivered,
            last,
            first,
            await self._entries_read(position, info.get(b"entries-added")),
            await self._count(f"({position}", delivered) if back else 0,
            group[b"pending"],
            await self._pending(f"({position}") if back else 0,
            await self._count(f"({delivered}", position) if ahead else 0,
        )

    async def apply(self, plan: ResetPlan, *, active_ms: int | None) -> Reset:
        """Carry out a plan, in one step and only if the group has not moved since. Safe to repeat.

        Args:
            active_ms: refuse while a consumer was heard of within so many milliseconds; None to do it anyway,
                even if the group moves on meanwhile.
        """
        read = "" if plan.entries_read is None else plan.entries_read
        forced = active_ms is None
        args = (
            self._group,
            plan.position,
            read,
            "" if forced else plan.delivered,
            "" if forced else active_ms,
        )
        keys = (self._stream, checkpoint_key(self._group))
        outcome, *detail = await Script("group_reset", fragments=("fields", "entry_ids")).run(
            self._caller, keys, args
        )
        if outcome == b"missing":
            raise NoGroup(self._stream)
        return Reset(outcome.decode(), [one.decode("utf-8", "backslashreplace") for one in detail])

    async def _entries_read(self, position: str, added: int | None) -> int | None:
        if added is None:
            return None
        return max(0, added - await self._count(f"({position}", "+"))

    async def _count(self, first: str, last: str) -> int:
        return (await count_entries(self._caller, self._stream, first, last))[0]

    async def _pending(self, first: str) -> int:
        count = 0
        while True:
            page = await self._caller.call("XPENDING", self._stream, self._group, first, "+", PAGE)
            count += len(page)
            if len(page) < PAGE:
                return count
            first = f"({page[-1][0].decode()}"


def _fields(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))

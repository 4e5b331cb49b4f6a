"""Pending entries: listing, taking over, renewing, scheduling and counting, all fenced by scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from event_router.core.event import Entry
from event_router.redis_client.connections import Link
from event_router.redis_client.script import Script

NOT_OURS = -1
TRIMMED = -2
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """Entries taken over from the pending list.

    Attributes:
        entries: with their delivery counts; taking over did not raise these.
        trimmed: (id, deliveries) of pending entries that no longer stand in the stream.
        last: the last id looked at, where to go on; empty when the list came to its end.
    """

    entries: list[Entry]
    trimmed: list[tuple[str, int]]
    last: str


class Claims:
    """The pending entries of one group, as one consumer works on them."""

    def __init__(self, link: Link, group: str, consumer: str) -> None:
        self._link = link
        self._group = group
        self._consumer = consumer
        self._take = Script("take")
        self._lease = Script("lease")

    async def due(self, stream: str, min_idle_ms: int) -> bool:
        """Whether any entry of the stream has been idle that long. Raises as `Link.call`."""
        reply = await self._link.call("XPENDING", stream, self._group, "IDLE", min_idle_ms, "-", "+", 1)
        return bool(reply)

    async def take(
        self, stream: str, *, min_idle_ms: int, after: str = "", count: int, own: bool = False
    ) -> Taken:
        """Take over entries idle for long enough, a page of them; `own` only this consumer's."""
        start = f"({after}" if after else "-"
        return await self._taken(stream, min_idle_ms, start, count, own)

    async def take_ids(
        self, stream: str, ids: Sequence[str], *, min_idle_ms: int, own: bool = False
    ) -> Taken:
        """Take over these entries where they are idle for long enough; `own` only this consumer's."""
        entries: list[Entry] = []
        trimmed: list[tuple[str, int]] = []
        while ids:
            page = await self._taken(stream, min_idle_ms, "-", len(ids), own, ids)
            entries += page.entries
            trimmed += page.trimmed
            # A step also ends when its entries are large.
            ids = ids[ids.index(page.last) + 1 :] if page.last else ()
        return Taken(entries, trimmed, "")

    async def _taken(
        self, stream: str, min_idle_ms: int, start: str, count: int, own: bool, ids: Sequence[str] = ()
    ) -> Taken:
        owner = self._consumer if own else ""
        args = (self._group, self._consumer, owner, min_idle_ms, start, count, *ids)
        last, taken = await self._take.run(self._link, (stream,), args)
        entries, trimmed = [], []
        for raw_id, deliveries, fields in taken:
            entry_id = raw_id.decode()
            if fields is None:
                trimmed.append((entry_id, deliveries))
            else:
                entries.append(Entry(stream, entry_id, fields, deliveries))
        return Taken(entries, trimmed, last.decode())

    async def count_start(
        self, stream: str, entries: Sequence[tuple[str, int]], *, again: bool = False
    ) -> list[int]:
        """Count a handler's start on each (id, deliveries so far).

        Not where another start was counted since: two of this process's loops may have taken the same
        entry. `again`: it was sent before, and the answer may have been lost.

        Returns the new counts, `NOT_OURS` or `TRIMMED`.
        """
        after = ">>" if again else ">"
        return await self._leased(stream, [(entry_id, 0, f"{after}{count}") for entry_id, count in entries])

    async def set(self, stream: str, leases: Iterable[tuple[str, int, int | None]]) -> list[int]:
        """Set (id, idle ms, delivery count or None to leave it) where this consumer owns the entry.

        Renewing a lease sets idle to 0. Returns the delivery counts, `NOT_OURS` or `TRIMMED`.
        """
        triples = [
            (entry_id, idle_ms, "=" if deliveries is None else str(deliveries))
            for entry_id, idle_ms, deliveries in leases
        ]
        return await self._leased(stream, triples)

    async def own_ids(self, stream: str) -> list[str]:
        """Return the ids of every pending entry this consumer owns."""
        ids: list[str] = []
        start = "-"
        while True:
            page = await self._link.call("XPENDING", stream, self._group, start, "+", 1000, self._consumer)
            ids += [entry[0].decode() for entry in page]
            if len(page) < 1000:
                return ids
            start = f"({ids[-1]}"

    async def _leased(self, stream: str, triples: Sequence[tuple[str, int, str]]) -> list[int]:
        counts: list[int] = []
        for first in range(0, len(triples), _CHUNK):
            flat = [part for triple in triples[first : first + _CHUNK] for part in triple]
            counts += await self._lease.run(self._link, (stream,), (self._group, self._consumer, *flat))
        return counts

"""What the runtime needs of Redis, as small protocols; `redis_io` has the real thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from event_router.core.errors import InvalidState, RedisDenied
from event_router.core.event import Entry
from event_router.core.outcome import Answers, Settlement


class CommitPort(Protocol):
    """Commits batches."""

    def prepare(self, settlement: Settlement) -> Any:
        """Translate one entry's part; it has a `weight`, 1 for an ordinary event.

        Raises StateError for effects that contradict each other.
        """

    def pack(self, batch_of: Sequence[Any]) -> bytes:
        """Return a batch in a form that can be sent again unchanged."""

    async def send(self, packed: bytes) -> Answers:
        """Commit a packed batch. Raises RedisUnavailable, NoGroup or RedisRefused."""


class ReadPort(Protocol):
    """Reads new entries."""

    async def read(self, streams: Sequence[str], *, count: int, block_ms: int | None) -> list[Entry]:
        """Return up to `count` new entries of each stream."""

    async def unblock(self) -> None:
        """End a blocked read at once."""


class StateReadPort(Protocol):
    """Reads state fields."""

    async def read(self, places: Sequence[tuple[str, str]]) -> list[str | InvalidState | RedisDenied | None]:
        """Return the value at each (key, field); RedisDenied in place of one that may not be read."""


class TakenEntries(Protocol):
    """A page of entries taken over."""

    @property
    def entries(self) -> list[Entry]:
        """The entries, with the delivery counts they had."""

    @property
    def trimmed(self) -> list[tuple[str, int]]:
        """(id, deliveries) of pending entries that no longer stand in the stream."""

    @property
    def last(self) -> str:
        """Where the next page begins; empty at the end."""


class ClaimPort(Protocol):
    """Works on pending entries, fenced by ownership."""

    async def due(self, stream: str, min_idle_ms: int) -> bool:
        """Whether any pending entry has been idle that long."""

    async def take(
        self, stream: str, *, min_idle_ms: int, after: str = "", count: int, own: bool = False
    ) -> TakenEntries:
        """Take over a page of entries idle for long enough."""

    async def take_ids(
        self, stream: str, ids: Sequence[str], *, min_idle_ms: int, own: bool = False
    ) -> TakenEntries:
        """Take over these entries."""

    async def count_start(
        self, stream: str, entries: Sequence[tuple[str, int]], *, again: bool = False
    ) -> list[int]:
        """Count a handler's start on each (id, deliveries so far); below 0 where it is not ours to start.

        `again`: it was sent before, and the answer may have been lost.
        """

    async def set(self, stream: str, leases: Iterable[tuple[str, int, int | None]]) -> list[int]:
        """Set (id, idle ms, delivery count or None); below 0 where the entry is not ours."""

    async def own_ids(self, stream: str) -> list[str]:
        """Return the ids of every pending entry this consumer owns."""


class GroupCreation(Protocol):
    """A group was missing and has been created."""

    @property
    def start(self) -> str:
        """It delivers what lies beyond this id."""

    @property
    def entries(self) -> int:
        """Entries beyond it."""

    @property
    def known(self) -> bool:
        """Whether the group existed before."""


class GroupPort(Protocol):
    """Housekeeping of the group."""

    async def ensure(self, stream: str) -> GroupCreation | None:
        """Create the group where it is missing; None if it exists."""

    async def remove_dead(self, stream: str, *, idle_ms: int, keep: str) -> list[str]:
        """Remove idle consumers without pending entries; return their names."""

    async def leave(self, stream: str, consumer: str) -> bool:
        """Remove a consumer if it has nothing pending."""

    async def retain(self, stream: str, *, least: int) -> int:
        """Trim what every group has settled; return how many entries went."""

    async def repair_lag(self, stream: str) -> bool:
        """Mend the group's count of read entries."""

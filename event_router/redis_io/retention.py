"""What holds up the trimming of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from event_router.core.entry_id import parse_id
from event_router.redis_client.script import Caller, Script
from event_router.redis_io.counting import count_entries
from event_router.runtime.housekeeper import FULL_TRIM, TRIM_AT_ONCE


@dataclass(frozen=True, slots=True)
class Holder:
    """A group and the entry up to which it has settled everything.

    Attributes:
        entry_id: its oldest pending entry, else the last one it was given, which is settled as well.
        consumer: who has that entry; empty where nothing is pending.
    """

    group: str
    entry_id: str
    consumer: str
    idle_ms: int

    @property
    def settled_to(self) -> str:
        """The last place it has settled, as XRANGE takes it."""
        return f"({self.entry_id}" if self.consumer else self.entry_id


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a stream could go.

    Attributes:
        length: entries in the stream.
        holders: every group, the one that holds it up most first.
        settled: entries that every group has settled; at most about `MOST_COUNTED`. All may go but the last.
        exact: whether these are all.
        server_ms: epoch milliseconds on the server.
    """

    stream: str
    length: int
    first_id: str
    holders: tuple[Holder, ...]
    settled: int
    exact: bool
    server_ms: int

    @property
    def holder(self) -> Holder | None:
        """The group that holds it up most; None where there is none, or everything is settled."""
        everything = self.exact and self.settled >= self.length
        return self.holders[0] if self.holders and not everything else None


MOST_COUNTED = 100_000


async def retention_of(caller: Caller, stream: str) -> Retention:
    """Return what holds up a stream. Raises what `Link.call` raises; RedisRefused where it is no stream."""
    now, length, first, groups = await Script("holders", fragments=("fields",)).run(caller, (stream,))
    holders = sorted(
        (
            Holder(name.decode("utf-8", "backslashreplace"), held.decode(), _text(consumer), idle_ms)
            for name, held, consumer, idle_ms in groups
        ),
        key=lambda holder: (parse_id(holder.entry_id), not holder.consumer),
    )
    settled, exact = 0, True
    if holders:
        settled, exact = await count_entries(caller, stream, "-", holders[0].settled_to, most=MOST_COUNTED)
    return Retention(stream, length, first.decode(), tuple(holders), settled, exact, int(now))


async def retain(caller: Caller, stream: str, group: str, *, least: int) -> int:
    """Trim what every group has settled, as routers of this group do; return how many entries went.

    Each step is atomic, bounded and safe to repeat. Raises what `Link.call` raises.
    """
    script, trimmed = Script("retain", fragments=("fields", "entry_ids")), 0
    while True:
        count: int = await script.run(caller, (stream,), (least, TRIM_AT_ONCE, group))
        trimmed += count
        if count < FULL_TRIM:
            return trimmed


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")

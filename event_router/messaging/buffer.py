"""What has arrived and is not taken yet: bounded, the oldest goes first, and what went is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from event_router.messaging.messages import Gap


class Arrived(NamedTuple):
    """A message as it came over the connection.

    Attributes:
        subscription: whether it came for a pattern, and the pattern's or the channel's name.
    """

    subscription: tuple[bool, str]
    channel: str
    payload: bytes

    @property
    def pattern(self) -> str | None:
        """The pattern it came for, None for the channel itself."""
        is_pattern, name = self.subscription
        return name if is_pattern else None


class Buffer:
    """A queue between the connection and whoever takes messages.

    A full one drops its oldest message for each new one: live messages age. Where messages are missing,
    a `Gap` stands in their place.

    Args:
        size: messages it holds at most.
        max_bytes: bytes of payload it holds at most; a single larger message still fits.
        on_drop: called with the channel of each dropped message.
    """

    def __init__(self, size: int, max_bytes: int, on_drop: Callable[[str], object]) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._items: deque[Arrived | Gap] = deque()
        self._bytes = 0
        self._first_gap: Gap | None = None
        self._ended = False
        self._error: Exception | None = None
        self._session = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Buffer {len(self._items)} of {self._size} messages, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._items)

    def put(self, arrived: Arrived) -> None:
        """Add a message; never waits."""
        size = len(arrived.payload)
        while self._items and (len(self._items) >= self._size or self._bytes + size > self._max_bytes):
            self._drop_oldest()
        self._items.append(arrived)
        self._bytes += size
        self._changed.set()

    def mark_gap(self, gap: Gap) -> None:
        """Say that messages are missing between those before and those to come."""
        last = self._items[-1] if self._items else None
        if isinstance(last, Gap):
            self._items[-1] = last + gap
        else:
            self._items.append(gap)
        self._changed.set()

    @property
    def session(self) -> int:
        """Which one it is: another one after the buffer was ended and resumed."""
        return self._session

    async def take(self, session: int | None = None) -> Arrived | Gap | None:
        """Return what is next, or None once the session, by default this one, is over and empty.

        Raises:
            Exception: what it was ended with, after everything before was taken.
        """
        session = self._session if session is None else session
        while session == self._session:
            if self._first_gap is not None:
                gap, self._first_gap = self._first_gap, None
                return gap
            if self._items:
                return self._pop()
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            await self._changed.wait()
        return None

    def forget(self, subscriptions: Collection[tuple[bool, str]]) -> None:
        """Remove the messages that came for these."""
        kept = [
            item for item in self._items if isinstance(item, Gap) or item.subscription not in subscriptions
        ]
        self._items = deque(kept)
        self._bytes = sum(len(item.payload) for item in kept if isinstance(item, Arrived))

    def end(self, error: Exception | None = None) -> None:
        """Let everybody who waits, now or later, get None or the error once it is empty."""
        self._ended, self._error = True, error
        self._changed.set()

    def resume(self) -> None:
        """Be not ended any more: a new session begins; who takes for the old one gets None."""
        if self._ended:
            self._session += 1
        self._ended, self._error = False, None

    def discard(self) -> None:
        """Forget everything that arrived."""
        self._items.clear()
        self._bytes, self._first_gap = 0, None

    def _pop(self) -> Arrived | Gap:
        item = self._items.popleft()
        if isinstance(item, Arrived):
            self._bytes -= len(item.payload)
        return item

    def _drop_oldest(self) -> None:
        item = self._pop()
        if isinstance(item, Arrived):
            self._on_drop(item.channel)
            item = Gap(1)
        self._first_gap = item if self._first_gap is None else self._first_gap + item

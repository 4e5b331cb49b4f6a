"""State this process committed lately, so that the next event of an entity need not read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Known = TypeVar("Known")

CAPACITY = 20_000
TRIAL = 200
"""Uses after which it is judged."""
MOST_WRONG = 0.05
PAUSE_S = 30.0


class RecentState(Generic[Known]):
    """What this process knows of hashes, by key, as it last committed them.

    The commit checks every read, so a value that somebody else has changed meanwhile costs a second
    run of the handler, never a wrong state. Where that happens to more than one use in twenty
    (several pods work on the same entities) it pauses: reading is cheaper then.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._known: dict[str, Known] = {}
        self._uses = 0
        self._wrong = 0
        self._paused_until = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<RecentState {len(self._known)} hashes, {self._wrong} of {self._uses} wrong>"

    def take(self, key: str) -> Known | None:
        """Take out what is known of a hash; None where nothing is."""
        known = self._known.pop(key, None)
        if known is not None:
            self._uses += 1
        return known

    def keep(self, key: str, known: Known) -> None:
        """Keep what is known of a hash as a commit left it."""
        if self._paused_until > float("-inf"):
            if self._clock() < self._paused_until:
                return
            self._paused_until = float("-inf")
        self._known[key] = known
        if len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]

    def wrong(self) -> None:
        """Note that a value taken from here had been changed by somebody else."""
        self._wrong += 1
        if self._uses >= TRIAL:
            if self._wrong > self._uses * MOST_WRONG:
                self._known.clear()
                self._paused_until = self._clock() + PAUSE_S
            self._uses = self._wrong = 0

"""State this process committed lately, so that the next event of an entity need not read it."""

from __future__ import annotations

from collections.abc import Callable

Place = tuple[str, str]
"""A key and a field."""
CAPACITY = 50_000
TRIAL = 200
"""Uses after which it is judged."""
MOST_WRONG = 0.05
PAUSE_S = 30.0


class RecentState:
    """Values of fields as this process last committed them.

    The commit checks every read, so a value that somebody else has changed meanwhile costs a second
    run of the handler, never a wrong state. Where that happens to more than one use in twenty
    (several pods work on the same entities) it pauses: reading is cheaper then.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._values: dict[Place, str | None] = {}
        self._uses = 0
        self._wrong = 0
        self._paused_until = float("-inf")

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<RecentState {len(self._values)} values, {self._wrong} of {self._uses} wrong>"

    def take(self, place: Place) -> tuple[str | None] | None:
        """Take out the value at a place, in a tuple; None where it is not known."""
        values = self._values
        if place not in values:
            return None
        self._uses += 1
        return (values.pop(place),)

    def keep(self, key: str, values: dict[str, str | None]) -> None:
        """Keep what a commit left in a hash."""
        if self._paused_until > float("-inf"):
            if self._clock() < self._paused_until:
                return
            self._paused_until = float("-inf")
        known = self._values
        for field, value in values.items():
            known[key, field] = value
        while len(known) > self._capacity:
            del known[next(iter(known))]

    def wrong(self) -> None:
        """Note that a value taken from here had been changed by somebody else."""
        self._wrong += 1
        if self._uses >= TRIAL:
            if self._wrong > self._uses * MOST_WRONG:
                self._values.clear()
                self._paused_until = self._clock() + PAUSE_S
            self._uses = self._wrong = 0

"""Whoever waits until the server has confirmed subscriptions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from event_router.core.errors import EventRouterError

Key = tuple[bool, str]
"""Whether it is a pattern, and its text: the channel `user:*` and the pattern `user:*` are two."""


@dataclass(eq=False, slots=True)
class Awaited:
    """Names somebody waits for.

    Attributes:
        left: those that are not confirmed yet.
        done: ends when none is left, or fails.
    """

    left: set[Key]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def confirm(self, key: Key) -> None:
        """Note that a name is confirmed."""
        self.left.discard(key)
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: EventRouterError) -> None:
        """Have whoever waits raise the error, unless it is over."""
        if not self.done.done():
            self.done.set_exception(error)

    def give_up(self) -> None:
        """Wait no longer."""
        if self.done.done() and not self.done.cancelled():
            self.done.exception()  # seen, so that asyncio does not report it as lost
        self.done.cancel()

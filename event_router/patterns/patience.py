"""Calls that may be repeated, repeated while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from event_router.core.errors import OutcomeUnknown, RedisUnavailable
from event_router.core.retry import jittered

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long Redis may be away, and the pauses between attempts.

    Attributes:
        seconds: after so many seconds without an answer a call is given up.
        monotonic: seconds, for deadlines.
        chance: numbers from 0 to 1, for jitter.
    """

    seconds: float
    monotonic: Callable[[], float]
    chance: Callable[[], float]

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what the first attempt gives that Redis answers.

        Raises:
            RedisUnavailable, OutcomeUnknown: those of the last attempt.
        """
        pause, give_up = FIRST_PAUSE_S, self.until(0.0)
        while True:
            try:
                return await attempt()
            except (RedisUnavailable, OutcomeUnknown):
                if self.is_over(give_up - pause):
                    raise
            await asyncio.sleep(self.jittered(pause))
            pause = min(LONGEST_PAUSE_S, pause * 2)

    def until(self, seconds: float) -> float:
        """Return when to give up what should take so long."""
        return self.monotonic() + seconds + self.seconds

    def is_over(self, moment: float) -> bool:
        """Whether the moment has come."""
        return self.monotonic() >= moment

    def jittered(self, seconds: float) -> float:
        """Return about so many seconds."""
        return jittered(seconds, self.chance())

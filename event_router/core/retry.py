"""When a failed event is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def jittered(seconds: float, chance: float) -> float:
    """Return 75 % to 125 % of so many seconds, as a chance from 0 to 1 has it."""
    return seconds * (0.75 + 0.5 * chance)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter.

    Attributes:
        max_deliveries: handler starts an entry gets before it is dead-lettered.
        backoff_ms: delay after the first failed attempt.
        factor: what each further delay is multiplied by.
        longest_ms: no delay is longer: it is kept in the entry's idle time, which cannot be negative.
        random: source of jitter, returns numbers from 0 to 1.
    """

    max_deliveries: int
    backoff_ms: int
    factor: float
    longest_ms: int
    random: Callable[[], float]

    def exhausted(self, attempt: int) -> bool:
        """Whether an entry that has been started so often gets no further start."""
        return attempt >= self.max_deliveries

    def delay_ms(self, attempt: int) -> int:
        """Return the delay after the given failed attempt (1 is the first): 75 % to 100 % of the full one."""
        try:
            full = self.backoff_ms * self.factor ** max(0, attempt - 1)
        except OverflowError:
            full = self.longest_ms
        return int(min(full, self.longest_ms) * (0.75 + 0.25 * self.random()))

"""Tells an outage of what a domain's handlers depend on from entries that are bad themselves."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import msgspec

EntryKey = tuple[str, str]
"""Stream and entry id."""


_NO_ENTRY: EntryKey = ("", "")
"""Of a success nothing but its time matters."""


class _Attempt(msgspec.Struct, gc=False):
    entry: EntryKey
    key: str
    ok: bool
    at: float


class CircuitBreaker:
    """Opens when most attempts of a domain fail for several entities; stays open until a probe succeeds.

    Only retryable failures are recorded: rejects and undecodable entries say nothing of a dependency.
    An entry that fails again although another one succeeded since its last failure is at fault
    itself, so it is not counted: poison alone never opens the breaker, however often it is tried.

    Args:
        clock: monotonic seconds.
        window: attempts looked at; more than half must have failed.
        least: attempts needed before anything is concluded.
        keys: distinct ordering keys the failures must span.
        age_s: older attempts are forgotten, so that a quiet domain is judged by what happens now.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        window: int = 100,
        least: int = 10,
        keys: int = 3,
        age_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._attempts: deque[_Attempt] = deque(maxlen=window)
        self._least = least
        self._keys = keys
        self._age_s = age_s
        self._last_success = float("-inf")
        self.open = False

    def __repr__(self) -> str:
        failed = sum(not attempt.ok for attempt in self._attempts)
        return f"<CircuitBreaker {'open' if self.open else 'closed'} {failed}/{len(self._attempts)} failed>"

    def succeeded(self) -> None:
        """Record an attempt that succeeded."""
        self._last_success = now = self._clock()
        self._attempts.append(_Attempt(_NO_ENTRY, "", True, now))

    def failed(self, entry: EntryKey, key: str, previous_failure: float | None) -> bool:
        """Record an attempt that failed; return whether this opened the breaker.

        Args:
            previous_failure: when the entry failed before, by the same clock; None if it did not.
        """
        now = self._clock()
        if previous_failure is not None and self._last_success > previous_failure:
            return False
        self._attempts.append(_Attempt(entry, key, False, now))
        if self.open:
            return False
        recent = [attempt for attempt in self._attempts if attempt.at > now - self._age_s]
        self.open = self._says_outage(recent) or self._says_outage(_trailing_failures(recent))
        return self.open

    def failures(self) -> Counter[EntryKey]:
        """Return how often each entry failed in the window: attempts the outage used up."""
        return Counter(attempt.entry for attempt in self._attempts if not attempt.ok)

    def close(self) -> None:
        """Close: the dependency answers again."""
        self.open = False
        self._attempts.clear()

    def _says_outage(self, attempts: list[_Attempt]) -> bool:
        failures = [attempt for attempt in attempts if not attempt.ok]
        return (
            len(attempts) >= self._least
            and len(failures) * 2 > len(attempts)
            and len({attempt.key for attempt in failures}) >= self._keys
        )


def _trailing_failures(attempts: list[_Attempt]) -> list[_Attempt]:
    for index in range(len(attempts) - 1, -1, -1):
        if attempts[index].ok:
            return attempts[index + 1 :]
    return attempts

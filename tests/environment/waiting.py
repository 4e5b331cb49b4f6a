"""Waiting for a condition with a deadline: the only way a test lets time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis

T = TypeVar("T")

NOT_YET = (AssertionError, OSError, LookupError, redis.RedisError)


def eventually(
    condition: Callable[[], T], *, within: float, what: str | Callable[[], Any] = "", every: float = 0.02
) -> T:
    """Return the condition's first true value.

    ``within`` and ``every`` are seconds. A condition that raises one of ``NOT_YET`` counts as not yet true.
    At the deadline an AssertionError says what was awaited (a callable is asked only then) and what the
    condition gave last.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            last: Any = condition()
            if last:
                return last  # type: ignore[no-any-return]
        except NOT_YET as error:
            last = error
        if time.monotonic() >= deadline:
            awaited = what() if callable(what) else what
            raise AssertionError(f"not within {within} s: {awaited or condition}; last: {last!r}")
        time.sleep(every)


def measure(
    condition: Callable[[], T], *, within: float, what: str | Callable[[], Any] = "", every: float = 0.02
) -> float:
    """Seconds until the condition came true; fails at the deadline as ``eventually`` does."""
    begin = time.monotonic()
    eventually(condition, within=within, what=what, every=every)
    return time.monotonic() - begin

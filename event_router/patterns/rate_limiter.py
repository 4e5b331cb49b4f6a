"""Limits how often something may happen: at most so many calls in any window of time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from redis.asyncio import Redis

from event_router.core.errors import (
    ConfigurationError,
    InvalidEvent,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
    StateError,
)
from event_router.core.keys import OWN_PREFIX
from event_router.core.payloads import check_identifier
from event_router.patterns.bounded import BoundedCalls
from event_router.redis_client.script import Script

MAX_LIMIT = 1_000_000
MIN_WINDOW_S, MAX_WINDOW_S = 0.001, 366 * 24 * 3600.0

WhenDown = Literal["raise", "allow", "refuse"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a check found.

    Attributes:
        allowed: whether the call may go ahead; it was counted then.
        remaining: how many more calls could be counted right now.
        retry_after: seconds until a call can be counted; 0 as long as any remain.
        decided: whether Redis decided; False where it did not answer and `when_down` did.
    """

    allowed: bool
    remaining: int
    retry_after: float
    decided: bool = True


class RateLimiter:
    """An exact sliding window: in no window of the given length are more calls allowed than the limit.

    Each check is one script call (`rate_limit.lua`), so that callers in any number of processes share the
    limit, by the clock of the Redis server. Refused calls do not count: who keeps knocking is let in as soon
    as an earlier call leaves the window.

    The times of the calls allowed within the window are kept in the list `event-router:rate-limit:{key}`,
    which expires with the last of them. It takes about 10 bytes a call and 150 bytes a key, and never holds
    more than `limit` calls: 1.2 kB for a limit of 100, 10 MB for the largest, 1,000,000.

    A key has one window. Two limits on one thing take two keys, such as `login:7:minute` and `login:7:day`.
    Changing a window takes full effect after one old window.

    Args:
        redis: a client of either Redis. Limits are forgotten with its data.
        timeout_s: how long a check may take, in seconds.
        when_down: what a check does when Redis does not answer or refuses for now: "raise"
            RedisUnavailable, or "allow" or "refuse" the call, uncounted.

    Attributes:
        counts: how many checks ended `allowed`, `refused` and `undecided` (Redis did not decide).

    Raises:
        ConfigurationError: an argument is not possible.
    """

    def __init__(self, redis: Redis, *, timeout_s: float = 1.0, when_down: WhenDown = "raise") -> None:
        if when_down not in get_args(WhenDown):
            raise ConfigurationError(f"when_down is {when_down!r}; possible are raise, allow and refuse")
        self.counts: Counter[str] = Counter()
        self._calls = BoundedCalls(redis, timeout_s)
        self._when_down: WhenDown = when_down
        self._script = Script("rate_limit", "event_router.patterns")

    def __repr__(self) -> str:
        return f"<RateLimiter when_down={self._when_down} {dict(self.counts)}>"

    async def check(self, key: str, limit: int, window: float) -> RateLimit:
        """Count a call of this key if it is within the limit, and say whether it is.

        A check is sent once. Where its reply is lost it may have been counted, never twice: callers then
        have one call less in that window, and never one more.

        Args:
            key: what is limited, such as `login:7`: text of 1 to 512 bytes without control characters.
            limit: calls in a window, 1 to 1,000,000.
            window: its length in seconds, 0.001 to 31,622,400 (366 days), exact to the microsecond.

        Raises:
            ConfigurationError: the limit or window is not possible.
            StateError: the key is not possible.
            RedisUnavailable: Redis does not answer or refuses for now, unless `when_down` says otherwise.
            RedisRefused: `event-router:rate-limit:{key}` holds something else.
        """
        name, arguments = _key(key), self.check_limit(limit, window)
        try:
            allowed, remaining, wait_us, _ = await self._script.run(self._calls, (name,), arguments)
        except RedisRefused as error:
            raise RedisRefused(f"{name}: {error}") from error
        except (RedisUnavailable, OutcomeUnknown) as error:
            return self._undecided(name, error)
        self.counts["allowed" if allowed else "refused"] += 1
        return RateLimit(bool(allowed), remaining, wait_us / 1_000_000)

    @staticmethod
    def check_limit(limit: int, window: float) -> tuple[int, int]:
        """Return the limit, and the window in microseconds. Raises ConfigurationError for impossible ones."""
        return _limit(limit), _window_us(window)

    def _undecided(self, name: str, error: Exception) -> RateLimit:
        self.counts["undecided"] += 1
        if self._when_down == "raise":
            raise RedisUnavailable(f"{name}: {error}; the call may have been counted") from error
        allowed = self._when_down == "allow"
        return RateLimit(allowed, 0, 0.0 if allowed else self._calls.timeout_s, decided=False)


def _key(key: str) -> str:
    try:
        return f"{OWN_PREFIX}:rate-limit:{check_identifier('key', key)}"
    except InvalidEvent as error:
        raise StateError(f"rate limit: {error}") from None


def _limit(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise ConfigurationError(f"limit {limit!r} is not possible: give an integer from 1 to {MAX_LIMIT:,}")
    return limit


def _window_us(window: float) -> int:
    # `type`, since booleans are integers; NaN lies between no two numbers.
    if type(window) not in (int, float) or not MIN_WINDOW_S <= window <= MAX_WINDOW_S:
        raise ConfigurationError(
            f"window {window!r} is not possible: give seconds from {MIN_WINDOW_S} to {MAX_WINDOW_S:,.0f}"
        )
    return round(window * 1_000_000)

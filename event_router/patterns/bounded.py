"""Commands of which none takes longer than its caller can wait, connecting and queueing included."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from event_router.core.errors import ConfigurationError, OutcomeUnknown
from event_router.redis_client.sent_once import SentOnce

MAX_CONCURRENT = 16
"""Commands under way at once; redis-py's pool has 100 connections, and calls one too many an outage."""
CANCEL_AGAIN_S = 0.1


class BoundedCalls:
    """Runs commands over the client's connections, each sent once and given up at its deadline.

    A client's own timeouts bound each attempt to connect and each reply, not their sum: connecting to a
    server that is frozen takes several times as long (11 attempts with redis-py 8.1).

    Args:
        redis: its address, user and timeouts are used.
        timeout_s: how long a call may take in all, in seconds.

    Raises:
        ConfigurationError: `timeout_s` is not above 0.
        TypeError: `redis` is no `redis.asyncio.Redis`.
    """

    def __init__(self, redis: Redis, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ConfigurationError(f"timeout_s must be more than 0 s, not {timeout_s}")
        self.timeout_s = timeout_s
        self._once = SentOnce(redis)
        self._places = asyncio.Semaphore(MAX_CONCURRENT)

    async def call(self, *command: Any) -> Any:
        """Send one command and return its reply. Raises what `SentOnce.call` raises."""
        work = asyncio.create_task(self._in_place(command))
        try:
            await asyncio.wait((work,), timeout=self.timeout_s)
        finally:
            _end(work)
        if work.done():
            return work.result()
        raise OutcomeUnknown(
            f"no reply to {command[0]} within {self.timeout_s} s: it may or may not have been carried out"
        )

    async def _in_place(self, command: tuple[Any, ...]) -> Any:
        async with self._places:
            return await self._once.call(*command, timeout_s=self.timeout_s)


def _end(work: asyncio.Task[Any]) -> None:
    """Cancel until it ends: Python 3.11's `asyncio.wait_for`, in redis-py, may swallow a cancellation."""
    if not work.done():
        work.cancel()
        work.get_loop().call_later(CANCEL_AGAIN_S, _end, work)
    elif not work.cancelled():
        work.exception()  # so that it counts as seen

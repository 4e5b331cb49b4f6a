"""Wakes those who wait for input: one blocked read for all of them, as long as anybody waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis

from event_router.core.errors import EventRouterError
from event_router.core.input_request import SETTLED
from event_router.core.retry import jittered
from event_router.redis_client.sent_once import SentOnce

BLOCK_MS = 5000
MARGIN_S = 2.0
"""A blocked read that has not ended this long after its block is lost: the connection is half open."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
CANCEL_AGAIN_S = 0.1


class SettledFeed:
    """Follows the stream of requests that were answered or expired.

    It only says when to look again: whoever is woken reads the request itself. Whenever something may have
    been missed (the start, a lost connection) everybody is woken.

    Args:
        redis: one of its connections is used while anybody waits.
        random: numbers from 0 to 1, for jitter.
    """

    def __init__(self, redis: Redis, random: Callable[[], float]) -> None:
        self._once = SentOnce(redis)
        self._random = random
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<SettledFeed {len(self._waiting)} requests waited for>"

    @contextlib.asynccontextmanager
    async def listening(self, request_id: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the request may have changed."""
        woken = asyncio.Event()
        self._waiting.setdefault(request_id, set()).add(woken)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="input-feed")
        try:
            yield woken
        finally:
            waiting = self._waiting[request_id]
            waiting.discard(woken)
            if not waiting:
                del self._waiting[request_id]
            if not self._waiting:
                await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Again and again: in Python 3.11 wait_for, which redis-py uses, may swallow a cancellation.
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                last = await self._last()
                self._wake(None)
                while True:
                    for entry_id, flat in await self._read(last):
                        last = entry_id
                        self._wake(dict(zip(flat[::2], flat[1::2], strict=True)).get(b"request_id", b""))
                    pause = FIRST_PAUSE_S
            except EventRouterError:
                # Whoever waits looks for himself now and then, and says what is wrong.
                await asyncio.sleep(jittered(pause, self._random()))
                pause = min(LONGEST_PAUSE_S, pause * 2)

    async def _last(self) -> Any:
        entries = await self._once.call("XREVRANGE", SETTLED, "+", "-", "COUNT", 1)
        return entries[0][0] if entries else b"0-0"

    async def _read(self, last: Any) -> list[Any]:
        reply = await self._once.call(
            "XREAD", "BLOCK", BLOCK_MS, "STREAMS", SETTLED, last, timeout_s=BLOCK_MS / 1000 + MARGIN_S
        )
        if not reply:
            return []
        ((_, entries),) = reply.items() if isinstance(reply, dict) else reply
        return list(entries)

    def _wake(self, request_id: bytes | None) -> None:
        if request_id is None:
            for waiting in self._waiting.values():
                for woken in waiting:
                    woken.set()
            return
        for woken in self._waiting.get(request_id.decode("utf-8", "surrogateescape"), ()):
            woken.set()

"""Sending what a service adds: once, or as often as it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from event_router.core.errors import (
    EventRouterError,
    OutcomeUnknown,
    ProducedInPart,
    RedisRefused,
    RedisUnavailable,
)
from event_router.core.retry import RetryPolicy
from event_router.redis_client.sent_once import SentOnce

BATCH = 500
FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS = 100, 10_000

Command = tuple[Any, ...]
Send = Callable[[], Awaitable[Any]]


class Sender:
    """Sends commands that add entries and return their ids.

    Args:
        timeout_s: how long an attempt may take, connecting included.
        attempts: how often a command is sent where no reply comes; above 1 only for what may be repeated.
        random: source of jitter, returns numbers from 0 to 1.
    """

    def __init__(self, redis: Redis, *, timeout_s: float, attempts: int, random: Callable[[], float]) -> None:
        self._once = SentOnce(redis)
        self._timeout_s = timeout_s
        self._policy = RetryPolicy(attempts, FIRST_BACKOFF_MS, 2.0, LONGEST_BACKOFF_MS, random)

    async def call(self, *command: Any) -> Any:
        """Send one command once. Raises as `SentOnce.call`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._once.call(*command, timeout_s=self._timeout_s)
        except TimeoutError:  # connecting, or waiting for a connection of the pool, took too long
            raise OutcomeUnknown(f"no reply to {command[0]} within {self._timeout_s:g} s") from None

    async def send(self, what: str, attempt: Send) -> str:
        """Return the id that an attempt gives, after as many attempts as it takes and is allowed.

        Raises:
            OutcomeUnknown: no reply came; an earlier attempt may have been carried out.
            RedisUnavailable: it was not carried out.
            RedisRefused: Redis refuses; names `what` it is about.
        """
        failed, maybe_sent = 0, False
        while True:
            try:
                entry_id: bytes = await attempt()
                return entry_id.decode()
            except RedisRefused as error:
                raise RedisRefused(f"{what}: {error}") from error
            except (OutcomeUnknown, RedisUnavailable) as error:
                failed += 1
                maybe_sent = maybe_sent or isinstance(error, OutcomeUnknown)
                if self._policy.exhausted(failed):
                    kind = OutcomeUnknown if maybe_sent else RedisUnavailable
                    raise kind(f"{what}: {error}") from error
            await asyncio.sleep(self._policy.delay_ms(failed) / 1000)

    async def send_many(self, commands: Sequence[Command]) -> list[str]:
        """Send commands in batches over one connection and return the ids in their order.

        Raises:
            ProducedInPart: some were carried out, or may have been.
            RedisUnavailable, RedisRefused: none was.
        """
        results: list[str | EventRouterError] = [RedisUnavailable("not sent")] * len(commands)
        open_: list[int] = list(range(len(commands)))
        unknown: set[int] = set()
        failed = 0
        while open_:
            await self._pass(commands, open_, results, unknown)
            open_ = [n for n in open_ if isinstance(results[n], OutcomeUnknown | RedisUnavailable)]
            failed += 1
            if not open_ or self._policy.exhausted(failed):
                break
            await asyncio.sleep(self._policy.delay_ms(failed) / 1000)
        return _ids(results)

    async def _pass(
        self,
        commands: Sequence[Command],
        open_: Sequence[int],
        results: list[str | EventRouterError],
        unknown: set[int],
    ) -> None:
        """Send what is open until a batch fails, and note what is known of each."""
        for first in range(0, len(open_), BATCH):
            numbers = open_[first : first + BATCH]
            replies = await self._batch([commands[n] for n in numbers])
            for n, reply in zip(numbers, replies, strict=True):
                if isinstance(reply, OutcomeUnknown):
                    unknown.add(n)
                elif isinstance(reply, EventRouterError) and n in unknown:
                    reply = OutcomeUnknown(str(reply))
                results[n] = reply if isinstance(reply, EventRouterError) else reply.decode()
            if any(isinstance(reply, EventRouterError) for reply in replies):
                return

    async def _batch(self, commands: Sequence[Command]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                # The inner limit ends first, so that the replies that came are not lost with the others.
                return await self._once.many(commands, timeout_s=0.9 * self._timeout_s)
        except TimeoutError:
            lost = OutcomeUnknown(f"no reply to {len(commands)} commands within {self._timeout_s:g} s")
            return [lost] * len(commands)
        except EventRouterError as error:
            return [error] * len(commands)


def _ids(results: Sequence[str | EventRouterError]) -> list[str]:
    """Return the ids, or raise what says that there is not one for each."""
    ids = [result for result in results if isinstance(result, str)]
    errors = [result for result in results if isinstance(result, EventRouterError)]
    if not errors:
        return ids
    if not ids and not any(isinstance(error, OutcomeUnknown) for error in errors):
        raise errors[0]
    unknown = sum(isinstance(error, OutcomeUnknown) for error in errors)
    raise ProducedInPart(
        f"{len(ids)} of {len(results)} events were added, of {unknown} it is not known: {errors[0]}", results
    ) from errors[0]

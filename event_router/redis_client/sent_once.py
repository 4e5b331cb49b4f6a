"""Commands on a client that somebody else made, each sent once.

A redis-py client repeats a command whose reply was lost, writes included (measured with 8.1.0: one
HINCRBY counted twice). It does so above its connections: here they are used directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, MaxConnectionsError

from event_router.core.errors import OutcomeUnknown, RedisUnavailable
from event_router.redis_client.replies import CONNECTION_LOST, translated

TIMEOUT_S = 5.0
"""How long a reply may take where the client itself sets no limit."""
AT_ONCE = 32
POOL_EMPTY_S = 0.005
"""Connections that are used at once, and how long to wait where the pool, of 100, has none left for them.

redis-py reports an empty pool as a lost connection.
"""


class SentOnce:
    """Runs commands over the client's connections: its address and user, but undecoded and unrepeated."""

    def __init__(self, client: Redis) -> None:
        if not isinstance(client, Redis):
            raise TypeError(f"{type(client).__module__}.{type(client).__name__} is no redis.asyncio.Redis")
        self._pool = client.connection_pool
        self._places = asyncio.Semaphore(AT_ONCE)

    async def call(self, *command: Any, timeout_s: float | None = None) -> Any:
        """Send one command and return its reply: bytes, int, None, or collections of these.

        Args:
            timeout_s: how long the reply may take, and before it the calls that came first; None for as
                long as the client allows.

        Raises:
            OutcomeUnknown: it was sent and no reply came: it may or may not have been carried out.
            RedisUnavailable: no connection, or a refusal that passes by itself: nothing was done.
            NoGroup: the stream or its consumer group does not exist.
            RedisRefused: any other error reply.
        """
        async with self._connection(timeout_s) as connection:
            return await _exchanged(connection, command, timeout_s)

    async def many(self, commands: Sequence[Sequence[Any]], timeout_s: float | None = None) -> list[Any]:
        """Send commands at once over one connection; return the reply to each, or the error in its place.

        Args:
            timeout_s: how long all replies may take; None for as long as the client allows for one.

        Raises:
            RedisUnavailable: no connection: nothing was sent. Every other error stands in the list:
                OutcomeUnknown for commands whose reply did not come.
        """
        async with self._connection(timeout_s) as connection:
            return await _exchanged_many(connection, commands, timeout_s)

    @contextlib.asynccontextmanager
    async def _connection(self, timeout_s: float | None) -> AsyncIterator[AbstractConnection]:
        """Give a connection of the pool, to each in turn. Raises RedisUnavailable."""
        limit_s = timeout_s or self._pool.connection_kwargs.get("socket_timeout") or TIMEOUT_S
        deadline = asyncio.get_running_loop().time() + limit_s
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            raise RedisUnavailable(f"not sent: calls before it did not end within {limit_s:g} s") from None
        try:
            connection = await self._pooled(deadline)
            try:
                yield connection
            finally:
                await asyncio.shield(self._pool.release(connection))
        finally:
            self._places.release()

    async def _pooled(self, deadline: float) -> AbstractConnection:
        while True:
            try:
                connection: AbstractConnection = await self._pool.get_connection()
                return connection
            except MaxConnectionsError as error:  # others use the client, too
                if asyncio.get_running_loop().time() >= deadline:
                    raise translated(error) from error
            except Exception as error:
                raise translated(error) from error
            await asyncio.sleep(POOL_EMPTY_S)


async def _exchanged(
    connection: AbstractConnection, command: tuple[Any, ...], timeout_s: float | None
) -> Any:
    if timeout_s is None:
        timeout_s = connection.socket_timeout or TIMEOUT_S
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        # Two limits: before Python 3.12 the `wait_for` in redis-py's sending may swallow the first.
        async with asyncio.timeout_at(deadline):
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        async with asyncio.timeout_at(deadline):
            # No limit of its own: it would return None in place of a reply.
            return await connection.read_response(disable_decoding=True, timeout=math.inf)
    except BusyLoadingError as error:  # a reply, although redis-py counts it as a lost connection
        raise translated(error) from error
    except CONNECTION_LOST as error:
        await connection.disconnect(nowait=True)
        problem = translated(error)
        raise OutcomeUnknown(
            f"no reply to {command[0]} ({problem}): it may or may not have been carried out"
        ) from error
    except Exception as error:
        raise translated(error) from error


async def _exchanged_many(
    connection: AbstractConnection, commands: Sequence[Sequence[Any]], timeout_s: float | None
) -> list[Any]:
    if timeout_s is None:
        timeout_s = connection.socket_timeout or TIMEOUT_S
    deadline = asyncio.get_running_loop().time() + timeout_s
    replies: list[Any] = []
    try:
        async with asyncio.timeout_at(deadline):
            # connection.pack_commands takes six times as long, a third of the batch (measured, redis-py 8.1).
            packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
            await connection.send_packed_command(packed, check_health=False)
        async with asyncio.timeout_at(deadline):
            while len(replies) < len(commands):
                replies.append(await _reply(connection))
    except CONNECTION_LOST as error:
        await connection.disconnect(nowait=True)
        problem = translated(error)
        for command in commands[len(replies) :]:
            text = f"no reply to {command[0]} ({problem}): it may or may not have been carried out"
            replies.append(OutcomeUnknown(text))
    except BaseException:
        # What is still to come must not answer the next command.
        await connection.disconnect(nowait=True)
        raise
    return replies


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(
            disable_decoding=True, timeout=math.inf, disconnect_on_error=False
        )
    except BusyLoadingError as error:
        return translated(error)
    except CONNECTION_LOST:
        raise
    except Exception as error:
        return translated(error)

"""One connection in the mode of Pub/Sub, made with a client's address and user."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router.core.errors import EventRouterError, RedisUnavailable
from event_router.redis_client.replies import CONNECTION_LOST, translated


class PubSubLink:
    """Sends (un)subscriptions and reads what comes. Its own connection, none of the pool's.

    RESP2, undecoded and without redis-py's repetitions, whatever the client is set to. A read waits as
    long as it takes, unless `watch` finds the server silent.
    """

    def __init__(self, pool: ConnectionPool, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connection = _new_connection(pool, timeout_s)
        self._sending = asyncio.Lock()
        self._aborted = ""
        self.reads = 0
        self.heard = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises RedisUnavailable, also when it takes too long."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.connect()
        except Exception as error:
            raise _described(error, f"no connection within {self._timeout_s:g} s") from error

    async def send(self, *command: str) -> None:
        """Send a command, after those that others are sending. Raises RedisUnavailable."""
        words = [word.encode("utf-8", "surrogateescape") for word in command]
        try:
            async with asyncio.timeout(self._timeout_s), self._sending:
                packed = self._connection.pack_command(*words)
                await self._connection.send_packed_command(packed, check_health=False)
        except Exception as error:
            raise _described(error, f"{command[0]} not sent within {self._timeout_s:g} s") from error

    async def read(self) -> Any:
        """Return what comes next: a push as a list, an error reply as an exception, or another reply.

        Raises:
            RedisUnavailable: the connection is lost.
        """
        try:
            reply = await self._connection.read_response(
                disable_decoding=True, timeout=math.inf, disconnect_on_error=False
            )
        except CONNECTION_LOST as error:
            raise _described(error, self._aborted, self._aborted) from error
        except Exception as error:
            reply = translated(error)
        self.reads += 1
        self.heard.set()
        return reply

    async def watch(self, heartbeat_s: float) -> None:
        """Give the connection up when the server stays silent, though it is asked with a PING."""
        while True:
            self.heard.clear()
            await asyncio.sleep(heartbeat_s)
            if self.heard.is_set():
                continue
            try:
                await self.send("PING")
                await asyncio.wait_for(self.heard.wait(), self._timeout_s)
            except RedisUnavailable as error:
                return await self.abort(str(error))
            except TimeoutError:
                return await self.abort(f"no answer to PING within {self._timeout_s:g} s")

    async def abort(self, reason: str) -> None:
        """Give the connection up: whoever reads learns the reason."""
        self._aborted = reason
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await asyncio.shield(self._connection.disconnect(nowait=True))


def _new_connection(pool: ConnectionPool, timeout_s: float) -> AbstractConnection:
    options = pool.connection_kwargs | {
        "protocol": 2,
        "decode_responses": False,
        # Limits are set here around each step; redis-py's own loses cancellations before Python 3.12.
        "socket_timeout": None,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "maint_notifications_config": None,
    }
    return pool.connection_class(**options)


def _described(error: BaseException, timed_out: str, aborted: str = "") -> EventRouterError:
    if aborted:
        return RedisUnavailable(aborted)
    if isinstance(error, TimeoutError) and not str(error):
        return RedisUnavailable(timed_out)
    problem = translated(error)
    return problem if isinstance(problem, RedisUnavailable) else RedisUnavailable(str(problem))

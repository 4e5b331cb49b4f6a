"""Connections to Redis, each explicit about timeouts and retries.

redis-py retries by itself, writes included (measured with 8.1.0: one lost reply to HINCRBY counted
twice). Here nothing is retried below the caller: the router owns every retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from event_router.core.errors import RedisDenied, RedisUnavailable
from event_router.redis_client.address import RedisAddress
from event_router.redis_client.connection_problems import check_tls_files, connection_problem
from event_router.redis_client.replies import CONNECTION_LOST, translated

SENTINEL_TIMEOUT_S = 1.0
"""A frozen Sentinel that is listed first must not cost more than this before the next is asked."""


def open_client(address: RedisAddress, *, timeout_s: float, name: str | None = None) -> Redis:
    """Return a client for single commands: bytes replies, RESP2, no retries, Sentinel resolved.

    Connects on first use. Close it with `await client.aclose()`.
    """
    return Redis.from_pool(open_pool(address, timeout_s=timeout_s, name=name))


def open_pool(address: RedisAddress, *, timeout_s: float, name: str | None = None) -> ConnectionPool:
    """Return a pool that makes connections to the server, or to the primary the Sentinels name.

    Raises ConfigurationError where a file of certificates that the URL names cannot be used.
    """
    if address.tls:
        check_tls_files(address)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, 5.0),
        "retry": Retry(NoBackoff(), 0),
        # RESP3's maintenance notifications can leave an unread reply on a connection (measured).
        "protocol": 2,
        "driver_info": None,
        "client_name": name,
        **address.options,
    }
    if not address.sentinels:
        return ConnectionPool(**options)
    inherited = ("ssl_", "health_")
    sentinel_options: dict[str, Any] = {
        key: value for key, value in options.items() if key.startswith(inherited)
    } | {
        "socket_timeout": min(timeout_s, SENTINEL_TIMEOUT_S),
        "socket_connect_timeout": min(timeout_s, SENTINEL_TIMEOUT_S),
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # CLIENT SETINFO would be a permission more
        "username": options.pop("sentinel_username", None),
        "password": options.pop("sentinel_password", None),
    }
    if address.tls:
        sentinel_options["ssl"] = options["ssl"] = True
    sentinels: Any = _Sentinels
    sentinel = sentinels(address.sentinels, sentinel_kwargs=sentinel_options)
    primary_pool: Any = _PrimaryPool
    return cast(ConnectionPool, primary_pool(address.service, sentinel, **options))


class _Sentinels(Sentinel):
    """Asks one Sentinel after the other, first the one that named the primary last."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port; unlike redis-py's own, its error says why each Sentinel did not answer."""
        problems = []
        for sentinel in tuple(self.sentinels):
            try:
                primaries: Any = await sentinel.sentinel_masters()
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                problems.append(str(translated(error)))
                continue
            state = primaries.get(service_name)
            if state and self.check_master_state(state, service_name):
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                return state["ip"], state["port"]
        raise MasterNotFoundError(", ".join([f"No master found for {service_name!r}", *problems]))


class _PrimaryPool(SentinelConnectionPool):
    """Connections to the primary that Sentinels name; those to the Sentinels are closed with them."""

    async def aclose(self) -> None:
        await super().aclose()
        for client in self.sentinel_manager.sentinels:
            await client.aclose(close_connection_pool=True)


class Link:
    """One connection used by one role. Commands run in the order in which they were called.

    A command is sent at once, also while others before it wait for their replies. One whose reply did not
    come leaves nothing behind: the connection is dropped, so that no later command can read its reply, and
    with it the replies to those after it. Errors are translated once, here (see `replies`).
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float, name: str) -> None:
        self._address = address
        self._pool = open_pool(address, timeout_s=timeout_s, name=name)
        self._connection: AbstractConnection | None = None
        self._sending = asyncio.Lock()
        self._last: asyncio.Future[None] | None = None  # done once the last command called has its reply
        self.name = name

    def __repr__(self) -> str:
        state = "connected" if self.connected else "disconnected"
        return f"<Link {self.name} to {self._address.redacted}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as is known."""
        connection = self._connection
        return connection is not None and bool(connection.is_connected) and not _ended(connection)

    async def call(self, *command: Any) -> Any:
        """Send one command and return its reply: bytes, int, None or lists of these.

        Raises:
            RedisUnavailable: no connection, no reply in time, or a refusal that passes by itself.
            NoGroup: the stream or its consumer group does not exist.
            RedisRefused: any other error reply.
        """
        [reply], connection = await self._exchange([command])
        if isinstance(reply, Exception):
            if isinstance(reply, RedisUnavailable) and not isinstance(reply, RedisDenied):
                # A demoted primary or one that loads its data: find the right one again.
                await self._drop(connection)
            raise reply
        return reply

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send several commands at once; an error reply stands in the list as an exception."""
        replies, _ = await self._exchange(commands)
        return replies

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> tuple[list[Any], AbstractConnection]:
        """Return the replies, and the connection on which they came."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection = None
        try:
            async with self._sending:
                connection = await self._connected()
                before, self._last = self._last, mine
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            if before is not None and not before.done():
                await asyncio.shield(before)
            if connection is not self._connection:
                raise RedisUnavailable("the connection was lost before the reply came")
            replies = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except CONNECTION_LOST:
                    raise
                except Exception as error:
                    replies.append(translated(error))
            return replies, connection
        except BaseException as error:
            # Closed by another caller or the server and not yet known to be: sending is an AttributeError of
            # redis-py then (before Python 3.12 it sends in a task), or a RuntimeError of uvloop.
            closed = isinstance(error, RuntimeError) or (
                isinstance(error, AttributeError) and connection is not None and not connection.is_connected
            )
            # Cancelled between request and reply, too: the reply must not answer the next command.
            await self._drop(connection)
            if isinstance(error, CONNECTION_LOST):
                raise translated(error) from error
            if closed:
                raise RedisUnavailable("the connection was lost while the command was sent") from error
            raise
        finally:
            mine.set_result(None)

    async def close(self) -> None:
        """Close the connection. It opens again with the next call."""
        await self._drop(self._connection)
        await self._pool.aclose()

    async def _connected(self) -> AbstractConnection:
        if not self.connected:
            await self._drop(self._connection)
        connection = self._connection
        if connection is None:
            # Never the same object again: callers that wait know by it whether their replies still come.
            connection = self._connection = self._pool.make_connection()
            try:
                await connection.connect()
            except BaseException as error:
                await self._drop(connection)
                if isinstance(error, Exception):
                    raise connection_problem(error, self._address) from error
                raise
            if connection is not self._connection:  # closed meanwhile
                await asyncio.shield(connection.disconnect(nowait=True))
                raise RedisUnavailable("the connection was closed while it was made")
        return connection

    async def _drop(self, connection: AbstractConnection | None) -> None:
        """Close a connection unless another one stands in its place already."""
        if connection is not None and connection is self._connection:
            self._connection = None
            await asyncio.shield(connection.disconnect(nowait=True))


def _ended(connection: AbstractConnection) -> bool:
    """Whether the server closed it while nobody used it: told now, it is not a lost reply."""
    reader = getattr(connection, "_reader", None)
    return reader is not None and bool(reader.at_eof() or reader.exception())


class ClientCaller:
    """Runs single commands on a redis-py client with the router's own errors."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def call(self, *command: Any) -> Any:
        """Send one command and return its reply. Raises what `Link.call` raises."""
        try:
            return await self._client.execute_command(*command)
        except Exception as error:
            raise translated(error) from error

"""One connection, several callers: order, lost replies, cancelled callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import uvloop

from event_router.core.errors import RedisDenied, RedisRefused, RedisUnavailable
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

WAIT = ("BLPOP", "nothing", "0.2")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
async def link(proxy: Proxy) -> AsyncIterator[Link]:
    link = Link(parse_url(proxy.url), timeout_s=5, name="event-router-test")
    yield link
    await link.close()


async def together(link: Link, *commands: tuple[object, ...]) -> list[object]:
    """Call the commands at once, in this order."""
    return await asyncio.gather(*(link.call(*command) for command in commands), return_exceptions=True)


async def noticed(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Let the event loop turn until the condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_each_caller_gets_its_own_reply(link: Link) -> None:
    commands = [("ECHO", str(number)) for number in range(200)]
    replies = await together(link, WAIT, *commands, ("NONSENSE",), ("ECHO", "last"))
    assert replies[:-2] == [None, *(number.encode() for _, number in commands)]
    assert isinstance(replies[-2], RedisRefused)
    assert replies[-1] == b"last"


async def test_commands_run_in_the_order_of_the_calls(link: Link) -> None:
    await together(link, WAIT, *(("RPUSH", "order", number) for number in range(100)))
    assert await link.call("LRANGE", "order", 0, -1) == [b"%d" % number for number in range(100)]


async def test_a_command_is_sent_before_the_one_before_it_is_answered(link: Link, proxy: Proxy) -> None:
    await link.call("PING")
    proxy.drop_reply("BLPOP")
    replies = await together(link, WAIT, ("SET", "sent", "1"))
    assert all(isinstance(reply, RedisUnavailable) for reply in replies)
    assert await link.call("GET", "sent") == b"1"


async def test_a_lost_reply_gives_nobody_that_of_another(link: Link, proxy: Proxy) -> None:
    await link.call("PING")
    words = [str(number).encode() for number in range(20)]
    for lost in (b"0", b"7", b"19"):
        drop = proxy.drop_reply("ECHO", request=lost)
        replies = await together(link, *(("ECHO", word) for word in words))
        assert drop.dropped == 1
        assert isinstance(replies[int(lost)], RedisUnavailable)
        for reply, word in zip(replies, words, strict=True):
            assert isinstance(reply, RedisUnavailable) or reply == word


async def test_a_connection_that_was_closed_while_idle_loses_no_reply(link: Link, proxy: Proxy) -> None:
    await link.call("PING")
    proxy.cut()
    await noticed(lambda: not link.connected)
    assert await together(link, ("ECHO", "a"), ("ECHO", "b")) == [b"a", b"b"]


def close_before_sending(connection: Any) -> None:
    """Close the transport once the next command is on its way: later than anybody looks whether it stands."""
    pack = connection.pack_commands

    def closing(commands: Any) -> Any:
        connection._writer.transport.abort()
        return pack(commands)

    connection.pack_commands = closing


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_closes_under_a_caller_is_a_lost_one(server: Server, run: Any) -> None:
    async def scenario() -> None:
        link = Link(parse_url(server.url), timeout_s=5, name="event-router-test")
        for _ in range(3):
            await link.call("PING")
            close_before_sending(link._connection)
            replies = await together(link, ("ECHO", "a"), ("ECHO", "b"))
            for reply, own in zip(replies, (b"a", b"b"), strict=True):
                assert isinstance(reply, RedisUnavailable) or reply == own
        assert await link.call("ECHO", "c") == b"c"
        await link.close()

    run(scenario())


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_a_caller_that_is_cancelled_leaves_no_reply_to_another(link: Link, cancelled: int) -> None:
    await link.call("PING")
    calls = [asyncio.create_task(link.call(*command)) for command in (WAIT, ("ECHO", "a"), ("ECHO", "b"))]
    for _ in range(20):
        await asyncio.sleep(0)  # all are sent
    while not calls[cancelled].done():  # redis-py swallows what arrives while it sends
        calls[cancelled].cancel()
        await asyncio.wait([calls[cancelled]], timeout=0.05)
    others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(others.pop(cancelled), asyncio.CancelledError)
    expected = [None, b"a", b"b"]
    del expected[cancelled]
    for reply, own in zip(others, expected, strict=True):
        assert isinstance(reply, RedisUnavailable) or reply == own
    assert await together(link, ("ECHO", "c"), ("ECHO", "d")) == [b"c", b"d"]


async def test_a_denied_command_loses_no_reply_to_another(
    server: Server, redis_client: redis.Redis, proxy: Proxy
) -> None:
    redis_client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-append")
    link = Link(parse_url(proxy.url.replace("//", "//reader:secret@")), timeout_s=5, name="event-router-test")
    try:
        await link.call("PING")
        replies = await together(link, WAIT, ("APPEND", "a", "b"), ("ECHO", "c"))
        assert isinstance(replies[1], RedisDenied)
        assert [replies[0], replies[2]] == [None, b"c"]
        assert proxy.accepted == 1
    finally:
        await link.close()
        redis_client.execute_command("ACL", "DELUSER", "reader")


async def test_a_connection_that_another_caller_drops_while_a_command_is_sent_is_lost(link: Link) -> None:
    await link.call("PING")
    first = asyncio.create_task(link.call(*WAIT))
    for _ in range(20):
        await asyncio.sleep(0)
    second = asyncio.create_task(link.call("ECHO", "a"))
    first.cancel()
    replies = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(replies[0], asyncio.CancelledError)
    assert isinstance(replies[1], RedisUnavailable)
    assert await link.call("ECHO", "b") == b"b"


async def test_closed_while_it_connects_it_is_lost(link: Link) -> None:
    call = asyncio.create_task(link.call("ECHO", "a"))
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(RedisUnavailable):
        await call
    assert await link.call("ECHO", "b") == b"b"

"""The environment's own tests: the proxy loses exactly what it is told to lose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.environment.waiting import eventually


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=[2, 3])
def proxied(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A client through the proxy, in both versions of the protocol."""
    never = Retry(NoBackoff(), 0)
    with redis.Redis(port=proxy.port, protocol=request.param, retry=never, socket_timeout=0.3) as client:
        yield client


def test_it_passes_everything_on(proxied: redis.Redis, proxy: Proxy) -> None:
    large = b"\r\n$5\r\n" * 200_000
    pipeline = proxied.pipeline(transaction=True)
    pipeline.set("large", large)
    pipeline.hset("hash", mapping={"a": 1, "b": -2})
    pipeline.hgetall("hash")
    pipeline.get("absent")
    assert pipeline.execute() == [True, 2, {b"a": b"1", b"b": b"-2"}, None]
    assert proxied.get("large") == large
    assert proxied.eval("return {1, {'two', false}}", 0) == [1, [b"two", None]]
    assert proxy.requests["GET"] == 2


def test_a_dropped_reply_is_of_a_request_that_took_effect(
    proxied: redis.Redis, proxy: Proxy, redis_client: redis.Redis
) -> None:
    drop = proxy.drop_reply("incrby", request=b"counted")
    proxied.incr("other")
    with pytest.raises(redis.ConnectionError):
        proxied.incr("counted")
    assert redis_client.get("counted") == "1"
    assert drop.dropped == 1
    assert proxied.incr("counted") == 2


def test_a_reply_can_be_chosen_by_what_it_carries(proxied: redis.Redis, proxy: Proxy) -> None:
    drop = proxy.drop_reply("GET", reply=b"wanted")
    proxied.set("key", "plain")
    assert proxied.get("key") == b"plain"
    proxied.set("key", "wanted")
    with pytest.raises(redis.ConnectionError):
        proxied.get("key")
    assert drop.dropped == 1


def test_frozen_it_is_silent_and_later_forwards(
    proxied: redis.Redis, proxy: Proxy, redis_client: redis.Redis
) -> None:
    proxied.ping()
    proxy.freeze()
    with pytest.raises(redis.TimeoutError):
        proxied.set("late", "1")
    with pytest.raises(redis.TimeoutError):
        proxied.ping()
    assert redis_client.get("late") is None
    proxy.thaw()
    assert proxied.ping()


def test_it_cuts_all_connections(proxied: redis.Redis, proxy: Proxy) -> None:
    proxied.ping()
    assert proxy.connections == 1
    proxy.cut()
    eventually(lambda: proxy.connections == 0, within=2)
    assert proxied.ping(), "new connections are accepted"
    assert proxy.connections == 1


def test_it_changes_what_the_server_says(proxied: redis.Redis, proxy: Proxy) -> None:
    proxied.set("version", "7.0.15")
    proxy.replace_in_replies(b"7.0.15", b"6.2.15")
    assert proxied.get("version") == b"6.2.15"

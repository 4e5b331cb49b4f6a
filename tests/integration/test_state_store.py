"""StateKVStore: what it reads and writes, and that it writes once whatever happens to the reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import OutcomeUnknown, RedisRefused, RedisUnavailable, StateError, StateKVStore
from tests.environment.proxy import Proxy
from tests.environment.servers import Server


@pytest.fixture(params=["bytes, RESP2", "text, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    made = Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol))
    yield made
    await made.aclose()


@pytest.fixture
def store(client: Redis) -> StateKVStore:
    return StateKVStore(client)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def behind_proxy(proxy: Proxy) -> AsyncIterator[StateKVStore]:
    """A store whose client has redis-py's own retries: `Redis(…)` has them, `Redis.from_url` has not."""
    async with Redis(port=proxy.port) as client:
        yield StateKVStore(client)


class TestGet:
    async def test_returns_every_field_as_text(self, store: StateKVStore, redis_client: redis.Redis) -> None:
        kept = {
            "last_login": "2026-01-01T00:00:00.000Z",
            "last_login:version": "1767225600000:1-0@events:auth",
        }
        redis_client.hset("state:user:123", mapping=kept)
        assert await store.get("user", "123") == kept
        assert await store.get("user", 123) == kept

    async def test_returns_none_where_there_is_nothing(self, store: StateKVStore) -> None:
        assert await store.get("user", "nobody") is None

    async def test_returns_bytes_that_are_no_utf8(
        self, store: StateKVStore, redis_bytes: redis.Redis
    ) -> None:
        redis_bytes.hset("state:user:1", b"\xffname", b"\xfe")
        found = await store.get("user", "1")
        assert found == {"\udcffname": "\udcfe"}
        await store.set("user", "2", found)
        assert redis_bytes.hgetall("state:user:2") == {b"\xffname": b"\xfe"}

    async def test_names_the_key_that_is_no_hash(
        self, store: StateKVStore, redis_client: redis.Redis
    ) -> None:
        redis_client.set("state:user:1", "text")
        with pytest.raises(RedisRefused, match=r"^state:user:1: .*wrong kind"):
            await store.get("user", "1")


class TestSet:
    async def test_stores_values_as_handlers_do(self, store: StateKVStore, redis_client: redis.Redis) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
        data = {"name": "Zoë", "score": 7, "ok": True, "seen": moment, "day": date(2026, 1, 2), "x": 0.5}
        await store.set("user", "1", data)
        assert redis_client.hgetall("state:user:1") == {
            "name": "Zoë",
            "score": "7",
            "ok": "true",
            "seen": "2026-01-02T03:04:05.678Z",
            "day": "2026-01-02",
            "x": "0.5",
        }

    async def test_leaves_other_fields_and_the_time_to_live(
        self, store: StateKVStore, redis_client: redis.Redis
    ) -> None:
        redis_client.hset("state:user:1", "kept", "yes")
        redis_client.expire("state:user:1", 1000)
        await store.set("user", "1", {"new": 1})
        assert redis_client.hgetall("state:user:1") == {"kept": "yes", "new": "1"}
        assert 990 < redis_client.ttl("state:user:1") <= 1000

    async def test_sets_the_time_to_live(self, store: StateKVStore, redis_client: redis.Redis) -> None:
        await store.set("user", "1", {"a": 1}, ttl=1.5)
        assert 1000 < redis_client.pttl("state:user:1") <= 1500

    async def test_has_another_prefix_if_it_is_given_one(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        await StateKVStore(client, prefix="app").set("user", "1", {"a": 1})
        assert redis_client.hget("app:user:1", "a") == "1"

    async def test_takes_more_fields_than_a_script_can_pass_on(
        self, store: StateKVStore, redis_client: redis.Redis
    ) -> None:
        data = {f"field-{number}": number for number in range(10_000)}
        await store.set("user", "1", data)
        assert redis_client.hlen("state:user:1") == 10_000

    async def test_a_wrong_type_gets_no_time_to_live(
        self, store: StateKVStore, redis_client: redis.Redis
    ) -> None:
        redis_client.set("state:user:1", "text")
        with pytest.raises(RedisRefused, match=r"^state:user:1: "):
            await store.set("user", "1", {"a": 1}, ttl=10)
        assert redis_client.ttl("state:user:1") == -1

    async def test_a_missing_permission_leaves_nothing_half_done(
        self, server: Server, redis_client: redis.Redis
    ) -> None:
        redis_client.execute_command("ACL", "SETUSER", "setter", "on", "nopass", "~*", "+@all", "-pexpire")
        client = Redis(port=server.port, username="setter", password="any")
        try:
            with pytest.raises(RedisUnavailable, match="PEXPIRE on state:user:1"):
                await StateKVStore(client).set("user", "1", {"a": 1}, ttl=10)
        finally:
            await client.aclose()
            redis_client.execute_command("ACL", "DELUSER", "setter")
        assert not redis_client.exists("state:user:1")

    @pytest.mark.parametrize(
        ("entity", "data", "ttl", "problem"),
        [
            (("us er", "1"), {"a": 1}, None, "must be a word"),
            (("user", ""), {"a": 1}, None, "empty identifier"),
            (("user", "1\n2"), {"a": 1}, None, "control characters"),
            (("user", "x" * 513), {"a": 1}, None, "at most 512"),
            (("user", "1"), {}, None, "no fields"),
            (("user", "1"), {"a": None}, None, "cannot be stored"),
            (("user", "1"), {"a": [1]}, None, "cannot be stored"),
            (("user", "1"), {"a": 1}, 0, "no time to live"),
            (("user", "1"), {"a": 1}, -5, "no time to live"),
        ],
    )
    async def test_refuses_what_cannot_be_stored(
        self,
        client: Redis,
        entity: tuple[str, str],
        data: dict[str, Any],
        ttl: float | None,
        problem: str,
    ) -> None:
        with pytest.raises(StateError, match=problem):
            await StateKVStore(client).set(*entity, data, ttl=ttl)


class TestIncrement:
    async def test_returns_the_sum(self, store: StateKVStore) -> None:
        assert await store.increment("user", "1", "points") == 1
        assert await store.increment("user", "1", "points", 41) == 42
        assert await store.increment("user", "1", "points", -2) == 40

    @pytest.mark.parametrize("amount", [1.5, "1", True, 2**63])
    async def test_refuses_what_is_no_integer(self, store: StateKVStore, amount: Any) -> None:
        with pytest.raises(StateError, match="64-bit integer"):
            await store.increment("user", "1", "points", amount)

    async def test_names_the_field_that_holds_no_integer(self, store: StateKVStore) -> None:
        await store.set("user", "1", {"points": "many"})
        with pytest.raises(RedisRefused, match=r"^state:user:1 points: .*not an integer"):
            await store.increment("user", "1", "points")
        assert await store.get("user", "1") == {"points": "many"}


class TestLostReplies:
    async def test_an_increment_is_made_once_and_its_outcome_unknown(
        self, behind_proxy: StateKVStore, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        await behind_proxy.increment("user", "1", "points")  # its connection stands
        drop = proxy.drop_reply("HINCRBY", times=5)
        with pytest.raises(OutcomeUnknown, match="no reply to HINCRBY"):
            await behind_proxy.increment("user", "1", "points")
        assert drop.dropped == 1
        assert redis_client.hget("state:user:1", "points") == "2"

    async def test_redis_py_itself_counts_it_again(self, proxy: Proxy, redis_client: redis.Redis) -> None:
        # What the test above would find if the client's own retries were at work.
        async with Redis(port=proxy.port) as client:
            await client.ping()
            drop = proxy.drop_reply("HINCRBY", times=1)
            assert await client.hincrby("state:user:1", "points", 1) == 2  # type: ignore[misc]  # redis-py's union
            assert drop.dropped == 1
        assert redis_client.hget("state:user:1", "points") == "2"

    async def test_a_set_is_made_once_and_its_outcome_unknown(
        self, behind_proxy: StateKVStore, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        await behind_proxy.set("user", "1", {"a": 1})
        drop = proxy.drop_reply("EVALSHA", times=5)
        with pytest.raises(OutcomeUnknown):
            await behind_proxy.set("user", "1", {"a": 2}, ttl=10)
        assert drop.dropped == 1
        assert redis_client.hget("state:user:1", "a") == "2"
        assert redis_client.ttl("state:user:1") > 0

    async def test_a_get_is_asked_again(self, behind_proxy: StateKVStore, proxy: Proxy) -> None:
        await behind_proxy.set("user", "1", {"a": 1})
        drop = proxy.drop_reply("HGETALL", times=1)
        assert await behind_proxy.get("user", "1") == {"a": "1"}
        assert drop.dropped == 1

    async def test_a_silent_server_is_given_up_in_time(self, proxy: Proxy, redis_client: redis.Redis) -> None:
        async with Redis(port=proxy.port, socket_timeout=0.3) as client:
            store = StateKVStore(client)
            await store.increment("user", "1", "points")
            proxy.freeze()
            with pytest.raises(OutcomeUnknown):
                await store.increment("user", "1", "points")
            proxy.thaw()
            assert await store.increment("user", "1", "points") >= 2  # on a new connection

    async def test_nothing_was_done_without_a_connection(self) -> None:
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            with pytest.raises(RedisUnavailable):
                await StateKVStore(client).increment("user", "1", "points")


async def test_a_loading_server_has_done_nothing(proxy: Proxy, redis_client: redis.Redis) -> None:
    redis_client.set("state:user:1", "text")
    # The length of the reply's text must stay: the protocol of the proxy is whole.
    proxy.replace_in_replies(b"-WRONGTYPE Operation", b"-LOADING   Operation")
    async with Redis(port=proxy.port) as client:
        with pytest.raises(RedisUnavailable):
            await StateKVStore(client).increment("user", "1", "points")


def test_a_client_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"redis\.client\.Redis is no redis\.asyncio\.Redis"):
        StateKVStore(redis.Redis())  # type: ignore[arg-type]

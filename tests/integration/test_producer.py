"""StreamProducer: what it adds and where, what it refuses, and that it adds once whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import (
    ConfigurationError,
    InvalidEvent,
    KeyNames,
    OutcomeUnknown,
    ProducedInPart,
    RedisRefused,
    RedisUnavailable,
    StreamProducer,
)
from event_router.settings import load
from handlers.auth import AuthEventHandler
from handlers.scan import ScanEventHandler
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.environment.streams import entries
from tests.environment.waiting import eventually

LOGIN = {"type": "login", "user_id": "7"}


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    async with Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol)) as made:
        yield made


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def behind_proxy(proxy: Proxy) -> AsyncIterator[Redis]:
    """A client that has redis-py's own retries."""
    async with Redis(port=proxy.port) as made:
        yield made


def logins(count: int) -> list[dict[str, str]]:
    return [{"type": "login", "user_id": str(n)} for n in range(count)]


def shard(job_id: str, shards: int = 4) -> int:
    return int(hashlib.md5(job_id.encode()).hexdigest(), 16) % shards


class TestProduce:
    async def test_returns_the_id_of_the_entry(self, client: Redis, redis_client: redis.Redis) -> None:
        producer = StreamProducer(client, handlers=[AuthEventHandler()])
        first = await producer.produce("auth", LOGIN)
        second = await producer.produce("events:auth", {**LOGIN, "traceparent": "00-abc-def-01"})
        assert entries(redis_client, "events:auth") == [
            (first, LOGIN),
            (second, {**LOGIN, "traceparent": "00-abc-def-01"}),
        ]

    @pytest.mark.parametrize(
        ("names", "stream"),
        [
            (KeyNames(stream_template="{domain}:events:{shard}"), "auth:events:0"),
            (KeyNames(shards={"auth": 2}), f"events:auth:{shard('7', 2)}"),
        ],
    )
    async def test_streams_are_named_as_the_router_names_them(
        self, client: Redis, redis_client: redis.Redis, names: KeyNames, stream: str
    ) -> None:
        await StreamProducer(client, handlers=[AuthEventHandler()], names=names).produce("auth", LOGIN)
        assert redis_client.keys("*") == [stream]

    async def test_names_come_from_the_settings_alone(
        self, client: Redis, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EVENT_ROUTER_STREAM_TEMPLATE", "{domain}:events:{shard}")
        monkeypatch.setenv("EVENT_ROUTER_SHARDS", "scan=4")
        producer = StreamProducer(client, names=load().key_names)
        await producer.produce_to_shard("scan", "job-1", {"type": "scan_start", "user_id": "1"})
        assert redis_client.keys("*") == [f"scan:events:{shard('job-1')}"]

    async def test_refuses_before_anything_is_sent(self, client: Redis, redis_client: redis.Redis) -> None:
        producer = StreamProducer(client, handlers=[AuthEventHandler()])
        for event, reason in (
            ({"type": "login"}, "invalid"),
            ({"user_id": "7"}, "invalid"),
            ({**LOGIN, "type": "dance"}, "unknown_type"),
            ({**LOGIN, "device": "x" * 1024 * 1024}, "too_large"),
            ({**LOGIN, "timestamp": "2999-01-01T00:00:00Z"}, "invalid"),
        ):
            with pytest.raises(InvalidEvent) as caught:
                await producer.produce("auth", event)
            assert caught.value.reason == reason
        with pytest.raises(InvalidEvent, match=r"^event 2: field 'user_id' is missing$"):
            await producer.produce_many("auth", [LOGIN, LOGIN, {"type": "login"}])
        assert redis_client.keys("*") == []

    async def test_keeps_about_as_many_as_it_is_told(self, client: Redis, redis_client: redis.Redis) -> None:
        await StreamProducer(client, maxlen=100).produce_many("auth", logins(2000))
        assert 100 <= redis_client.xlen("events:auth") < 400
        await StreamProducer(client).produce_many("chat", logins(12_000))
        assert 10_000 <= redis_client.xlen("events:chat") < 10_400
        await StreamProducer(client, maxlen=None).produce_many("scan", logins(12_000))
        assert redis_client.xlen("events:scan") == 12_000

    async def test_names_the_stream_that_refuses(self, client: Redis, redis_client: redis.Redis) -> None:
        redis_client.set("events:auth", "text")
        with pytest.raises(RedisRefused, match=r"^events:auth: .*wrong kind"):
            await StreamProducer(client).produce("auth", LOGIN)
        with pytest.raises(RedisRefused, match="wrong kind"):
            await StreamProducer(client).produce_many("auth", [LOGIN, LOGIN])

    @pytest.mark.parametrize("options", [{"maxlen": 0}, {"retries": -1}, {"timeout_s": 0}])
    async def test_options_make_sense(self, client: Redis, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            StreamProducer(client, **options)


class TestShards:
    async def test_four_unless_told_otherwise(self, client: Redis, redis_client: redis.Redis) -> None:
        producer = StreamProducer(client, handlers=[ScanEventHandler()])
        for n in range(12):
            await producer.produce_to_shard("scan", f"j{n}", {"type": "scan_start", "user_id": "1"})
        found = {
            fields["job_id"]: int(stream[-1])
            for stream in redis_client.keys("events:scan:*")
            for _, fields in entries(redis_client, stream)
        }
        assert found == {f"j{n}": shard(f"j{n}") for n in range(12)}

    async def test_any_number(self, client: Redis, redis_client: redis.Redis) -> None:
        event = {"type": "scan_start", "user_id": "1", "job_id": "j"}
        await StreamProducer(client).produce_to_shard("scan", "j", event, 7)
        await StreamProducer(client).produce_to_shard("scan", "j", event, shard_count=1)
        await StreamProducer(client, names=KeyNames(shards={"scan": 9})).produce_to_shard("scan", "j", event)
        expected = {f"events:scan:{shard('j', 7)}", "events:scan", f"events:scan:{shard('j', 9)}"}
        assert set(redis_client.keys("*")) == expected

    async def test_a_number_that_routers_do_not_read_is_refused(self, client: Redis) -> None:
        producer = StreamProducer(client, names=KeyNames(shards={"scan": 2}))
        with pytest.raises(ConfigurationError, match=r"4 shards for domain 'scan', which has 2"):
            await producer.produce_to_shard("scan", "j", {"type": "scan_start"}, 4)

    async def test_the_event_is_of_that_job(self, client: Redis, redis_client: redis.Redis) -> None:
        producer = StreamProducer(client)
        for job_id, own in (("", None), ("a\n", None), ("x" * 513, None), ("j", "k")):
            with pytest.raises(InvalidEvent, match="job_id"):
                await producer.produce_to_shard("scan", job_id, {"type": "scan_start", "job_id": own})
        assert redis_client.keys("*") == []


class TestMany:
    async def test_ids_in_the_order_of_the_events(self, client: Redis, redis_client: redis.Redis) -> None:
        events = logins(1203)
        ids = await StreamProducer(client, maxlen=None).produce_many("auth", iter(events))
        assert entries(redis_client, "events:auth") == list(zip(ids, events, strict=True))
        assert await StreamProducer(client).produce_many("auth", []) == []

    async def test_over_one_connection(self, proxy: Proxy, behind_proxy: Redis) -> None:
        await StreamProducer(behind_proxy).produce_many("auth", logins(2000))
        assert proxy.accepted == 1

    async def test_spread_over_shards(self, client: Redis, redis_client: redis.Redis) -> None:
        producer = StreamProducer(client, handlers=[AuthEventHandler()], names=KeyNames(shards={"auth": 4}))
        await producer.produce_many("auth", logins(40))
        for n in range(4):
            found = [fields["user_id"] for _, fields in entries(redis_client, f"events:auth:{n}")]
            assert found == [str(user) for user in range(40) if shard(str(user)) == n]


class TestLostReplies:
    async def test_one_event_is_added_once(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        drop = proxy.drop_reply("XADD")
        with pytest.raises(OutcomeUnknown, match=r"^events:auth: no reply to XADD"):
            await StreamProducer(behind_proxy).produce("auth", LOGIN)
        assert drop.dropped == 1
        assert redis_client.xlen("events:auth") == 1

    async def test_with_retries_it_is_added_again_under_one_id(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        proxy.drop_reply("XADD", times=2)
        producer = StreamProducer(behind_proxy, retries=2, new_id=iter("ab").__next__, random=lambda: 0.0)
        last = await producer.produce("auth", LOGIN)
        own = await producer.produce("auth", {**LOGIN, "id": "own"})
        assert [fields["id"] for _, fields in entries(redis_client, "events:auth")] == ["a", "a", "a", "own"]
        assert [entry_id for entry_id, _ in entries(redis_client, "events:auth")][2:] == [last, own]

    async def test_after_the_last_attempt_it_is_unknown(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        drop = proxy.drop_reply("XADD", times=9)
        with pytest.raises(OutcomeUnknown):
            await StreamProducer(behind_proxy, retries=1).produce("auth", LOGIN)
        assert drop.dropped == 2

    async def test_of_many_it_is_said_what_is_known_of_each(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        proxy.drop_reply("XADD", request=b"$3\r\n702\r\n")
        with pytest.raises(
            ProducedInPart, match=r"^702 of 1500 events were added, of 298 it is not"
        ) as caught:
            await StreamProducer(behind_proxy).produce_many("auth", logins(1500))
        results = caught.value.results
        assert results[:702] == [entry_id for entry_id, _ in entries(redis_client, "events:auth")][:702]
        assert {type(result) for result in results[702:1000]} == {OutcomeUnknown}
        assert {type(result) for result in results[1000:]} == {RedisUnavailable}

    async def test_of_many_only_what_is_open_is_added_again(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        proxy.drop_reply("XADD", request=b"$3\r\n702\r\n")
        ids = await StreamProducer(behind_proxy, retries=3).produce_many("auth", logins(1500))
        found = dict(entries(redis_client, "events:auth"))
        assert [found[entry_id]["user_id"] for entry_id in ids] == [str(n) for n in range(1500)]
        by_user: dict[str, set[str]] = {}
        for fields in found.values():
            by_user.setdefault(fields["user_id"], set()).add(fields["id"])
        assert {len(given) for given in by_user.values()} == {1}
        assert len(found) <= 1500 + 298

    async def test_a_frozen_server_ends_the_call(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        producer = StreamProducer(behind_proxy, timeout_s=0.2)
        await producer.produce("auth", LOGIN)
        proxy.freeze()
        with pytest.raises(OutcomeUnknown):
            await producer.produce("auth", LOGIN)
        with pytest.raises(ProducedInPart):
            await producer.produce_many("auth", [LOGIN])
        proxy.thaw()
        await producer.produce("auth", {**LOGIN, "user_id": "after"})
        assert entries(redis_client, "events:auth")[-1][1]["user_id"] == "after"

    async def test_a_cancelled_call_leaves_no_reply_behind(
        self, proxy: Proxy, behind_proxy: Redis, redis_client: redis.Redis
    ) -> None:
        producer = StreamProducer(behind_proxy)
        await producer.produce("auth", LOGIN)
        proxy.freeze()
        call = asyncio.create_task(producer.produce_many("auth", logins(3)))
        await asyncio.to_thread(eventually, lambda: proxy.requests["XADD"] == 2, within=5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        proxy.thaw()
        last = await producer.produce("auth", LOGIN)
        assert entries(redis_client, "events:auth")[-1][0] == last


class TestRefusingServers:
    async def test_nobody_is_there(self) -> None:
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            with pytest.raises(RedisUnavailable, match=r"^events:auth: "):
                await StreamProducer(client).produce("auth", LOGIN)
            with pytest.raises(RedisUnavailable):
                await StreamProducer(client).produce_many("auth", [LOGIN])

    @pytest.mark.once
    async def test_out_of_memory_and_read_only_pass(self, new_server: ServerFactory) -> None:
        server = new_server().start()
        with server.client() as operator:
            async with Redis(port=server.port) as client:
                producer = StreamProducer(client)
                await producer.produce("auth", LOGIN)
                operator.config_set("maxmemory", "1")
                with pytest.raises(RedisUnavailable, match="maxmemory"):
                    await producer.produce("auth", LOGIN)
                with pytest.raises(RedisUnavailable, match="maxmemory"):
                    await producer.produce_many("auth", [LOGIN] * 3)
                operator.config_set("maxmemory", "0")
                operator.replicaof("127.0.0.1", "1")
                with pytest.raises(RedisUnavailable, match=r"READONLY|read only"):
                    await producer.produce("auth", LOGIN)
                operator.replicaof("NO", "ONE")
                await producer.produce("auth", LOGIN)
                assert operator.xlen("events:auth") == 2

    async def test_one_that_is_refused_says_nothing_of_the_others(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        names = KeyNames(shards={"auth": 2})
        redis_client.set("events:auth:1", "text")
        producer = StreamProducer(client, handlers=[AuthEventHandler()], names=names)
        with pytest.raises(ProducedInPart, match="of 0 it is not known") as caught:
            await producer.produce_many("auth", logins(10))
        for n, result in enumerate(caught.value.results):
            assert isinstance(result, RedisRefused if shard(str(n), 2) else str)

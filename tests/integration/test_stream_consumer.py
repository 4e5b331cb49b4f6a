"""StreamConsumer: every entry reaches its caller, after restarts, lost replies and destroyed groups too."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router import ConfigurationError, RedisRefused, RedisUnavailable, StreamConsumer
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.environment.streams import group_state

GROUP, STREAM = "mailer", "events:auth"
LONG_AGO_MS = 600_000
Record = tuple[str, str, dict[str, Any]]
ConsumerOf = Callable[[str], StreamConsumer]


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    made = Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol))
    yield made
    await made.aclose()


@pytest.fixture
def consumer_of(client: Redis) -> ConsumerOf:
    """The group's consumer of a name."""
    return lambda name: StreamConsumer(client, group=GROUP, consumer=name)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def behind_proxy(proxy: Proxy) -> AsyncIterator[StreamConsumer]:
    """A consumer whose client has redis-py's own retries, and a timeout far below the block."""
    async with Redis(port=proxy.port, socket_timeout=1) as client:
        yield StreamConsumer(client, group=GROUP, consumer="me")


async def first(records: AsyncIterator[Record], count: int, *, within: float = 10) -> list[Record]:
    """The next records of an iterator, which is closed then."""
    found: list[Record] = []
    async with asyncio.timeout(within), aclosing(records) as open_records:  # type: ignore[type-var]
        async for record in open_records:
            found.append(record)
            if len(found) == count:
                break
    return found


def consumed(consumer: StreamConsumer, records: int, /, **options: Any) -> Any:
    return first(consumer.consume(["auth"], **({"block_ms": 200} | options)), records)


def ids(records: list[Record]) -> list[str]:
    return [entry_id for _, entry_id, _ in records]


def add(client: redis.Redis, *entry_ids: str) -> list[str]:
    for entry_id in entry_ids:
        client.xadd(STREAM, {"n": entry_id}, id=entry_id)
    return list(entry_ids)


def deliver(client: redis.Redis, name: str, *entry_ids: str, idle_ms: int = 0) -> list[str]:
    """Add entries and give them to a consumer, idle for so long."""
    add(client, *entry_ids)
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    client.xreadgroup(GROUP, name, {STREAM: ">"}, count=10_000)
    words: list[str | int] = [STREAM, GROUP, name, 0, *entry_ids, "IDLE", idle_ms, "JUSTID"]
    client.execute_command("XCLAIM", *words)
    return list(entry_ids)


def pending(client: redis.Redis) -> list[tuple[str, str, int]]:
    found: list[dict[str, Any]] = client.xpending_range(STREAM, GROUP, min="-", max="+", count=10_000)
    return [(entry["message_id"], entry["consumer"], entry["times_delivered"]) for entry in found]


class TestFields:
    async def test_flat_fields_and_members_of_data_are_merged(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        redis_client.xadd(STREAM, {"type": "login", "user_id": "123"})
        members = {"type": "logout", "user_id": 7, "tags": ["a"], "data": "inner", "none": None}
        redis_client.xadd(STREAM, {"data": json.dumps(members), "type": "login"})
        records = await consumed(consumer_of("me"), 2)
        assert [fields for _, _, fields in records] == [
            {"type": "login", "user_id": "123"},
            {"type": "login", "user_id": 7, "tags": ["a"], "data": "inner", "none": None},
        ]

    @pytest.mark.parametrize(
        "data",
        ["no JSON", "[1, 2]", "7", "", '{"a": 1', pytest.param('{"a":' * 100_000, id="deep")],
    )
    async def test_data_that_is_no_object_is_yielded_as_it_is(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis, data: str
    ) -> None:
        redis_client.xadd(STREAM, {"type": "login", "data": data})
        ((_, _, fields),) = await consumed(consumer_of("me"), 1)
        assert fields == {"type": "login", "data": data}

    async def test_bytes_that_are_no_utf8_are_yielded_as_bytes(
        self, consumer_of: ConsumerOf, redis_bytes: redis.Redis
    ) -> None:
        redis_bytes.xadd(STREAM, {b"type": b"login", b"\xff": b"name", b"value": b"\xfe", b"data": b"\xfd"})
        ((_, _, fields),) = await consumed(consumer_of("me"), 1)
        assert fields == {"type": "login", "\udcff": "name", "value": b"\xfe", "data": b"\xfd"}


class TestConsume:
    async def test_new_entries_come_in_order_with_the_full_name(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        added = add(redis_client, "1-0", "2-0", "3-0")
        records = await consumed(consumer_of("me"), 3)
        assert [record[:2] for record in records] == [(STREAM, entry_id) for entry_id in added]

    async def test_several_streams_are_read(self, client: Redis, redis_client: redis.Redis) -> None:
        consumer = StreamConsumer(client, group=GROUP, consumer="me")
        for stream in ("events:auth", "events:chat:3", "events:info"):
            redis_client.xadd(stream, {"type": "x"})
        records = await first(consumer.consume(["auth", "events:chat:3", "info"]), 3)
        assert {stream for stream, _, _ in records} == {"events:auth", "events:chat:3", "events:info"}

    async def test_one_name_that_is_no_list_is_one_stream(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0")
        assert ids(await first(consumer_of("me").consume("auth"), 1)) == ["1-0"]

    async def test_it_waits_for_entries_to_come(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        reading = asyncio.create_task(consumed(consumer_of("me"), 2, block_ms=100))
        for entry_id in ("1-0", "2-0"):
            await asyncio.sleep(0.25)  # longer than a block
            add(redis_client, entry_id)
        assert ids(await reading) == ["1-0", "2-0"]

    async def test_what_was_pending_before_a_restart_comes_first(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        mine = deliver(redis_client, "me", *(f"{n}-0" for n in range(1, 8)))
        new = add(redis_client, "8-0", "9-0")
        records = await consumed(consumer_of("me"), 9, count=3)
        assert ids(records) == mine + new
        assert pending(redis_client)[:1] == [("1-0", "me", 2)]

    async def test_it_takes_nothing_from_others(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "other", "1-0", "2-0", idle_ms=LONG_AGO_MS)
        add(redis_client, "3-0")
        assert ids(await consumed(consumer_of("me"), 1)) == ["3-0"]

    async def test_pending_entries_that_were_trimmed_are_logged_and_acknowledged(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        deliver(redis_client, "me", "1-0", "2-0")
        redis_client.xdel(STREAM, "1-0")
        assert ids(await consumed(consumer_of("me"), 1)) == ["2-0"]
        assert [entry_id for entry_id, _, _ in pending(redis_client)] == ["2-0"]
        assert "entries of events:auth were trimmed while pending (1): ['1-0']" in caplog.messages

    async def test_it_ends_at_once_when_it_is_cancelled_and_loses_nothing(
        self, consumer_of: ConsumerOf, client: Redis, redis_client: redis.Redis
    ) -> None:
        consumer = consumer_of("me")
        await consumer.setup_group("auth")
        reading = asyncio.create_task(consumed(consumer, 1, block_ms=60_000))
        await asyncio.sleep(0.2)
        begin = time.monotonic()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert time.monotonic() - begin < 1
        add(redis_client, "1-0")
        assert ids(await consumed(consumer, 1)) == ["1-0"]

    @pytest.mark.parametrize("wrong", [{"block_ms": 0}, {"count": 0}])
    async def test_a_read_without_an_end_or_entries_is_refused(
        self, consumer_of: ConsumerOf, wrong: dict[str, int]
    ) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            await consumed(consumer_of("me"), 1, **wrong)

    async def test_no_streams_are_refused(self, consumer_of: ConsumerOf) -> None:
        with pytest.raises(ValueError, match="no streams"):
            await first(consumer_of("me").consume([]), 1)

    async def test_a_key_that_is_no_stream_is_said(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        redis_client.set(STREAM, "text")
        with pytest.raises(RedisRefused, match="WRONGTYPE"):
            await consumed(consumer_of("me"), 1)


class TestGroup:
    async def test_it_begins_with_the_first_entry(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0")
        assert await consumer_of("me").setup_group("auth") is True
        assert ids(await consumed(consumer_of("me"), 1)) == ["1-0"]

    async def test_it_may_exist(self, consumer_of: ConsumerOf, redis_client: redis.Redis) -> None:
        assert await consumer_of("me").setup_group("auth") is True
        add(redis_client, "1-0")
        redis_client.xreadgroup(GROUP, "other", {STREAM: ">"})
        assert await consumer_of("me").setup_group("events:auth") is False
        assert group_state(redis_client, STREAM, GROUP)["last-delivered-id"] == "1-0"

    async def test_a_key_that_is_no_stream_is_named(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        redis_client.set(STREAM, "text")
        with pytest.raises(RedisRefused, match=r"^events:auth: .*wrong kind"):
            await consumer_of("me").setup_group("auth")

    @pytest.mark.parametrize("destroy", ["the group", "everything"])
    async def test_one_destroyed_while_it_is_read_begins_anew(
        self,
        consumer_of: ConsumerOf,
        redis_client: redis.Redis,
        destroy: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        add(redis_client, "1-0")
        records = consumer_of("me").consume(["auth"], block_ms=5000)
        async with asyncio.timeout(10), aclosing(records) as open_records:  # type: ignore[type-var]
            assert (await anext(open_records))[1] == "1-0"
            following = asyncio.create_task(anext(open_records))  # type: ignore[arg-type]
            await asyncio.sleep(0.2)  # its read blocks
            if destroy == "everything":
                redis_client.flushall()
            else:
                redis_client.xgroup_destroy(STREAM, GROUP)
            add(redis_client, "2-0")
            again = [] if destroy == "everything" else ["1-0"]
            assert [(await following)[1]] == (again or ["2-0"])
            if again:
                assert (await anext(open_records))[1] == "2-0"
        # Redis 7.0 ends the blocked read with UNBLOCKED when the key is deleted, which is said too.
        assert caplog.messages[-1] == "group mailer of events:auth was destroyed and begins anew"


class TestAck:
    async def test_it_settles_an_entry_once(self, consumer_of: ConsumerOf, redis_client: redis.Redis) -> None:
        deliver(redis_client, "me", "1-0", "2-0")
        assert await consumer_of("me").ack("auth", "1-0") is True
        assert await consumer_of("me").ack("events:auth", "1-0") is False
        assert pending(redis_client) == [("2-0", "me", 1)]


class TestReclaim:
    async def test_it_walks_to_the_end_of_the_pending_list(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        gone = deliver(redis_client, "gone", *(f"{n}-0" for n in range(1, 26)), idle_ms=LONG_AGO_MS)
        found = await consumer_of("me").reclaim("auth", min_idle_ms=LONG_AGO_MS, count=10)
        assert [entry_id for entry_id, _ in found.entries] == gone
        assert found.entries[0] == ("1-0", {"n": "1-0"})
        assert found.deleted == []
        assert pending(redis_client) == [(entry_id, "me", 2) for entry_id in gone]

    async def test_it_passes_over_what_is_not_idle_for_long_enough(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "slow", *(f"{n}-0" for n in range(1, 26)), idle_ms=LONG_AGO_MS)
        words: list[str | int] = [STREAM, GROUP, "alive", 0, *(f"{n}-0" for n in range(1, 25)), "JUSTID"]
        redis_client.execute_command("XCLAIM", *words)
        found = await consumer_of("me").reclaim("auth", min_idle_ms=LONG_AGO_MS, count=5)
        assert [entry_id for entry_id, _ in found.entries] == ["25-0"]

    async def test_it_reports_deleted_entries_and_takes_them_off_the_list(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "gone", "1-0", "2-0", "3-0", idle_ms=LONG_AGO_MS)
        redis_client.xdel(STREAM, "1-0", "3-0")
        found = await consumer_of("me").reclaim("auth", min_idle_ms=1000)
        assert [entry_id for entry_id, _ in found.entries] == ["2-0"]
        assert found.deleted == ["1-0", "3-0"]
        assert pending(redis_client) == [("2-0", "me", 2)]

    async def test_it_takes_no_more_than_it_is_told(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "gone", *(f"{n}-0" for n in range(1, 26)), idle_ms=LONG_AGO_MS)
        me = consumer_of("me")
        sizes = [len((await me.reclaim("auth", min_idle_ms=1000, count=4, most=10)).entries) for _ in "1234"]
        assert sizes == [10, 10, 5, 0]

    async def test_of_two_only_one_gets_an_entry(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        gone = deliver(redis_client, "gone", *(f"{n}-0" for n in range(1, 200)), idle_ms=LONG_AGO_MS)
        found = await asyncio.gather(
            *(consumer_of(name).reclaim("auth", min_idle_ms=1000, count=10) for name in "ab")
        )
        assert sorted(entry_id for taken in found for entry_id, _ in taken.entries) == sorted(gone)

    async def test_what_was_reclaimed_is_found_after_a_restart(
        self, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "gone", "1-0", idle_ms=LONG_AGO_MS)
        await consumer_of("me").reclaim("auth", min_idle_ms=1000)
        assert ids(await consumed(consumer_of("me"), 1)) == ["1-0"]


class TestFaults:
    async def test_a_block_longer_than_the_client_s_timeout_is_one_read(
        self, behind_proxy: StreamConsumer, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        await behind_proxy.setup_group("auth")
        reading = asyncio.create_task(consumed(behind_proxy, 1, block_ms=5000))
        await asyncio.sleep(2)
        add(redis_client, "1-0")
        assert ids(await reading) == ["1-0"]
        assert proxy.requests["XREADGROUP"] == 1

    async def test_entries_whose_delivery_was_lost_are_found(
        self, behind_proxy: StreamConsumer, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0")
        records = behind_proxy.consume(["auth"], block_ms=200)
        async with asyncio.timeout(10), aclosing(records) as open_records:  # type: ignore[type-var]
            assert (await anext(open_records))[1] == "1-0"
            drop = proxy.drop_reply("XREADGROUP", reply=b"2-0")
            add(redis_client, "2-0", "3-0")
            # The first is in the caller's hands still, and not yielded again.
            assert [(await anext(open_records))[1] for _ in range(2)] == ["2-0", "3-0"]
            assert drop.dropped == 1
            add(redis_client, "4-0")
            assert (await anext(open_records))[1] == "4-0"

    async def test_entries_delivered_to_a_connection_given_up_are_found(
        self, behind_proxy: StreamConsumer, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0")
        records = behind_proxy.consume(["auth"], block_ms=200)
        async with asyncio.timeout(10), aclosing(records) as open_records:  # type: ignore[type-var]
            assert (await anext(open_records))[1] == "1-0"
            proxy.drop_reply("XREADGROUP", reply=b"2-0")
            add(redis_client, "2-0")
            assert (await anext(open_records))[1] == "2-0"
            # The server still has the read and gives it an entry, before any other reader gets it.
            with redis_client.pipeline(transaction=True) as transaction:
                transaction.xadd(STREAM, {"n": "3-0"}, id="3-0")
                transaction.xreadgroup(GROUP, "me", {STREAM: ">"})
                transaction.execute()
            add(redis_client, "4-0")
            # None of those in the caller's hands comes again.
            assert [(await anext(open_records))[1] for _ in range(2)] == ["4-0", "3-0"]
            add(redis_client, "5-0")
            assert (await anext(open_records))[1] == "5-0"

    async def test_it_waits_for_redis_to_come_back(
        self,
        behind_proxy: StreamConsumer,
        proxy: Proxy,
        redis_client: redis.Redis,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "event_router")
        await behind_proxy.setup_group("auth")
        reading = asyncio.create_task(consumed(behind_proxy, 1, block_ms=100))
        await asyncio.sleep(0.2)
        proxy.freeze()
        await asyncio.sleep(3)  # beyond the block and its margin
        assert not reading.done()
        proxy.thaw()
        add(redis_client, "1-0")
        assert ids(await reading) == ["1-0"]
        assert len(caplog.messages) == 2
        assert caplog.messages[0].startswith("reading is interrupted, trying again: no reply to XREADGROUP")
        assert caplog.messages[1].startswith("reading goes on after")

    async def test_a_lost_reply_to_reclaim_leaves_nothing_behind(
        self, behind_proxy: StreamConsumer, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        deliver(redis_client, "gone", "1-0", "2-0", idle_ms=LONG_AGO_MS)
        await behind_proxy.reclaim("auth", min_idle_ms=2 * LONG_AGO_MS)  # the server knows the script
        proxy.drop_reply("EVALSHA")
        with pytest.raises(Exception, match="no reply to EVALSHA"):
            await behind_proxy.reclaim("auth", min_idle_ms=1000)
        assert ids(await consumed(behind_proxy, 2)) == ["1-0", "2-0"]

    async def test_no_connection_stays_in_use(
        self, client: Redis, consumer_of: ConsumerOf, redis_client: redis.Redis
    ) -> None:
        add(redis_client, "1-0")
        await consumed(consumer_of("me"), 1)
        reading = asyncio.create_task(consumed(consumer_of("other"), 1, block_ms=60_000))
        await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert not client.connection_pool._in_use_connections  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("template", "name", "stream"),
    [
        ("events:{domain}", "auth", "events:auth"),
        ("events:{domain}", "events:auth", "events:auth"),
        ("events:{domain}", "chat:2", "events:chat:2"),
        ("events:{domain}", "events:chat:2", "events:chat:2"),
        ("{domain}:events:{shard}", "chat", "chat:events:0"),
        ("{domain}:events:{shard}", "chat:events:3", "chat:events:3"),
        ("{domain}", "orders", "orders"),
        ("{domain}", "orders:eu", "orders:eu"),
    ],
)
async def test_streams_are_named_by_their_domain_or_in_full(
    server: Server, redis_client: redis.Redis, template: str, name: str, stream: str
) -> None:
    async with Redis(port=server.port) as client:
        consumer = StreamConsumer(client, group=GROUP, consumer="me", stream_template=template)
        await consumer.setup_group(name)
    assert redis_client.keys() == [stream]


def test_a_template_without_a_domain_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"has no \{domain\}"):
        StreamConsumer(Redis(), group=GROUP, consumer="me", stream_template="events")


async def test_without_a_server_ack_and_reclaim_say_so() -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as client:
        consumer = StreamConsumer(client, group=GROUP, consumer="me")
        with pytest.raises(RedisUnavailable):
            await consumer.ack("auth", "1-0")
        with pytest.raises(RedisUnavailable):
            await consumer.reclaim("auth")

"""Notifications: kept once whatever becomes of replies, and shown within the user's limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from event_router import ConfigurationError, InvalidEvent, OutcomeUnknown, RedisRefused, RedisUnavailable
from event_router.patterns import Notifications
from event_router.testing import apply, event
from handlers.auth import AuthEventHandler
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

STREAM = "events:notification"
NOW_MS = 1_767_225_600_000
NOW = "2026-01-01T00:00:00.000Z"
DONE = {"type": "scan_complete", "title": "Señor", "count": 2, "tags": ["a"], "note": None}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port) as client:
        yield client


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def behind_proxy(proxy: Proxy) -> AsyncIterator[Redis]:
    async with Redis(port=proxy.port) as client:
        await client.ping()
        yield client


@pytest.fixture
async def nowhere() -> AsyncIterator[Redis]:
    async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as client:
        yield client


class Listener:
    """A subscriber of everything."""

    def __init__(self, client: redis.Redis) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe("*")
        self._pubsub.get_message(timeout=5)

    def messages(self) -> list[tuple[str, dict[str, Any]]]:
        """What was published until now: a message of our own comes after it."""
        client = redis.Redis(connection_pool=self._pubsub.connection_pool)
        client.publish("end", "")
        found: list[tuple[str, dict[str, Any]]] = []
        while True:
            message = self._pubsub.get_message(timeout=10)
            if message is None:
                continue
            if message["channel"] == "end":
                return found
            found.append((message["channel"], json.loads(message["data"])))

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def listener(redis_client: redis.Redis) -> Iterator[Listener]:
    listener = Listener(redis_client)
    yield listener
    listener.close()


def entries(client: redis.Redis) -> Any:
    return client.xrange(STREAM)


def made(streams: Redis, pubsub: Redis, **options: Any) -> Notifications:
    return Notifications(streams, pubsub, now_ms=lambda: NOW_MS, **options)


class TestNotifying:
    async def test_keeps_and_shows(
        self, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        found = await made(client, client, new_id=lambda: "n1").notify_user(7, DONE)
        ((stream_id, fields),) = entries(redis_client)
        assert fields == {
            "id": "n1",
            "timestamp": NOW,
            "type": "scan_complete",
            "user_id": "7",
            "title": "Señor",
            "count": "2",
            "tags": '["a"]',
        }
        assert (found.stream_id, found.id, found.live, found.receivers) == (stream_id, "n1", "delivered", 1)
        message = {**fields, "count": 2, "tags": ["a"]}
        assert listener.messages() == [("user:7", message), ("notifications", message)]

    async def test_takes_structs_and_fills_in_what_is_missing(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        class Hello(msgspec.Struct):
            text: str

        found = await made(client, client).notify_user("7", Hello("hello"))
        ((_, fields),) = entries(redis_client)
        assert fields == {
            "id": found.id,
            "timestamp": NOW,
            "type": "notification",
            "user_id": "7",
            "text": "hello",
        }

    async def test_has_the_shape_of_what_the_auth_handler_emits(
        self, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        days = [f"2025-12-0{day}T12:00:00.000Z" for day in range(1, 8)]
        handled = apply(
            AuthEventHandler(), [event("auth", "login", user_id="7", timestamp=day) for day in days]
        )
        (entry,) = handled.entries(STREAM)
        (shown,) = handled.messages("user:7")
        streak = {"type": "login_streak", "streak": 7, "day": "2025-12-07", "timestamp": days[-1]}
        found = await made(client, client).notify_user("7", streak)
        assert entries(redis_client) == [(found.stream_id, {**entry, "id": found.id})]
        message = {**shown, "id": found.id}
        assert listener.messages() == [("user:7", message), ("notifications", message)]

    async def test_trims_the_stream(self, client: Redis, redis_client: redis.Redis) -> None:
        with redis_client.pipeline() as pipeline:
            for _ in range(1_000):
                pipeline.xadd(STREAM, {"type": "older"})
            pipeline.execute()
        await made(client, client, maxlen=100).notify_user("7", {})
        assert 100 <= redis_client.xlen(STREAM) <= 200

    async def test_shows_no_more_than_the_limit_but_keeps_all(
        self, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        notifications = made(client, client, limit=2, window=60)
        found = await asyncio.gather(*(notifications.notify_user("7", {"n": n}) for n in range(5)))
        other = await notifications.notify_user("8", {})
        assert sorted(each.live for each in found) == ["delivered"] * 2 + ["limited"] * 3
        assert all(0 < each.retry_after <= 60 for each in found if each.live == "limited")
        assert other.live == "delivered"
        assert redis_client.xlen(STREAM) == 6
        assert len({each.stream_id for each in found}) == 5
        assert len(listener.messages()) == 2 * 3
        assert notifications.counts == {"delivered": 3, "limited": 3}

    async def test_limits_users_with_long_ids_too(self, client: Redis, redis_client: redis.Redis) -> None:
        notifications = made(client, client, limit=1)
        for user_id, live in (("x" * 512, "delivered"), ("x" * 512, "limited"), ("y" * 512, "delivered")):
            assert (await notifications.notify_user(user_id, {})).live == live

    async def test_counts_an_id_once(
        self, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        notifications = made(client, client)
        found = [await notifications.notify_user("7", {"id": "order-1"}) for _ in range(2)]
        assert found[0] == found[1]
        assert redis_client.xlen(STREAM) == 1
        assert [message["id"] for _, message in listener.messages()] == ["order-1"] * 4
        # One id for many users is one notification each, and ids run into no other's.
        for user_id, own in (("8", "order-1"), ("7:order", "1"), ("7", "order:1")):
            await notifications.notify_user(user_id, {"id": own})
        assert redis_client.xlen(STREAM) == 4
        for mark in redis_client.scan_iter("event-router:mark:notification:*"):
            assert 3_590_000 < redis_client.pttl(mark) <= 3_600_000

    @pytest.mark.parametrize(
        ("user_id", "notification", "problem"),
        [
            ("", {}, "empty identifier"),
            ("a\nb", {}, "control characters"),
            ("7", {"user_id": "8"}, "'7' is to be notified"),
            ("7", {"id": ""}, "empty identifier"),
            ("7", {"type": "a\nb"}, "control characters"),
            ("7", {"timestamp": "soon"}, "timestamp"),
            ("7", {"text": "x" * 70_000}, "at most"),
            ("7", {"thing": object()}, "thing"),
            ("7", {1: 2}, "sent"),
            ("7", ["no", "mapping"], "mapping"),
            ("7", {f"field-{n}": 1 for n in range(1_001)}, "at most"),
        ],
    )
    async def test_refuses_what_is_no_notification(
        self, client: Redis, redis_client: redis.Redis, user_id: Any, notification: Any, problem: str
    ) -> None:
        with pytest.raises(InvalidEvent, match=problem):
            await made(client, client).notify_user(user_id, notification)
        assert redis_client.dbsize() == 0

    @pytest.mark.parametrize("options", [{"limit": 0}, {"window": 0}, {"maxlen": 0}, {"dedupe_s": 0}])
    async def test_refuses_settings_that_are_not_possible(
        self, client: Redis, options: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError):
            Notifications(client, client, **options)


class TestLostReplies:
    async def test_of_the_entry_add_it_once(
        self, client: Redis, behind_proxy: Redis, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        notifications = made(behind_proxy, client)
        await notifications.notify_user("7", {})  # the script is known
        drop = proxy.drop_reply("EVALSHA", request=b"mark:notification")
        found = await notifications.notify_user("7", {"n": 2})
        assert (drop.dropped, found.live) == (1, "delivered")
        assert redis_client.xlen(STREAM) == 2
        assert entries(redis_client)[-1][0] == found.stream_id

    async def test_of_the_entry_twice_are_told_and_notifying_again_is_safe(
        self, client: Redis, behind_proxy: Redis, proxy: Proxy, redis_client: redis.Redis, listener: Listener
    ) -> None:
        notifications = made(behind_proxy, client)
        await notifications.notify_user("8", {})
        drop = proxy.drop_reply("EVALSHA", request=b"mark:notification", times=2)
        with pytest.raises(OutcomeUnknown, match="notification with id 'order-1'"):
            await notifications.notify_user("7", {"id": "order-1"})
        assert drop.dropped == 2
        assert "user:7" not in dict(listener.messages())
        found = await notifications.notify_user("7", {"id": "order-1"})
        assert redis_client.xlen(STREAM) == 2
        assert found.live == "delivered"

    async def test_of_the_entry_are_not_forgotten_when_redis_goes_down_then(
        self, client: Redis, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([OutcomeUnknown("no reply"), RedisUnavailable("no connection")])

        async def run(*_: object) -> bytes:
            raise next(answers)

        notifications = made(client, client)
        monkeypatch.setattr(notifications._add, "run", run)
        with pytest.raises(OutcomeUnknown, match="no connection"):
            await notifications.notify_user("7", {})

    async def test_of_the_limit_leave_it_unshown(
        self, client: Redis, behind_proxy: Redis, proxy: Proxy, redis_client: redis.Redis, listener: Listener
    ) -> None:
        notifications = made(client, behind_proxy)
        await notifications.notify_user("8", {})
        listener.messages()
        proxy.drop_reply("EVALSHA", request=b"rate-limit")
        assert (await notifications.notify_user("7", {})).live == "undelivered"
        assert listener.messages() == []
        assert redis_client.xlen(STREAM) == 2

    async def test_of_the_message_repeat_it_under_its_id(
        self, client: Redis, behind_proxy: Redis, proxy: Proxy, redis_client: redis.Redis, listener: Listener
    ) -> None:
        notifications = made(client, behind_proxy)
        await notifications.notify_user("8", {})
        listener.messages()
        drop = proxy.drop_reply("EVALSHA", request=b"user:7")
        found = await notifications.notify_user("7", {"id": "order-1"})
        assert (drop.dropped, found.live) == (1, "delivered")
        ids = [message["id"] for channel, message in listener.messages() if channel == "user:7"]
        assert ids == ["order-1", "order-1"]
        proxy.drop_reply("EVALSHA", request=b"user:7", times=2)
        assert (await notifications.notify_user("7", {})).live == "undelivered"
        assert redis_client.xlen(STREAM) == 3


class TestFaults:
    async def test_a_pubsub_redis_that_is_down_costs_nothing_durable(
        self, client: Redis, nowhere: Redis, redis_client: redis.Redis
    ) -> None:
        notifications = made(client, nowhere)
        found = await notifications.notify_user("7", {})
        assert (found.live, redis_client.xlen(STREAM)) == ("undelivered", 1)
        assert notifications.counts == {"undelivered": 1}

    async def test_a_frozen_pubsub_redis_is_given_up_in_time(
        self, client: Redis, new_server: ServerFactory, redis_client: redis.Redis
    ) -> None:
        frozen = new_server().start()
        async with Redis(port=frozen.port) as pubsub:
            notifications = made(client, pubsub, live_timeout_s=0.2)
            assert (await notifications.notify_user("7", {})).live == "delivered"
            frozen.freeze()
            async with asyncio.timeout(10):
                found = await asyncio.gather(*(notifications.notify_user("7", {}) for _ in range(30)))
            assert {each.live for each in found} == {"undelivered"}
            assert redis_client.xlen(STREAM) == 31
            frozen.thaw()

    async def test_a_frozen_streams_redis_is_told_in_time(
        self, client: Redis, new_server: ServerFactory, listener: Listener
    ) -> None:
        frozen = new_server().start()
        async with Redis(port=frozen.port) as streams:
            notifications = made(streams, client, timeout_s=0.2)
            await notifications.notify_user("8", {})
            listener.messages()
            frozen.freeze()
            with pytest.raises(OutcomeUnknown):
                async with asyncio.timeout(10):
                    await notifications.notify_user("7", {"id": "order-1"})
            assert listener.messages() == []
            frozen.thaw()
            # Whether or not the frozen server still got it, it counts once.
            await made(streams, client).notify_user("7", {"id": "order-1"})
            assert await streams.xlen(STREAM) == 2

    async def test_a_streams_redis_that_is_down_shows_nothing(
        self, client: Redis, nowhere: Redis, listener: Listener
    ) -> None:
        with pytest.raises(RedisUnavailable):
            await made(nowhere, client).notify_user("7", {})
        assert listener.messages() == []

    async def test_a_read_only_streams_redis_shows_nothing(
        self, client: Redis, new_server: ServerFactory, listener: Listener
    ) -> None:
        replica = new_server(options=["--replicaof", "127.0.0.1 1"]).start()
        async with Redis(port=replica.port) as streams:
            with pytest.raises(RedisUnavailable, match=r"READONLY|read only"):
                await made(streams, client).notify_user("7", {})
        assert listener.messages() == []

    async def test_a_stream_of_another_kind_is_named(
        self, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        redis_client.set(STREAM, "text")
        with pytest.raises(RedisRefused, match=rf"^{STREAM}, .*wrong kind"):
            await made(client, client).notify_user("7", {"id": "n1"})
        assert redis_client.keys() == [STREAM]
        assert listener.messages() == []

    async def test_a_missing_permission_adds_nothing_twice(
        self, server: Server, client: Redis, redis_client: redis.Redis
    ) -> None:
        redis_client.execute_command("ACL", "SETUSER", "n", "on", "nopass", "~*", "+@all", "-set")
        try:
            async with Redis(port=server.port, username="n", password="any") as streams:
                with pytest.raises(RedisUnavailable, match="SET"):
                    await made(streams, client).notify_user("7", {})
        finally:
            redis_client.execute_command("ACL", "DELUSER", "n")
        assert not redis_client.exists(STREAM)

    async def test_a_channel_that_is_not_permitted_shows_on_neither(
        self, server: Server, client: Redis, redis_client: redis.Redis, listener: Listener
    ) -> None:
        redis_client.execute_command(
            "ACL", "SETUSER", "n", "on", "nopass", "~*", "+@all", "resetchannels", "&user:*"
        )
        try:
            async with Redis(port=server.port, username="n", password="any") as pubsub:
                found = await made(client, pubsub).notify_user("7", {})
        finally:
            redis_client.execute_command("ACL", "DELUSER", "n")
        assert found.live == "undelivered"
        assert listener.messages() == []

    async def test_flushed_scripts_are_sent_again(self, client: Redis, redis_client: redis.Redis) -> None:
        notifications = made(client, client)
        for _ in range(2):
            redis_client.script_flush()
            assert (await notifications.notify_user("7", {})).live == "delivered"
        assert redis_client.xlen(STREAM) == 2

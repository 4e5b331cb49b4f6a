"""Presence as services use it: statuses, pages, expiry by several at once, and what fails how."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from redis.asyncio import Redis

from event_router import ConfigurationError, OutcomeUnknown, RedisRefused, RedisUnavailable, StateError
from event_router.core.timestamps import to_datetime
from event_router.patterns import Presence
from event_router.patterns.presence import Expired, PresenceChange, UserPresence
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.presence_bench import LOG, NOW_MS, PREFIX, with_clock

DAY_S = 86_400


class Clock:
    """The server's time, as a test sets it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.now_ms = NOW_MS
        self.pass_(0)

    @property
    def now(self) -> datetime:
        return to_datetime(self.now_ms)

    def pass_(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self._client.set("test:now", self.now_ms)


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    text, protocol = request.param.split(", RESP")
    async with Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol)) as made:
        yield made


@pytest.fixture
def clock(redis_client: redis.Redis) -> Clock:
    return Clock(redis_client)


@pytest.fixture
def presence(client: Redis, clock: Clock) -> Presence:
    return with_clock(Presence(client))


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


def announced(client: redis.Redis) -> list[tuple[str, str]]:
    """(user, status) of every message in the fan-out log."""
    messages = [json.loads(fields["message"]) for _, fields in client.xrange(LOG)]
    return [(message["user_id"], message["status"]) for message in messages]


class TestUpdate:
    async def test_tells_of_changes_only(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        assert await presence.update(7) == PresenceChange("7", "offline", "online")
        clock.pass_(30)
        assert await presence.update("7") is None
        assert await presence.update("7", "away") == PresenceChange("7", "online", "away")
        assert await presence.update("7", "offline") == PresenceChange("7", "away", "offline")
        assert await presence.update("7", "offline") is None
        assert announced(redis_client) == [("7", "online"), ("7", "away"), ("7", "offline")]

    async def test_messages_are_of_the_fan_out_log(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        await presence.update('a/"ü"\\', at=clock.now - timedelta(seconds=1.5))
        ((_, fields),) = redis_client.xrange(LOG)
        assert fields.pop("message") == (
            '{"timestamp":"2026-01-01T00:00:00.000Z","type":"presence","user_id":"a/\\"ü\\"\\\\",'
            '"status":"online","previous":"offline","last_seen":"2025-12-31T23:59:58.500Z"}'
        )
        assert fields == {"channel": "presence", "type": "presence"}

    @pytest.mark.parametrize(
        "moment",
        [
            "1970-01-01T00:00:00.001Z",
            "2000-02-29T12:34:56.789Z",
            "2024-12-31T23:59:59.999Z",
            "2100-03-01T00:00:00.000Z",
        ],
    )
    async def test_times_in_messages(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis, moment: str
    ) -> None:
        clock.now_ms = round(datetime.fromisoformat(moment).timestamp() * 1000)
        clock.pass_(0)
        await presence.update("7")
        assert json.loads(redis_client.xrange(LOG)[-1][1]["message"])["timestamp"] == moment

    async def test_busy_is_above_online_above_away(self, presence: Presence) -> None:
        await presence.update("7", "away", connection="tablet")
        await presence.update("7", "busy", connection="laptop")
        await presence.update("7", "online", connection="phone")
        assert (await presence.get("7")).status == "busy"
        await presence.update("7", "offline", connection="laptop")
        assert (await presence.get("7")).status == "online"
        await presence.update("7", "offline", connection="phone")
        assert (await presence.get("7")).status == "away"

    async def test_offline_without_a_connection_ends_all_of_them(
        self, presence: Presence, clock: Clock
    ) -> None:
        for connection in ("phone", "laptop", None):
            await presence.update("7", connection=connection)
        clock.pass_(1)
        assert await presence.update("7", "offline") == PresenceChange("7", "online", "offline")
        assert await presence.update("7", connection="late", at=clock.now_ms - 500) is None
        assert await presence.update("7", connection="phone")

    async def test_what_is_older_than_what_is_known_changes_nothing(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        await presence.update("7", "busy", at=clock.now)
        assert await presence.update("7", "offline", connection="phone", at=clock.now_ms - 1) is None
        assert await presence.update("7", "away", at=clock.now_ms - 1) is None
        assert await presence.get("7") == UserPresence("7", "busy", clock.now, 1)
        assert announced(redis_client) == [("7", "busy")]

    async def test_what_has_lapsed_changes_last_seen_only(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        at = clock.now - timedelta(seconds=60)
        assert await presence.update("7", at=at) is None
        assert await presence.get("7") == UserPresence("7", "offline", at, 0)
        assert await presence.count() == 0
        assert announced(redis_client) == []

    async def test_a_clock_that_is_ahead_keeps_nobody_online(self, presence: Presence, clock: Clock) -> None:
        await presence.update("7", at=clock.now + timedelta(hours=20))
        assert (await presence.get("7")).last_seen == clock.now
        clock.pass_(60)
        assert (await presence.get("7")).status == "offline"

    async def test_of_two_in_one_millisecond_the_second_counts(
        self, presence: Presence, clock: Clock
    ) -> None:
        for status in ("online", "offline", "busy", "away", "offline", "online"):
            for connection in ("phone", None):
                await presence.update("7", status, connection=connection)  # type: ignore[arg-type]
            assert await presence.get("7") == UserPresence(
                "7",
                status,
                clock.now,
                0 if status == "offline" else 2,  # type: ignore[arg-type]
            )

    @pytest.mark.parametrize(
        ("user", "arguments", "what"),
        [
            ("", {}, "user_id"),
            ("a\nb", {}, "user_id"),
            ("7", {"status": "here"}, "'here' is none of online, away, busy, offline"),
            ("7", {"connection": ""}, "connection"),
            ("7", {"connection": "x" * 513}, "connection"),
            ("7", {"at": "yesterday"}, "at: 'yesterday'"),
            ("7", {"at": -1}, "at: -1"),
        ],
    )
    async def test_refuses(
        self, presence: Presence, redis_client: redis.Redis, user: str, arguments: dict[str, str], what: str
    ) -> None:
        with pytest.raises(StateError, match=what):
            await presence.update(user, **arguments)  # type: ignore[arg-type]
        assert redis_client.keys(f"{PREFIX}*") == []


class TestReading:
    async def test_lapsed_users_are_offline_before_anybody_notices(
        self, presence: Presence, clock: Clock
    ) -> None:
        begin = clock.now
        await presence.update("7")
        await presence.update("8")
        clock.pass_(30)
        await presence.update("8", connection="phone")
        clock.pass_(29.999)
        assert await presence.count() == 2
        clock.pass_(0.001)
        assert await presence.count() == 1
        assert await presence.get("7") == UserPresence("7", "offline", begin, 0)
        (user,) = (await presence.online_users()).users
        assert user == UserPresence("8", "online", begin + timedelta(seconds=30), 1)

    async def test_pages_hold_everybody_once(self, presence: Presence, redis_client: redis.Redis) -> None:
        ids = sorted((f"user-{number}" for number in range(95)), key=str.encode)
        for user in ids:
            await presence.update(user)
        found: list[str] = []
        after = None
        while True:
            page = await presence.online_users(after=after, limit=10)
            assert len(page.users) == 10 or page.next is None
            found += [user.user_id for user in page.users]
            if (after := page.next) is None:
                break
            await presence.update(found[-1], "away")  # a heartbeat moves nobody to another page
        assert found == ids
        kept = ("connections", "users", "names", "seen")
        assert set(redis_client.scan_iter("event-router:*")) == {PREFIX + name for name in kept}

    async def test_pages_are_filled_beyond_those_who_lapsed(self, presence: Presence, clock: Clock) -> None:
        for number in range(30):
            await presence.update(f"a{number}")
        clock.pass_(60)
        for number in range(5):
            await presence.update(f"b{number}")
        page = await presence.online_users(limit=3)
        assert [user.user_id for user in page.users] == ["b0", "b1", "b2"]
        page = await presence.online_users(after=page.next, limit=3)
        assert [user.user_id for user in page.users] == ["b3", "b4"]
        assert page.next is None

    async def test_refuses(self, presence: Presence) -> None:
        for limit in (0, 10_001, 1.5):
            with pytest.raises(StateError, match="page"):
                await presence.online_users(limit=limit)  # type: ignore[arg-type]
        with pytest.raises(StateError, match="user_id"):
            await presence.get("")


class TestExpire:
    async def test_announces_who_vanished_once(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        await presence.update("7")
        await presence.update("8", "busy", connection="a")
        clock.pass_(40)
        await presence.update("8", "online", connection="b")
        assert await presence.expire() == Expired(0, 0)
        clock.pass_(20)
        assert await presence.expire() == Expired(2, 2)
        assert await presence.expire() == Expired(0, 0)
        clock.pass_(40)
        assert await presence.expire() == Expired(1, 1)
        told = [("7", "online"), ("8", "busy"), ("7", "offline"), ("8", "online"), ("8", "offline")]
        assert announced(redis_client) == told
        assert redis_client.keys(f"{PREFIX}*") == [f"{PREFIX}seen"]

    async def test_who_comes_back_in_time_is_not_told_of(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        await presence.update("7")
        clock.pass_(61)
        assert await presence.update("7") is None
        assert await presence.expire() == Expired(0, 0)
        assert announced(redis_client) == [("7", "online")]

    async def test_several_at_once_announce_each_change_once(
        self, server: Server, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        users = {f"user-{number}" for number in range(120)}
        for user in users:
            await presence.update(user)
        clock.pass_(60)
        async with Redis(port=server.port) as other:
            pods = [presence, with_clock(Presence(other))]
            done = await asyncio.gather(*(pod.expire(limit=25) for pod in pods * 5))
        assert sum(expired.changed for expired in done) == 120
        gone = [user for user, status in announced(redis_client) if status == "offline"]
        assert len(gone) == 120
        assert set(gone) == users

    async def test_who_is_due_twice_is_taken_once(
        self, presence: Presence, clock: Clock, redis_client: redis.Redis
    ) -> None:
        await presence.update("7", "busy", connection="a")
        clock.pass_(1)
        await presence.update("7", connection="b")
        clock.pass_(60)
        assert await presence.expire() == Expired(1, 1)
        assert announced(redis_client) == [("7", "busy"), ("7", "offline")]

    async def test_last_seen_is_forgotten_in_time(self, client: Redis, clock: Clock) -> None:
        presence = with_clock(Presence(client, last_seen_s=DAY_S))
        for user in ("7", "8"):
            await presence.update(user, "offline", connection="a", at=clock.now_ms - 70_000)
        await presence.update("8")
        clock.pass_(DAY_S - 70)
        assert await presence.expire(limit=1) == Expired(1, 1)
        assert (await presence.get("7")).last_seen
        assert await presence.expire() == Expired(1, 0)
        assert (await presence.get("7")).last_seen is None
        assert (await presence.get("8")).last_seen

    async def test_a_longer_life_than_the_writer_meant_ends_too(self, client: Redis, clock: Clock) -> None:
        await with_clock(Presence(client, ttl_s=10)).update("7")
        longer = with_clock(Presence(client, ttl_s=20))
        clock.pass_(10)
        assert await longer.expire() == Expired(1, 0)
        assert await longer.expire() == Expired(0, 0)
        clock.pass_(10)
        assert await longer.expire() == Expired(1, 1)


class TestTrouble:
    @pytest.mark.parametrize(
        "key", [LOG, *(PREFIX + name for name in ("connections", "users", "names", "due", "seen"))]
    )
    async def test_a_key_of_another_type_is_named_and_nothing_written(
        self, presence: Presence, redis_client: redis.Redis, key: str
    ) -> None:
        redis_client.set(key, "text")
        for call in (presence.update("7"), presence.expire()):
            with pytest.raises(RedisRefused, match=f"key '{key}' is a string, not a "):
                await call
        assert set(redis_client.keys()) == {"test:now", key}

    async def test_a_log_that_takes_no_more_stops_nobody(
        self, presence: Presence, redis_client: redis.Redis
    ) -> None:
        redis_client.xadd(LOG, {"a": "b"}, id="18446744073709551615-18446744073709551615")
        assert await presence.update("7")
        assert (await presence.get("7")).status == "online"

    @pytest.mark.parametrize("missing", ["-zadd", "-xadd", "-hset", "-zrem", "-type"])
    async def test_a_missing_permission_writes_nothing(
        self, server: Server, redis_client: redis.Redis, missing: str
    ) -> None:
        redis_client.acl_setuser("guest", enabled=True, nopass=True, keys=["*"], commands=["+@all", missing])
        try:
            async with Redis(port=server.port, username="guest", password="x") as guest:
                with pytest.raises(RedisUnavailable, match=f"(?i){missing[1:]}"):
                    await Presence(guest).update("7")
            assert redis_client.keys() == []
        finally:
            redis_client.acl_deluser("guest")

    @pytest.mark.once
    async def test_a_lost_reply_is_said_and_updating_again_is_safe(
        self, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        async with Redis(port=proxy.port) as client:
            presence = Presence(client)
            await presence.update("0")  # the script is known from here on
            proxy.drop_reply("EVALSHA")
            with pytest.raises(OutcomeUnknown):
                await presence.update("7")
            assert await presence.update("7") is None
        assert announced(redis_client) == [("0", "online"), ("7", "online")]

    @pytest.mark.once
    async def test_a_server_that_does_not_answer_holds_nobody(self, proxy: Proxy) -> None:
        async with Redis(port=proxy.port) as client:
            presence = Presence(client, timeout_s=0.2)
            proxy.freeze()
            with pytest.raises((OutcomeUnknown, RedisUnavailable)):
                await presence.update("7")

    def test_refuses_what_cannot_be(self) -> None:
        for wrong in ({"ttl_s": 0}, {"ttl_s": 90_000}, {"last_seen_s": 1}, {"outbox_maxlen": 0}):
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                Presence(Redis(), **wrong)  # type: ignore[arg-type]


async def test_time_is_the_servers(client: Redis) -> None:
    presence = Presence(client)
    before = datetime.now(UTC)
    await presence.update("7", connection="phone")
    found = await presence.get("7")
    assert found.last_seen
    assert abs(found.last_seen - before) < timedelta(seconds=60)
    assert (found.status, await presence.count(), repr(presence)) == (
        "online",
        1,
        "<Presence ttl 60 s, announced on 'presence'>",
    )

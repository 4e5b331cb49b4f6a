"""EventSubscriber with handlers: who is called with what, and what becomes of errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import redis
from redis.asyncio import Redis

from event_router import (
    ConfigurationError,
    EventPublisher,
    EventSubscriber,
    Gap,
    InvalidMessage,
    Message,
    UndecodableMessage,
)
from event_router.messaging.on_error import OnError
from tests.environment.servers import Server
from tests.integration.pubsub_cases import Noted, until


class Login(msgspec.Struct):
    user_id: str


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(port=server.port) as made:
        yield made


@pytest.fixture
def redis_bytes(server: Server) -> Iterator[redis.Redis]:
    with server.client(decode_responses=False) as made:
        yield made


@contextlib.asynccontextmanager
async def running(subscriber: EventSubscriber) -> AsyncIterator[asyncio.Task[None]]:
    """A subscriber whose handlers run, closed at the end."""
    task = asyncio.create_task(subscriber.run())
    try:
        await until(lambda: subscriber.connected or task.done())
        yield task
    finally:
        await subscriber.close()
        await asyncio.wait([task], timeout=10)
        assert task.done()


async def test_each_gets_its_messages_with_the_channel_if_it_wants_it(client: Redis) -> None:
    subscriber, publisher = EventSubscriber(client), EventPublisher(client)
    heard: list[Any] = []

    @subscriber.on("notifications")
    async def notified(message: dict[str, Any]) -> None:
        heard.append(("notified", message["n"]))

    @subscriber.on("events.*")
    async def event(message: dict[str, Any], channel: str) -> None:
        heard.append(("event", message["n"], channel))

    @subscriber.on("events:login", "user:1", data_type=Login)
    async def login(message: Login, channel: str) -> None:
        heard.append(("login", message, channel))

    @subscriber.on("presence")
    async def whole(message: Message) -> None:
        heard.append(("whole", message.data["n"], message.type, bool(message.id)))

    async with running(subscriber):
        await publisher.publish("notifications", {"n": 1})
        await publisher.publish("events.logout", {"n": 2})
        await publisher.publish("presence", {"n": 3, "type": "online"})
        await publisher.publish("user:1", {"user_id": "1"})
        await publisher.publish("events:login", {"n": 4, "user_id": "2"})
        await until(lambda: len(heard) == 6)
    assert heard[:4] == [
        ("notified", 1),
        ("event", 2, "events:logout"),
        ("whole", 3, "online", True),
        ("login", Login("1"), "user:1"),
    ]
    # Redis sends it once for the channel and once for the pattern, in either order.
    assert [call for call in heard[4:] if call[0] == "event"] == [("event", 4, "events:login")]
    assert [call for call in heard[4:] if call[0] == "login"] == [("login", Login("2"), "events:login")]


async def test_types_come_from_annotations(client: Redis) -> None:
    subscriber = EventSubscriber(client)
    heard: list[object] = []
    subscriber.on("events:login")(typed_by_annotation(heard))
    async with running(subscriber):
        await EventPublisher(client).publish("events:login", {"user_id": "7"})
        await until(lambda: heard)
    assert heard == [Login("7")]


def typed_by_annotation(heard: list[object]) -> Any:
    async def login(message: Login) -> None:
        heard.append(message)

    return login


class TestRegistering:
    async def test_refuses_what_cannot_be_a_handler(self, client: Redis) -> None:
        subscriber = EventSubscriber(client)

        def plain(message: Any) -> None: ...

        async def nothing() -> None: ...

        async def three(message: Any, channel: str, more: int) -> None: ...

        async def local(message: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        for function, why in (
            (plain, "must be an async function"),
            (nothing, "takes 0 arguments"),
            (three, "takes 3 arguments"),
            (local, "data_type="),
        ):
            with pytest.raises(ConfigurationError, match=why):
                subscriber.on("a")(function)  # type: ignore[type-var]
        with pytest.raises(ConfigurationError, match="name a channel"):
            subscriber.on()
        with pytest.raises(InvalidMessage):
            subscriber.on("chat:[")

    @pytest.mark.parametrize(
        "wrong", [{"connection": "skip"}, {"undecodable": "retry"}, {"handler": "ignore"}]
    )
    def test_refuses_actions_that_make_no_sense(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} cannot be"):
            OnError(**wrong)


class TestErrors:
    async def test_a_raising_handler_is_counted_and_skipped(
        self, client: Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        noted = Noted()
        subscriber, publisher = EventSubscriber(client, observer=noted), EventPublisher(client)
        heard: list[int] = []

        @subscriber.on("notifications")
        async def fragile(message: dict[str, Any]) -> None:
            heard.append(message["n"])
            if message["n"] < 3:
                raise RuntimeError("no")

        async with running(subscriber):
            for number in range(4):
                await publisher.publish("notifications", {"n": number})
            await until(lambda: noted.counts["processed", "notifications", "fragile"] == 4)
        assert heard == [0, 1, 2, 3]
        assert noted.counts["failed", "notifications", "fragile"] == 3
        assert noted.counts["dropped", "notifications"] == 3
        assert noted.counts["received", "notifications", ""] == 4
        assert len([record for record in caplog.records if "RuntimeError: no" in record.message]) == 1

    async def test_a_handler_is_tried_again_if_wished(self, client: Redis) -> None:
        noted = Noted()
        subscriber = EventSubscriber(client, observer=noted, on_error=OnError(handler="retry"))
        heard: list[int] = []

        @subscriber.on("notifications")
        async def fragile(message: dict[str, Any]) -> None:
            heard.append(message["n"])
            if message["n"] == 1 or heard.count(2) == 1:
                raise RuntimeError("no")

        async with running(subscriber):
            for number in (1, 2, 3):
                await EventPublisher(client).publish("notifications", {"n": number})
            await until(lambda: 3 in heard)
        assert heard == [1, 1, 1, 2, 2, 3]
        assert noted.counts["failed", "notifications", "fragile"] == 4
        assert noted.counts["dropped", "notifications"] == 1

    async def test_an_error_can_stop_it_and_be_chosen_by_what_it_is(self, client: Redis) -> None:
        subscriber = EventSubscriber(
            client,
            on_error=OnError(handler=lambda error: "stop" if isinstance(error, KeyError) else "skip"),
        )
        heard: list[int] = []

        @subscriber.on("a")
        async def fragile(message: dict[str, Any]) -> None:
            heard.append(message["n"])
            raise KeyError("n") if message["n"] == 2 else RuntimeError("no")

        async with running(subscriber) as task:
            for number in (1, 2, 3):
                await EventPublisher(client).publish("a", {"n": number})
            with pytest.raises(KeyError):
                await asyncio.wait_for(task, 10)
        assert heard == [1, 2]

    async def test_a_handler_that_takes_too_long_is_cancelled(self, client: Redis) -> None:
        noted = Noted()
        subscriber = EventSubscriber(client, handler_timeout_s=0.05, observer=noted)
        heard: list[int] = []

        @subscriber.on("a")
        async def slow(message: dict[str, Any]) -> None:
            heard.append(message["n"])
            if message["n"] == 1:
                await asyncio.Event().wait()

        async with running(subscriber):
            for number in (1, 2):
                await EventPublisher(client).publish("a", {"n": number})
            await until(lambda: heard == [1, 2])
        assert noted.counts["failed", "other", "slow"] == 1

    async def test_undecodable_messages_are_skipped_or_stop_it(
        self, client: Redis, redis_bytes: redis.Redis
    ) -> None:
        noted = Noted()
        subscriber = EventSubscriber(client, observer=noted)
        heard: list[str] = []

        async def login(message: Login) -> None:
            heard.append(message.user_id)

        subscriber.on("a")(login)
        async with running(subscriber):
            for payload in (b"no JSON", b'{"user_id": 7}', b'{"user_id": "7"}'):
                redis_bytes.publish("a", payload)
            await until(lambda: heard == ["7"])
        assert noted.counts["undecodable", "other"] == 2
        strict = EventSubscriber(client, on_error=OnError(undecodable="stop"))
        strict.on("a")(login)
        async with running(strict) as task:
            redis_bytes.publish("a", b"no JSON")
            with pytest.raises(UndecodableMessage):
                await asyncio.wait_for(task, 10)

    async def test_a_slow_handler_makes_a_gap_that_handlers_of_gaps_hear_of(
        self, client: Redis, redis_bytes: redis.Redis
    ) -> None:
        noted, go_on = Noted(), asyncio.Event()
        subscriber = EventSubscriber(client, buffer_size=2, observer=noted)
        heard: list[Any] = []

        @subscriber.on("a")
        async def slow(message: dict[str, Any]) -> None:
            heard.append(message["n"])
            await go_on.wait()

        @subscriber.on_gap
        async def gap(gap: Gap) -> None:
            heard.append(gap)
            raise RuntimeError("no")

        async with running(subscriber):
            redis_bytes.publish("a", b'{"n": 0}')
            await until(lambda: heard == [0])
            for number in range(1, 6):
                redis_bytes.publish("a", b'{"n": %d}' % number)
            await until(lambda: noted.counts["dropped", "other"] == 3)
            go_on.set()
            await until(lambda: len(heard) == 4)
        assert heard == [0, Gap(3), 4, 5]

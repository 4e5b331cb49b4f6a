"""A relay publishes a fan-out log in its order, once or again under the old id, whoever leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from event_router.core.fan_out import Progress
from event_router.messaging.relay import READ_COUNT
from event_router.messaging.relay_lease import Held, Lead
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.relays import (
    DOMAIN,
    KEY,
    LEASE_S,
    LOOK_S,
    OUTBOX,
    Pod,
    Watcher,
    lease_is_over,
    log,
    until,
)

PodFactory = Callable[..., Pod]


@pytest.fixture
async def new_pod(server: Server) -> AsyncIterator[PodFactory]:
    made: list[Pod] = []

    def make(name: str = "a", streams_url: str = server.url, pubsub_url: str = server.url) -> Pod:
        made.append(Pod(name, streams_url, pubsub_url))
        return made[-1]

    yield make
    for pod in made:
        await pod.close()


@pytest.fixture
async def watcher(server: Server) -> AsyncIterator[Watcher]:
    async with Watcher(server.port) as watcher:
        yield watcher


async def test_messages_come_in_order_with_the_id_of_their_entry(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    pod = new_pod()
    pod.service.start()
    count = 3 * READ_COUNT + 7
    ids = log(redis_client, 0, count)
    await until(lambda: len(watcher.messages) == count)
    assert watcher.ns() == list(range(count))
    assert [message["id"] for message in watcher.messages] == ids
    assert watcher.messages[4] == {
        "id": ids[4],
        "domain": DOMAIN,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "n": 4,
        "channel": "chat:1",
    }
    assert pod.told.published[4] == ("chat:1", "progress")
    assert not pod.told.dropped
    await until(lambda: redis_client.hget(KEY, "published") == ids[-1])
    assert redis_client.hget(KEY, "seen") == str(count)


@pytest.mark.once
async def test_an_id_of_the_handler_makes_way_and_a_domain_stays(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    message = '{"id":"mine","n":0,"domain":"own","text":"\u00e4\\u0001"}'
    entry_id = redis_client.xadd(OUTBOX, {"channel": "updates", "type": "t", "message": message})
    new_pod().service.start()
    await until(lambda: watcher.messages)
    assert watcher.messages == [
        {"id": entry_id, "n": 0, "domain": "own", "text": "ä\u0001", "channel": "updates"}
    ]


@pytest.mark.once
async def test_what_can_never_be_published_is_dropped_and_told(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    log(redis_client, 0, 1)
    redis_client.xadd(OUTBOX, {"channel": "updates", "type": "t", "message": "[1]"})
    redis_client.xadd(OUTBOX, {"channel": "updates", "type": "t", "message": b"\xff{"})
    redis_client.xadd(OUTBOX, {"message": "{}"})
    log(redis_client, 1, 2)
    pod = new_pod()
    pod.service.start()
    await until(lambda: watcher.ns() == [0, 1])
    assert [channel for channel, _ in pod.told.dropped] == ["updates", "updates", ""]


@pytest.mark.once
async def test_one_leads_and_the_other_takes_over_when_it_stops(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    first, second = new_pod("a"), new_pod("b")
    first.service.start()
    await until(lambda: first.relay.leads)
    second.service.start()
    log(redis_client, 0, 50)
    await until(lambda: len(watcher.messages) == 50)
    await first.service.stop()
    assert redis_client.hget(KEY, "until") == "0" or second.relay.leads, "the lease was given back"
    log(redis_client, 50, 100)
    await until(lambda: len(watcher.messages) == 100)
    assert watcher.ns() == list(range(100)), "a clean change of leaders repeats nothing"
    assert second.told.leading[0] > first.told.leading[0]
    assert first.service.roles() == {OUTBOX: "stands by"}
    assert second.service.roles() == {OUTBOX: "leads"}


async def test_a_stop_publishes_what_is_in_the_log_and_frees_the_lease(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    pod = new_pod()
    pod.service.start()
    await until(lambda: pod.relay.leads)
    ids = log(redis_client, 0, 5 * READ_COUNT)
    await pod.service.stop()
    await until(lambda: len(watcher.messages) == len(ids))
    assert redis_client.hgetall(KEY)["published"] == ids[-1]
    assert redis_client.hget(KEY, "until") == "0"


@pytest.mark.once
async def test_a_leader_that_is_gone_is_followed_within_the_lease(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    first, second = new_pod("a"), new_pod("b")
    assert await first.relay.take() is None  # and it never does anything again
    second.service.start()
    log(redis_client, 0, 10)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await until(lambda: len(watcher.messages) == 10)
    assert loop.time() - begun < LEASE_S + LOOK_S + 1
    assert watcher.ns() == list(range(10))


async def test_an_outdated_leader_changes_nothing(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    ids = log(redis_client, 0, 30)
    first, second = new_pod("a"), new_pod("b")
    stale = await first.lease.take()
    assert isinstance(stale, Lead)
    assert isinstance(await second.lease.take(), Held)
    await until(lambda: lease_is_over(redis_client))
    second.service.start()
    await until(lambda: redis_client.hget(KEY, "published") == ids[-1])
    before = redis_client.hgetall(KEY)
    for entry_id in (ids[3], ids[-1], "9999999999999-0"):
        assert not await first.lease.keep(stale.token, Progress(entry_id, 4))
        assert not await first.lease.give_back(stale.token, Progress(entry_id, 4))
    after = redis_client.hgetall(KEY)
    assert {name: after[name] for name in ("token", "published", "seen", "holder")} == {
        name: before[name] for name in ("token", "published", "seen", "holder")
    }
    assert int(after["until"]) >= int(before["until"])


@pytest.mark.once
async def test_a_leader_that_slept_beyond_its_lease_publishes_nothing_more(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    first, second = new_pod("a"), new_pod("b")
    assert await first.relay.take() is None
    log(redis_client, 0, 5)
    _, entries = await first.relay._outbox.survey("0-0", count=READ_COUNT)
    await until(lambda: lease_is_over(redis_client))
    second.service.start()
    await until(lambda: len(watcher.messages) == 5)
    await first.relay._publish(entries)  # as it goes on when it wakes
    assert not first.told.published
    assert not first.relay.leads
    assert watcher.ns() == list(range(5))


async def test_progress_never_goes_back(new_pod: PodFactory, redis_client: redis.Redis) -> None:
    pod = new_pod()
    lead = await pod.lease.take()
    assert isinstance(lead, Lead)
    for entry_id, stored in (
        ("5-1", "5-1"),
        ("4-9", "5-1"),
        ("5-0", "5-1"),
        ("10-0", "10-0"),
        ("9-0", "10-0"),
    ):
        assert await pod.lease.keep(lead.token, Progress(entry_id, 1))
        assert redis_client.hget(KEY, "published") == stored


@pytest.mark.once
async def test_a_lost_reply_costs_no_lead(
    server: Server, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    with Proxy(server.port) as proxy:
        pod = new_pod("a", proxy.url)
        dropped = proxy.drop_reply("EVAL", request=b"Takes the lead")
        pod.service.start()
        log(redis_client, 0, 3)
        await until(lambda: watcher.ns() == [0, 1, 2], within=LEASE_S + 2)
        assert dropped.dropped == 1
        assert len(pod.told.leading) == 1
        await pod.service.stop()


@pytest.mark.once
async def test_connections_that_are_cut_lose_no_message(
    server: Server, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    with Proxy(server.port) as proxy:
        pod = new_pod("a", proxy.url, proxy.url)
        pod.service.start()
        for part in range(4):
            log(redis_client, part * 20, part * 20 + 20)
            await until(lambda part=part: len(watcher.first_times()) > part * 20)
            await asyncio.to_thread(proxy.cut)
        await until(lambda: len(watcher.first_times()) == 80)
        assert watcher.first_times() == list(range(80))
        assert pod.told.news == ["leads"], "what only a broken connection changes is no news"
        await pod.service.stop()


async def test_an_outage_in_which_another_takes_the_lead_is_a_change_of_leaders(
    server: Server, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    with Proxy(server.port) as proxy:
        first, second = new_pod("a", proxy.url), new_pod("b")
        first.service.start()
        await until(lambda: first.relay.leads)
        proxy.freeze()
        await asyncio.to_thread(proxy.cut)
        await until(lambda: not first.relay.leads)
        second.service.start()
        await until(lambda: second.relay.leads)
        assert first.told.news == ["leads"]
        await asyncio.to_thread(proxy.thaw)
        await until(lambda: len(first.told.news) > 1)
        assert first.told.news == ["leads", "stands by: another one leads"]
        assert second.told.news == ["leads"]
        await first.service.stop()


@pytest.mark.once
async def test_a_lost_reply_to_publish_repeats_messages_with_their_ids(
    server: Server, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    with Proxy(server.port) as proxy:
        pod = new_pod("a", pubsub_url=proxy.url)
        proxy.drop_reply("PUBLISH", request=b"chat:2")
        ids = log(redis_client, 0, 6)
        pod.service.start()
        await until(lambda: pod.outages.lines == ["began publish", "ended"])
        assert len(watcher.messages) > 6
        assert watcher.first_times() == list(range(6))
        assert {message["id"] for message in watcher.messages} == set(ids)
        await pod.service.stop()


@pytest.mark.once
async def test_a_leader_that_alone_cannot_publish_lets_another_try(
    server: Server, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
) -> None:
    with Proxy(server.port) as proxy:
        cut_off, healthy = new_pod("a", pubsub_url=proxy.url), new_pod("b")
        cut_off.service.start()
        await until(lambda: cut_off.relay.leads)
        proxy.freeze()
        healthy.service.start()
        log(redis_client, 0, 10)
        await until(lambda: len(watcher.messages) == 10)
        assert healthy.relay.leads
        assert watcher.ns() == list(range(10))
        await cut_off.service.stop()


class TestTrimmed:
    async def test_what_was_trimmed_unread_is_counted(
        self, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
    ) -> None:
        first, second = new_pod("a"), new_pod("b")
        first.service.start()
        log(redis_client, 0, 10)
        await until(lambda: len(watcher.messages) == 10)
        await first.service.stop()
        log(redis_client, 10, 60, maxlen=20)
        second.service.start()
        await until(lambda: len(watcher.messages) == 30)
        assert watcher.ns() == [*range(10), *range(40, 60)]
        assert second.told.trimmed == 30
        assert redis_client.hget(KEY, "seen") is not None
        await until(lambda: redis_client.hget(KEY, "seen") == "60")

    async def test_what_is_trimmed_after_it_was_published_is_no_loss(
        self, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
    ) -> None:
        pod = new_pod()
        pod.service.start()
        log(redis_client, 0, 50)
        await until(lambda: len(watcher.messages) == 50)
        redis_client.xtrim(OUTBOX, maxlen=0)
        log(redis_client, 50, 60)
        await until(lambda: len(watcher.messages) == 60)
        await asyncio.sleep(3 * LOOK_S)  # it looks again, and must find nothing
        assert pod.told.trimmed == 0

    async def test_a_log_that_nobody_read_begins_where_it_begins(
        self, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
    ) -> None:
        log(redis_client, 0, 50, maxlen=5)
        pod = new_pod()
        pod.service.start()
        await until(lambda: watcher.ns() == list(range(45, 50)))
        assert pod.told.trimmed == 0

    async def test_a_log_that_was_made_anew_is_read_from_its_beginning(
        self, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
    ) -> None:
        redis_client.hset(KEY, mapping={"token": 3, "published": "99999999999999-0", "seen": 1000})
        log(redis_client, 0, 5)
        pod = new_pod()
        pod.service.start()
        await until(lambda: watcher.ns() == list(range(5)))
        assert pod.told.trimmed == 0
        await until(lambda: redis_client.hget(KEY, "seen") == "5")

    async def test_everything_is_flushed_below_it(
        self, new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis
    ) -> None:
        pod = new_pod()
        pod.service.start()
        log(redis_client, 0, 5)
        await until(lambda: len(watcher.messages) == 5)
        redis_client.flushall()
        log(redis_client, 5, 10)
        await until(lambda: len(watcher.first_times()) == 10)
        assert pod.told.trimmed == 0
        await until(lambda: len(pod.told.leading) > 1)
        first, *_, last = pod.told.leading
        assert first < last
        assert not await pod.lease.keep(first, Progress("99999999999999-0", 0)), "no token is given twice"


@pytest.mark.once
async def test_a_log_of_another_type_is_told_and_not_asked_for_all_the_time(
    new_pod: PodFactory, redis_client: redis.Redis
) -> None:
    redis_client.set(OUTBOX, "text")
    pod = new_pod()
    pod.service.start()
    await until(lambda: pod.told.refusals)
    await asyncio.sleep(3 * LOOK_S)  # no hot loop: nothing more is told for seconds
    assert len(pod.told.refusals) == 1
    await pod.service.stop()
    assert not pod.told.failures


@pytest.mark.once
async def test_a_relay_that_fails_starts_again(
    new_pod: PodFactory, watcher: Watcher, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = new_pod()
    publish, errors = pod.relay._publish, [ValueError("unexpected")]

    async def failing(entries: list[tuple[str, list[bytes]]]) -> None:
        if errors:
            raise errors.pop()
        await publish(entries)

    monkeypatch.setattr(pod.relay, "_publish", failing)
    log(redis_client, 0, 3)
    pod.service.start()
    await until(lambda: watcher.ns() == [0, 1, 2])
    assert [str(error) for error in pod.told.failures] == ["unexpected"]


@pytest.mark.once
@pytest.mark.parametrize("way", ["killed", "frozen"])
async def test_an_outage_of_pubsub_delays_messages_and_no_more(
    new_pod: PodFactory, new_server: ServerFactory, redis_client: redis.Redis, way: str
) -> None:
    pubsub = new_server().start()
    pod = new_pod(pubsub_url=pubsub.url)
    pod.service.start()
    async with Watcher(pubsub.port) as before:
        log(redis_client, 0, 5)
        await until(lambda: before.ns() == list(range(5)))
        if way == "frozen":
            pubsub.freeze()
            log(redis_client, 5, 50)
            await until(lambda: pod.outages.lines)
            await asyncio.to_thread(pubsub.thaw)
            await until(lambda: len(before.first_times()) == 50)
            assert before.first_times() == list(range(50))
    if way == "killed":
        await asyncio.to_thread(pubsub.kill)
        log(redis_client, 5, 50)
        await until(lambda: pod.outages.lines)
        await asyncio.to_thread(pubsub.start)
        # Who subscribes late has missed what came before: hold the relay until somebody listens.
        async with Watcher(pubsub.port) as after:
            log(redis_client, 50, 60)
            await until(lambda: after.ns()[-1:] == [59])
            assert after.ns() == list(range(60 - len(after.ns()), 60))
    await until(lambda: len(pod.outages.lines) == 2)
    assert pod.outages.lines == ["began publish", "ended"]
    assert len(pod.told.published) >= 50


@pytest.mark.once
@pytest.mark.parametrize("pubsub", ["up", "down"])
async def test_a_stop_ends_soon_whatever_is_down(
    new_pod: PodFactory, new_server: ServerFactory, redis_client: redis.Redis, pubsub: str
) -> None:
    other = new_server().start()
    pod = new_pod(pubsub_url=other.url)
    pod.service.start()
    await until(lambda: pod.relay.leads)
    if pubsub == "down":
        other.freeze()
    log(redis_client, 0, 5)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await pod.service.stop()
    assert loop.time() - begun < 4
    assert redis_client.hget(KEY, "until") == "0"
    assert not pod.relay.leads


async def test_a_channel_it_may_not_use_holds_up_no_other(
    new_pod: PodFactory, server: Server, watcher: Watcher, redis_client: redis.Redis
) -> None:
    redis_client.execute_command(
        "ACL", "SETUSER", "relay", "on", ">pw", "+@all", "~*", "resetchannels", "&chat:0"
    )
    try:
        log(redis_client, 0, 4)
        pod = new_pod(pubsub_url=f"redis://relay:pw@127.0.0.1:{server.port}/0")
        pod.service.start()
        await until(lambda: watcher.ns() == [0, 3])
        await until(lambda: len(pod.told.dropped) == 2)
        assert [channel for channel, _ in pod.told.dropped] == ["chat:1", "chat:2"]
    finally:
        redis_client.execute_command("ACL", "DELUSER", "relay")

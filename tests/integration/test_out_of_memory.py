"""A server that is full refuses commits, but nothing that frees memory or keeps what is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from event_router.core.effects import UnitOfWork
from event_router.core.errors import RedisUnavailable
from event_router.core.keys import checkpoint_key
from event_router.core.outcome import Settlement, Verdict
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.claims import Claims
from event_router.redis_io.commits import Commits
from event_router.redis_io.groups import GroupCreated, Groups
from tests.conftest import ServerFactory
from tests.environment.servers import Server
from tests.environment.streams import GROUP, group_state, pending

STREAM = "events:auth"


@pytest.fixture
def own_server(new_server: ServerFactory) -> Server:
    return new_server().start()


@pytest.fixture
def client(own_server: Server) -> Iterator[redis.Redis]:
    """A client of a server where the consumer `me` holds one entry; others are settled and stand still."""
    with own_server.client() as client:
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        pipeline = client.pipeline(transaction=False)
        for _ in range(3_000):
            pipeline.xadd(STREAM, {"type": "login", "note": "x" * 1_000})
        pipeline.execute()
        client.xgroup_setid(STREAM, GROUP, "$")
        client.xadd(STREAM, {"type": "login"})
        client.xreadgroup(GROUP, "me", {STREAM: ">"})
        yield client


@pytest.fixture
async def link(own_server: Server) -> AsyncIterator[Link]:
    link = Link(parse_url(own_server.url), timeout_s=10, name="full")
    yield link
    await link.close()


def held(client: redis.Redis) -> str:
    (entry,) = pending(client, STREAM)
    return str(entry["message_id"])


def fill_up(client: redis.Redis) -> None:
    """Allow no more memory than is used."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 100_000)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("anything", "x")


async def test_what_is_settled_is_trimmed_and_so_commits_go_on(client: redis.Redis, link: Link) -> None:
    commits = Commits(link, GROUP)
    work = UnitOfWork()
    work.hash("state:user:1").increment("n", 1)
    packed = commits.pack([Settlement(STREAM, held(client), work)])
    fill_up(client)
    with pytest.raises(RedisUnavailable, match="OOM"):
        await commits.send(packed)
    assert await Groups(link, GROUP).retain(STREAM, least=100) >= 2_800
    (answer,) = await commits.send(packed)
    assert answer.verdict is Verdict.COMMITTED


async def test_leases_are_renewed_handed_over_and_taken(client: redis.Redis, link: Link) -> None:
    fill_up(client)
    mine, other, entry_id = Claims(link, GROUP, "me"), Claims(link, GROUP, "other"), held(client)
    assert await mine.set(STREAM, [(entry_id, 0, None)]) == [1]
    assert await mine.set(STREAM, [(entry_id, 60_000, 0)]) == [0]
    taken = await other.take(STREAM, min_idle_ms=60_000, count=10)
    assert [entry.id for entry in taken.entries] == [entry_id]
    assert await other.count_start(STREAM, [(entry_id, 0)]) == [1]
    assert await Groups(link, GROUP).leave(STREAM, "me")


async def test_a_group_is_made_and_its_figures_are_mended(client: redis.Redis, link: Link) -> None:
    groups, entry_id = Groups(link, GROUP), held(client)
    client.xgroup_destroy(STREAM, GROUP)
    client.hset(checkpoint_key(GROUP), STREAM, entry_id)
    fill_up(client)
    assert await groups.ensure(STREAM) == GroupCreated(entry_id, 0, known=True)
    client.xgroup_setid(STREAM, GROUP, "$", entries_read=1)
    assert await groups.repair_lag(STREAM)
    assert group_state(client, STREAM)["lag"] == 0
    assert await groups.count_trimmed(STREAM, entry_id, 3) == 3

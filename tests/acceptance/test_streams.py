"""Which streams are read: shards, other templates, and the types that nobody handles."""

from __future__ import annotations

import hashlib

import pytest
import redis

from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, entries, group_state

pytestmark = pytest.mark.once


def shard_of(key: str, shards: int) -> int:
    """The shard a producer writes a key's events to."""
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % shards


def test_all_shards_of_a_domain_are_read(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url, SHARDS="chat=4,scan=2").start()
    streams = [f"events:chat:{n}" for n in range(4)] + ["events:scan:0", "events:scan:1", "events:auth"]
    assert all(group_state(redis_client, stream) for stream in streams)
    for n in range(40):
        job = f"job-{n}"
        event = {"type": "message_complete", "user_id": "u", "job_id": job}
        redis_client.xadd(f"events:chat:{shard_of(job, 4)}", event)  # type: ignore[arg-type]
    await_settled(redis_client, streams, within=5)
    assert redis_client.hget("stats:user:u", "message_count") == "40"
    assert len(redis_client.keys("chat:state:*")) == 40


def test_the_template_of_streams_can_be_another(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url, STREAM_TEMPLATE="{domain}:events:{shard}", SHARDS="auth=2", GROUP="mine").start()
    redis_client.xadd("auth:events:1", {"type": "login", "user_id": "u"})
    bad = redis_client.xadd("auth:events:0", {"type": "login"})
    await_settled(redis_client, ["auth:events:0", "auth:events:1"], within=5, group="mine")
    assert redis_client.hget("state:user:u", "login_count") == "1"
    [(_, letter)] = entries(redis_client, "dlq:auth:events:0")
    assert (letter["dlq_stream"], letter["dlq_id"]) == ("auth:events:0", bad)


def test_unknown_types_are_acknowledged_where_that_is_set(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url, UNKNOWN_EVENTS="ack").start()
    redis_client.xadd("events:auth", {"type": "nothing", "user_id": "u"})
    redis_client.xadd("events:auth", {"type": "login", "user_id": "u"})
    await_settled(redis_client, ["events:auth"], within=5)
    assert redis_client.exists("dlq:events:auth") == 0
    assert redis_client.hget("state:user:u", "login_count") == "1"
    assert [line for line in router.log() if line["level"] == "warning" and "nothing" in str(line)]

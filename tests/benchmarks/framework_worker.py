"""One process of FastStream or taskiq for `frameworks`, run by a Python that has them installed.

It publishes the logins by the framework's own means, then measures how long their handling takes: from the
start of the broker until every entry is acknowledged. It imports nothing of event-router.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import uvloop
from redis.asyncio import Redis

STREAM, GROUP, USERS = "events:auth", "workers", 10_000


async def count_login(client: Redis, user_id: str, timestamp: str) -> None:
    """Do what the plain loop of `bench` does for a login, except that the framework acknowledges."""
    key = f"state:user:{user_id}"
    days = await client.hget(key, "login_days")
    await client.hset(key, mapping={"login_days": days or b"1", "last_login": timestamp})
    await client.hincrby(key, "login_count", 1)


def logins(count: int) -> list[dict[str, str]]:
    """The same logins for everybody."""
    chance, now_ms = random.Random(0), int(time.time() * 1000)
    return [
        {
            "user_id": str(chance.randrange(USERS)),
            "timestamp": str(now_ms - chance.randrange(40 * 86_400_000)),
        }
        for _ in range(count)
    ]


async def settled(client: Redis, done: Callable[[], bool]) -> None:
    """Wait until all were handled and acknowledged."""
    while not done() or (await client.xpending(STREAM, GROUP))["pending"]:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def faststream(url: str, count: int, at_once: int) -> float:
    """Return seconds; `at_once` is the subscriber's `max_workers`."""
    from faststream.redis import RedisBroker, StreamSub

    client, handled = Redis.from_url(url), 0
    broker = RedisBroker(url, logger=None)
    options: dict[str, Any] = {"max_workers": at_once} if at_once > 1 else {}

    @broker.subscriber(
        stream=StreamSub(STREAM, group=GROUP, consumer="one", last_id="0", max_records=100), **options
    )
    async def login(user_id: str, timestamp: str) -> None:
        nonlocal handled
        await count_login(client, user_id, timestamp)
        handled += 1

    await broker.connect()
    for event in logins(count):
        await broker.publish(event, stream=STREAM)
    begun = time.monotonic()
    await broker.start()
    await settled(client, lambda: handled == count)
    elapsed = time.monotonic() - begun
    await broker.stop()
    await client.aclose()
    return elapsed


async def taskiq(url: str, count: int, at_once: int) -> float:
    """Return seconds; `at_once` is the worker's `--max-async-tasks`."""
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    client, handled = Redis.from_url(url), 0
    broker = RedisStreamBroker(url, queue_name=STREAM, consumer_group_name=GROUP, consumer_id="0")

    @broker.task
    async def login(user_id: str, timestamp: str) -> None:
        nonlocal handled
        await count_login(client, user_id, timestamp)
        handled += 1

    await broker.startup()
    for event in logins(count):
        await login.kiq(**event)
    begun = time.monotonic()
    running = asyncio.create_task(run_receiver_task(broker, max_async_tasks=at_once))
    await settled(client, lambda: handled == count)
    elapsed = time.monotonic() - begun
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.shutdown()
    await client.aclose()
    return elapsed


def main() -> None:
    """Run one of them: NAME URL EVENTS AT_ONCE."""
    name, url, count, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    packages = {"faststream": ("faststream",), "taskiq": ("taskiq", "taskiq-redis")}[name]
    run = {"faststream": faststream, "taskiq": taskiq}[name]
    seconds = uvloop.run(run(url, count, at_once))
    used = {package: version(package) for package in (*packages, "redis", "hiredis", "uvloop")}
    print(json.dumps({"seconds": seconds, "versions": used}))


if __name__ == "__main__":
    main()

"""What presence costs with 100,000 users: count, a page, an update, what a commit adds, expiry.

Run with `python -m tests.benchmarks.presence`. It starts a redis-server (or the embedded server) itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from redis.asyncio import Redis

from event_router.patterns import Presence
from tests.environment.servers import Server, installed_programs
from tests.integration.presence_bench import TTL_MS, Change, PresenceBench

BATCH = 500
"""Events of one commit."""


def filled(server: Server, users: int, now_ms: int) -> None:
    """Bring users online whose connections lapse one after the other, the first 10,000 of them now."""
    with server.client() as client:
        bench = PresenceBench(client)
        for first in range(0, users, BATCH):
            at = now_ms - TTL_MS + max(0, first - 10_000)
            numbers = range(first, min(users, first + BATCH))
            bench.observe(at, [Change(f"user-{number}", "phone", "online", at) for number in numbers])


def batches(server: Server, users: int, rounds: int) -> list[float]:
    """Milliseconds of a script call that applies the presence changes of a whole commit."""
    took = []
    with server.client() as client:
        bench = PresenceBench(client)
        for number in range(rounds):
            now_ms = time.time_ns() // 1_000_000
            which = [f"user-{(number * BATCH + i) * 7919 % users}" for i in range(BATCH)]
            changes = [Change(user, "laptop", "online", now_ms) for user in which]
            begin = time.perf_counter()
            bench.observe(now_ms, changes)
            took.append((time.perf_counter() - begin) * 1000)
    return took


async def timed(call: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Milliseconds of each of so many calls."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begin) * 1000)
    return took


def shown(took: Sequence[float]) -> dict[str, float]:
    """Median and worst, in milliseconds."""
    return {"median_ms": round(statistics.median(took), 3), "worst_ms": round(max(took), 3)}


async def measured(server: Server, users: int, rounds: int) -> dict[str, object]:
    """Every figure."""
    now_ms = time.time_ns() // 1_000_000
    filled(server, users, now_ms)
    async with Redis(port=server.port) as client:
        presence = Presence(client)
        found: dict[str, object] = {"server": server.program.name, "users": users}
        found["memory_mb"] = round((await client.info("memory"))["used_memory"] / 1e6, 1)
        found["count"] = shown(await timed(presence.count, rounds))
        found["page of 1,000"] = shown(
            await timed(lambda: presence.online_users(after="user-5", limit=1000), rounds)
        )
        found["get"] = shown(await timed(lambda: presence.get("user-77"), rounds))
        found["update"] = shown(await timed(lambda: presence.update("user-77", connection="laptop"), rounds))
        found["expire 1,000 due"] = shown(await timed(lambda: presence.expire(limit=1000), 5))
        while (await presence.expire(limit=1000)).taken:
            pass
        found["expire, nothing due"] = shown(await timed(presence.expire, rounds))
    found["500 changes"] = shown(batches(server, users, rounds))
    return found


def main() -> None:
    """Print one JSON object a server."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=50)
    chosen = options.parse_args()
    print(f"# {platform.machine()}, Python {platform.python_version()}")
    for program in installed_programs().values():
        if program.path is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            server = Server(program, Path(folder))
            try:
                print(json.dumps(asyncio.run(measured(server.start(), chosen.users, chosen.rounds))))
            finally:
                server.kill()


if __name__ == "__main__":
    main()

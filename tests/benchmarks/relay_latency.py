"""How long a live message takes: from XADD of the event to the subscriber, through a real router.

Run with `make bench-relay`. The first steps of many jobs at an even rate, one router with the shipped
handlers, a redis-server for each role. With `--trace` it also tells where the time goes: when the
commit wrote the message (the id of the fan-out entry, whole milliseconds) and when it arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence

import redis
import redis.asyncio
import uvloop

from tests.benchmarks.bench import PROGRAM, server, wait_until
from tests.environment.servers import free_port

STREAM = "events:chat"
WARM_UP_S = 1.0


async def measure(streams_port: int, pubsub_port: int, rate: int, seconds: float) -> list[tuple[float, ...]]:
    """Publish events evenly; milliseconds of each from XADD to the commit's clock and to the subscriber."""
    streams = redis.asyncio.Redis(port=streams_port, protocol=2)
    pubsub_client = redis.asyncio.Redis(port=pubsub_port, protocol=2)
    pubsub = pubsub_client.pubsub()
    await pubsub.psubscribe("sse:events:*")
    await pubsub.get_message(timeout=5)
    count = int(rate * (seconds + WARM_UP_S))
    sent: dict[int, tuple[float, float]] = {}
    found: list[tuple[float, ...]] = []

    async def listen() -> None:
        heard: set[int] = set()
        async for message in pubsub.listen():
            if message["type"] != "pmessage":
                continue
            now = time.monotonic()
            body = json.loads(message["data"])
            number = body["seq"]
            if number in heard:
                continue
            heard.add(number)
            monotonic, wall = sent[number]
            if number >= rate * WARM_UP_S:
                committed = int(body["id"].partition("-")[0]) / 1000
                found.append(((now - monotonic) * 1000, (committed - wall) * 1000))
            if len(heard) == count:
                return

    listening = asyncio.create_task(listen())
    begun = time.monotonic()
    for number in range(count):
        pause = begun + number / rate - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        sent[number] = (time.monotonic(), time.time())
        fields = {"type": "progress", "job_id": f"j{number}", "stage": "s", "status": "running"}
        await streams.xadd(STREAM, fields | {"seq": number})
    await asyncio.wait_for(listening, 30)
    await pubsub.aclose()
    await streams.aclose()
    await pubsub_client.aclose()
    return found


def run(streams_port: int, pubsub_port: int, rate: int, seconds: float) -> list[tuple[float, ...]]:
    """Run a router on these servers, and measure."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENT_ROUTER_")}
    http = free_port()
    environment |= {
        "EVENT_ROUTER_REDIS_STREAMS_URL": f"redis://127.0.0.1:{streams_port}/0",
        "EVENT_ROUTER_REDIS_PUBSUB_URL": f"redis://127.0.0.1:{pubsub_port}/0",
        "EVENT_ROUTER_HTTP_PORT": str(http),
        "EVENT_ROUTER_HTTP_HOST": "127.0.0.1",
        "EVENT_ROUTER_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([PROGRAM, "run"], env=environment)
    try:
        with redis.Redis(port=streams_port) as client:
            wait_until(lambda: client.exists(STREAM), 20)
        return uvloop.run(measure(streams_port, pubsub_port, rate, seconds))
    finally:
        process.terminate()
        process.wait(30)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    """Measure several times and print the medians of p50 and p99."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000, help="events a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="times it is measured")
    parser.add_argument("--server", default=shutil.which("redis-server") or "redis-server")
    parser.add_argument("--trace", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    halves, most = [], []
    for number in range(options.rounds):
        with server(options.server) as streams, server(options.server) as pubsub:
            found = run(streams, pubsub, options.rate, options.seconds)
        total = [one[0] for one in found]
        halves.append(percentile(total, 0.5))
        most.append(percentile(total, 0.99))
        line = f"round {number + 1}: {options.rate} events/s, p50 {halves[-1]:.2f} ms, p99 {most[-1]:.2f} ms"
        print(f"{line}, longest {max(total):.1f} ms")
        if options.trace:
            committed = [one[1] for one in found]
            rest = [one[0] - one[1] for one in found]
            for name, part in (("to commit", committed), ("from commit to subscriber", rest)):
                p50, p99 = percentile(part, 0.5), percentile(part, 0.99)
                print(f"    {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms (within 1 ms)")
    print(f"median: p50 {statistics.median(halves):.2f} ms, p99 {statistics.median(most):.2f} ms")


if __name__ == "__main__":
    main()

"""How many logins a second one router commits, beside the loop that awaits each command.

Run with `make bench`. Both sides work on the same real redis-server, in turn, several times: on a
noisy machine only the ratio means anything. Each login is a read-modify-write of one of 10,000
users. The router is the whole program: validation, metrics, leases, retention and logging on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis.asyncio
import uvloop

from tests.environment.servers import free_port

STREAM, GROUP = "events:auth", "event-router-group"
USERS = 10_000
PROGRAM = Path(sys.executable).with_name("event-router")


@contextmanager
def server(binary: str) -> Iterator[int]:
    """A server of its own on a free port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port) as client:
                wait_until(lambda: _answers(client), 10)
            yield port
        finally:
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark did not finish in time")
        time.sleep(0.005)


def publish(client: redis.Redis, count: int, seed: int) -> None:
    """Add logins of random users over 40 days."""
    chance = random.Random(seed)
    now_ms = int(time.time() * 1000)
    for first in range(0, count, 5000):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(5000, count - first)):
            moment = now_ms - chance.randrange(40 * 86_400_000)
            pipeline.xadd(
                STREAM,
                {"type": "login", "user_id": str(chance.randrange(USERS)), "timestamp": str(moment)},
            )
        pipeline.execute()


def router_rate(port: int, count: int, seed: int) -> tuple[float, float, float]:
    """Return events a second, seconds from start to ready, and peak resident megabytes."""
    client = redis.Redis(port=port, decode_responses=True)
    client.flushall()
    http = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENT_ROUTER_")}
    environment |= {
        "EVENT_ROUTER_REDIS_STREAMS_URL": f"redis://127.0.0.1:{port}/0",
        "EVENT_ROUTER_HTTP_PORT": str(http),
        "EVENT_ROUTER_HTTP_HOST": "127.0.0.1",
        "EVENT_ROUTER_LOG_LEVEL": "error",
    }
    publish(client, count, seed)
    started = time.monotonic()
    process = subprocess.Popen([PROGRAM, "run"], env=environment)
    try:
        wait_until(lambda: _delivered(client) > 0, 20)
        begun = time.monotonic()
        wait_until(lambda: _settled(client), 300)
        elapsed = time.monotonic() - begun
        total = sum(int(client.hget(f"state:user:{user}", "login_count") or 0) for user in range(USERS))
        if total != count:
            raise AssertionError(f"{count} logins were published, the state counts {total}")
        memory = _peak_megabytes(process.pid)
    finally:
        process.terminate()
        process.wait(30)
    client.close()
    return count / elapsed, begun - started, memory


def _delivered(client: redis.Redis) -> int:
    groups = client.xinfo_groups(STREAM)
    return int(groups[0]["entries-read"] or 0) if groups else 0


def _settled(client: redis.Redis) -> bool:
    group = client.xinfo_groups(STREAM)[0]
    return group["pending"] == 0 and group["lag"] == 0


def _peak_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def loop_rate(port: int, count: int, seed: int) -> float:
    """Return events a second of the plain loop in a process of its own."""
    with redis.Redis(port=port) as client:
        client.flushall()
        publish(client, count, seed)
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    command = [sys.executable, "-m", "tests.benchmarks.bench", "--loop", str(port), "--events", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return count / float(json.loads(done.stdout)["seconds"])


async def plain_loop(port: int, count: int) -> float:
    """Read, then await each command for each event: the way such consumers are usually written."""
    client = redis.asyncio.Redis(port=port)
    await client.ping()
    begun, done = time.monotonic(), 0
    while done < count:
        reply = await client.xreadgroup(GROUP, "loop", {STREAM: ">"}, count=100, block=1000)
        for stream, entries in reply:
            for entry_id, fields in entries:
                key = b"state:user:" + fields[b"user_id"]
                days = await client.hget(key, "login_days")
                await client.hset(
                    key, mapping={"login_days": days or b"1", "last_login": fields[b"timestamp"]}
                )
                await client.hincrby(key, "login_count", 1)
                await client.xack(stream, GROUP, entry_id)
                done += 1
    elapsed = time.monotonic() - begun
    await client.aclose()
    return elapsed


def main() -> None:
    """Run both sides in turn and print the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="logins for the router")
    parser.add_argument("--rounds", type=int, default=3, help="times each side runs")
    parser.add_argument("--server", default=shutil.which("redis-server") or "redis-server")
    parser.add_argument("--loop", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        seconds = uvloop.run(plain_loop(options.loop, options.events))
        print(json.dumps({"seconds": seconds}))
        return
    version = subprocess.run([options.server, "--version"], capture_output=True, text=True, check=True).stdout
    print(version.strip())
    print(platform.python_implementation(), platform.python_version(), f"{os.cpu_count()} cores")
    ratios, rates, loops = [], [], []
    for number in range(options.rounds):
        with server(options.server) as port:
            loop = loop_rate(port, max(1000, options.events // 20), number)
            rate, ready, memory = router_rate(port, options.events, number)
        ratios.append(rate / loop)
        rates.append(rate)
        loops.append(loop)
        print(
            f"round {number + 1}: router {rate:9,.0f} events/s, loop {loop:7,.0f} events/s, "
            f"ratio {rate / loop:5.1f}, first entry after {ready:.2f} s, peak memory {memory:.0f} MB"
        )
    print(
        f"median:  router {statistics.median(rates):9,.0f} events/s, "
        f"loop {statistics.median(loops):7,.0f} events/s, ratio {statistics.median(ratios):5.1f}"
    )


if __name__ == "__main__":
    asyncio.set_event_loop_policy(None)
    main()

"""How many logins a second one router commits, beside the loop that awaits each command.

Run with `make bench`. All sides work on the same real redis-server, in turn, several times: on a
noisy machine only the ratio means anything. Each login is a read-modify-write of one of 10,000
users. The router is the whole program: validation, metrics, leases, retention and logging on.

Two loops stand beside it, each the way such consumers are usually written, without any of the
router's guarantees. One writes what the router writes for a login, with six commands; the other
only reads, writes and counts, with four.
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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis.asyncio
import uvloop

from event_router.core.timestamps import format_time, utc_day
from handlers.login_days import LoginDays
from tests.environment.servers import free_port

Handle = Callable[[redis.asyncio.Redis, dict[str, str]], Awaitable[None]]

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


def loop_rate(port: int, count: int, seed: int, loop: str) -> float:
    """Return events a second of one of the loops in a process of its own."""
    with redis.Redis(port=port) as client:
        client.flushall()
        publish(client, count, seed)
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    command = [sys.executable, "-m", "tests.benchmarks.bench", "--port", str(port), "--loop", loop]
    command += ["--events", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return count / float(json.loads(done.stdout)["seconds"])


async def run_loop(port: int, count: int, handle: Handle) -> float:
    """Read, handle each event, acknowledge it; return the seconds it took."""
    client = redis.asyncio.Redis(port=port, decode_responses=True)
    await client.ping()
    begun, done = time.monotonic(), 0
    while done < count:
        reply = await client.xreadgroup(GROUP, "loop", {STREAM: ">"}, count=100, block=1000)
        for stream, entries in reply:
            for entry_id, fields in entries:
                await handle(client, fields)
                await client.xack(stream, GROUP, entry_id)
                done += 1
    elapsed = time.monotonic() - begun
    await client.aclose()
    return elapsed


async def same_work(client: redis.asyncio.Redis, fields: dict[str, str]) -> None:
    """Write what the router's handler of logins writes: state, statistics and presence."""
    user_id, time_ms = fields["user_id"], int(fields["timestamp"])
    key, day = f"state:user:{user_id}", utc_day(time_ms)
    days = LoginDays.parse(await client.hget(key, "login_days")).with_day(day)
    values = {
        "last_login": format_time(time_ms),
        "login_days": str(days),
        "login_streak": days.streak,
        "last_login_date": days.newest.isoformat(),
    }
    await client.hset(key, mapping=values)
    await client.hincrby(key, "login_count", 1)
    await client.hincrby(f"stats:daily:{day}", "logins", 1)
    await client.zadd("presence", {user_id: time_ms}, gt=True)


async def short_work(client: redis.asyncio.Redis, fields: dict[str, str]) -> None:
    """Read, write and count in the user's hash, and nothing else."""
    key = f"state:user:{fields['user_id']}"
    days = await client.hget(key, "login_days")
    await client.hset(key, mapping={"login_days": days or "1", "last_login": fields["timestamp"]})
    await client.hincrby(key, "login_count", 1)


LOOPS: dict[str, Handle] = {"same": same_work, "short": short_work}


def main() -> None:
    """Run all sides in turn and print the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="logins for the router")
    parser.add_argument("--rounds", type=int, default=3, help="times each side runs")
    parser.add_argument("--server", default=shutil.which("redis-server") or "redis-server")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        seconds = uvloop.run(run_loop(options.port, options.events, LOOPS[options.loop]))
        print(json.dumps({"seconds": seconds}))
        return
    version = subprocess.run([options.server, "--version"], capture_output=True, text=True, check=True).stdout
    print(version.strip())
    print(platform.python_implementation(), platform.python_version(), f"{os.cpu_count()} cores")
    rates: list[float] = []
    loops: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(options.rounds):
        with server(options.server) as port:
            for name, found in loops.items():
                found.append(loop_rate(port, max(1000, options.events // 20), number, name))
            rate, ready, memory = router_rate(port, options.events, number)
        rates.append(rate)
        beside = shown(rate, {name: (found[-1], rate / found[-1]) for name, found in loops.items()})
        print(f"round {number + 1}: {beside}; first entry after {ready:.2f} s, peak memory {memory:.0f} MB")
    medians = {
        name: (
            statistics.median(found),
            statistics.median(rate / loop for rate, loop in zip(rates, found, strict=True)),
        )
        for name, found in loops.items()
    }
    print(f"median:  {shown(statistics.median(rates), medians)}")


def shown(rate: float, loops: dict[str, tuple[float, float]]) -> str:
    """Return the router's rate and, for each loop, its rate and the ratio as one line."""
    beside = [f"{name} loop {loop:6,.0f}, ratio {ratio:5.1f}" for name, (loop, ratio) in loops.items()]
    return ", ".join([f"router {rate:7,.0f} events/s", *beside])


if __name__ == "__main__":
    asyncio.set_event_loop_policy(None)
    main()

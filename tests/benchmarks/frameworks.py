"""Logins a second of FastStream and taskiq beside the plain loop and one router, all in turn.

They need an environment of their own:

    python3 -m venv /tmp/frameworks
    /tmp/frameworks/bin/pip install faststream[redis]==0.7.8 taskiq-redis==1.2.4 uvloop hiredis
    .venv/bin/python -m tests.benchmarks.frameworks --python /tmp/frameworks/bin/python

Every side does the same read-modify-write of one of 10,000 users for each login, in one process, on the same
redis-server. The frameworks' logging is off, their messages are those that they publish themselves, and they
acknowledge as they do by default. The router is the whole program, as in `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path

import redis

from tests.benchmarks.bench import USERS, loop_rate, router_rate, server

WORKER = Path(__file__).with_name("framework_worker.py")
SIDES = {
    "FastStream, one after another": ("faststream", 1),
    "FastStream, max_workers=100": ("faststream", 100),
    "taskiq-redis, 100 at once": ("taskiq", 100),
}


def framework_rate(python: str, port: int, count: int, name: str, at_once: int) -> tuple[float, dict]:
    """Return events a second of a framework, and the versions that were used."""
    url = f"redis://127.0.0.1:{port}/0"
    with redis.Redis(port=port, decode_responses=True) as client:
        client.flushall()
        done = subprocess.run(
            [python, WORKER, name, url, str(count), str(at_once)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
        )
        total = sum(int(client.hget(f"state:user:{user}", "login_count") or 0) for user in range(USERS))
    if total != count:
        raise AssertionError(f"{count} logins were published, the state counts {total}")
    found = json.loads(done.stdout)
    return count / found["seconds"], found["versions"]


def main() -> None:
    """Run all sides in turn and print each one's rates, and their ratio to the plain loop's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="one that has faststream and taskiq-redis")
    parser.add_argument("--events", type=int, default=10_000, help="logins; ten times as many for the router")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", default=shutil.which("redis-server") or "redis-server")
    options = parser.parse_args()
    version = subprocess.run([options.server, "--version"], capture_output=True, text=True, check=True).stdout
    print(version.strip())
    print(platform.python_implementation(), platform.python_version(), f"{os.cpu_count()} cores")
    rates: dict[str, list[float]] = {}
    versions: dict[str, str] = {}
    for number in range(options.rounds):
        with server(options.server) as port:
            rates.setdefault("plain loop", []).append(loop_rate(port, options.events, number, "short"))
            for side, (name, at_once) in SIDES.items():
                rate, used = framework_rate(options.python, port, options.events, name, at_once)
                rates.setdefault(side, []).append(rate)
                versions |= used
            rate, _, _ = router_rate(port, 10 * options.events, number)
            rates.setdefault("event-router", []).append(rate)
        load = os.getloadavg()[0]
        print(
            f"round {number + 1}:",
            {side: round(found[-1]) for side, found in rates.items()},
            f"load {load:.1f}",
        )
    print(versions)
    for side, found in rates.items():
        ratio = statistics.median(one / loop for one, loop in zip(found, rates["plain loop"], strict=True))
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(
            f"{side:30} median {statistics.median(found):9,.0f} events/s ({spread}), {ratio:5.1f} x the loop"
        )


if __name__ == "__main__":
    main()

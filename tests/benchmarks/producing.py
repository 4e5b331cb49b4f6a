"""How many events a second `StreamProducer.produce_many` adds over one connection.

Run with `python -m tests.benchmarks.producing`. It starts a redis-server (or the embedded server) itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from event_router import StreamProducer
from handlers.auth import AuthEventHandler
from tests.environment.servers import Server, installed_programs

KINDS: dict[str, dict[str, Any]] = {
    "checked": {"handlers": [AuthEventHandler()]},
    "checked, with ids": {"handlers": [AuthEventHandler()], "retries": 3},
    "unchecked payload": {},
    "structured": {"handlers": [AuthEventHandler()], "cloudevents": "structured", "source": "/bench"},
    "binary": {"handlers": [AuthEventHandler()], "cloudevents": "binary", "source": "/bench"},
}


async def measured(server: Server, count: int, rounds: int) -> dict[str, object]:
    """Events a second of each kind: the median and the best round."""
    events = [{"type": "login", "user_id": str(number % 10_000)} for number in range(count)]
    found: dict[str, object] = {"server": server.program.name, "events": count}
    async with Redis(port=server.port) as client:
        for kind, options in KINDS.items():
            producer = StreamProducer(client, **options)
            rates = []
            for _ in range(rounds):
                begin = time.perf_counter()
                await producer.produce_many("auth", events)
                rates.append(count / (time.perf_counter() - begin))
                await client.flushall()
            found[kind] = {"median": round(statistics.median(rates)), "best": round(max(rates))}
    return found


def main() -> None:
    """Print one JSON object a server."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=50_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(f"# {platform.machine()}, Python {platform.python_version()}")
    for program in installed_programs().values():
        if program.path is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            server = Server(program, Path(folder))
            try:
                server.start()
                print(json.dumps(asyncio.run(measured(server, chosen.events, chosen.rounds)), indent=2))
            finally:
                server.kill()


if __name__ == "__main__":
    main()

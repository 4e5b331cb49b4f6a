"""`event-router demo`: an embedded server, a router and synthetic traffic, watched live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, registry_of
from event_router.cli.failures import Failed
from event_router.cli.options import Config
from event_router.cli.output import note, table
from event_router.cli.traffic import Fields, Traffic

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.redis_io.lag import StreamStatus
    from event_router.settings import Settings

TICK_S = 0.05
LOOK_S = 0.5
START_S = 15.0
FINISH_S = 30.0
LOG_FILE = "demo-router.log"


def demo(
    rate: Annotated[float, typer.Option(help="Events a second.", min=1, max=100_000)] = 2000.0,
    seconds: Annotated[
        float | None, typer.Option(help="How long; without it until Ctrl-C, 10 without a terminal.", min=0.1)
    ] = None,
    config: Config = None,
) -> None:
    """Watch the router at work on synthetic traffic of all four domains."""
    from event_router.embedded import EmbeddedServer
    from event_router.settings import load

    settings = load(config, embedded=True)
    if seconds is None and not sys.stdout.isatty():
        seconds = 10.0
    with EmbeddedServer(settings.data_dir) as server:
        url = server.start()
        note(f"embedded server at {url}, its data in {settings.data_dir}; router's log: {LOG_FILE} there")
        with _router(settings, url, config) as router:
            complete(Demo(settings, url, rate, seconds, router).run())


@contextlib.contextmanager
def _router(settings: Settings, url: str, config: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """A router as a process of its own, which ends with this one."""
    from event_router.embedded import end, stop_with_the_parent

    command = [sys.executable, "-m", "event_router.cli", "run", "--streams-url", url]
    if config is not None:
        command += ["--config", str(config)]
    environment = {"EVENT_ROUTER_HTTP_PORT": "0", "EVENT_ROUTER_HTTP_HOST": "127.0.0.1"} | os.environ
    with (settings.data_dir / LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=stop_with_the_parent(),
        )
    try:
        yield process
    finally:
        end(process, within_s=settings.shutdown_grace_s + 5)


@dataclass
class Demo:
    """Publishes at an even rate, looks at the streams twice a second, and waits for the rest at the end."""

    settings: Settings
    url: str
    rate: float
    seconds: float | None
    router: subprocess.Popen[bytes]
    published: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    found: list[StreamStatus] = field(default_factory=list)
    totals: dict[str, str] = field(default_factory=dict)
    speed: float = 0.0

    async def run(self) -> int:
        """Run the demo; return 0 when all that was published is settled."""
        from event_router.redis_client.address import parse_url
        from event_router.redis_client.connections import open_client

        client = open_client(parse_url(self.url), timeout_s=self.settings.redis_timeout_s)
        try:
            await self._wait_for_the_router(client)
            with self._shown() as show:
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: settle the rest and say so
                    await self._publish(client, show)
                done = await self._settle(client, show)
        finally:
            await client.aclose(close_connection_pool=True)
        print(self._summary())
        return 0 if done else 1

    @property
    def settled(self) -> int:
        """Entries settled since the start, by what is left of those published and those found."""
        left = sum((status.lag or 0) + status.pending for status in self.found)
        return max(0, sum(self.published.values()) + sum(self.before.values()) - left)

    async def _wait_for_the_router(self, client: Redis) -> None:
        deadline = time.monotonic() + START_S
        await self._look(client)
        while not all(status.exists for status in self.found):
            if self.router.poll() is not None or time.monotonic() > deadline:
                log = (self.settings.data_dir / LOG_FILE).read_text(errors="replace").strip().splitlines()
                raise Failed(f"the demo's router did not start: {log[-1] if log else 'it said nothing'}")
            await asyncio.sleep(TICK_S)
            await self._look(client)
        self.before = {status.stream: (status.lag or 0) + status.pending for status in self.found}

    async def _publish(self, client: Redis, show: Callable[[], None]) -> None:
        keys = self.settings.key_names
        events = Traffic(random.Random(), f"demo-{int(time.time())}").events()
        begin = last_look = time.monotonic()
        settled = 0
        while self.seconds is None or time.monotonic() - begin < self.seconds:
            due = int((time.monotonic() - begin) * self.rate) - sum(self.published.values())
            pipeline = client.pipeline(transaction=False)
            for domain, fields in (next(events) for _ in range(min(due, 2000))):
                stream = keys.stream(domain, _key(fields))
                pipeline.xadd(stream, fields)  # type: ignore[arg-type]  # redis-py's dict is invariant
                self.published[stream] = self.published.get(stream, 0) + 1
            await pipeline.execute()
            if time.monotonic() - last_look >= LOOK_S:
                await self._look(client)
                now = time.monotonic()
                self.speed = (self.settled - settled) / (now - last_look)
                settled, last_look = self.settled, now
                show()
            if self.router.poll() is not None:
                raise Failed(f"the demo's router ended; see {self.settings.data_dir / LOG_FILE}")
            await asyncio.sleep(TICK_S)

    async def _settle(self, client: Redis, show: Callable[[], None]) -> bool:
        deadline = time.monotonic() + FINISH_S
        while True:
            await self._look(client)
            if not any(status.lag or status.pending for status in self.found):
                return True
            if time.monotonic() > deadline:
                return False
            show()
            await asyncio.sleep(LOOK_S)

    async def _look(self, client: Redis) -> None:
        from event_router.core.timestamps import utc_day
        from event_router.redis_io.lag import inspect

        domains = self.settings.domains or registry_of(self.settings).domains
        streams = [stream for domain in domains for stream in self.settings.streams(domain)]
        self.found = [await inspect(client, stream, self.settings.group) for stream in streams]
        today = f"stats:daily:{utc_day(time.time_ns() // 1_000_000)}"
        fields: Any = await client.hgetall(today)
        self.totals = {name.decode(): value.decode() for name, value in sorted(fields.items())}

    @contextlib.contextmanager
    def _shown(self) -> Iterator[Callable[[], None]]:
        if not sys.stdout.isatty():
            yield lambda: print(self._line(), flush=True)
            return
        from rich.live import Live

        with Live(self._screen(), auto_refresh=False) as live:
            yield lambda: live.update(self._screen(), refresh=True)

    def _line(self) -> str:
        lag = sum(status.lag or 0 for status in self.found)
        pending = sum(status.pending for status in self.found)
        letters = sum(status.dead_letters for status in self.found)
        return (
            f"published {sum(self.published.values())}  settled {self.settled}  {self.speed:.0f}/s"
            f"  lag {lag}  pending {pending}  dead letters {letters}"
        )

    def _screen(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        rows = [
            (
                status.stream,
                self.published.get(status.stream, 0),
                "unknown" if status.lag is None else status.lag,
                status.pending,
                status.dead_letters,
            )
            for status in self.found
        ]
        streams = table(("stream", "published", "lag", "pending", "dead letters"), rows, numbers=4)
        totals = table(("today in all", ""), self.totals.items(), numbers=1)
        return Group(streams, Text(), totals, Text(), Text(f"{self._line()}  (Ctrl-C ends)"))

    def _summary(self) -> str:
        numbers = "  ".join(f"{name} {value}" for name, value in self.totals.items())
        return f"{self._line()}\ntoday in all: {numbers}"


def _key(fields: Fields) -> str:
    return fields.get("job_id") or fields.get("user_id") or fields.get("article_id") or ""

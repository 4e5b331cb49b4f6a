"""The programs of docs/fan-out.md as they stand: a chat job, and who watches it through every fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.fan_out import CHAT, leader
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled
from tests.environment.waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "fan-out.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
(PRINTED,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CHAT_ONLY = {"HANDLERS": "handlers.chat:ChatEventHandler"}


class Program:
    """One of the page's programs, running."""

    def __init__(self, folder: Path, name: str, words: tuple[str, ...], urls: dict[str, str]) -> None:
        self.output = folder / f"{name}.{'-'.join(words)}.out"
        (folder / name).write_text(PROGRAMS[name], "utf-8")
        with self.output.open("wb") as out, self.output.with_suffix(".err").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", name, *words],
                cwd=folder,
                env={**os.environ, **urls},
                stdout=out,
                stderr=errors,
            )

    def lines(self) -> list[str]:
        """What it has printed so far."""
        return self.output.read_text("utf-8").splitlines()

    def ended(self, within: float) -> list[str]:
        """What it has printed when it ends by itself, well."""
        assert self._process.wait(within) == 0, self.output.with_suffix(".err").read_text("utf-8")
        return self.lines()

    def kill(self) -> None:
        """End it if it still runs."""
        self._process.kill()
        self._process.wait()


Start = Callable[..., Program]


@pytest.fixture
def pubsub(new_server: ServerFactory) -> Server:
    return new_server().start()


@pytest.fixture
def start(server: Server, pubsub: Server, tmp_path: Path) -> Iterator[Start]:
    urls = {"REDIS_STREAMS_URL": server.url, "REDIS_PUBSUB_URL": pubsub.url}
    started: list[Program] = []

    def run(name: str, *words: str) -> Program:
        started.append(Program(tmp_path, name, words, urls))
        return started[-1]

    yield run
    for program in started:
        program.kill()


def is_watched(pubsub: Server, job_id: str) -> bool:
    """Whether somebody has subscribed to the job's channel."""
    with pubsub.client() as client:
        return bool(client.pubsub_numsub(f"sse:events:{job_id}")[0][1])


@pytest.mark.once
def test_a_watcher_sees_every_step(
    server: Server, pubsub: Server, redis_client: redis.Redis, new_router: RouterFactory, start: Start
) -> None:
    router = new_router(server.url, REDIS_PUBSUB_URL=pubsub.url, **CHAT_ONLY).start()
    watching = start("watch_job.py", "7")
    eventually(lambda: is_watched(pubsub, "7"), within=10)
    shown = {"up": True, "channels": 1, "patterns": 0, "subscribers": 1}
    eventually(lambda: router.readyz()[1]["pubsub"] == shown, within=8, what=router.readyz)
    assert router.readyz()[1]["relays"] == {"outbox:chat": "leads", "outbox:presence": "leads"}
    start("run_job.py", "7", "3").ended(within=20)
    assert watching.ended(within=10) == PRINTED.splitlines()
    assert redis_client.hget("chat:state:7", "status") == "done"
    assert router.metric("pubsub_messages_total", channel="sse:events:{job_id}") == 4
    assert router.metric("redis_connected", role="pubsub") == 1
    assert router.metric("relay_leads", outbox="outbox:chat") == 1


@pytest.mark.once
def test_a_watcher_ends_with_done_whatever_fails(
    server: Server, pubsub: Server, redis_client: redis.Redis, new_router: RouterFactory, start: Start
) -> None:
    routers = [new_router(server.url, pod, REDIS_PUBSUB_URL=pubsub.url, **CHAT_ONLY).start() for pod in "ab"]
    watching = start("watch_job.py", "7")
    eventually(lambda: is_watched(pubsub, "7"), within=10)
    job = start("run_job.py", "7", "150")
    eventually(lambda: len(watching.lines()) > 20, within=10)
    leader(routers).kill()
    eventually(lambda: len(watching.lines()) > 60, within=20, what="a standby has taken over")
    pubsub.kill()
    before = len(watching.lines())
    pubsub.start()
    job.ended(within=20)
    steps = watching.ended(within=15)[1:]
    assert len(steps) > before
    seen = [int(step.split()[0]) for step in steps]
    assert seen == sorted(set(seen)), "what it has seen it drops"
    assert steps[-1] == "150 done"
    assert [step for step in steps if step.endswith("done")] == ["150 done"]
    await_settled(redis_client, [CHAT], within=15)
    assert redis_client.hget("chat:state:7", "status") == "done"
    assert redis_client.hget("stats:user:7", "message_count") == "1"

"""The whole job of docs/human-input.md: a chat job that asks its user, watched through every fault."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.fan_out import CHAT, leader
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.routers import environment, program
from tests.environment.servers import Server
from tests.environment.streams import await_settled, entries
from tests.environment.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/human-input.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
CHAT_ONLY = {"HANDLERS": "handlers.chat:ChatEventHandler"}


class Running:
    """A program and what it prints."""

    def __init__(self, folder: Path, words: list[str], env: dict[str, str]) -> None:
        self._output = folder / f"{Path(words[-3]).name}.{words[-1]}.out"
        with self._output.open("wb") as out, self._output.with_suffix(".err").open("wb") as errors:
            self._process = subprocess.Popen(words, cwd=folder, env=env, stdout=out, stderr=errors)

    def lines(self) -> list[str]:
        """What it has printed so far, in whole lines."""
        return self._output.read_text("utf-8").rpartition("\n")[0].splitlines()

    def ended(self, within: float) -> list[str]:
        """What it has printed when it ends by itself, well."""
        assert self._process.wait(within) == 0, self._output.with_suffix(".err").read_text("utf-8")
        return self.lines()

    def kill(self) -> None:
        """End it if it still runs."""
        self._process.kill()
        self._process.wait()


Start = Callable[..., Running]


@pytest.fixture
def pubsub(new_server: ServerFactory) -> Server:
    return new_server().start()


@pytest.fixture
def start(server: Server, pubsub: Server, tmp_path: Path) -> Iterator[Start]:
    """Starts a program of the page, or `job watch`: `start("chat_user.py", "7")`, `start("watch", "7")`."""
    urls = {"REDIS_STREAMS_URL": server.url, "REDIS_PUBSUB_URL": pubsub.url}
    started: list[Running] = []

    def run(name: str, *words: str) -> Running:
        if name == "watch":
            command = [str(program()), "job", "watch", "--output", "json", *words]
            env = environment({**urls, **CHAT_ONLY})
        else:
            (tmp_path / name).write_text(PROGRAMS[name], "utf-8")
            command = [sys.executable, "-W", "error", name, *words]
            env = {**os.environ, **urls, "PYTHONPATH": str(ROOT)}
        started.append(Running(tmp_path, command, env))
        return started[-1]

    yield run
    for one in started:
        one.kill()


def listeners(pubsub: Server) -> int:
    """How many have subscribed to the job's channel."""
    with pubsub.client() as client:
        return int(client.pubsub_numsub("sse:events:7")[0][1])


def steps(watching: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in watching.lines()]


@pytest.mark.once
def test_every_step_is_seen(
    server: Server, pubsub: Server, redis_client: redis.Redis, new_router: RouterFactory, start: Start
) -> None:
    new_router(server.url, REDIS_PUBSUB_URL=pubsub.url, **CHAT_ONLY).start()
    watching, user = start("watch", "7"), start("chat_user.py", "7")
    eventually(lambda: listeners(pubsub) == 2, within=15)
    start("chat_job.py", "7", "6").ended(within=20)
    assert user.ended(within=10) == ["answering 7:1"]
    watching.ended(within=15)
    seen = [(step["seq"], step["status"], step["message"]) for step in steps(watching)]
    assert seen == [
        *((seq, "running", "" if seq < 3 else "yes") for seq in range(6)),
        (6, "done", ""),
    ]
    assert redis_client.hget("chat:state:7", "status") == "done"


@pytest.mark.once
def test_a_watcher_ends_with_done_whatever_fails(
    server: Server, pubsub: Server, redis_client: redis.Redis, new_router: RouterFactory, start: Start
) -> None:
    routers = [new_router(server.url, pod, REDIS_PUBSUB_URL=pubsub.url, **CHAT_ONLY).start() for pod in "ab"]
    watching = start("watch", "7")
    eventually(lambda: listeners(pubsub) == 1, within=15)
    job = start("chat_job.py", "7", "80")
    eventually(lambda: len(watching.lines()) > 10, within=15)
    leader(routers).kill()
    eventually(lambda: redis_client.exists("input:request:7:1"), within=20)
    pubsub.kill()
    pubsub.start()
    user = start("chat_user.py", "7")
    job.ended(within=30)
    assert user.ended(within=10) == ["answering 7:1"]
    watching.ended(within=20)
    seen = [step["seq"] for step in steps(watching)]
    assert seen == sorted(set(seen)), "what it has seen it drops"
    assert [step["seq"] for step in steps(watching) if step["status"] == "done"] == [80]
    await_settled(redis_client, [CHAT], within=15)
    assert redis_client.hget("chat:state:7", "status") == "done"
    assert redis_client.hget("stats:user:user-1", "message_count") == "1"
    types = [fields["type"] for _, fields in entries(redis_client, CHAT)]
    assert (types.count("input_requested"), types.count("input_received")) == (1, 1)
    assert redis_client.exists("dlq:events:chat") == 0

"""`event-router tail`: what it shows of the streams, and that it takes nothing away."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis

from tests.conftest import ServerFactory
from tests.environment.servers import Server
from tests.environment.waiting import eventually
from tests.integration.cli_calls import call, refusal

# What the command does with a server is tested on both elsewhere.
pytestmark = pytest.mark.once


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    return {"REDIS_STREAMS_URL": server.url}


@pytest.fixture
def filled(redis_client: redis.Redis) -> redis.Redis:
    redis_client.xadd("events:auth", {"type": "login", "user_id": "1"}, id="1767225600000-0")
    redis_client.xadd("events:auth", {"type": "auth:logout", "user_id": "1"}, id="1767225600000-1")
    redis_client.xadd("events:auth", {"type": "login", "user_id": "2"}, id="1767225600001-0")
    data = json.dumps({"type": "progress", "job_id": "j", "seq": 1})
    redis_client.xadd("events:chat", {"data": data}, id="1767225600000-0")
    redis_client.xadd("events:chat", {"type": "chat:message", "user_id": "2"}, id="1767225600002-0")
    return redis_client


def ids(*arguments: str, env: Mapping[str, str], limit: int) -> list[tuple[str, str]]:
    called = call("tail", "--output", "json", "--limit", str(limit), *arguments, env=env)
    assert called.code == 0, called
    return [(row["stream"].removeprefix("events:"), row["id"]) for row in called.rows]


def test_shows_entries_with_their_fields(filled: redis.Redis, env: Mapping[str, str]) -> None:
    rows = call("tail", "--from", "0", "--domain", "chat", "--limit", "1", "-o", "json", env=env).rows
    assert rows == [
        {
            "stream": "events:chat",
            "id": "1767225600000-0",
            "fields": {"type": "progress", "job_id": "j", "seq": 1},
        }
    ]
    text = call("tail", "--from", "0", "--stream", "events:auth", "--limit", "1", env=env).out
    assert text == "2026-01-01T00:00:00.000Z  events:auth  1767225600000-0  login  user_id=1\n"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("0", ["1767225600000-0", "1767225600000-1", "1767225600001-0"]),
        ("1767225600000-1", ["1767225600000-1", "1767225600001-0"]),
        ("1767225600001", ["1767225600001-0"]),
        ("2026-01-01T00:00:00.001Z", ["1767225600001-0"]),
        ("2026-01-01", ["1767225600000-0", "1767225600000-1", "1767225600001-0"]),
    ],
)
def test_begins_at_an_id_or_a_time(
    filled: redis.Redis, env: Mapping[str, str], start: str, expected: list[str]
) -> None:
    found = ids("--domain", "auth", "--from", start, env=env, limit=len(expected))
    assert found == [("auth", entry_id) for entry_id in expected]


def test_filters(filled: redis.Redis, env: Mapping[str, str]) -> None:
    start = ("--from", "0")
    assert ids(*start, "--job", "j", env=env, limit=1) == [("chat", "1767225600000-0")]
    assert ids(*start, "--type", "logout", env=env, limit=1) == [("auth", "1767225600000-1")]
    assert ids(*start, "--type", "message_sent", env=env, limit=1) == [("chat", "1767225600002-0")]
    assert set(ids(*start, "--user", "2", env=env, limit=2)) == {
        ("auth", "1767225600001-0"),
        ("chat", "1767225600002-0"),
    }
    assert ids(*start, "--type", "auth:logout", env=env, limit=1) == [("auth", "1767225600000-1")]
    both = ids(*start, "--type", "logout", "--type", "progress", env=env, limit=2)
    assert set(both) == {("auth", "1767225600000-1"), ("chat", "1767225600000-0")}


def test_a_type_that_no_handler_takes_is_told(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    redis_client.xadd("events:auth", {"type": "lgin", "user_id": "1"})
    words = ("tail", "--from", "0", "--limit", "1", "--type", "lgin", "--type", "login", "-o", "json")
    called = call(*words, env=env)
    assert [row["fields"]["type"] for row in called.rows] == ["lgin"]
    assert called.err == "no handler takes type 'lgin'; entries with it are shown as they come\n"


def test_reads_every_page(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    with redis_client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.xadd("events:auth", {"type": "login", "user_id": "1"}, id=f"1-{number}")
        pipe.execute()
    found = ids("--from", "0", env=env, limit=1000)
    assert found == [("auth", f"1-{number}") for number in range(1000)]
    assert not redis_client.xinfo_groups("events:auth")


def test_bytes_and_control_characters_harm_nothing(redis_bytes: redis.Redis, env: Mapping[str, str]) -> None:
    redis_bytes.xadd("events:auth", {b"type": b"\x1b[31m\n", b"\xff": b"\xfe"})
    text = call("tail", "--from", "0", "--limit", "1", env=env).out
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\\xff=\\xfe" in text.replace("\\\\", "\\")
    (row,) = call("tail", "--from", "0", "--limit", "1", "-o", "json", env=env).rows
    assert row["fields"] == {"type": "\x1b[31m\n", "\\xff": "\\xfe"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--from", "yesterday"), "--from"),
        (("--from", "99999999999999999999-1"), "64 bits"),
        (("--stream", "events:auth", "--domain", "auth"), "exclude each other"),
        (("--domain", "auth", "--domain", "billing"), "unknown domain 'billing'; the handlers serve auth"),
    ],
)
def test_wrong_usage(env: Mapping[str, str], arguments: tuple[str, ...], why: str) -> None:
    assert why in refusal(call("tail", *arguments, env=env), 2)


def test_no_redis_at_the_start_is_a_failure(new_server: ServerFactory) -> None:
    server = new_server()
    assert str(server.port) in refusal(call("tail", env={"REDIS_STREAMS_URL": server.url}), 1)


class Running:
    """A tail that runs in a process of its own."""

    def __init__(self, url: str, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if "EVENT_ROUTER" not in name}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "event_router.cli", "tail", "--output", "json", *arguments],
            env=environment | {"EVENT_ROUTER_REDIS_STREAMS_URL": url, "EVENT_ROUTER_REDIS_TIMEOUT_S": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background of a shell has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def next(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self._lines.get(timeout=15))
        return row

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=15)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def tail_of() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(url: str, *arguments: str) -> Running:
        made.append(Running(url, *arguments))
        return made[-1]

    yield make
    for running in made:
        running.kill()


def test_goes_on_through_a_restart_and_ends_with_control_c(
    new_server: ServerFactory, tail_of: Callable[..., Running]
) -> None:
    server = new_server(append_only=True).start()
    with server.client() as client:
        client.xadd("events:auth", {"type": "login", "n": "before"})
        running = tail_of(server.url)

        def reads() -> bool:
            return any(found["cmd"].startswith("xread") for found in client.client_list())

        eventually(reads, within=15)
        client.xadd("events:auth", {"type": "login", "n": "1"})
        assert running.next()["fields"]["n"] == "1"
    server.stop()
    server.start()
    with server.client() as client:
        client.xadd("events:auth", {"type": "login", "n": "2"})
    assert running.next()["fields"]["n"] == "2"
    code, err = running.end()
    assert code == 0
    assert "Traceback" not in err
    assert "waiting for Redis" in err

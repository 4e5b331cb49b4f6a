"""`event-router publish`: what arrives, and what is refused before it is sent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, entries, refusal


@pytest.fixture
def publish(server: Server) -> Callable[..., Called]:
    """Calls `publish` on the server: `publish("auth", "login", "user_id=1", SHARDS="auth=2")`."""

    def run(*arguments: str, **settings: str) -> Called:
        return call("publish", *arguments, env={"REDIS_STREAMS_URL": server.url, **settings})

    return run


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., str]:
    """Writes events as JSON lines and returns the file's name."""

    def write(*events: Mapping[str, Any] | str) -> str:
        path = tmp_path / "events.jsonl"
        path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
        return str(path)

    return write


def test_one_event(publish: Callable[..., Called], redis_client: redis.Redis) -> None:
    called = publish("auth", "login", "user_id=7", "device=a=b", "note=", "--output", "json")
    assert called.code == 0, called
    ((entry_id, fields),) = entries(redis_client, "events:auth")
    assert called.rows == [{"stream": "events:auth", "id": entry_id}]
    assert fields == {"type": "login", "user_id": "7", "device": "a=b", "note": ""}
    assert publish("auth", "auth:logout", "user_id=7").out.startswith("events:auth ")


def test_shards_are_those_of_the_ordering_key(
    publish: Callable[..., Called], redis_client: redis.Redis
) -> None:
    for job in range(20):
        arguments = ("scan", "scan_start", "user_id=same", f"job_id=job-{job}")
        assert publish(*arguments, SHARDS="scan=2").code == 0
    by_shard = [
        {fields["job_id"] for _, fields in entries(redis_client, f"events:scan:{shard}")} for shard in (0, 1)
    ]
    assert all(by_shard)
    assert by_shard[0] == {f"job-{n}" for n in range(20) if _shard(f"job-{n}") == 0}


def _shard(key: str) -> int:
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere", "login"], ["'nowhere'", "auth, chat, scan, info"]),
        (["auth", "nope", "user_id=1"], ["'nope'", "login, logout"]),
        (["auth", "login"], ["'user_id'", "missing"]),
        (["auth", "login", "user_id="], ["'user_id'", "empty"]),
        (["auth", "login", "user_id=a\x07"], ["'user_id'", "control"]),
        (["chat", "feedback", "user_id=1", "score=9"], ["'score'"]),
        (["auth", "login", "user_id=1", "timestamp=never"], ["'timestamp'"]),
        (["auth", "login", "user_id=1", "data={"], ["'data'", "JSON"]),
        (["auth", "login", "user_id"], ["'user_id'", "name=value"]),
        (["auth", "login", "=1"], ["name=value"]),
        (["auth", "login", "user_id=1", "user_id=2"], ["twice"]),
        (["auth", "login", "type=logout", "user_id=2"], ["twice"]),
        (["auth"], ["domain and a type"]),
        ([], ["domain and a type"]),
        (["auth", "--file", "x"], ["--file"]),
        (["--file", "/nowhere/x"], ["/nowhere/x"]),
    ],
)
def test_what_the_router_would_not_take_is_refused(
    publish: Callable[..., Called], redis_client: redis.Redis, arguments: list[str], named: list[str]
) -> None:
    line = refusal(publish(*arguments), 2)
    assert [word for word in named if word not in line] == []
    assert redis_client.keys("*") == []


def test_too_large_an_event_is_refused(publish: Callable[..., Called], redis_client: redis.Redis) -> None:
    line = refusal(publish("auth", "login", "user_id=1", "device=" + "x" * 2000, MAX_ENTRY_BYTES="1000"), 2)
    assert "MAX_ENTRY_BYTES" in line
    assert redis_client.keys("*") == []


def test_a_file(publish: Callable[..., Called], redis_client: redis.Redis, lines: Callable[..., str]) -> None:
    events = [{"domain": "auth", "type": "login", "user_id": n, "device": None} for n in range(1200)]
    feedback = {"domain": "chat", "type": "feedback", "user_id": "1", "score": 5, "data": {"comment": "ok"}}
    called = publish("--file", lines(*events, "", feedback), "--output", "json")
    assert called.code == 0, called
    assert [row["stream"] for row in called.rows] == ["events:auth"] * 1200 + ["events:chat"]
    added = entries(redis_client, "events:auth")
    assert [row["id"] for row in called.rows[:1200]] == [entry_id for entry_id, _ in added]
    assert [fields for _, fields in added] == [{"type": "login", "user_id": str(n)} for n in range(1200)]
    ((_, fields),) = entries(redis_client, "events:chat")
    assert fields == {"type": "feedback", "user_id": "1", "score": "5", "data": '{"comment":"ok"}'}
    assert called.err == "1201 events published\n"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("{", "no JSON"),
        ("[]", "no event"),
        ("[" * 100_000, "no JSON"),
        ('{"type": "login"}', "no event"),
        ('{"domain": "auth", "type": "login"}', "'user_id'"),
        ('{"domain": "nowhere", "type": "login"}', "'nowhere'"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_of_the_file_is_sent(
    publish: Callable[..., Called],
    redis_client: redis.Redis,
    lines: Callable[..., str],
    wrong: str,
    named: str,
) -> None:
    good = {"domain": "auth", "type": "login", "user_id": "1"}
    line = refusal(publish("--file", lines(good, wrong, good)), 2)
    assert "line 2" in line
    assert named in line
    assert redis_client.keys("*") == []


def test_a_file_that_is_no_text(
    publish: Callable[..., Called], redis_client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    assert "UTF-8" in refusal(publish("--file", str(tmp_path / "binary")), 1)


def test_standard_input_is_sent_up_to_the_wrong_line(server: Server, redis_client: redis.Redis) -> None:
    good = '{"domain": "auth", "type": "login", "user_id": "1"}\n'
    command = [
        sys.executable,
        "-m",
        "event_router.cli",
        "publish",
        "--file",
        "-",
        "--streams-url",
        server.url,
    ]
    done = subprocess.run(command, input=good * 3, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.count("events:auth ")) == (0, 3)
    done = subprocess.run(command, input=good * 2 + "{\n" + good, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "line 3" in done.stderr
    assert "2 events published" in done.stderr
    assert redis_client.xlen("events:auth") == 5


def test_a_stream_that_refuses_is_named(publish: Callable[..., Called], redis_client: redis.Redis) -> None:
    redis_client.set("events:auth", "no stream")
    called = publish("auth", "login", "user_id=1")
    assert called.code == 1
    assert "WRONGTYPE" in called.err
    assert called.err.count("\n") == 1


def test_on_a_terminal_a_bar_stands_for_the_ids(server: Server, lines: Callable[..., str]) -> None:
    name = lines(*({"domain": "auth", "type": "login", "user_id": "1"} for _ in range(1500)))
    command = f"{sys.executable} -m event_router.cli publish --file {name} --streams-url {server.url}"
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal:
        done = subprocess.Popen(
            command.split(), stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm"}
        )
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while part := terminal.read(65536):
                seen += part
    assert done.wait(30) == 0
    assert b"publishing" in seen
    assert b"events:auth" not in seen
    assert seen.strip().endswith(b"1500 events published")


@pytest.mark.once
def test_a_lost_reply_is_told_as_what_may_have_been_published(
    server: Server, redis_client: redis.Redis, lines: Callable[..., str]
) -> None:
    login = {"domain": "auth", "type": "login", "user_id": "7"}
    with Proxy(server.port) as proxy:
        env = {"REDIS_STREAMS_URL": proxy.url}
        proxy.drop_reply("XADD", times=2)
        one = refusal(call("publish", "auth", "login", "user_id=7", env=env), 1)
        several = call("publish", "--file", lines(*[login] * 3), env=env)
    assert one.startswith(f"event-router: {proxy.url}: no reply to XADD (")
    assert "the event may have been published or not; with a field `id` it can be published again" in one
    assert several.code == 1
    assert "3 of 3 events may have been published or not; with a field `id` they can" in several.err
    assert len(entries(redis_client, "events:auth")) > 1


@pytest.mark.once
def test_a_reading_command_without_a_reply_names_the_server_alone(server: Server) -> None:
    with Proxy(server.port) as proxy:
        for command in ("EVALSHA", "EVAL"):
            proxy.drop_reply(command)
        lost = refusal(call("presence", env={"REDIS_STREAMS_URL": proxy.url}), 1)
    assert lost.startswith(f"event-router: {proxy.url}: no reply to EVALSHA (")
    assert "may or may not" not in lost

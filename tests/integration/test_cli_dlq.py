"""`event-router dlq`: the commands around `DeadLetters`, which has tests of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, entries, refusal


@pytest.fixture
def dlq(server: Server) -> Callable[..., Called]:
    """Calls `dlq` on the server: `dlq("list", "--reason", "poison")`."""
    return lambda *arguments: call("dlq", *arguments, env={"REDIS_STREAMS_URL": server.url})


@pytest.fixture
def letters(redis_client: redis.Redis) -> list[Any]:
    """Three dead letters in two streams; their ids."""

    def add(stream: str, id_: str, reason: str, fields: dict[str, str]) -> str:
        own = {
            "dlq_stream": stream,
            "dlq_id": "1767225600123-0",
            "dlq_reason": reason,
            "dlq_error": "field 'user_id'\x1b[31m is missing",
            "dlq_deliveries": "1",
            "dlq_consumer": "consumer-a",
            "dlq_time": "2026-01-01T00:00:01.000Z",
        }
        letter: Any = fields | own
        redis_client.xadd(f"dlq:{stream}", letter, id=id_)
        return id_

    return [
        add("events:auth", "1767225601000-0", "invalid", {"type": "login", "x": "é\x07"}),
        add("events:auth", "1767225602000-0", "poison", {"type": "logout"}),
        add("events:scan", "1767225603000-0", "trimmed", {}),
    ]


def test_list(dlq: Callable[..., Called], letters: list[str]) -> None:
    called = dlq("list", "--output", "json")
    assert called.code == 0
    assert called.rows[0] == {
        "stream": "events:auth",
        "id": letters[0],
        "origin_id": "1767225600123-0",
        "type": "login",
        "reason": "invalid",
        "error": "field 'user_id'\x1b[31m is missing",
        "deliveries": 1,
        "time": "2026-01-01T00:00:01.000Z",
    }
    assert [row["id"] for row in called.rows] == letters
    text = dlq("list").out
    assert "\x1b" not in text
    assert "\\x1b[31m is missing" in text


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--reason", "poison"], [1]),
        (["--type", "login"], [0]),
        (["--id", "1767225603000-0", "--id", "1767225601000-0"], [0, 2]),
        (["--since", "2026-01-01T00:00:02Z"], [1, 2]),
        (["--until", "1767225602000"], [0, 1]),
        (["--stream", "events:scan"], [2]),
        (["--stream", "dlq:events:scan"], [2]),
        (["--limit", "2"], [0, 1]),
    ],
)
def test_choices(
    dlq: Callable[..., Called], letters: list[str], options: list[str], chosen: list[int]
) -> None:
    assert [row["id"] for row in dlq("list", *options, "-o", "json").rows] == [letters[n] for n in chosen]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["list", "--id", "x"], "'x'"),
        (["show", "1"], "'1'"),
        (["list", "--since", "yesterday"], "--since"),
        (["replay", "--until", ""], "--until"),
        (["list", "--since", "2000", "--until", "1000"], "later"),
        (["purge"], "--yes"),
    ],
)
def test_wrong_choices(
    dlq: Callable[..., Called], letters: list[str], arguments: list[str], named: str
) -> None:
    assert named in refusal(dlq(*arguments), 2)


def test_show(dlq: Callable[..., Called], letters: list[str]) -> None:
    [shown] = dlq("show", letters[0], "-o", "json").rows
    assert shown["fields"] == [["type", "login"], ["x", "é\x07"]]
    assert shown["consumer"] == "consumer-a"
    assert "é\\x07" in dlq("show", letters[0]).out
    assert "5-5" in refusal(dlq("show", "5-5"), 1)


def test_replay(dlq: Callable[..., Called], letters: list[str], redis_client: redis.Redis) -> None:
    called = dlq("replay", "-o", "json")
    assert called.code == 0
    assert [row["outcome"] for row in called.rows] == ["replayed", "replayed", "skipped"]
    assert "trimmed" in called.err
    assert [fields for _, fields in entries(redis_client, "events:auth")] == [
        {"type": "login", "x": "é\x07", "timestamp": "1767225600123"},
        {"type": "logout", "timestamp": "1767225600123"},
    ]
    assert (redis_client.xlen("dlq:events:auth"), redis_client.xlen("dlq:events:scan")) == (0, 1)
    again = dlq("replay", "--reason", "invalid")
    assert (again.code, again.out) == (0, "no letters chosen\n")
    assert dlq("replay", "--id", letters[0]).code == 1


def test_replay_dry_run(dlq: Callable[..., Called], letters: list[str], redis_client: redis.Redis) -> None:
    called = dlq("replay", "--dry-run", "--type", "login")
    assert (called.code, called.out) == (0, "1 would replay\n")
    assert not redis_client.exists("events:auth")
    assert redis_client.xlen("dlq:events:auth") == 2


def test_replay_that_is_refused_says_what_was_done(
    dlq: Callable[..., Called], letters: list[str], redis_client: redis.Redis
) -> None:
    redis_client.set("events:auth", "no stream")
    called = dlq("replay")
    assert called.code == 1
    assert "was not given back to events:auth" in called.err
    assert "WRONGTYPE" in called.err
    assert redis_client.xlen("dlq:events:auth") == 2


def test_purge(dlq: Callable[..., Called], letters: list[str], redis_client: redis.Redis) -> None:
    assert dlq("purge", "--dry-run").out == "3 would be deleted\n"
    assert redis_client.xlen("dlq:events:auth") == 2
    assert dlq("purge", "--yes", "--reason", "poison").out == "1 deleted\n"
    assert [id_ for id_, _ in entries(redis_client, "dlq:events:auth")] == [letters[0]]
    assert dlq("purge", "--yes", "-o", "json").rows[0] == {
        "stream": "events:auth",
        "purged": 1,
        "dry_run": False,
    }
    assert redis_client.xlen("dlq:events:auth") + redis_client.xlen("dlq:events:scan") == 0


def test_a_reader_that_has_seen_enough_is_no_error(server: Server, redis_client: redis.Redis) -> None:
    for n in range(3000):
        redis_client.xadd("dlq:events:auth", {"n": str(n) * 20})
    command = f"{sys.executable} -m event_router.cli dlq list -o json --streams-url {server.url} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_replay_that_is_killed_neither_loses_nor_doubles(server: Server, redis_client: redis.Redis) -> None:
    count = 1500
    for n in range(count):
        letter: Any = {
            "n": n,
            "dlq_stream": "events:auth",
            "dlq_id": "1767225600123-0",
            "dlq_reason": "invalid",
        }
        redis_client.xadd("dlq:events:auth", letter)
    command = [sys.executable, "-m", "event_router.cli", "dlq", "replay", "--streams-url", server.url]
    for share in (1, 2, 3):
        enough = share * count // 4
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while redis_client.xlen("events:auth") < enough and process.poll() is None:
                time.sleep(0.005)
            process.kill()
        assert redis_client.xlen("events:auth") + redis_client.xlen("dlq:events:auth") == count
    assert redis_client.xlen("events:auth") < count
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    numbers = sorted(int(fields["n"]) for _, fields in entries(redis_client, "events:auth"))
    assert numbers == list(range(count))

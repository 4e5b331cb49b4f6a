"""`event-router input`: the commands around `HumanInput`, which has tests of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router.patterns import HumanInput, InputRequest
from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, refusal

SIZES = {"type": "string", "enum": ["S", "M", "L"]}


@pytest.fixture
def command(server: Server) -> Callable[..., Called]:
    """Calls `input` on the server: `command("list")`."""
    return lambda *arguments: call("input", *arguments, env={"REDIS_STREAMS_URL": server.url})


@pytest.fixture
def ask(server: Server) -> Callable[..., InputRequest]:
    """Puts a question: `ask("j", "u", "Size?", SIZES, 60)`."""

    async def put(*question: Any) -> InputRequest:
        async with Redis.from_url(server.url) as client:
            return await HumanInput(client).ask(*question)

    return lambda *question: asyncio.run(put(*question))


def test_list(command: Callable[..., Called], ask: Callable[..., InputRequest]) -> None:
    later = ask("j", "u", "Size?\x1b[31m", SIZES, 90)
    sooner = ask("k", "v", "Sure?", None, 60)
    called = command("list", "--output", "json")
    assert (called.code, called.err) == (0, "")
    assert called.rows == [sooner.row(), later.row()]
    assert called.rows[1] == {
        "request_id": "j:1",
        "job_id": "j",
        "owner": "u",
        "status": "pending",
        "prompt": "Size?\x1b[31m",
        "schema": SIZES,
        "requested_at": later.requested_at,
        "expires_at": later.expires_at,
    }
    assert command("list", "--limit", "1", "--output", "json").rows == [sooner.row()]
    text = command("list").out
    assert [line.split()[0] for line in text.splitlines()] == ["request", "k:1", "j:1"]
    assert "\x1b" not in text


def test_an_empty_list_is_no_error(command: Callable[..., Called]) -> None:
    assert command("list", "--output", "json") == Called(0, "", "")


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (SIZES, "M", "M"),
        (None, "42", 42),
        ({"type": "string"}, "42", "42"),
        (None, '{"a": [1]}', {"a": [1]}),
        (None, "no JSON", "no JSON"),
    ],
)
def test_answer(
    command: Callable[..., Called],
    ask: Callable[..., InputRequest],
    redis_client: redis.Redis,
    schema: Any,
    text: str,
    value: Any,
) -> None:
    ask("j", "u", "?", schema, 60)
    called = command("answer", "j:1", text, "--user", "u", "--output", "json")
    assert (called.code, called.rows) == (0, [{"request_id": "j:1", "user": "u", "value": value}])
    assert redis_client.hget("input:request:j:1", "status") == "answered"
    assert command("list", "--output", "json").rows == []


def test_answer_in_text(command: Callable[..., Called], ask: Callable[..., InputRequest]) -> None:
    ask("j", "u", "?", None, 60)
    assert command("answer", "j:1", "yes", "--user", "u") == Called(0, "j:1 answered\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("j:2", "M", "--user", "u"), 1, "there is no request j:2"),
        (("j:1", "M", "--user", "v"), 1, "request j:1 was put to another user"),
        (("done:1", "M", "--user", "u"), 1, "request done:1 is answered already"),
        (("over:1", "M", "--user", "u"), 1, "request over:1 expired"),
        (("j:1", "XL", "--user", "u"), 2, "request j:1: value must be one of"),
        (("j", "M", "--user", "u"), 2, "'j' is no id of a request"),
        (("j:1", "M", "--user", ""), 2, "empty identifier"),
    ],
)
def test_refusals(
    command: Callable[..., Called],
    ask: Callable[..., InputRequest],
    arguments: tuple[str, ...],
    code: int,
    problem: str,
) -> None:
    for job, timeout in (("j", 60), ("done", 60), ("over", 0.001)):
        ask(job, "u", "Size?", SIZES, timeout)
    assert command("answer", "done:1", "M", "--user", "u").code == 0
    assert problem in refusal(command("answer", *arguments), code)


def test_wrong_usage(command: Callable[..., Called]) -> None:
    assert command("answer", "j:1", "M").code == 2
    assert command("list", "--limit", "0").code == 2

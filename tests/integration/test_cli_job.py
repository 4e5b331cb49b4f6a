"""`event-router job watch`: a job's steps to its end, whatever happens to the live messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import redis

from tests.conftest import ServerFactory
from tests.environment.servers import Server, free_port
from tests.environment.waiting import eventually
from tests.integration.cli_calls import Called, call, refusal

# What the command does with a server is tested on both elsewhere.
pytestmark = pytest.mark.once

STATE, CHANNEL = "chat:state:j-1", "sse:events:j-1"


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    return {"REDIS_STREAMS_URL": server.url}


def step(
    client: redis.Redis, seq: int, status: str = "running", *, terminal: bool = False, live: bool = True
) -> None:
    """Do what the router does for a step: the state with the commit, then the message."""
    fields = {"stage": "answer", "status": status, "seq": seq, "progress": "50", "message": "", "result": ""}
    times = {"version": f"{int(terminal)}:{seq}:1-0@events:chat", "updated_at": "2026-01-01T00:00:00.000Z"}
    client.hset(STATE, mapping=fields | times)
    if live:
        message = fields | {"id": f"{seq}-0", "timestamp": "2026-01-01T00:00:00.000Z", "domain": "chat"}
        client.publish(CHANNEL, json.dumps(message | {"seq": seq, "progress": 50, "type": "progress"}))


def reads(client: redis.Redis) -> int:
    """How often a hash was read whole."""
    found: Any = client.info("commandstats")
    return int(found.get("cmdstat_hgetall", {}).get("calls", 0))


class Watching:
    """A watch in a thread that has subscribed (on `pubsub`) and read the state for the first time."""

    def __init__(
        self, client: redis.Redis, env: Mapping[str, str], *arguments: str, pubsub: redis.Redis | None = None
    ) -> None:
        self._called: list[Called] = []
        self._thread = threading.Thread(target=self._call, args=(arguments, env))
        before = reads(client)
        self._thread.start()
        domains = 1 if "--domain" in arguments else 4
        eventually(lambda: reads(client) >= before + domains, within=10)
        if "REDIS_PUBSUB_URL" not in env or pubsub is not None:
            counted = pubsub or client
            eventually(lambda: counted.pubsub_numsub(CHANNEL) == [(CHANNEL, 1)], within=10)

    def _call(self, arguments: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._called.append(call("job", "watch", "j-1", "-o", "json", "--timeout", "30", *arguments, env=env))

    def end(self) -> Called:
        self._thread.join(timeout=40)
        return self._called[0]


def seen(called: Called) -> list[tuple[int, str, bool]]:
    return [(row["seq"], row["status"], row["live"]) for row in called.rows]


def test_shows_the_latest_step_and_then_each_until_done(
    redis_client: redis.Redis, env: Mapping[str, str]
) -> None:
    step(redis_client, 3)
    watching = Watching(redis_client, env)
    for number in range(4, 40):
        step(redis_client, number)
    step(redis_client, 40, "done", terminal=True)
    called = watching.end()
    assert called.code == 0
    assert [seq for seq, _, _ in seen(called)] == list(range(3, 41))
    assert called.err == ""
    assert called.rows[0] == {
        "job_id": "j-1",
        "domain": "chat",
        "stage": "answer",
        "status": "running",
        "seq": 3,
        "progress": 50,
        "message": "",
        "result": "",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "live": False,
    }
    assert seen(called)[-1][1] == "done"


def test_waits_for_a_job_that_has_not_begun(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    watching = Watching(redis_client, env, "--domain", "chat")
    step(redis_client, 1)
    step(redis_client, 1)  # a repetition of the relay
    step(redis_client, 2, "failed", terminal=True)
    called = watching.end()
    assert called.code == 1
    assert [(seq, status) for seq, status, _ in seen(called)] == [(1, "running"), (2, "failed")]
    assert called.err.splitlines() == ["nothing is known of job 'j-1' in chat; waiting for its first step"]


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("shipped", 0), ("cancelled", 1), ("error", 1)])
def test_a_job_that_has_ended_is_told_at_once(
    redis_client: redis.Redis, env: Mapping[str, str], status: str, code: int
) -> None:
    step(redis_client, 0, status, terminal=True, live=False)
    called = call("job", "watch", "j-1", "-o", "json", env=env)
    assert (called.code, seen(called)) == (code, [(0, status, False)])
    text = call("job", "watch", "j-1", env=env)
    assert text.out == f"2026-01-01T00:00:00.000Z  chat  0  answer  {status}  50%\n"


def test_a_status_that_sounds_final_ends_nothing(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    """The state knows whether a step was the last one; a later one with a smaller number may be."""
    watching = Watching(redis_client, env)
    before = reads(redis_client)
    step(redis_client, 5, "error")
    eventually(lambda: reads(redis_client) >= before + 4, within=10, what="the state is looked at")
    step(redis_client, 6, "running")
    step(redis_client, 0, "shipped", terminal=True)
    redis_client.publish(CHANNEL, '{"seq": 0, "status": "shipped", "terminal": true}')
    called = watching.end()
    assert called.code == 0
    assert [(seq, status) for seq, status, _ in seen(called)] == [
        (5, "error"),
        (6, "running"),
        (0, "shipped"),
    ]


def test_a_job_of_the_same_id_in_another_domain_is_another_one(
    redis_client: redis.Redis, env: Mapping[str, str]
) -> None:
    step(redis_client, 1)
    watching = Watching(redis_client, env, "--domain", "chat")
    other = {"domain": "scan", "seq": 50, "status": "running", "stage": "look", "id": "1-0"}
    redis_client.publish(CHANNEL, json.dumps(other))
    redis_client.publish(CHANNEL, json.dumps(other | {"seq": 51, "status": "done"}))
    step(redis_client, 2)
    step(redis_client, 3, "done", terminal=True)
    called = watching.end()
    assert called.code == 0
    assert [(seq, status) for seq, status, _ in seen(called)] == [(1, "running"), (2, "running"), (3, "done")]


def test_without_live_messages_the_state_tells_the_end(
    redis_client: redis.Redis, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("event_router.messaging.job_watch.SILENCE_S", 0.1)
    nobody = env | {"REDIS_PUBSUB_URL": f"redis://127.0.0.1:{free_port()}/0"}
    step(redis_client, 1, live=False)
    watching = Watching(redis_client, nobody)
    step(redis_client, 2, "done", terminal=True, live=False)
    called = watching.end()
    assert called.code == 0
    assert seen(called)[-1] == (2, "done", False)


def test_the_end_is_seen_through_a_restart_of_pubsub(
    redis_client: redis.Redis,
    env: Mapping[str, str],
    new_server: ServerFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("event_router.messaging.job_watch.SILENCE_S", 60)  # the gap is what tells it
    pubsub = new_server().start()
    both = env | {"REDIS_PUBSUB_URL": pubsub.url}
    step(redis_client, 1, live=False)
    with pubsub.client() as client:
        watching = Watching(redis_client, both, pubsub=client)
    pubsub.kill()
    step(redis_client, 2, "done", terminal=True, live=False)  # its message is lost
    pubsub.start()
    called = watching.end()
    assert called.code == 0
    assert seen(called) == [(1, "running", False), (2, "done", False)]


def test_a_state_that_expires_is_no_end_that_was_seen(
    redis_client: redis.Redis, env: Mapping[str, str]
) -> None:
    step(redis_client, 1, live=False)
    watching = Watching(redis_client, env)
    redis_client.delete(STATE)
    redis_client.publish(CHANNEL, '{"seq": 2, "status": "done"}')
    called = watching.end()
    assert called.code == 1
    assert "the state of job 'j-1' expired or was deleted" in called.err


def test_gives_up_after_its_timeout(env: Mapping[str, str]) -> None:
    called = call("job", "watch", "j-1", "--timeout", "0.3", env=env)
    unknown, given_up = called.err.splitlines()
    assert (called.code, called.out) == (1, "")
    assert "nothing is known of job 'j-1' in auth, chat, scan, info" in unknown
    assert "was not done within 0.3 s" in given_up


def test_wrong_usage_and_failures(env: Mapping[str, str], redis_client: redis.Redis) -> None:
    assert "control characters" in refusal(call("job", "watch", "a\nb", env=env), 2)
    unserved = refusal(call("job", "watch", "j-1", "--domain", "billing", env=env), 2)
    assert "unknown domain 'billing'; the handlers serve auth, chat, scan, info" in unserved
    away = {"REDIS_STREAMS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    assert call("job", "watch", "j-1", env=away).code == 1
    redis_client.set(STATE, '{"status": "done"}')
    assert STATE in refusal(call("job", "watch", "j-1", env=env), 1)


def test_ids_with_stars_watch_nobody_else(redis_client: redis.Redis, env: Mapping[str, str]) -> None:
    found: list[Any] = []

    def watch() -> None:
        found.append(call("job", "watch", "*", "--timeout", "0.5", env=env))

    thread = threading.Thread(target=watch)
    thread.start()
    eventually(lambda: redis_client.pubsub_numsub("sse:events:*") == [("sse:events:*", 1)], within=10)
    step(redis_client, 1, "done", terminal=True)
    thread.join(timeout=20)
    assert found[0].code == 1
    assert found[0].out == ""

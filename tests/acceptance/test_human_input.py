"""Questions to users through running routers: askers and routers killed, entries delivered twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router.core.errors import AlreadyAnswered, RequestExpired
from event_router.patterns import HumanInput
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.routers import environment
from tests.environment.servers import Server
from tests.environment.streams import GROUP, await_settled, entries
from tests.environment.waiting import eventually

CHAT = ("events:chat",)
ASKER = Path(__file__).parent / "apps/asker.py"


@pytest.fixture
def askers(server: Server) -> Iterator[list[subprocess.Popen[str]]]:
    """The asking programs of a test; killed at its end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for asker in started:
        asker.kill()
        asker.communicate()


def start_asker(askers: list[subprocess.Popen[str]], server: Server) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    asker = subprocess.Popen(
        [sys.executable, str(ASKER), server.url],
        env=environment({}) | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        text=True,
    )
    askers.append(asker)
    return asker


def published(client: redis.Redis) -> Counter[tuple[str, str]]:
    """How often each type was published for each request."""
    messages = [json.loads(fields["message"]) for _, fields in entries(client, "outbox:chat")]
    return Counter((message["type"], message["request_id"]) for message in messages)


def answer(server: Server, request_id: str, user: str, value: Any) -> None:
    async def call() -> None:
        async with Redis.from_url(server.url) as client:
            await HumanInput(client).answer(request_id, user, value)

    asyncio.run(call())


def test_a_question_an_answer_and_messages_for_the_clients(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url).start()
    listener = redis_client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("sse:events:j")
    schema = json.dumps({"type": "boolean"})
    redis_client.xadd(
        CHAT[0],
        {"type": "input_requested", "job_id": "j", "user_id": "u", "prompt": "Sure?", "schema": schema},
    )
    await_settled(redis_client, CHAT, within=10)
    assert redis_client.hmget("input:request:j:1", "status", "owner") == ["pending", "u"]
    for user, value in (("stranger", "true"), ("u", "perhaps")):
        redis_client.xadd(CHAT[0], {"type": "input_received", "job_id": "j", "user_id": user, "value": value})
    await_settled(redis_client, CHAT, within=10)
    assert redis_client.hget("input:request:j:1", "status") == "pending"
    errors = [fields["dlq_error"] for _, fields in entries(redis_client, "dlq:events:chat")]
    assert errors == [
        "request j:1 was put to another user than 'stranger'",
        "request j:1: value must be of type boolean, not string",
    ]
    answer(server, "j:1", "u", True)
    await_settled(redis_client, CHAT, within=10)
    assert redis_client.hmget("input:request:j:1", "status", "value") == ["answered", "true"]
    heard: list[dict[str, Any]] = []
    eventually(lambda: _hear(listener, heard) and len(heard) == 2, within=10, what=lambda: heard)
    listener.close()
    assert [(one["type"], one["request_id"]) for one in heard] == [
        ("input_requested", "j:1"),
        ("input_received", "j:1"),
    ]
    assert heard[1]["value"] is True


@pytest.mark.once
def test_an_asker_that_is_killed_and_started_again_gets_the_answer(
    server: Server,
    redis_client: redis.Redis,
    new_router: RouterFactory,
    askers: list[subprocess.Popen[str]],
) -> None:
    new_router(server.url).start()
    first = start_asker(askers, server)
    eventually(lambda: redis_client.exists("input:request:j:1"), within=10)
    first.kill()
    second = start_asker(askers, server)
    eventually(lambda: _waiting_askers(redis_client) == 1, within=10)
    answer(server, "j:1", "u", "M")
    assert second.communicate(timeout=10)[0] == '"M"\n'
    await_settled(redis_client, CHAT, within=10)
    once = {("input_requested", "j:1"): 1, ("input_received", "j:1"): 1}
    assert published(redis_client) == once


@pytest.mark.once
def test_an_answer_given_while_the_asker_was_dead_waits_for_it(
    server: Server, redis_client: redis.Redis, askers: list[subprocess.Popen[str]]
) -> None:
    first = start_asker(askers, server)
    eventually(lambda: redis_client.exists("input:request:j:1"), within=10)
    first.kill()
    answer(server, "j:1", "u", "L")
    assert start_asker(askers, server).communicate(timeout=10)[0] == '"L"\n'
    assert redis_client.exists("input:request:j:2") == 0


@pytest.mark.once
def test_a_router_killed_between_question_and_answer_loses_and_doubles_nothing(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    jobs = [f"job-{n}" for n in range(50)]

    async def ask_and_answer() -> None:
        async with Redis.from_url(server.url) as client:
            human_input = HumanInput(client)
            for job in jobs:
                await human_input.ask(job, "u", "?", None, 60)
            router.kill()
            for job in jobs:
                await human_input.answer(f"{job}:1", "u", job)
            assert [await human_input.wait(f"{job}:1") for job in jobs] == jobs

    asyncio.run(ask_and_answer())
    router.start()
    await_settled(redis_client, CHAT, within=20)
    expected = {(kind, f"{job}:1"): 1 for job in jobs for kind in ("input_requested", "input_received")}
    assert published(redis_client) == expected
    assert redis_client.exists("dlq:events:chat") == 0


@pytest.mark.once
def test_what_is_delivered_again_changes_and_publishes_nothing(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url, READ_BLOCK_MS=200).start()  # moving the group wakes no read

    async def ask_and_answer() -> None:
        async with Redis.from_url(server.url) as client:
            await HumanInput(client).ask("j", "u", "?", None, 60)
            await HumanInput(client).answer("j:1", "u", 1)
            with pytest.raises(RequestExpired):
                await HumanInput(client).request_input("k", "u", "?", None, 0.05)

    asyncio.run(ask_and_answer())
    plain = {"type": "input_requested", "job_id": "l", "user_id": "u", "request_id": "l:1"}
    redis_client.xadd(CHAT[0], plain)  # type: ignore[arg-type]  # redis-py's dict is invariant
    redis_client.xadd(CHAT[0], {"type": "input_received", "job_id": "l", "user_id": "u", "value": "1"})
    await_settled(redis_client, CHAT, within=10)
    keys = [f"input:request:{job}{n}" for job in "jkl" for n in ("", ":1")]
    before = [redis_client.hgetall(key) for key in keys], published(redis_client)
    handled = router.metric("events_processed_total")
    before_duplicates = router.metric("events_duplicate_total")
    redis_client.xgroup_setid(CHAT[0], GROUP, "0")
    # Those with a producer's id are known already.
    eventually(
        lambda: (
            router.metric("events_processed_total")
            - handled
            + router.metric("events_duplicate_total")
            - before_duplicates
            == 6
        ),
        within=10,
    )
    assert ([redis_client.hgetall(key) for key in keys], published(redis_client)) == before
    assert redis_client.exists("dlq:events:chat") == 0


@pytest.mark.once
def test_of_an_answer_by_service_and_one_in_the_stream_one_counts_and_the_truth_is_told(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    new_router(server.url).start()
    jobs = [f"job-{n}" for n in range(200)]

    async def race(client: Redis, human_input: HumanInput, job: str, place: asyncio.Semaphore) -> str:
        async with place:
            return await race_at_once(client, human_input, job)

    async def race_at_once(client: Redis, human_input: HumanInput, job: str) -> str:
        plain: Any = {"type": "input_received", "job_id": job, "user_id": "u", "value": "stream"}
        added = asyncio.create_task(client.xadd(CHAT[0], plain))
        if job.endswith("0"):  # a few certainly come second, whatever the machine does
            while (await human_input.get(f"{job}:1")).status == "pending":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        await asyncio.sleep(random.random() / 50)
        try:
            await human_input.answer(f"{job}:1", "u", "service")
            return "service"
        except AlreadyAnswered:
            return "stream"
        finally:
            await added

    async def race_for_all() -> list[str]:
        async with Redis.from_url(server.url) as client:
            human_input = HumanInput(client)
            for job in jobs:
                await human_input.ask(job, "u", "?", None, 60)
            place = asyncio.Semaphore(20)
            return await asyncio.gather(*(race(client, human_input, job, place) for job in jobs))

    told = asyncio.run(race_for_all())
    print(Counter(told))
    assert told.count("stream") >= 20
    await_settled(redis_client, CHAT, within=10)
    assert [redis_client.hget(f"input:request:{job}:1", "value") for job in jobs] == told
    refused = sorted(fields["job_id"] for _, fields in entries(redis_client, "dlq:events:chat"))
    assert refused == sorted(job for job, winner in zip(jobs, told, strict=True) if winner == "service")
    announced = {(kind, f"{job}:1"): 1 for job in jobs for kind in ("input_requested", "input_received")}
    assert published(redis_client) == announced


@pytest.mark.once
def test_requests_expire_once_with_several_routers_and_askers(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    routers = [new_router(server.url, pod).start(ready=False) for pod in "ab"]
    for router in routers:
        router.await_ready()
    for n in range(20):  # these have nobody who waits, and only routers know of them
        fields = {"type": "input_requested", "job_id": f"plain-{n}", "user_id": "u", "timeout_s": "0.2"}
        redis_client.xadd(CHAT[0], fields)  # type: ignore[arg-type]  # redis-py's dict is invariant

    async def wait_thrice(human_input: HumanInput, job: str) -> list[Any]:
        waiting = [human_input.request_input(job, "u", "?", None, 0.5) for _ in range(3)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def wait_for_all() -> None:
        async with Redis.from_url(server.url) as client, asyncio.timeout(20):
            human_input = HumanInput(client)
            for outcomes in await asyncio.gather(*(wait_thrice(human_input, f"job-{n}") for n in range(20))):
                assert all(isinstance(outcome, RequestExpired) for outcome in outcomes)

    asyncio.run(wait_for_all())
    requests = [f"{kind}-{n}:1" for kind in ("plain", "job") for n in range(20)]

    def expired() -> list[str]:
        found = entries(redis_client, CHAT[0])
        return sorted(fields["request_id"] for _, fields in found if fields["type"] == "input_expired")

    eventually(lambda: len(expired()) >= 40, within=10)
    await_settled(redis_client, CHAT, within=10)
    assert expired() == sorted(requests)
    assert published(redis_client) == {
        (kind, request): 1 for request in requests for kind in ("input_requested", "input_expired")
    }
    assert redis_client.zcard("event-router:input:open") == 0


def test_waiting_survives_a_restart_of_redis(new_server: ServerFactory) -> None:
    server = new_server(append_only=True, options=["--appendfsync", "always"]).start()

    async def ask_across_the_restart() -> Any:
        async with Redis.from_url(server.url) as client, asyncio.timeout(30), asyncio.TaskGroup() as group:
            human_input = HumanInput(client)
            asked = group.create_task(human_input.request_input("j", "u", "?", None, 60))
            while await human_input.get("j:1") is None:  # noqa: ASYNC110 - it is another process that acts
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await human_input.answer("j:1", "u", "still there")
            return await asked

    assert asyncio.run(ask_across_the_restart()) == "still there"


def _hear(listener: Any, heard: list[dict[str, Any]]) -> bool:
    while (message := listener.get_message(timeout=0)) is not None:
        heard.append(json.loads(message["data"]))
    return True


def _waiting_askers(client: redis.Redis) -> int:
    """How many connections without a name, as routers have them, are in a blocked read."""
    clients: Any = client.client_list()
    return sum(one["cmd"] == "xread" and "b" in one["flags"] and not one["name"] for one in clients)

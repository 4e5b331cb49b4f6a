"""HumanInput on a real server: what is asked, who may answer, what counts, and what is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router import InvalidState, OutcomeUnknown, RedisRefused, RedisUnavailable
from event_router.core.errors import (
    AlreadyAnswered,
    DifferentRequest,
    InvalidRequest,
    InvalidSchema,
    NotTheOwner,
    RequestExpired,
    UnknownRequest,
    ValueMisfit,
)
from event_router.core.keys import KeyNames
from event_router.patterns import HumanInput
from event_router.patterns.bounded import BoundedCalls
from event_router.patterns.input_store import InputStore
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.cli_calls import entries

CHAT = "events:chat"
SIZES = {"type": "string", "enum": ["S", "M", "L"]}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """A client as users make them: with text and RESP3, unless a test says otherwise."""
    made = Redis(port=server.port, decode_responses=True, protocol=3)
    yield made
    await made.aclose()


@pytest.fixture
def human_input(client: Redis) -> HumanInput:
    return HumanInput(client)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def behind_proxy(proxy: Proxy) -> AsyncIterator[HumanInput]:
    async with Redis(port=proxy.port) as client:
        yield HumanInput(client, timeout_s=0.3, patience_s=1.0)


def events(client: redis.Redis) -> list[tuple[str, str]]:
    """Type and request of every event in the stream."""
    return [(fields["type"], fields["request_id"]) for _, fields in entries(client, CHAT)]


class TestRoundTrip:
    @pytest.mark.parametrize(("text", "protocol"), [(True, 3), (True, 2), (False, 2)])
    async def test_the_answer_comes_to_who_waits(
        self, server: Server, redis_client: redis.Redis, text: bool, protocol: int
    ) -> None:
        client = Redis(port=server.port, decode_responses=text, protocol=protocol)
        human_input = HumanInput(client)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            asked = group.create_task(human_input.request_input("j", "u", "Size?", SIZES, 60))
            request = await _asked(human_input, "j:1")
            assert (request.owner, request.prompt, request.schema) == ("u", "Size?", SIZES)
            assert request.status == "pending"
            await human_input.answer("j:1", "u", "M")
            assert await asked == "M"
        await client.aclose()
        assert events(redis_client) == [("input_requested", "j:1"), ("input_received", "j:1")]

    async def test_what_is_written(self, human_input: HumanInput, redis_client: redis.Redis) -> None:
        request = await human_input.ask("j", "u", "Size?", SIZES, 60)
        record = redis_client.hgetall("input:request:j:1")
        assert redis_client.hgetall("input:request:j") == {
            name: value for name, value in record.items() if name not in ("ask_id", "announce_requested")
        }
        assert (record["request_id"], record["status"], record["n"]) == ("j:1", "pending", "1")
        assert record["expires_at"] == request.expires_at
        interaction = redis_client.hgetall("interaction:state:j")
        assert (interaction["request_id"], interaction["status"]) == ("j:1", "pending")
        for key in ("input:request:j:1", "input:request:j", "interaction:state:j"):
            assert 86_400 < redis_client.ttl(key) <= 86_460
        ((_, event),) = entries(redis_client, CHAT)
        assert event == {
            "type": "input_requested",
            "id": record["ask_id"],
            "job_id": "j",
            "user_id": "u",
            "request_id": "j:1",
            "prompt": "Size?",
            "schema": '{"type":"string","enum":["S","M","L"]}',
            "timeout_s": "60.0",
        }
        await human_input.answer("j:1", "u", "M")
        for key in ("input:request:j:1", "input:request:j"):
            assert redis_client.hmget(key, "status", "value") == ["answered", "M"]
        assert redis_client.hget("interaction:state:j", "status") == "answered"
        assert redis_client.zcard("event-router:input:open") == 0
        _, answered = entries(redis_client, CHAT)[1]
        del answered["id"]
        assert answered == {
            "type": "input_received",
            "job_id": "j",
            "user_id": "u",
            "request_id": "j:1",
            "value": "M",
        }

    @pytest.mark.parametrize(
        "value",
        ["text", "42", '"quoted"', "", "null", 42, 2**70, 1.5, True, None, [1, "a"], {"a": {"b": []}}],
    )
    async def test_a_value_comes_out_as_it_went_in(self, human_input: HumanInput, value: Any) -> None:
        await human_input.ask("j", "u", "?", None, 60)
        await human_input.answer("j:1", "u", value)
        found = await human_input.wait("j:1")
        assert (found, type(found)) == (value, type(value))

    async def test_everybody_who_waits_gets_the_answer(self, human_input: HumanInput) -> None:
        await human_input.ask("j", "u", "?", None, 60)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = [group.create_task(human_input.wait("j:1")) for _ in range(20)]
            await asyncio.sleep(0)
            await human_input.answer("j:1", "u", 7)
            assert [await task for task in waiting] == [7] * 20

    async def test_events_go_to_the_shard_of_the_job(self, client: Redis, redis_client: redis.Redis) -> None:
        names = KeyNames(stream_template="{domain}:events:{shard}", shards={"chat": 4})
        await HumanInput(client, names=names).ask("j", "u", "?", None, 60)
        assert redis_client.xlen(names.stream("chat", "j")) == 1


class TestAskingAgain:
    async def test_under_its_id_it_is_asked_once(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        first = await human_input.ask("j", "u", "Size?", SIZES, 60, request_id="j:1")
        assert await human_input.ask("j", "u", "Size, please?", SIZES, 5, request_id="j:1") == first
        await human_input.answer("j:1", "u", "S")
        for _ in range(2):  # also when it was received before
            assert await human_input.request_input("j", "u", "Size?", SIZES, 60, request_id="j:1") == "S"
        assert events(redis_client) == [("input_requested", "j:1"), ("input_received", "j:1")]

    @pytest.mark.parametrize(("owner", "schema"), [("thief", SIZES), ("u", {"type": "string"})])
    async def test_another_owner_or_schema_under_its_id_is_refused(
        self, human_input: HumanInput, owner: str, schema: dict[str, Any]
    ) -> None:
        await human_input.ask("j", "u", "Size?", SIZES, 60, request_id="j:1")
        with pytest.raises(DifferentRequest, match="j:1"):
            await human_input.ask("j", owner, "Size?", schema, 60, request_id="j:1")

    async def test_without_an_id_the_newest_goes_on_until_its_outcome_is_received(
        self, human_input: HumanInput
    ) -> None:
        assert (await human_input.ask("j", "u", "Size?", SIZES, 60)).request_id == "j:1"
        assert (await human_input.ask("j", "u", "Size?", SIZES, 60)).request_id == "j:1"
        await human_input.answer("j:1", "u", "L")
        assert await human_input.request_input("j", "u", "Size?", SIZES, 60) == "L"  # asked before the answer
        assert (await human_input.ask("j", "u", "Size?", SIZES, 60)).request_id == "j:2"

    async def test_one_after_another_each_has_its_number(self, human_input: HumanInput) -> None:
        for number in range(1, 5):
            request = await human_input.ask("j", "u", f"Question {number}?", None, 60)
            assert request.request_id == f"j:{number}"
            await human_input.answer(request.request_id, "u", number)
            assert await human_input.wait(request.request_id) == number
        assert (await human_input.ask("k", "u", "Question?", None, 60)).request_id == "k:1"

    async def test_many_at_once_ask_one_question(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        asked = await asyncio.gather(*(human_input.ask("j", "u", "Size?", SIZES, 60) for _ in range(20)))
        assert {request.request_id for request in asked} == {"j:1"}
        assert events(redis_client) == [("input_requested", "j:1")]

    async def test_a_number_that_is_taken_is_passed_over(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        await human_input.ask("j", "u", "Long?", None, 600)
        redis_client.delete("input:request:j", "interaction:state:j")  # as if its time to live were over
        assert (await human_input.ask("j", "u", "Short?", None, 60)).request_id == "j:2"
        assert (await human_input.get("j:1")) is not None

    async def test_an_older_one_is_answered_without_touching_the_newest(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        for prompt in ("First?", "Second?"):
            await human_input.ask("j", "u", prompt, None, 60)
        await human_input.answer("j:1", "u", "late")
        assert redis_client.hget("input:request:j", "status") == "pending"
        assert redis_client.hget("interaction:state:j", "status") == "pending"

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"job_id": ""}, "empty identifier"),
            ({"job_id": "a:1"}, "ends like the id of a request"),
            ({"owner": "u\n"}, "control characters"),
            ({"prompt": "x" * 65_537}, "at most 65536"),
            ({"prompt": 7}, "must be text"),
            ({"timeout": 0}, "timeout 0 is not possible"),
            ({"timeout": float("nan")}, "timeout nan"),
            ({"request_id": "k:1"}, "none of job 'j'"),
            ({"request_id": "j:01"}, "no id of a request"),
        ],
    )
    async def test_what_cannot_be_asked_is_refused(
        self, human_input: HumanInput, redis_client: redis.Redis, given: dict[str, Any], problem: str
    ) -> None:
        arguments: dict[str, Any] = {"job_id": "j", "owner": "u", "prompt": "?", "timeout": 60}
        with pytest.raises(InvalidRequest, match=problem):
            await human_input.ask(**arguments | given)
        assert redis_client.dbsize() == 0

    async def test_a_schema_that_cannot_be_checked_is_refused(self, human_input: HumanInput) -> None:
        with pytest.raises(InvalidSchema, match=r"schema\.pattern is a keyword that is not supported"):
            await human_input.ask("j", "u", "?", {"pattern": "(a+)+$"}, 60)


class TestAnswering:
    async def test_only_who_was_asked_may(self, human_input: HumanInput) -> None:
        await human_input.ask("j", "u", "Size?", SIZES, 60)
        with pytest.raises(NotTheOwner, match="j:1"):
            await human_input.answer("j:1", "stranger", "M")
        await human_input.answer("j:1", "u", "M")
        with pytest.raises(NotTheOwner):  # nor learn that it is answered
            await human_input.answer("j:1", "stranger", "M")

    async def test_only_once(self, human_input: HumanInput, redis_client: redis.Redis) -> None:
        await human_input.ask("j", "u", "Size?", SIZES, 60)
        await human_input.answer("j:1", "u", "M")
        for value in ("M", "S"):
            with pytest.raises(AlreadyAnswered, match="j:1"):
                await human_input.answer("j:1", "u", value)
        assert await human_input.wait("j:1") == "M"
        assert len(events(redis_client)) == 2

    async def test_of_many_at_once_one_counts_and_the_others_are_told(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        await human_input.ask("j", "u", "Number?", None, 60)
        told = await asyncio.gather(
            *(human_input.answer("j:1", "u", number) for number in range(20)), return_exceptions=True
        )
        (accepted,) = [number for number, outcome in enumerate(told) if outcome is None]
        assert all(isinstance(outcome, AlreadyAnswered) for outcome in told if outcome is not None)
        assert await human_input.wait("j:1") == accepted
        assert len(events(redis_client)) == 2

    @pytest.mark.parametrize(
        "request_id", ["j:1", "j:2", "k:1", "j", "", "j:0", "j:1:", ":1", "j:1\n", "\ud800:1"]
    )
    async def test_an_unknown_request_is_refused(
        self, human_input: HumanInput, request_id: str, redis_client: redis.Redis
    ) -> None:
        with pytest.raises(UnknownRequest):
            await human_input.answer(request_id, "u", "M")
        with pytest.raises(UnknownRequest):
            await human_input.wait(request_id)
        assert redis_client.dbsize() == 0

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("XL", r"value must be one of \['S', 'M', 'L'\], not 'XL'"),
            (1, "value must be of type string, not integer"),
            (None, "value must be of type string, not null"),
            (float("nan"), "nothing that JSON can hold"),
            (b"M", "nothing that JSON can hold"),
            (object(), "nothing that JSON can hold"),
        ],
    )
    async def test_a_value_that_does_not_fit_is_refused_and_the_request_waits(
        self, human_input: HumanInput, value: Any, problem: str
    ) -> None:
        await human_input.ask("j", "u", "Size?", SIZES, 60)
        with pytest.raises(ValueMisfit, match=problem):
            await human_input.answer("j:1", "u", value)
        await human_input.answer("j:1", "u", "S")

    async def test_a_value_that_the_router_would_not_take_is_refused(self, human_input: HumanInput) -> None:
        await human_input.ask("j", "u", "?", None, 60)
        with pytest.raises(ValueMisfit, match="at most 65536"):
            await human_input.answer("j:1", "u", "x" * 65_537)

    async def test_a_damaged_record_is_named(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        redis_client.hset("input:request:j:1", "status", "pending")
        with pytest.raises(InvalidState, match="damaged"):
            await human_input.answer("j:1", "u", "M")
        redis_client.set("input:request:k:1", "text")
        with pytest.raises(RedisRefused, match=r"WRONGTYPE|wrong kind"):
            await human_input.answer("k:1", "u", "M")

    @pytest.mark.parametrize("key", ["interaction:state:j", "event-router:input:settled", "input:request:j"])
    async def test_a_key_of_another_type_leaves_nothing_half_done(
        self, human_input: HumanInput, redis_client: redis.Redis, key: str
    ) -> None:
        await human_input.ask("j", "u", "?", None, 60)
        redis_client.delete(key)
        redis_client.set(key, "text")
        before = redis_client.hgetall("input:request:j:1"), redis_client.xlen(CHAT)
        with pytest.raises(RedisRefused, match="WRONGTYPE"):
            await human_input.answer("j:1", "u", "M")
        assert (redis_client.hgetall("input:request:j:1"), redis_client.xlen(CHAT)) == before

    async def test_a_missing_permission_leaves_nothing_half_done(
        self, server: Server, redis_client: redis.Redis
    ) -> None:
        redis_client.execute_command("ACL", "SETUSER", "asker", "on", "nopass", "~*", "+@all", "-zadd")
        client = Redis(port=server.port, username="asker", password="any")
        try:
            with pytest.raises(RedisUnavailable, match="ZADD"):
                await HumanInput(client, patience_s=0.01).ask("j", "u", "?", None, 60)
        finally:
            await client.aclose()
            redis_client.execute_command("ACL", "DELUSER", "asker")
        assert redis_client.dbsize() == 0


class TestExpiry:
    async def test_who_waits_is_told_and_a_late_answer_refused(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        async with asyncio.timeout(10):
            with pytest.raises(RequestExpired, match="j:1"):
                await human_input.request_input("j", "u", "?", None, 0.05)
        with pytest.raises(RequestExpired):
            await human_input.answer("j:1", "u", "late")
        assert events(redis_client) == [("input_requested", "j:1"), ("input_expired", "j:1")]
        for key in ("input:request:j:1", "input:request:j", "interaction:state:j"):
            assert redis_client.hget(key, "status") == "expired"

    async def test_is_one_event_however_many_notice_it(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        for job in "abcde":
            await human_input.ask(job, "u", "?", None, 0.05)
        notice = [human_input.wait(f"{job}:1") for job in "abcde" for _ in range(3)]
        async with asyncio.timeout(10):
            found = await asyncio.gather(*notice, human_input.expire_due(), return_exceptions=True)
            assert all(isinstance(outcome, RequestExpired) for outcome in found[:-1])
            assert await human_input.expire_due() == 0
        assert sorted(events(redis_client)[5:]) == [("input_expired", f"{job}:1") for job in "abcde"]

    async def test_an_answer_that_finds_the_time_over_makes_it_expire(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        request = await human_input.ask("j", "u", "?", None, 0.05)
        await _until(redis_client, request.expires_ms)
        with pytest.raises(RequestExpired):
            await human_input.answer("j:1", "u", "late")
        assert events(redis_client)[1:] == [("input_expired", "j:1")]

    async def test_nobody_need_wait(self, human_input: HumanInput, redis_client: redis.Redis) -> None:
        requests = [await human_input.ask(f"job-{n}", "u", "?", None, 0.05) for n in range(250)]
        await human_input.ask("later", "u", "?", None, 60)
        await _until(redis_client, requests[-1].expires_ms)
        assert await human_input.expire_due() == 250
        assert redis_client.zrange("event-router:input:open", 0, -1) == ["later:1"]

    async def test_requests_that_commits_opened_expire_too(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        request = await human_input.ask("j", "u", "?", None, 0.05)
        redis_client.delete("event-router:input:open")
        fields: Any = {"request_id": "j:1", "expires_ms": request.expires_ms}
        redis_client.xadd("event-router:input:opened", fields)
        await _until(redis_client, request.expires_ms)
        assert await human_input.expire_due() == 1
        assert redis_client.xlen("event-router:input:opened") == 0

    async def test_one_that_cannot_expire_holds_up_no_other(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        for job in ("a", "b"):
            request = await human_input.ask(job, "u", "?", None, 0.05)
        redis_client.delete("interaction:state:a")
        redis_client.set("interaction:state:a", "text")
        redis_client.zadd("event-router:input:open", {"no id": 1, "gone:1": 2})
        await _until(redis_client, request.expires_ms)
        assert await human_input.expire_due() == 1
        assert redis_client.zrange("event-router:input:open", 0, -1) == ["a:1"]


class TestPending:
    async def test_those_that_expire_first_come_first(
        self, human_input: HumanInput, redis_client: redis.Redis
    ) -> None:
        for job, timeout in (("late", 90), ("soon", 30), ("over", 0.01), ("done", 60)):
            request = await human_input.ask(job, "u", "?", SIZES, timeout)
        await human_input.answer("done:1", "u", "M")
        await _until(redis_client, request.expires_ms - 59_900)
        assert [one.request_id for one in await human_input.pending()] == ["soon:1", "late:1"]
        assert [one.request_id for one in await human_input.pending(limit=1)] == ["soon:1"]


class TestLostReplies:
    @pytest.mark.parametrize("request_id", [None, "j:1"])
    async def test_a_question_is_put_once(
        self, behind_proxy: HumanInput, proxy: Proxy, redis_client: redis.Redis, request_id: str | None
    ) -> None:
        await behind_proxy.ask("warm", "u", "?", None, 60)  # the server knows the scripts
        drop = proxy.drop_reply("EVALSHA", request=b"Size?", times=2)
        request = await behind_proxy.ask("j", "u", "Size?", SIZES, 60, request_id=request_id)
        assert drop.dropped == 2
        assert request.request_id == "j:1"
        assert events(redis_client)[1:] == [("input_requested", "j:1")]

    async def test_a_question_sent_again_is_found_behind_another_one(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        store = InputStore(BoundedCalls(client, 5.0), KeyNames())
        now_ms, _ = await store.read()

        async def ask(prompt: str, token: str) -> str:
            given = await store.ask(
                "j",
                number=None,
                owner="u",
                prompt=prompt,
                schema="",
                timeout_s=60,
                now_ms=now_ms,
                token=token,
            )
            return str(given)

        tokens = [("A?", "t1"), ("B?", "t2"), ("A?", "t1"), ("B?", "t2"), ("A?", "t3")]
        assert [await ask(*one) for one in tokens] == ["j:1", "j:2", "j:1", "j:2", "j:3"]
        assert len(events(redis_client)) == 3

    async def test_who_answers_is_told_that_it_counts(
        self, behind_proxy: HumanInput, proxy: Proxy, redis_client: redis.Redis
    ) -> None:
        await behind_proxy.ask("warm", "u", "?", None, 60)
        await behind_proxy.answer("warm:1", "u", "")  # the server knows the scripts
        await behind_proxy.ask("j", "u", "Size?", SIZES, 60)
        drop = proxy.drop_reply("EVALSHA", reply=b"answered", request=b"settled", times=2)
        await behind_proxy.answer("j:1", "u", "M")
        assert drop.dropped == 2
        assert events(redis_client)[3:] == [("input_received", "j:1")]

    async def test_who_waits_survives_lost_connections(
        self, behind_proxy: HumanInput, human_input: HumanInput, proxy: Proxy
    ) -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            asked = group.create_task(behind_proxy.request_input("j", "u", "?", None, 60))
            await _asked(human_input, "j:1")
            proxy.cut()
            await human_input.answer("j:1", "u", "M")
            assert await asked == "M"

    async def test_a_server_that_never_answers_is_given_up(
        self, behind_proxy: HumanInput, proxy: Proxy
    ) -> None:
        await behind_proxy.ask("j", "u", "?", None, 0.1)
        proxy.freeze()
        async with asyncio.timeout(10):
            for call in (behind_proxy.wait("j:1"), behind_proxy.answer("j:1", "u", 1)):
                with pytest.raises((RedisUnavailable, OutcomeUnknown)):
                    await call
        proxy.thaw()


async def test_a_waiting_call_does_not_poll(
    proxy: Proxy, behind_proxy: HumanInput, human_input: HumanInput
) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(behind_proxy.request_input(f"job-{n}", "u", "?", None, 60)) for n in range(10)
        ]
        for n in range(10):
            await _asked(human_input, f"job-{n}:1")
        await human_input.answer("job-0:1", "u", 0)
        await waiting[0]
        before = proxy.requests.total()
        for n in range(1, 10):
            await human_input.answer(f"job-{n}:1", "u", n)
        assert [await task for task in waiting] == list(range(10))
        # For each of nine: one read, one note that it was received; and the blocked reads.
        assert proxy.requests.total() - before <= 9 * 2 + 10
        assert proxy.requests["XREAD"] <= 20


async def _asked(human_input: HumanInput, request_id: str) -> Any:
    """The request, as soon as it is put."""
    for _ in range(1000):
        if (request := await human_input.get(request_id)) is not None:
            return request
        await asyncio.sleep(0.005)
    raise AssertionError(f"request {request_id} was not put")


async def _until(client: redis.Redis, ms: int) -> None:
    """Wait until the server's clock shows this time."""
    for _ in range(1000):
        seconds, micros = client.time()
        if seconds * 1000 + micros // 1000 >= ms:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{ms} ms lies too far ahead")

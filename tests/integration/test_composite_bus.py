"""CompositeEventBus: durable, in the state and live, each once, before and after a router has run."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool, Redis

from event_router import (
    CompositeEventBus,
    InvalidEvent,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
)
from event_router.settings import load
from event_router.testing import State, apply, event
from handlers.scan import ScanEventHandler
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server, flush
from tests.environment.streams import await_settled, entries
from tests.environment.waiting import eventually

STREAM, STATE, OUTBOX, CHANNEL = "events:scan", "scan:state:j", "outbox:scan", "sse:events:j"
NO_EVENT_LOOP_PER_EXAMPLE = (HealthCheck.function_scoped_fixture,)


@pytest.fixture(params=["bytes, RESP2", "text, RESP3"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """A client as users make them: one of the kinds there are."""
    text, protocol = request.param.split(", RESP")
    async with Redis(port=server.port, decode_responses=text == "text", protocol=int(protocol)) as made:
        yield made


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


def step(seq: int, status: str = "running", **more: object) -> dict[str, object]:
    return {"stage": "read", "status": status, "seq": seq, **more}


def handled(redis_client: redis.Redis, before: Mapping[str, Mapping[str, str]] | None = None) -> State:
    """What the router makes of the stream's entries, of the state that there is."""
    events = [
        event("scan", fields.pop("type"), entry_id=entry_id, **fields)
        for entry_id, fields in entries(redis_client, STREAM)
    ]
    return apply(ScanEventHandler(), events, before)


def published(redis_client: redis.Redis) -> list[dict[str, Any]]:
    """The messages in the fan-out log."""
    found = entries(redis_client, OUTBOX)
    assert {fields["channel"] for _, fields in found} <= {CHANNEL}
    return [json.loads(fields["message"]) for _, fields in found]


class TestEmit:
    async def test_adds_an_entry_and_leaves_the_rest_to_the_router(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        bus = CompositeEventBus(client, client, handlers=[ScanEventHandler()])
        first = await bus.emit("scan", "j", step(1))
        second = await bus.emit("scan", "j", {"type": "scan_complete", "user_id": 7, "job_id": "j"})
        expected = {"stage": "read", "status": "running", "seq": "1", "type": "progress", "job_id": "j"}
        assert entries(redis_client, STREAM) == [
            (first, expected),
            (second, {"type": "scan_complete", "user_id": "7", "job_id": "j"}),
        ]
        assert redis_client.keys("*") == [STREAM]

    async def test_a_type_in_data_is_one(self, client: Redis, redis_client: redis.Redis) -> None:
        bus = CompositeEventBus(client, client)
        await bus.emit("scan", "j", {"data": {"type": "scan_start"}})
        await bus.emit("scan", "j", {"data": '{"type": "scan_start"}'})
        await bus.emit("scan", "j", {"data": '{"stage": "read"}'})
        assert [fields.get("type") for _, fields in entries(redis_client, STREAM)] == [None, None, "progress"]

    @pytest.mark.parametrize("direct", [True, False])
    async def test_refuses_what_would_be_a_dead_letter(
        self, client: Redis, redis_client: redis.Redis, direct: bool
    ) -> None:
        bus = CompositeEventBus(client, client, handlers=[ScanEventHandler()])
        for job_id, wrong, named in (
            ("j", {"stage": "read", "status": "running"}, "'seq' is missing"),
            ("j", step(-1), "'seq'"),
            ("j", step(1, progress=101), "'progress'"),
            ("j", step(1, job_id="k"), "'job_id' is 'k', in an event for job 'j'"),
            ("", step(1), "'job_id' is an empty identifier"),
        ):
            with pytest.raises(InvalidEvent, match=named):
                await bus.emit("scan", job_id, wrong, direct=direct)
        assert redis_client.keys("*") == []


class TestDirect:
    async def test_state_and_message_stand_with_the_entry(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        bus = CompositeEventBus(client, client)
        entry_id = await bus.emit("scan", "j", step(1, progress=25, message="näher"), direct=True)
        state = await bus.state("scan", "j")
        assert state is not None
        assert state["version"] == f"0:1:{entry_id}@{STREAM}"
        assert (state["stage"], state["progress"], state["message"]) == ("read", "25", "näher")
        assert 3_590_000 < redis_client.pttl(STATE) <= 3_600_000
        (message,) = published(redis_client)
        assert (message["type"], message["job_id"], message["seq"]) == ("progress", "j", 1)
        assert message["timestamp"] == state["updated_at"]

    @pytest.mark.once
    @settings(deadline=None, max_examples=40, suppress_health_check=NO_EVENT_LOOP_PER_EXAMPLE)
    @given(
        steps=st.lists(
            st.fixed_dictionaries(
                {
                    "seq": st.integers(0, 4) | st.just(2**63 - 1),
                    "status": st.sampled_from(["running", "done", "failed"]),
                    "stage": st.text(st.characters(codec="utf-8"), max_size=5),
                },
                optional={
                    "progress": st.integers(0, 100) | st.floats(0, 100),
                    "message": st.text(st.characters(codec="utf-8"), max_size=5),
                    "result": st.dictionaries(st.text(max_size=3).filter(str.isalnum), st.integers()),
                    "timestamp": st.integers(10**9, 10**12),
                },
            ),
            max_size=8,
        ),
        form=st.sampled_from(["fields", "data"]),
    )
    async def test_it_is_what_the_router_would_write_and_the_router_adds_nothing(
        self, server: Server, redis_client: redis.Redis, steps: list[dict[str, Any]], form: str
    ) -> None:
        flush(server)
        async with Redis(port=server.port) as made:
            bus = CompositeEventBus(made, made)
            for one in steps:
                await bus.emit("scan", "j", one if form == "fields" else {"data": one}, direct=True)
        stored = redis_client.hgetall(STATE)
        expected = handled(redis_client)
        assert stored == expected.get(STATE, {})
        assert published(redis_client) == expected.messages(CHANNEL)
        if stored:
            after = handled(redis_client, {STATE: stored})
            assert after[STATE] == stored
            assert after.messages(CHANNEL) == []

    @pytest.mark.once
    @settings(deadline=None, max_examples=20, suppress_health_check=NO_EVENT_LOOP_PER_EXAMPLE)
    @given(steps=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=8))
    async def test_beside_steps_that_are_left_to_the_router(
        self, server: Server, redis_client: redis.Redis, steps: list[tuple[int, bool, bool]]
    ) -> None:
        flush(server)
        async with Redis(port=server.port) as made:
            bus = CompositeEventBus(made, made)
            for seq, done, direct in steps:
                await bus.emit("scan", "j", step(seq, "done" if done else "running"), direct=direct)
        stored = redis_client.hgetall(STATE)
        before = published(redis_client)
        after = handled(redis_client, {STATE: stored} if stored else {})
        assert after.get(STATE) == handled(redis_client).get(STATE)
        live = [
            (m["status"] == "done", m["seq"], m["timestamp"]) for m in [*before, *after.messages(CHANNEL)]
        ]
        assert len(live) <= len(steps)
        if stored and after[STATE] == stored:
            assert after.messages(CHANNEL) == []

    async def test_the_newest_step_wins_and_the_end_is_the_end(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        bus = CompositeEventBus(client, client)
        for one in (step(2), step(1), step(3, "done"), step(4), step(2**63 - 1)):
            await bus.emit("scan", "j", one, direct=True)
        assert [message["seq"] for message in published(redis_client)] == [2, 3]
        state = await bus.state("scan", "j") or {}
        assert (state["status"], state["seq"]) == ("done", "3")
        assert redis_client.xlen(STREAM) == 5

    async def test_of_an_id_that_was_added_the_first_entry_comes_back(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        bus = CompositeEventBus(client, client)
        first = await bus.emit("scan", "j", step(1, id="a"), direct=True)
        assert await bus.emit("scan", "j", step(1, id="a"), direct=True) == first
        assert await bus.emit("scan", "j", step(1, id="b"), direct=True) != first
        assert len(entries(redis_client, STREAM)) == len(published(redis_client)) == 2

    async def test_only_progress_has_a_step_that_is_known_here(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        bus = CompositeEventBus(client, client)
        with pytest.raises(InvalidEvent, match="only 'progress' events are written directly"):
            await bus.emit("scan", "j", step(1, type="scan_complete", user_id="7"), direct=True)
        for missing in ("stage", "status", "seq"):
            with pytest.raises(InvalidEvent, match=f"'{missing}' is missing"):
                await bus.emit("scan", "j", {**step(1), missing: None}, direct=True)
        await bus.emit("scan", "j", step(1, type="scan:progress"), direct=True)
        assert published(redis_client)[0]["type"] == "progress"


class TestFaults:
    async def test_a_lost_reply_is_told(self, proxy: Proxy, client: Redis, redis_client: redis.Redis) -> None:
        await CompositeEventBus(client, client).emit("scan", "warm", step(1), direct=True)
        async with Redis(port=proxy.port) as behind:
            bus = CompositeEventBus(behind, behind)
            proxy.drop_reply("EVALSHA")
            with pytest.raises(OutcomeUnknown, match=STREAM):
                await bus.emit("scan", "j", step(1), direct=True)
            assert await bus.state("scan", "j") is not None
            proxy.drop_reply("XADD")
            with pytest.raises(OutcomeUnknown, match=STREAM):
                await bus.emit("scan", "j", step(2))
        assert redis_client.xlen(STREAM) == 3

    async def test_with_retries_nothing_is_doubled(
        self, proxy: Proxy, client: Redis, redis_client: redis.Redis
    ) -> None:
        await CompositeEventBus(client, client).emit("scan", "j", step(1), direct=True)
        async with Redis(port=proxy.port) as behind:
            drop = proxy.drop_reply("EVALSHA", times=2)
            bus = CompositeEventBus(behind, behind, retries=2, random=lambda: 0.0)
            entry_id = await bus.emit("scan", "j", step(2), direct=True)
        assert drop.dropped == 2
        assert [found for found, _ in entries(redis_client, STREAM)][1:] == [entry_id]
        assert [message["seq"] for message in published(redis_client)] == [1, 2]

    @pytest.mark.parametrize("key", [STREAM, STATE, OUTBOX])
    async def test_a_key_of_another_type_is_named_and_nothing_is_written(
        self, client: Redis, redis_client: redis.Redis, key: str
    ) -> None:
        redis_client.set(key, '{"stage": "read"}')
        bus = CompositeEventBus(client, client)
        with pytest.raises(RedisRefused, match=f"key '{key}' is a string, not a"):
            await bus.emit("scan", "j", step(1, id="a"), direct=True)
        assert redis_client.keys("*") == [key]
        if key == STATE:
            with pytest.raises(RedisRefused, match=f"^{STATE}: "):
                await bus.state("scan", "j")

    async def test_a_full_log_is_found_before_anything_is_written(
        self, client: Redis, redis_client: redis.Redis
    ) -> None:
        redis_client.xadd(OUTBOX, {"a": "b"}, id="18446744073709551615-1")
        with pytest.raises(RedisRefused, match=f"'{OUTBOX}' can take no more entries"):
            await CompositeEventBus(client, client).emit("scan", "j", step(1), direct=True)
        assert redis_client.keys("*") == [OUTBOX]

    @pytest.mark.parametrize(
        "denied", ["allkeys -hset", "allkeys -pexpire", "allkeys -set", "~events:* ~scan:* ~event-router:*"]
    )
    async def test_a_missing_permission_is_found_before_anything_is_written(
        self, server: Server, redis_client: redis.Redis, denied: str
    ) -> None:
        rules = ["reset", "on", "nopass", "+@all", *denied.split()]
        redis_client.execute_command("ACL", "SETUSER", "service", *rules)
        try:
            async with Redis(port=server.port, username="service", password="x") as made:
                bus = CompositeEventBus(made, made)
                with pytest.raises(RedisUnavailable, match=r"permission|ACL"):
                    await bus.emit("scan", "j", step(1, id="a"), direct=True)
        finally:
            redis_client.execute_command("ACL", "DELUSER", "service")
        assert redis_client.keys("*") == []

    async def test_the_permissions_on_the_page_suffice(
        self, server: Server, redis_client: redis.Redis
    ) -> None:
        page = (Path(__file__).parents[2] / "docs/composite-bus.md").read_text("utf-8")
        commands, keys = re.findall(r"`([+~][^`]+)`", page)[:2]
        rules = ["reset", "on", "nopass", "-@all", *commands.split(), *keys.split()]
        redis_client.execute_command("ACL", "SETUSER", "service", *rules)
        try:
            pool = ConnectionPool(
                port=server.port, username="service", password="x", driver_info=None, protocol=2
            )
            async with Redis(connection_pool=pool) as made:
                bus = CompositeEventBus(made, made)
                await bus.emit("scan", "j", step(1, id="a"), direct=True)
                await bus.emit("scan", "j", step(2))
            await pool.aclose()
        finally:
            redis_client.execute_command("ACL", "DELUSER", "service")
        assert redis_client.xlen(STREAM) == 2

    @pytest.mark.once
    async def test_out_of_memory_and_read_only_write_nothing(self, new_server: ServerFactory) -> None:
        server = new_server().start()
        with server.client() as operator:
            async with Redis(port=server.port) as made:
                bus = CompositeEventBus(made, made)
                operator.config_set("maxmemory", "1")
                with pytest.raises(RedisUnavailable, match="maxmemory"):
                    await bus.emit("scan", "j", step(1), direct=True)
                operator.config_set("maxmemory", "0")
                operator.replicaof("127.0.0.1", "1")
                with pytest.raises(RedisUnavailable):
                    await bus.emit("scan", "j", step(1), direct=True)
                operator.replicaof("NO", "ONE")
                assert operator.keys("*") == []
                await bus.emit("scan", "j", step(1), direct=True)
                assert operator.exists(STREAM, STATE, OUTBOX) == 3


class TestReading:
    async def test_there_is_no_state_of_an_unknown_job(self, client: Redis) -> None:
        assert await CompositeEventBus(client, client).state("scan", "nobody's") is None

    async def test_who_listens_is_counted(self, client: Redis, server: Server) -> None:
        bus = CompositeEventBus(client, client)
        assert await bus.watchers("j") == 0
        with server.client() as listener, listener.pubsub() as pubsub:
            pubsub.subscribe(CHANNEL)
            eventually(lambda: pubsub.get_message(timeout=0.1), within=5)
            assert await bus.watchers("j") == 1


async def test_with_a_router_and_the_older_names_every_step_counts_and_arrives_once(
    server: Server,
    redis_client: redis.Redis,
    new_router: RouterFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = {
        "STREAM_TEMPLATE": "{domain}:events:{shard}",
        "SHARDS": "scan=4",
        "JOB_CHANNEL_TEMPLATE": "events:sse:{job_id}",
        "JOB_STATE_TEMPLATE": "jobs:{domain}:{job_id}",
    }
    for name, value in older.items():
        monkeypatch.setenv(f"EVENT_ROUTER_{name}", value)
    names = load().key_names
    jobs = ["j0", "j1", "j2"]
    seqs: dict[str, list[int]] = {job: [] for job in jobs}
    async with Redis(port=server.port) as made:
        bus = CompositeEventBus(made, made, names=names)
        with server.client() as listener, listener.pubsub() as pubsub:
            pubsub.subscribe(*(f"events:sse:{job}" for job in jobs))
            for seq, job in itertools.product(range(3), jobs):
                await bus.emit("scan", job, step(seq), direct=True)
            assert (await bus.state("scan", "j1") or {})["seq"] == "2", "before any router has run"
            assert set(redis_client.keys("jobs:*")) == {f"jobs:scan:{job}" for job in jobs}
            new_router(server.url, HANDLERS="handlers.scan:ScanEventHandler", **older).start()
            for seq, job in itertools.product(range(3, 6), jobs):
                await bus.emit("scan", job, step(seq, "done" if seq == 5 else "running"), direct=seq % 2 == 0)
            await_settled(redis_client, [f"scan:events:{shard}" for shard in range(4)], within=10)

            def arrived() -> bool:
                while message := pubsub.get_message(timeout=0.01):
                    if message["type"] == "message":
                        seqs[message["channel"].removeprefix("events:sse:")].append(
                            json.loads(message["data"])["seq"]
                        )
                return all(5 in seen for seen in seqs.values())

            eventually(arrived, within=10, what=lambda: seqs)
            for job in jobs:
                state = await bus.state("scan", job) or {}
                assert (state["status"], state["seq"]) == ("done", "5")
    assert redis_client.xlen(OUTBOX) == sum(map(len, seqs.values()))
    for seen in seqs.values():
        assert seen == sorted(set(seen))
        assert set(seen) >= {0, 1, 2, 4, 5}, "3 may be overtaken by 4, which is written directly"
    assert redis_client.keys("dlq:*") == []

"""Commits that Redis refuses: whole, with nothing written, and nothing taken for settled."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.errors import RedisRefused, RedisUnavailable
from event_router.core.keys import checkpoint_key
from event_router.core.outcome import Answer, DeadLetter, Settlement, Verdict
from event_router.redis_client.script import Script
from tests.conftest import ServerFactory
from tests.environment.servers import Server
from tests.integration.commit_bench import (
    COMMITTED,
    GROUP,
    HOUR_MS,
    SETTLED,
    STREAM,
    CommitBench,
    incrementing,
    of,
    setting,
)

USER = "limited"
WorkMaker = Callable[[], UnitOfWork | DeadLetter]
Limited = Callable[..., CommitBench]


@pytest.fixture
def limited(server: Server) -> Iterator[Limited]:
    """Makes a bench that commits as a user who has all rights but these."""
    benches = []

    def make(*rules: str) -> CommitBench:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">secret", "~*", "+@all", *rules)
        benches.append(CommitBench(server, user=f"{USER}:secret"))
        return benches[-1]

    yield make
    for bench in benches:
        bench.__exit__(None, None, None)
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", USER)


def mixed() -> UnitOfWork:
    """Every kind of effect on hashes, streams and marks."""
    unit = UnitOfWork()
    unit.hash("state:user:1").note("f", None)
    user = unit.hash("state:user:1")
    user.set("f", "v")
    user.increment("n", 1)
    user.maximum("m", 1)
    user.set_latest("l", "v", "1:1-1@s")
    user.delete("d")
    user.ttl_ms = HOUR_MS
    unit.emit("events:notification", {"a": "b"}, 100)
    unit.branches.append(once := Once("event-router:mark:m", HOUR_MS))
    once.hash("stats:daily:1").increment("n", 1)
    unit.branches.append(newest := Newest("scan:state:1", "1:1-1@s", {"stage": "s"}, HOUR_MS))
    newest.emit("outbox:x", {"a": "b"}, 100)
    return unit


def letter() -> DeadLetter:
    return DeadLetter("invalid", "why", 1, "consumer-a", "2026-01-01T00:00:00.000Z", [b"a", b"b"])


def harmless() -> UnitOfWork:
    unit = UnitOfWork()
    unit.hash("other:thing:1").set("f", "v")
    return unit


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("-hset", "HSET on state:user:1"),
        ("-hincrby", "HINCRBY on state:user:1"),
        ("-hdel", "HDEL on state:user:1"),
        ("-hget", "HGET on state:user:1"),
        ("-pexpire", "PEXPIRE on state:user:1"),
        ("-type", "TYPE on state:user:1"),
        ("-xadd", "XADD on events:notification"),
        ("-xinfo", "XINFO on events:notification"),
        ("-set", "SET on event-router:mark:m"),
        ("-exists", "EXISTS on event-router:mark:m"),
        ("-hmget", "HMGET on state:user:1"),
        ("-del", "DEL on state:user:1"),
    ],
)
def test_a_command_that_is_missing_leaves_the_whole_entry_pending(
    limited: Limited, rule: str, what: str
) -> None:
    bench = limited(rule)
    bench.deliver(STREAM, "1-0")
    if rule in ("-hset", "-hget"):  # the checkpoint needs them too
        with pytest.raises(RedisUnavailable):
            bench.send([Settlement(STREAM, "1-0", mixed())])
    else:
        assert bench.send([Settlement(STREAM, "1-0", mixed())]) == [Answer(Verdict.DENIED, what)]
    assert bench.model(but=[STREAM]).hashes == {}
    assert bench.model(but=[STREAM]).streams == {}
    assert bench.pending(STREAM) == {"1-0"}


@pytest.mark.parametrize(
    "allowed",
    [
        "stats:* scan:* events:* event-router:* outbox:*",
        "state:* scan:* events:* event-router:* outbox:*",
        "state:* stats:* events:* event-router:* outbox:*",
        "state:* stats:* scan:* events:x event-router:* outbox:*",
        "state:* stats:* scan:* events:* event-router:checkpoint:* outbox:*",
        "state:* stats:* scan:* events:* event-router:*",
    ],
)
def test_a_key_that_is_forbidden_leaves_the_whole_entry_pending(limited: Limited, allowed: str) -> None:
    bench = limited("resetkeys", *(f"~{pattern}" for pattern in [*allowed.split(), "other:*"]))
    bench.deliver(STREAM, "1-0", "2-0")
    batch = [Settlement(STREAM, "1-0", mixed()), Settlement(STREAM, "2-0", harmless())]
    answers = bench.send(batch)
    assert [answer.verdict for answer in answers] == [Verdict.DENIED, Verdict.COMMITTED]
    found = bench.model(but=[STREAM])
    assert found.hashes == {"other:thing:1": {"f": "v"}}
    assert (found.streams, found.others) == ({}, {})
    assert bench.pending(STREAM) == {"1-0"}
    bench.client.execute_command("ACL", "SETUSER", USER, "allkeys")
    assert [answer.verdict for answer in bench.send(batch)] == [Verdict.COMMITTED, Verdict.SETTLED]


@pytest.mark.parametrize("reading", [False, True])
def test_a_single_key_that_is_forbidden_leaves_only_its_entry_pending(
    limited: Limited, reading: bool
) -> None:
    """Permissions are asked once a batch for all keys alike; this one is met when it is validated."""
    bench = limited("resetkeys", "~state:user:1", "~events:*", "~event-router:*")
    bench.deliver(STREAM, "1-0", "2-0", "3-0")
    works = []
    for user in ("1", "2", "1"):
        unit = UnitOfWork()
        unit.hash(f"state:user:{user}").increment("n", 1)
        if reading:
            unit.hash(f"state:user:{user}").note("f", None)
        works.append(unit)
    answers = bench.send([Settlement(STREAM, f"{n}-0", work) for n, work in enumerate(works, start=1)])
    assert [answer.verdict for answer in answers] == [Verdict.COMMITTED, Verdict.DENIED, Verdict.COMMITTED]
    assert bench.model(but=[STREAM]).hashes == {"state:user:1": {"n": "2"}}
    assert bench.pending(STREAM) == {"2-0"}


@pytest.mark.parametrize(
    "command",
    sorted(
        set(re.findall(r"(?:call\(|looked_up\(|in_chunks\(.*)'([A-Z]+)'", Script("commit").text))
        | {"HMGET", "HSET", "HDEL", "ZADD", "ZREM", "ZMSCORE", "TIME", "XADD"}
    ),
)
def test_whichever_command_is_missing_nothing_is_written(limited: Limited, command: str) -> None:
    """Every command of the script, and those that change presence, at the end of the batch."""
    bench = limited(f"-{command}")
    bench.deliver(STREAM, "1-0")
    work = mixed()
    work.hash("state:user:2").clear()
    work.presence = [("7", False, "online", str(int(time.time() * 1000)))]
    batch = [Settlement(STREAM, "1-0", work, None, "unique")]
    try:
        (answer,) = bench.send(batch)
    except RedisUnavailable:
        pass
    else:
        assert answer.verdict is Verdict.DENIED
        assert answer.reason.startswith(command)
    found = bench.model(but=[STREAM])
    assert (found.hashes, found.streams, found.others) == ({}, {}, {})
    assert bench.pending(STREAM) == {"1-0"}
    bench.client.execute_command("ACL", "SETUSER", USER, f"+{command}")
    assert bench.send(batch) == [COMMITTED]


def emitting(stream: str) -> UnitOfWork:
    unit = UnitOfWork()
    unit.emit(stream, {"a": "b"}, None)
    return unit


def marking(mark: str) -> UnitOfWork:
    unit = incrementing(key="state:user:1")
    unit.branches.append(Once(f"event-router:mark:{mark}", HOUR_MS))
    return unit


@pytest.mark.parametrize(
    ("allowed", "forbidden"),
    [
        (incrementing(key="state:user:1"), incrementing(key="state:user:2")),
        (setting("state:user:1", f="v"), setting("state:user:2", f="v")),
        (emitting("dlq:events:x"), emitting("dlq:events:y")),
        (marking("a"), marking("b")),
    ],
)
@pytest.mark.parametrize("forbidden_first", [False, True])
def test_a_key_that_may_only_be_read_leaves_its_entry_pending(
    limited: Limited, allowed: UnitOfWork, forbidden: UnitOfWork, forbidden_first: bool
) -> None:
    bench = limited(
        *("resetkeys", "%R~*", "~state:user:1", "~events:*", "~dlq:events:x"),
        *("~event-router:checkpoint:*", "~event-router:mark:a"),
    )
    bench.deliver(STREAM, "1-0", "2-0")
    works = (forbidden, allowed) if forbidden_first else (allowed, forbidden)
    verdicts = [answer.verdict for answer in bench.send(of(*works))]
    assert verdicts == [Verdict.DENIED if work is forbidden else Verdict.COMMITTED for work in works]
    assert bench.pending(STREAM) == {"1-0" if forbidden_first else "2-0"}
    found = bench.model(but=[STREAM])
    assert not {"state:user:2", "dlq:events:y", "event-router:mark:b"} & {
        *found.hashes,
        *found.streams,
        *found.others,
    }


def test_a_key_is_asked_for_each_use_of_it(limited: Limited) -> None:
    bench = limited("-hdel")
    bench.deliver(STREAM, "1-0", "2-0")
    bench.client.set("text", "x")
    refused, deleting = emitting("some:key:1"), setting("some:key:1", f="v")
    refused.emit("text", {"a": "b"}, None)
    deleting.hash("some:key:1").delete("g")
    verdicts = [answer.verdict for answer in bench.send(of(refused, deleting))]
    assert verdicts == [Verdict.INVALID, Verdict.DENIED]
    assert bench.pending(STREAM) == {"1-0", "2-0"}
    assert not bench.client.exists("some:key:1")


def test_a_forbidden_dead_letter_stream_keeps_the_entry(limited: Limited) -> None:
    bench = limited("resetkeys", "~events:*", "~event-router:*")
    bench.deliver(STREAM, "1-0")
    (answer,) = bench.send([Settlement(STREAM, "1-0", letter())])
    assert answer.verdict is Verdict.DENIED
    assert bench.pending(STREAM) == {"1-0"}


def test_settled_beats_denied(limited: Limited) -> None:
    bench = limited("-hincrby")
    bench.deliver(STREAM, "1-0")
    bench.client.xack(STREAM, GROUP, "1-0")
    assert bench.send([Settlement(STREAM, "1-0", mixed())]) == [Answer(Verdict.SETTLED)]


def test_settled_beats_denied_for_a_key_of_its_own_and_a_mark(limited: Limited) -> None:
    bench = limited("resetkeys", "~state:user:1", "~events:*", "~event-router:checkpoint:*")
    bench.deliver(STREAM, "1-0", "2-0", "3-0")
    bench.client.xack(STREAM, GROUP, "2-0", "3-0")
    batch = of(*(incrementing(key=f"state:user:{user}") for user in (1, 2, 1)))
    batch[2].unique_id = "unique"
    assert bench.send(batch) == [COMMITTED, SETTLED, SETTLED]


@pytest.mark.parametrize("rules", [["-xack"], ["-xpending"], ["resetkeys", "~state:*", "~event-router:*"]])
def test_without_the_group_s_commands_the_batch_is_refused(limited: Limited, rules: list[str]) -> None:
    bench = limited(*rules)
    bench.deliver(STREAM, "1-0")
    with pytest.raises(RedisUnavailable):
        bench.send([Settlement(STREAM, "1-0", harmless())])
    assert bench.model(but=[STREAM]).hashes == {}
    assert bench.pending(STREAM) == {"1-0"}


@pytest.mark.parametrize("work", [mixed, letter])
def test_out_of_memory_the_batch_is_refused_whole(new_server: ServerFactory, work: WorkMaker) -> None:
    with CommitBench(new_server().start()) as bench:
        bench.deliver(STREAM, "1-0")
        bench.client.config_set("maxmemory", 1)
        with pytest.raises(RedisUnavailable, match=r"OOM|out of memory"):
            bench.send([Settlement(STREAM, "1-0", work())])
        assert bench.pending(STREAM) == {"1-0"}
        bench.client.config_set("maxmemory", 0)
        assert bench.model(but=[STREAM]).hashes == {}
        assert bench.send([Settlement(STREAM, "1-0", work())]) == [COMMITTED]


def test_a_checkpoint_of_another_type_is_refused_before_anything_is_written(server: Server) -> None:
    with CommitBench(server) as bench:
        bench.deliver(STREAM, "1-0")
        bench.client.set(checkpoint_key(GROUP), "text")
        with pytest.raises(RedisRefused, match=r"WRONGTYPE|wrong kind"):
            bench.send([Settlement(STREAM, "1-0", harmless())])
        assert bench.pending(STREAM) == {"1-0"}
        assert not bench.client.exists("other:thing:1")


def test_a_key_that_is_no_stream_is_refused_before_anything_is_written(server: Server) -> None:
    with CommitBench(server) as bench:
        bench.deliver(STREAM, "1-0")
        bench.client.set("events:y", "text")
        with pytest.raises(RedisRefused, match=r"WRONGTYPE|wrong kind"):
            bench.send([Settlement(STREAM, "1-0", harmless()), Settlement("events:y", "1-0", harmless())])
        assert bench.pending(STREAM) == {"1-0"}
        assert not bench.client.exists("other:thing:1")


def test_a_script_the_server_forgot_is_sent_again(server: Server) -> None:
    with CommitBench(server) as bench:
        bench.deliver(STREAM, "1-0", "2-0")
        assert bench.send([Settlement(STREAM, "1-0", harmless())]) == [COMMITTED]
        bench.client.script_flush()
        assert bench.send([Settlement(STREAM, "2-0", harmless())]) == [COMMITTED]

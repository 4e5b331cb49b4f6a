"""Presence that changes with a commit, merged over the batch."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from event_router.core.effects import StatusChange, UnitOfWork
from event_router.core.outcome import Verdict
from tests.environment.servers import Server
from tests.integration.commit_bench import COMMITTED, SETTLED, STREAM, CommitBench, incrementing, of

LOG = "outbox:presence"
USERS = "event-router:presence:users"
SEEN = "event-router:presence:seen"


@pytest.fixture
def bench(server: Server) -> Iterator[CommitBench]:
    with CommitBench(server) as bench:
        bench.deliver(STREAM, *(f"{number}-0" for number in range(1, 10)))
        yield bench


def now_ms() -> int:
    return int(time.time() * 1000)


def changing(*changes: StatusChange) -> UnitOfWork:
    unit = UnitOfWork()
    unit.presence = list(changes)
    return unit


def announced(bench: CommitBench) -> list[str]:
    return [entry[5] for entry in bench.entries(LOG)]


def test_a_user_who_comes_is_present_and_announced_once(bench: CommitBench) -> None:
    at = str(now_ms())
    units = (changing(("7", False, "online", at)), changing(("7", "phone", "online", at)), incrementing())
    assert bench.send(of(*units)) == [COMMITTED] * 3
    assert bench.client.zcard(USERS) == 1
    (message,) = announced(bench)
    assert '"user_id":"7","status":"online","previous":"offline"' in message


def test_a_unit_may_change_several(bench: CommitBench) -> None:
    at = str(now_ms())
    assert bench.send(of(changing(("7", False, "online", at), ("8", "phone", "busy", at)))) == [COMMITTED]
    assert bench.client.zrange(USERS, 0, -1) == [b"7", b"8"]
    assert ['"user_id":"7"' in announced(bench)[0], '"user_id":"8"' in announced(bench)[1]] == [True, True]


def test_who_left_in_the_same_batch_was_never_there(bench: CommitBench) -> None:
    at = now_ms()
    units = (changing(("7", False, "online", str(at - 5))), changing(("7", False, "offline", str(at))))
    assert bench.send(of(*units)) == [COMMITTED] * 2
    assert not bench.client.zcard(USERS)
    assert announced(bench) == []
    assert int(bench.client.zscore(SEEN, "7") or 0) == at


def test_a_backlog_announces_nobody(bench: CommitBench) -> None:
    long_ago = str(now_ms() - 61_000)
    assert bench.send(of(changing(("7", False, "online", long_ago)))) == [COMMITTED]
    assert announced(bench) == []
    assert bench.client.zscore(SEEN, "7") == float(long_ago)


def test_only_what_is_committed_counts(bench: CommitBench) -> None:
    bench.client.hset("k", "n", "text")
    invalid, at = incrementing(), str(now_ms())
    invalid.presence = [("8", False, "online", at)]
    unit = changing(("7", False, "online", at))
    assert [answer.verdict for answer in bench.send(of(invalid, unit))] == [
        Verdict.INVALID,
        Verdict.COMMITTED,
    ]
    assert bench.client.zrange(USERS, 0, -1) == [b"7"]
    assert bench.send(of(invalid, unit))[1] == SETTLED
    assert len(announced(bench)) == 1


def test_a_spoilt_key_makes_everybody_wait_and_nobody_a_dead_letter(bench: CommitBench) -> None:
    bench.client.set(SEEN, "text")
    both = incrementing()
    both.presence = [("7", False, "online", str(now_ms()))]
    answers = bench.send(of(both, incrementing(5)))
    assert [answer.verdict for answer in answers] == [Verdict.DENIED, Verdict.COMMITTED]
    assert answers[0].reason == f"key '{SEEN}' is a string, not a zset"
    assert bench.client.hgetall("k") == {b"n": b"5"}
    assert "1-0" in bench.pending(STREAM)
    bench.client.delete(SEEN)
    assert bench.send(of(both)) == [COMMITTED]


def test_what_nobody_expects_costs_nobody_else_the_answer(bench: CommitBench) -> None:
    """Such a change is refused where it is recorded; here it comes as far as the script."""
    impossible = changing((None, False, "online", str(now_ms())))  # type: ignore[arg-type]
    answers = bench.send(of(incrementing(), impossible, incrementing()))
    assert [answer.verdict for answer in answers] == [Verdict.COMMITTED, Verdict.BROKEN, Verdict.COMMITTED]
    assert bench.client.hgetall("k") == {b"n": b"2"}
    assert bench.checkpoint(STREAM) == "(4-0"

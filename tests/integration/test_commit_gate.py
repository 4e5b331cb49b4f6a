"""What is acknowledged, when, and what an entry that fails does to others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from event_router.core.effects import Newest, UnitOfWork
from event_router.core.errors import NoGroup
from event_router.core.outcome import Answer, Settlement, Verdict
from tests.environment.servers import Server
from tests.integration.commit_bench import (
    COMMITTED,
    CONFLICT,
    GROUP,
    HOUR_MS,
    SETTLED,
    STREAM,
    CommitBench,
    as_bytes,
    incrementing,
    letter,
    of,
)


@pytest.fixture
def bench(server: Server) -> Iterator[CommitBench]:
    with CommitBench(server) as bench:
        yield bench


class TestGate:
    def test_an_entry_counts_once_however_often_it_is_committed(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        batch = of(incrementing()) * 3
        assert bench.send(batch) == [COMMITTED, SETTLED, SETTLED]
        assert bench.send(batch) == [SETTLED] * 3
        assert bench.client.hget("k", "n") == b"1"

    def test_an_entry_nobody_was_given_is_not_applied(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.xadd(STREAM, {"type": "x"}, id="2-0")
        assert bench.send([Settlement(STREAM, "2-0", incrementing())]) == [SETTLED]
        assert not bench.client.exists("k")

    def test_whoever_owns_the_entry_the_first_to_commit_wins(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.xclaim(STREAM, GROUP, "consumer-b", 0, ["1-0"])
        assert bench.send(of(incrementing())) == [COMMITTED]
        assert bench.pending(STREAM) == set()

    def test_a_dead_letter_is_written_once(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        batch = of(letter([b"a", b"b"]))
        assert bench.send(batch + batch) == [COMMITTED, SETTLED]
        assert bench.client.xlen(f"dlq:{STREAM}") == 1

    def test_an_entry_that_was_trimmed_is_committed_all_the_same(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.xtrim(STREAM, maxlen=0)
        assert bench.send(of(incrementing(), incrementing())) == [COMMITTED, COMMITTED]
        assert bench.client.hget("k", "n") == b"2"


class TestMissingGroup:
    @pytest.mark.parametrize("missing", ["stream", "group"])
    def test_it_is_said_and_nothing_is_written(self, bench: CommitBench, missing: str) -> None:
        bench.deliver(STREAM, "1-0")
        bench.deliver("events:y", "1-0")
        if missing == "stream":
            bench.client.delete("events:y")
        else:
            bench.client.xgroup_destroy("events:y", GROUP)
        batch = of(incrementing()) + of(incrementing(key="l"), stream="events:y")
        with pytest.raises(NoGroup) as caught:
            bench.send(batch)
        assert caught.value.stream == "events:y"
        assert not bench.client.exists("k", "l")
        assert bench.pending(STREAM) == {"1-0"}
        assert bench.checkpoint(STREAM) is None

    def test_after_it_is_created_again_the_same_batch_is_committed(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.xgroup_destroy(STREAM, GROUP)
        with pytest.raises(NoGroup):
            bench.send(of(incrementing()))
        bench.client.xgroup_create(STREAM, GROUP, id="0")
        assert bench.send(of(incrementing())) == [SETTLED], "not delivered again yet"
        bench.client.xreadgroup(GROUP, "consumer-b", {STREAM: ">"})
        assert bench.send(of(incrementing())) == [COMMITTED]


class TestPrecedence:
    """Settled beats conflict beats invalid."""

    def unit(self, *, conflicting: bool, invalid: bool) -> UnitOfWork:
        unit = incrementing()
        if conflicting:
            unit.hash("k").note("read", "something else")
        if invalid:
            unit.hash("list").set("f", "v")
        return unit

    @pytest.mark.parametrize("conflicting", [False, True])
    @pytest.mark.parametrize("invalid", [False, True])
    def test_settled_first(self, bench: CommitBench, conflicting: bool, invalid: bool) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.rpush("list", "element")
        bench.client.xack(STREAM, GROUP, "1-0")
        assert bench.send(of(self.unit(conflicting=conflicting, invalid=invalid))) == [SETTLED]

    def test_then_conflict(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.rpush("list", "element")
        assert bench.send(of(self.unit(conflicting=True, invalid=True))) == [CONFLICT]
        assert bench.pending(STREAM) == {"1-0"}
        assert not bench.client.exists("k")

    def test_whichever_hash_comes_first(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.rpush("list", "element")
        unit = UnitOfWork()
        unit.hash("list").set("f", "v")
        unit.hash("k").set("f", "v")
        unit.hash("k").note("f", "something else")
        assert bench.send(of(unit)) == [CONFLICT]

    def test_then_invalid_with_the_reason(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.rpush("list", "element")
        assert bench.send(of(self.unit(conflicting=False, invalid=True))) == [
            Answer(Verdict.INVALID, "key 'list' is a list, not a hash")
        ]
        assert bench.pending(STREAM) == {"1-0"}
        assert not bench.client.exists("k")


class TestReads:
    @pytest.mark.parametrize(
        ("stored", "read", "answer"),
        [
            (None, None, COMMITTED),
            (None, "", CONFLICT),
            (None, "x", CONFLICT),
            ("x", None, CONFLICT),
            ("", None, CONFLICT),
            ("x", "x", COMMITTED),
            ("x", "y", CONFLICT),
            ("\udcff", "\udcff", COMMITTED),
            ("\udcff", "ÿ", CONFLICT),
        ],
    )
    def test_unchanged_or_conflict(
        self, bench: CommitBench, stored: str | None, read: str | None, answer: Answer
    ) -> None:
        bench.deliver(STREAM, "1-0")
        if stored is not None:
            bench.client.hset("k", "f", as_bytes(stored))
        unit = incrementing()
        unit.hash("k").note("f", read)
        assert bench.send(of(unit)) == [answer]
        assert bench.client.hexists("k", "n") == (answer == COMMITTED)

    @pytest.mark.parametrize("field", ["a", "b"])
    def test_of_a_hash_that_is_not_changed(self, bench: CommitBench, field: str) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.hset("read", mapping={"a": "1", "b": "1"})
        unit = incrementing()
        stale = incrementing()
        for name in ("a", "b"):
            unit.hash("read").note(name, "1")
            stale.hash("read").note(name, "2" if name == field else "1")
        assert bench.send(of(stale)) == [CONFLICT]
        assert bench.send(of(unit)) == [COMMITTED]

    def test_absent_reads_are_checked_wherever_they_stand(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.hset("k", "third", "there")
        unit = incrementing()
        for field in ("first", "second", "third", "fourth"):
            unit.hash("k").note(field, None)
        assert bench.send(of(unit)) == [CONFLICT]

    def test_a_read_sees_what_earlier_entries_of_the_batch_left(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        second, third = incrementing(), incrementing()
        second.hash("k").note("n", "1")
        third.hash("k").note("n", "1")
        assert bench.send(of(incrementing(), second, third)) == [COMMITTED, COMMITTED, CONFLICT]
        assert bench.client.hget("k", "n") == b"2"


class TestNeighbours:
    def test_one_entry_that_fails_harms_no_other(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, *(f"{n}-0" for n in range(1, 6)))
        bench.client.hset("k", "text", "007")
        partly = incrementing()
        partly.hash("k").increment("text", 1)
        partly.emit("log", {"a": "b"}, None)
        stale = incrementing()
        stale.hash("k").note("f", "never")
        answers = bench.send(of(incrementing(), partly, incrementing(), stale, incrementing()))
        assert [answer.verdict.name for answer in answers] == [
            "COMMITTED",
            "INVALID",
            "COMMITTED",
            "CONFLICT",
            "COMMITTED",
        ]
        assert "'text'" in answers[1].reason
        assert "'007'" in answers[1].reason
        assert bench.client.hgetall("k") == {b"text": b"007", b"n": b"3"}
        assert not bench.client.exists("log")
        assert bench.pending(STREAM) == {"2-0", "4-0"}

    def test_a_read_that_finds_nothing_says_little_of_the_key(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0", "4-0")
        bench.client.hset("k", "other", "field")
        reading, both = incrementing(key="elsewhere"), UnitOfWork()
        reading.hash("k").note("f", None)
        reading.hash("absent").note("f", None)
        both.hash("absent").note("f", None)
        emitting = []
        for key in ("k", "absent"):
            emitting.append(UnitOfWork())
            emitting[-1].emit(key, {"a": "b"}, None)
        both.emit("absent", {"a": "b"}, None)
        answers = bench.send(of(reading, emitting[0], both, emitting[1]))
        assert answers == [
            COMMITTED,
            Answer(Verdict.INVALID, "key 'k' is a hash, not a stream"),
            Answer(Verdict.INVALID, "key 'absent' is a hash, not a stream"),
            COMMITTED,
        ]

    def test_an_absent_hash_that_was_read_may_have_become_a_stream(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0", "4-0")
        reading, emitting, again = incrementing(), UnitOfWork(), incrementing(key="log")
        reading.hash("log").note("f", None)
        emitting.emit("log", {"a": "b"}, None)
        again.hash("log").note("f", None)
        answers = bench.send(of(reading, emitting, incrementing(key="log"), again))
        wrong = Answer(Verdict.INVALID, "key 'log' is a stream, not a hash")
        assert answers == [COMMITTED, COMMITTED, wrong, CONFLICT]

    def test_a_hash_that_is_asked_for_and_not_changed_does_not_matter(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.set("text", "x")
        unit = incrementing()
        unit.hash("text")
        unit.hash("log")
        unit.emit("log", {"a": "b"}, None)
        assert bench.send(of(unit)) == [COMMITTED]

    def test_a_unit_that_is_refused_leaves_no_claim(self, bench: CommitBench) -> None:
        """On the type of a key, or on the version of a record."""
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.set("text", "x")
        refused, accepted = UnitOfWork(), UnitOfWork()
        for unit, version in ((refused, "0:9:1-0@s"), (accepted, "0:1:1-0@s")):
            unit.branches.append(Newest("job", version, {"stage": version}, HOUR_MS))
        refused.hash("key").set("a", "b")
        refused.branches[0].hash("text").set("a", "b")
        accepted.emit("key", {"a": "b"}, None)
        first, second = bench.send(of(refused, accepted))
        assert (first.verdict, second) == (Verdict.INVALID, COMMITTED)
        assert bench.client.hget("job", "stage") == b"0:1:1-0@s"
        assert bench.client.xlen("key") == 1


class TestCheckpoint:
    def test_it_is_the_lowest_unsettled_id_else_the_last_one(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        assert bench.send([Settlement(STREAM, "2-0", incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "(1-0"
        assert bench.send([Settlement(STREAM, "1-0", incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "(3-0"
        assert bench.send([Settlement(STREAM, "3-0", incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "3-0"
        assert bench.send([Settlement(STREAM, "1-0", incrementing())]) == [SETTLED]
        assert bench.checkpoint(STREAM) == "3-0"

    def test_once_nothing_is_pending_it_is_the_last_that_was_delivered(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "9-0", "10-0", "10-10")
        for entry_id in ("10-10", "9-0", "10-0"):
            assert bench.send([Settlement(STREAM, entry_id, incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "10-10"
        bench.client.xadd(STREAM, {"type": "x"}, id="11-0")
        assert bench.send([Settlement(STREAM, "9-0", incrementing())]) == [SETTLED]
        assert bench.checkpoint(STREAM) == "10-10", "the new one was not delivered"

    def test_an_entry_that_stays_pending_holds_it_back(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        stale = incrementing()
        stale.hash("k").note("f", "never")
        assert bench.send(of(stale, incrementing())) == [CONFLICT, COMMITTED]
        assert bench.checkpoint(STREAM) == "(1-0"

    def test_it_never_lies_beyond_a_group_that_was_set_back(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        bench.client.xgroup_setid(STREAM, GROUP, "1-0")
        assert bench.send([Settlement(STREAM, "2-0", incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "(1-0"
        assert bench.send([Settlement(STREAM, "1-0", incrementing())]) == [COMMITTED]
        assert bench.checkpoint(STREAM) == "1-0", "3-0 is pending, and 2-0 will be given again"

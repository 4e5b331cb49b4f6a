"""Integers, merged increments, and what is large."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.outcome import Settlement, Verdict
from tests.environment.servers import Server
from tests.integration.commit_bench import (
    COMMITTED,
    CONFLICT,
    HOUR_MS,
    STREAM,
    CommitBench,
    incrementing,
    letter,
    of,
    setting,
)

LARGEST, SMALLEST = 2**63 - 1, -(2**63)


@pytest.fixture
def bench(server: Server) -> Iterator[CommitBench]:
    with CommitBench(server) as bench:
        yield bench


class TestMerging:
    """Increments are written at the end of the batch, and yet as if each had been written in its turn."""

    def commit(self, bench: CommitBench, *works: UnitOfWork) -> dict[bytes, bytes]:
        bench.deliver(STREAM, *(f"{n}-0" for n in range(1, len(works) + 1)))
        assert bench.send(of(*works)) == [COMMITTED] * len(works)
        found: dict[bytes, bytes] = bench.client.hgetall("k")
        return found

    def unit(self, effect: str, *arguments: object) -> UnitOfWork:
        unit = UnitOfWork()
        getattr(unit.hash("k"), effect)(*arguments)
        return unit

    @pytest.mark.parametrize(
        ("between", "left"),
        [
            (("set", "n", 10), {b"n": b"12"}),
            (("set", "m", 10), {b"n": b"7", b"m": b"10"}),
            (("delete", "n"), {b"n": b"2"}),
            (("delete", "m"), {b"n": b"7"}),
            (("clear",), {b"n": b"2"}),
            (("maximum", "n", 3), {b"n": b"7"}),
            (("maximum", "n", 9), {b"n": b"11"}),
            (("set_latest", "n", 30, "1:1-1@s"), {b"n": b"32", b"n:version": b"1:1-1@s"}),
        ],
    )
    def test_around_another_effect(
        self, bench: CommitBench, between: tuple[str, object], left: dict[bytes, bytes]
    ) -> None:
        works = (self.unit("increment", "n", 5), self.unit(*between), self.unit("increment", "n", 2))
        assert self.commit(bench, *works) == left

    @pytest.mark.parametrize(
        ("effects", "left"),
        [
            ([("set", "n", 10), ("set_latest", "f", "v", "9:1-1@s")], {b"n": b"12"}),
            ([("set", "a", 10), ("set_latest", "n", 30, "9:1-1@s")], {b"n": b"32"}),
            (
                [("set", "a", 10), ("set_latest", "f", "v", "9:1-1@s")],
                {b"n": b"7", b"f": b"v", b"f:version": b"9:1-1@s"},
            ),
        ],
    )
    def test_around_plain_and_latest_fields_that_are_written_together(
        self, bench: CommitBench, effects: list[tuple[str, object]], left: dict[bytes, bytes]
    ) -> None:
        before, together = incrementing(5), UnitOfWork()
        before.hash("k").increment("f:version", 5)
        before.hash("k").set("f", "unset")
        for effect, *arguments in effects:
            getattr(together.hash("k"), effect)(*arguments)
        found = self.commit(bench, before, together, incrementing(2))
        assert found | left == found

    def test_of_a_field_that_becomes_a_version(self, bench: CommitBench) -> None:
        works = (self.unit("increment", "f:version", 5), self.unit("set_latest", "f", "v", "9:1-1@s"))
        assert self.commit(bench, *works) == {b"f": b"v", b"f:version": b"9:1-1@s"}

    def test_of_a_field_that_becomes_part_of_a_record(self, bench: CommitBench) -> None:
        record = UnitOfWork()
        record.branches.append(Newest("k", "0:1:1-1@s", {"n": "x"}, HOUR_MS))
        assert self.commit(bench, self.unit("increment", "n", 5), record)[b"n"] == b"x"

    def test_of_the_field_that_says_whether_a_record_is_newer(self, bench: CommitBench) -> None:
        record = UnitOfWork()
        record.branches.append(Newest("k", "10:1-1@s", {"stage": "x"}, HOUR_MS))
        works = (self.unit("increment", "version", 2), record)
        assert self.commit(bench, *works) == {b"version": b"2"}, "as text, '2' is the greater"

    def test_a_key_that_vanishes_may_become_a_stream(self, bench: CommitBench) -> None:
        for end in (("clear",), ("delete", "n")):
            bench.client.flushall()
            emitting = UnitOfWork()
            emitting.emit("k", {"a": "b"}, None)
            bench.deliver(STREAM, "1-0", "2-0", "3-0")
            assert (
                bench.send(of(self.unit("increment", "n", 5), self.unit(*end), emitting)) == [COMMITTED] * 3
            )
            assert bench.entries("k") == [("a", "b")]

    def test_keeps_the_time_to_live_that_was_set_in_between(self, bench: CommitBench) -> None:
        expiring = UnitOfWork()
        expiring.hash("k").ttl_ms = HOUR_MS
        assert self.commit(bench, self.unit("increment", "n", 5), expiring) == {b"n": b"5"}
        assert bench.client.pttl("k") > 0

    def test_a_delete_does_not_cost_the_key_its_time_to_live(self, bench: CommitBench) -> None:
        bench.client.hset("k", "old", "1")
        bench.client.pexpire("k", HOUR_MS)
        assert self.commit(bench, incrementing(), self.unit("delete", "old")) == {b"n": b"1"}
        assert bench.client.pttl("k") > 0


class TestBesideOtherWrites:
    """Increments of a unit that writes or reads more of the hash are written with the rest."""

    def unit(self, amount: int, **read: str | None) -> UnitOfWork:
        unit = setting(f="v")
        unit.hash("k").increment("n", amount)
        for field, value in read.items():
            unit.hash("k").note(field, value)
        return unit

    def test_sums_and_merged_increments_add_up(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, *(f"{n}-0" for n in range(1, 6)))
        works = (incrementing(1), self.unit(10), incrementing(100), self.unit(1_000, n="111"), incrementing())
        assert bench.send(of(*works)) == [COMMITTED] * 5
        assert bench.client.hgetall("k") == {b"n": b"1112", b"f": b"v"}

    def test_one_that_is_refused_adds_nothing(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0", "4-0")
        works = (incrementing(1), self.unit(10, n="0"), self.unit(LARGEST), self.unit(100, n="1", f=None))
        verdicts = [answer.verdict for answer in bench.send(of(*works))]
        assert verdicts == [Verdict.COMMITTED, Verdict.CONFLICT, Verdict.INVALID, Verdict.COMMITTED]
        assert bench.client.hgetall("k") == {b"n": b"101", b"f": b"v"}

    def test_behind_a_condition_they_meet_those_of_the_unit(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        unit, once = self.unit(1, n=None), Once("event-router:mark:m", HOUR_MS)
        once.hash("k").increment("n", 10)
        unit.branches.append(once)
        assert bench.send(of(unit)) == [COMMITTED]
        assert bench.client.hget("k", "n") == b"11"

    def test_of_several_conditional_fields_those_that_lose_are_left_out(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        stored = {"a": "a", "a:version": "9:1-1@s", "b": "b", "b:version": "1:1-1@s", "m": "9", "n": "1"}
        bench.client.hset("k", mapping=stored)
        unit = UnitOfWork()
        for field, least in (("m", 5), ("n", 5)):
            unit.hash("k").maximum(field, least)
        for field in "abc":
            unit.hash("k").set_latest(field, "new", "5:1-1@s")
        assert bench.send(of(unit)) == [COMMITTED]
        left = {"n": "5", "b": "new", "b:version": "5:1-1@s", "c": "new", "c:version": "5:1-1@s"}
        assert bench.text_client.hgetall("k") == stored | left

    def test_a_cleared_hash_starts_anew(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.hset("k", mapping={"n": "7", "m": "9", "l": "x", "l:version": "9:1-1@s"})
        clearing = UnitOfWork()
        clearing.hash("k").clear()
        clearing.hash("k").increment("n", 2)
        clearing.hash("k").maximum("m", 3)
        clearing.hash("k").set_latest("l", "y", "1:1-1@s")
        assert bench.send(of(incrementing(), clearing)) == [COMMITTED] * 2
        assert bench.client.hgetall("k") == {b"n": b"2", b"m": b"3", b"l": b"y", b"l:version": b"1:1-1@s"}

    def test_a_hash_that_is_still_to_be_written_is_no_stream(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        emitting = UnitOfWork()
        emitting.emit("k", {"a": "b"}, None)
        answers = bench.send(of(incrementing(), emitting))
        assert [answer.verdict for answer in answers] == [Verdict.COMMITTED, Verdict.INVALID]
        assert bench.client.hgetall("k") == {b"n": b"1"}

    def test_thousands_are_read_checked_and_written(self, bench: CommitBench) -> None:
        fields = [f"f{number}" for number in range(7_000)]
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.hset("k", mapping=dict.fromkeys(fields, "1"))
        unit, stale = UnitOfWork(), UnitOfWork()
        for field in fields:
            unit.hash("k").note(field, "1")
            unit.hash("k").increment(field, 1)
            stale.hash("k").note(field, "1" if field == "f6999" else "2")
        assert bench.send(of(unit, stale)) == [COMMITTED, CONFLICT]
        assert set(bench.client.hvals("k")) == {b"2"}


class TestIntegers:
    @pytest.mark.parametrize("stored", ["007", "+1", "1.0", "", "-0", " 1", "1e3", str(2**63), "abc"])
    def test_what_is_no_canonical_integer_is_not_incremented(self, bench: CommitBench, stored: str) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        bench.client.hset("k", "n", stored)
        raising, beside = UnitOfWork(), setting(f="v")
        raising.hash("k").maximum("n", 5)
        beside.hash("k").increment("n", 1)
        answers = bench.send(of(incrementing(), raising, beside))
        assert [answer.verdict for answer in answers] == [Verdict.INVALID] * 3
        assert bench.client.hgetall("k") == {b"n": stored.encode()}

    @pytest.mark.parametrize(
        ("stored", "amounts", "result"),
        [
            (0, [LARGEST], LARGEST),
            (0, [SMALLEST], SMALLEST),
            (2**53, [1, 1, 1], 2**53 + 3),
            (-(2**53), [-1], -(2**53) - 1),
            (10**15 - 1, [1], 10**15),
            (10**15, [-1], 10**15 - 1),
            (LARGEST - 1, [1], LARGEST),
            (SMALLEST, [LARGEST, LARGEST, 1], LARGEST),
            (SMALLEST, [LARGEST, 1, LARGEST, -1], LARGEST - 1),
            (LARGEST, [SMALLEST, SMALLEST + 1], SMALLEST),
            (LARGEST, [SMALLEST, 1], 0),
            (123456789012345678, [-123456789012345678], 0),
            (0, [10**15 - 1] * 13, 13 * (10**15 - 1)),
            (0, [1 - 10**15] * 13, -13 * (10**15 - 1)),
        ],
    )
    def test_64_bits_are_exact_and_merged(
        self, bench: CommitBench, stored: int, amounts: list[int], result: int
    ) -> None:
        bench.deliver(STREAM, *(f"{n}-0" for n in range(1, len(amounts) + 1)))
        if stored:
            bench.client.hset("k", "n", stored)
        assert bench.send(of(*map(incrementing, amounts))) == [COMMITTED] * len(amounts)
        assert bench.client.hget("k", "n") == str(result).encode()

    def test_only_the_entry_that_would_overflow_is_refused(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0", "4-0")
        bench.client.hset("k", "n", LARGEST - 2)
        answers = bench.send(of(incrementing(), incrementing(2), incrementing(), incrementing(-5)))
        assert [answer.verdict.name for answer in answers] == [
            "COMMITTED",
            "INVALID",
            "COMMITTED",
            "COMMITTED",
        ]
        assert answers[1].reason == "field 'n' of key 'k' would overflow 64 bits"
        assert bench.client.hget("k", "n") == str(LARGEST - 5).encode()

    def test_increments_of_a_batch_are_one_write(self, bench: CommitBench) -> None:
        ids = [f"{n}-0" for n in range(1, 501)]
        bench.deliver(STREAM, *ids)
        bench.client.config_resetstat()
        assert bench.send(of(*(incrementing() for _ in ids))) == [COMMITTED] * 500
        assert bench.client.info("commandstats")["cmdstat_hincrby"]["calls"] == 1
        assert bench.client.hget("k", "n") == b"500"


class TestSize:
    def test_ten_thousand_fields_are_set_and_deleted(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        fields = {f"f{n}": str(n) for n in range(10_000)}
        deleting = UnitOfWork()
        for field in list(fields)[1:]:
            deleting.hash("k").delete(field)
        assert bench.send(of(setting(**fields))) == [COMMITTED]
        assert bench.client.hlen("k") == 10_000
        assert bench.client.hget("k", "f9999") == b"9999"
        assert bench.send([Settlement(STREAM, "2-0", deleting)]) == [COMMITTED]
        assert bench.client.hgetall("k") == {b"f0": b"0"}

    def test_ten_thousand_fields_are_incremented(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        unit = UnitOfWork()
        for number in range(10_000):
            unit.hash("k").increment(f"f{number}", number)
        assert bench.send(of(unit)) == [COMMITTED]
        assert bench.client.hlen("k") == 10_000

    def test_thousands_of_plain_and_latest_fields_are_set(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        unit = setting(**{f"f{n}": n for n in range(2000)})
        for number in range(1000):
            unit.hash("k").set_latest(f"l{number}", number, "1:1-1@s")
        assert bench.send(of(unit)) == [COMMITTED]
        assert bench.client.hlen("k") == 4000

    def test_an_emission_may_have_a_thousand_fields(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        unit = UnitOfWork()
        unit.emit("log", {f"f{n}": n for n in range(1000)}, 5)
        assert bench.send(of(unit)) == [COMMITTED]
        assert len(bench.entries("log")[0]) == 2000


def test_a_full_batch_blocks_redis_for_ten_milliseconds_at_most(bench: CommitBench) -> None:
    """A design goal on an idle machine; the bound here is generous, for busy ones."""
    ids = [f"{n}-0" for n in range(1, 501)]
    bench.deliver(STREAM, *ids)
    works = []
    for number in range(500):
        unit = setting(f"u{number}", login_days="2026-01-01", login_streak=1, last_login_date="2026-01-01")
        unit.hash(f"u{number}").set_latest("last_login", "x", "1:1-1@s")
        unit.hash(f"u{number}").increment("login_count", 1)
        unit.hash("daily").increment("logins", 1)
        unit.hash(f"u{number}").note("login_days", None)
        works.append(unit)
    bench.client.config_resetstat()
    started = time.monotonic()
    assert bench.send(of(*works)) == [COMMITTED] * 500
    statistics = bench.client.info("commandstats")
    spent = max(
        statistics[f"cmdstat_{name}"]["usec"]
        for name in ("eval", "evalsha")
        if f"cmdstat_{name}" in statistics
    )
    print(f"{spent / 1000:.1f} ms in Redis, {(time.monotonic() - started) * 1000:.1f} ms in all")
    assert spent < 100_000


def test_a_large_unit_weighs_as_much_as_many_in_a_batch(bench: CommitBench) -> None:
    ordinary, large, behind, reading = incrementing(), UnitOfWork(), UnitOfWork(), UnitOfWork()
    once = Once("event-router:mark:m", HOUR_MS)
    for number in range(10_000):
        large.hash("k").set(f"f{number}", "v")
        once.hash("k").set(f"f{number}", "v")
        reading.hash("k").note(f"f{number}", None)
    behind.branches.append(once)
    works = (ordinary, large, behind, reading, letter([b"x", b"x" * 1_000_000]))
    settlements = [Settlement(STREAM, "1-0", work) for work in works]
    settlements.append(Settlement(STREAM, "1-0", letter([]), reading))
    weights = [bench.commits.prepare(settlement).weight for settlement in settlements]
    assert weights[0] == 1
    assert all(200 < weight < 500 for weight in weights[1:])

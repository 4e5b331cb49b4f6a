"""What the commit script promises, one guarantee a test."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.errors import NoGroup
from event_router.core.outcome import MAX_LETTER_FIELDS, Answer, DeadLetter, Settlement, Verdict
from event_router.redis_io.dead_letter_format import unpack
from tests.environment.servers import Server
from tests.integration.commit_bench import GROUP, CommitBench, as_bytes

COMMITTED, SETTLED, CONFLICT = Answer(Verdict.COMMITTED), Answer(Verdict.SETTLED), Answer(Verdict.CONFLICT)
STREAM = "events:x"
HOUR_MS = 3_600_000
LARGEST, SMALLEST = 2**63 - 1, -(2**63)


@pytest.fixture
def bench(server: Server) -> Iterator[CommitBench]:
    with CommitBench(server) as bench:
        yield bench


def incrementing(amount: int = 1, key: str = "k", field: str = "n") -> UnitOfWork:
    unit = UnitOfWork()
    unit.hash(key).increment(field, amount)
    return unit


def setting(key: str = "k", **values: object) -> UnitOfWork:
    unit = UnitOfWork()
    for field, value in values.items():
        unit.hash(key).set(field, value)
    return unit


def letter(fields: list[bytes], reason: str = "invalid") -> DeadLetter:
    return DeadLetter(reason, "why", 2, "consumer-a", "2026-01-01T00:00:00.000Z", fields)  # type: ignore[arg-type]


def of(*works: UnitOfWork | DeadLetter, stream: str = STREAM) -> list[Settlement]:
    """The works of entries 1-0, 2-0, …"""
    return [Settlement(stream, f"{number}-0", work) for number, work in enumerate(works, start=1)]


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
            unit.reads["k", "read"] = "something else"
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
        unit.reads["k", "f"] = read
        assert bench.send(of(unit)) == [answer]
        assert bench.client.hexists("k", "n") == (answer == COMMITTED)

    def test_absent_reads_are_checked_wherever_they_stand(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.hset("k", "third", "there")
        unit = incrementing()
        for field in ("first", "second", "third", "fourth"):
            unit.reads["k", field] = None
        assert bench.send(of(unit)) == [CONFLICT]

    def test_a_read_sees_what_earlier_entries_of_the_batch_left(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        second, third = incrementing(), incrementing()
        second.reads["k", "n"] = "1"
        third.reads["k", "n"] = "1"
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
        stale.reads["k", "f"] = "never"
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
        reading.reads["k", "f"] = reading.reads["absent", "f"] = both.reads["absent", "f"] = None
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
            (
                [("set", "f:version", "8:1-1@s"), ("set_latest", "f", "v", "9:1-1@s")],
                {b"f": b"v", b"f:version": b"9:1-1@s"},
            ),
            (
                [("set", "f:version", "99:1-1@s"), ("set_latest", "f", "v", "9:1-1@s")],
                {b"f": b"unset", b"f:version": b"99:1-1@s"},
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

    def test_a_latest_field_that_is_the_version_of_another(self, bench: CommitBench) -> None:
        unit = self.unit("set_latest", "f:version", "x", "1:1-1@s")
        unit.hash("k").set_latest("f", "v", "9:1-1@s")
        unit.hash("k").set("a", "b")
        left = {b"a": b"b", b"f:version": b"x", b"f:version:version": b"1:1-1@s"}
        assert self.commit(bench, unit) == left, "the version that is stored by then is later"

    def test_of_the_field_that_says_whether_a_record_is_newer(self, bench: CommitBench) -> None:
        record = UnitOfWork()
        record.branches.append(Newest("k", "10:1-1@s", {"stage": "x"}, HOUR_MS))
        works = (self.unit("increment", "version", 2), record)
        assert self.commit(bench, *works) == {b"version": b"2"}, "as text, '2' is the greater"

    def test_a_version_that_is_raised_after_it_was_written(self, bench: CommitBench) -> None:
        unit = self.unit("set_latest", "f", "v", "1:1-1@s")
        unit.hash("k").maximum("f:version", 3)
        assert self.commit(bench, unit) == {b"f": b"v", b"f:version": b"3"}

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


class TestIntegers:
    @pytest.mark.parametrize("stored", ["007", "+1", "1.0", "", "-0", " 1", "1e3", str(2**63), "abc"])
    def test_what_is_no_canonical_integer_is_not_incremented(self, bench: CommitBench, stored: str) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.hset("k", "n", stored)
        raising = UnitOfWork()
        raising.hash("k").maximum("n", 5)
        answers = bench.send(of(incrementing(), raising))
        assert [answer.verdict for answer in answers] == [Verdict.INVALID] * 2
        assert bench.client.hget("k", "n") == stored.encode()

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


class TestDeadLetters:
    def test_binary_names_and_values_are_kept_byte_for_byte(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        every = bytes(range(256))
        long = every * 1024
        fields = [every, every[::-1], b"", b"", b"twice", b"1", b"twice", b"2", b"long", long, b"x" * 40, b""]
        assert bench.send(of(letter(fields))) == [COMMITTED]
        (entry,) = bench.entries(f"dlq:{STREAM}")
        raw = [as_bytes(part) for part in entry]
        assert raw[: len(fields)] == fields
        assert raw[len(fields) :] == [
            *(b"dlq_stream", b"events:x"),
            *(b"dlq_id", b"1-0"),
            *(b"dlq_reason", b"invalid"),
            *(b"dlq_error", b"why"),
            *(b"dlq_deliveries", b"2"),
            *(b"dlq_consumer", b"consumer-a"),
            *(b"dlq_time", b"2026-01-01T00:00:00.000Z"),
        ]

    @pytest.mark.parametrize("count", [MAX_LETTER_FIELDS, MAX_LETTER_FIELDS + 1, 10_000])
    def test_above_what_a_script_can_add_the_fields_are_packed(self, bench: CommitBench, count: int) -> None:
        bench.deliver(STREAM, "1-0")
        fields = [part for n in range(count) for part in (b"\xff%d" % n, b"v%d" % n)]
        assert bench.send(of(letter(fields))) == [COMMITTED]
        ((*entry,),) = bench.entries(f"dlq:{STREAM}")
        if count > MAX_LETTER_FIELDS:
            assert entry[0] == "dlq_raw"
            assert unpack(as_bytes(entry[1])) == fields
        else:
            assert [as_bytes(part) for part in entry[: len(fields)]] == fields
        assert "dlq_reason" in entry[-14:]

    def test_a_dead_letter_stream_of_another_type_keeps_the_entry(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.set(f"dlq:{STREAM}", "text")
        (answer,) = bench.send(of(letter([b"a", b"b"])))
        assert answer == Answer(Verdict.INVALID, f"key 'dlq:{STREAM}' is a string, not a stream")
        assert bench.pending(STREAM) == {"1-0"}

    def test_a_stream_whose_ids_are_used_up_keeps_the_entry(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.client.xadd("log", {"a": "b"}, id="18446744073709551615-18446744073709551615")
        unit = incrementing()
        unit.emit("log", {"a": "b"}, None)
        (answer,) = bench.send(of(unit))
        assert answer.verdict is Verdict.INVALID
        assert not bench.client.exists("k")


class TestConditions:
    def test_a_mark_lets_effects_through_once_and_stands_for_its_time(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        works = []
        for _ in range(2):
            unit, once = incrementing(field="all"), Once("event-router:mark:m", HOUR_MS)
            once.hash("k").increment("once", 1)
            once.emit("log", {"a": "b"}, None)
            unit.branches.append(once)
            works.append(unit)
        assert bench.send(of(*works)) == [COMMITTED, COMMITTED]
        assert bench.client.hgetall("k") == {b"all": b"2", b"once": b"1"}
        assert bench.client.xlen("log") == 1
        assert 0 < bench.client.pttl("event-router:mark:m") <= HOUR_MS

    def test_a_mark_is_not_set_by_a_unit_that_is_refused(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.set("text", "x")
        works = []
        for key in ("text", "k"):
            unit, once = UnitOfWork(), Once("event-router:mark:m", HOUR_MS)
            once.hash(key).increment("n", 1)
            unit.branches.append(once)
            works.append(unit)
        first, second = bench.send(of(*works))
        assert (first.verdict, second) == (Verdict.INVALID, COMMITTED)
        assert bench.client.hget("k", "n") == b"1"

    @pytest.mark.parametrize(
        ("stored", "version", "wins"),
        [
            (None, "0:0:1-0@s", True),
            ("0:1:1-0@s", "0:2:1-0@s", True),
            ("0:9:1-0@s", "0:10:1-0@s", True),
            ("0:10:1-0@s", "0:9:1-0@s", False),
            ("0:2:1-9@s", "0:2:1-10@s", True),
            ("0:2:9-0@s", "0:2:10-0@s", True),
            ("1:0:1-0@s", "0:99:9-9@s", False),
            ("0:99:9-9@s", "1:0:1-0@s", True),
            ("1:0:1-0@s", "1:0:1-0@s", False),
            ("0:2:1-0@a", "0:2:1-0@b", True),
            ("0:2:1-0@b", "0:2:1-0@a", False),
            ("0:9007199254740993:1-0@s", "0:9007199254740992:9-0@s", False),
        ],
    )
    def test_the_newest_record_wins_and_takes_its_effects_with_it(
        self, bench: CommitBench, stored: str | None, version: str, wins: bool
    ) -> None:
        bench.deliver(STREAM, "1-0")
        if stored:
            bench.client.hset("job", mapping={"version": stored, "stage": "old", "more": "kept"})
        unit, step = UnitOfWork(), Newest("job", version, {"stage": "new"}, HOUR_MS)
        step.emit("log", {"a": "b"}, None)
        unit.branches.append(step)
        assert bench.send(of(unit)) == [COMMITTED]
        assert bench.client.hget("job", "stage") == (b"new" if wins else b"old")
        assert bench.client.xlen("log") == int(wins)
        assert (bench.client.pttl("job") > 0) == wins


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
        stale.reads["k", "f"] = "never"
        assert bench.send(of(stale, incrementing())) == [CONFLICT, COMMITTED]
        assert bench.checkpoint(STREAM) == "(1-0"


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
        unit.reads[f"u{number}", "login_days"] = None
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
    ordinary, large, behind = incrementing(), UnitOfWork(), UnitOfWork()
    once = Once("event-router:mark:m", HOUR_MS)
    for number in range(10_000):
        large.hash("k").set(f"f{number}", "v")
        once.hash("k").set(f"f{number}", "v")
    behind.branches.append(once)
    works = (ordinary, large, behind, letter([b"x", b"x" * 1_000_000]))
    weights = [bench.commits.prepare(Settlement(STREAM, "1-0", work)).weight for work in works]
    assert weights[0] == 1
    assert all(200 < weight < 500 for weight in weights[1:])

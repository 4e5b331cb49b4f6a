"""Dead letters, marks and records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.errors import StateError
from event_router.core.outcome import MAX_LETTER_FIELDS, Answer, Settlement, Verdict
from event_router.redis_io.dead_letter_format import unpack
from tests.environment.servers import Server
from tests.integration.commit_bench import (
    COMMITTED,
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


@pytest.mark.parametrize("place", ["key", "field", "mark", "record"])
def test_a_name_that_is_no_unicode_is_refused_when_it_is_prepared(bench: CommitBench, place: str) -> None:
    half = "\ud800"
    unit = incrementing(key=half if place == "key" else "k", field=half if place == "field" else "n")
    unit.branches.append(Once(half if place == "mark" else "m", HOUR_MS))
    unit.branches.append(Newest(half if place == "record" else "job", "1:1-1@s", {"a": "b"}, HOUR_MS))
    with pytest.raises(StateError, match="no valid Unicode"):
        bench.commits.prepare(Settlement(STREAM, "1-0", unit))


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


class TestDedupe:
    def repeated(self, *ids: str, unique_id: str = "a") -> list[Settlement]:
        return [Settlement(STREAM, entry_id, incrementing(), None, unique_id) for entry_id in ids]

    def test_what_a_producer_sent_twice_counts_once(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        assert bench.send(self.repeated("1-0", "2-0")) == [COMMITTED, SETTLED]
        assert bench.send(self.repeated("3-0")) == [SETTLED]
        assert bench.client.hgetall("k") == {b"n": b"1"}
        assert not bench.pending(STREAM), "a repetition is settled"

    def test_the_same_id_in_another_stream_is_another_event(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        bench.deliver("events:y", "1-0")
        other = Settlement("events:y", "1-0", incrementing(), None, "a")
        assert bench.send([*self.repeated("1-0"), other]) == [COMMITTED, COMMITTED]

    def test_sent_again_it_is_settled_and_not_counted(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0")
        for answer in (COMMITTED, SETTLED):
            assert bench.send(self.repeated("1-0")) == [answer]
        assert bench.client.hgetall("k") == {b"n": b"1"}

    def test_what_became_no_state_may_be_sent_again(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.client.hset("k", "n", "text")
        assert bench.send(self.repeated("1-0"))[0].verdict is Verdict.INVALID
        bench.client.delete("k")
        assert bench.send(self.repeated("2-0")) == [COMMITTED]

    def test_what_counted_once_becomes_no_dead_letter_when_it_comes_again(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        refused = Settlement(STREAM, "2-0", letter([b"a", b"b"]), None, "a")
        assert bench.send([*self.repeated("1-0"), refused]) == [COMMITTED, SETTLED]
        assert not bench.client.exists(f"dlq:{STREAM}")
        assert bench.pending(STREAM) == {"3-0"}

    def test_a_dead_letter_does_not_count(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        refused = [Settlement(STREAM, f"{n}-0", letter([b"a", b"b"]), None, "a") for n in (1, 2)]
        assert bench.send(refused) == [COMMITTED, COMMITTED]
        assert bench.client.xlen(f"dlq:{STREAM}") == 2
        assert bench.send(self.repeated("3-0")) == [COMMITTED]

    def test_of_two_in_a_batch_the_second_counts_if_the_first_cannot(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0", "3-0")
        bench.client.hset("k", "text", "x")
        invalid = Settlement(STREAM, "1-0", incrementing(field="text"), None, "a")
        stale = Settlement(STREAM, "2-0", incrementing(), None, "a")
        stale.work.hash("k").note("text", "other")  # type: ignore[union-attr]
        answers = bench.send([invalid, stale, *self.repeated("3-0")])
        assert [answer.verdict for answer in answers] == [
            Verdict.INVALID,
            Verdict.CONFLICT,
            Verdict.COMMITTED,
        ]
        assert bench.send([invalid, stale]) == [SETTLED, SETTLED]
        assert bench.client.hgetall("k") == {b"text": b"x", b"n": b"1"}

    def test_the_id_is_forgotten_after_its_window(self, bench: CommitBench) -> None:
        bench.deliver(STREAM, "1-0", "2-0")
        bench.send(self.repeated("1-0"))
        (mark,) = bench.client.keys("event-router:dedupe:*")
        assert mark == b"event-router:dedupe:events:x:a"
        assert HOUR_MS - 60_000 < bench.client.pttl(mark) <= HOUR_MS
        bench.client.delete(mark)
        assert bench.send(self.repeated("2-0")) == [COMMITTED]

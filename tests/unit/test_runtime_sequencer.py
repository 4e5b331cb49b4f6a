"""The order of handlers that touch one entity, and what they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from event_router.core.errors import InvalidState, RedisDenied, RedisRefused, StateError
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.sequencer import Sequencer
from event_router.runtime.turns import Turn
from tests.unit.runtime_fakes import AWAY, FakeState, Reports, Time, settled, until

K, L = "state:bike:1", "state:bike:2"
DENIED = RedisDenied("NOPERM this user may not HGET on state:bike:1")


class Bench:
    """A running sequencer on a fake state."""

    def __init__(self) -> None:
        self.state, self.reports = FakeState(), Reports()
        self.time = Time()
        clock = self.time.clock
        self.connectivity = Connectivity(clock, self.reports)
        self.sequencer = Sequencer(clock, self.state, self.connectivity)

    def turn(self, *keys: str) -> Turn:
        turn = self.sequencer.turn()
        for key in keys:
            turn.touch(key)
        return turn

    def read(self, turn: Turn, field: str = "a", key: str = K) -> asyncio.Task[str | None]:
        return asyncio.create_task(turn.read(key, field))


async def read_by(turn: Turn, field: str = "a") -> str | None:
    """Read as an entity does: the unit notes it."""
    value = await turn.read(K, field)
    turn.unit.hash(K).note(field, value)
    return value


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.sequencer.start()
    yield bench
    await bench.sequencer.stop()


class TestReads:
    async def test_what_is_asked_at_once_goes_to_redis_together(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = "1"
        reads = [bench.read(bench.turn(K)), bench.read(bench.turn(L), key=L)]
        assert await asyncio.gather(*reads) == ["1", None]
        assert bench.state.reads == [[(K, "a"), (L, "a")]]

    async def test_a_read_outlasts_an_outage(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = "1"
        bench.state.errors = [AWAY] * 5
        assert await bench.turn().read(K, "a") == "1"
        assert len(bench.state.reads) == 6
        assert len(bench.reports.of("outage_began")) == len(bench.reports.of("outage_ended")) == 1

    async def test_a_key_that_is_no_hash_spares_the_others(self, bench: Bench) -> None:
        bench.state.values = {(K, "a"): InvalidState("no hash"), (L, "a"): "1"}
        bad, good = bench.read(bench.turn(K)), bench.read(bench.turn(L), key=L)
        assert await good == "1"
        with pytest.raises(InvalidState):
            await bad

    @pytest.mark.parametrize(("key", "field"), [(K, None), (K, b"a"), (K, "\ud800"), ("\udfff", "a")])
    async def test_a_name_that_cannot_be_sent_spares_the_others(
        self, bench: Bench, key: str, field: Any
    ) -> None:
        fine = bench.read(bench.turn())
        with pytest.raises(StateError):
            await bench.turn().read(key, field)
        assert await fine is None
        assert bench.state.reads == [[(K, "a")]]

    async def test_a_refusal_reaches_whoever_asked_and_reading_goes_on(self, bench: Bench) -> None:
        bench.state.errors = [RedisRefused("no")]
        with pytest.raises(RedisRefused):
            await bench.turn().read(K, "a")
        assert await bench.turn().read(L, "a") is None


class TestDenied:
    """A key that this user may not read."""

    async def test_whoever_reads_it_waits_and_all_others_are_answered(self, bench: Bench) -> None:
        bench.state.values = {(K, "a"): DENIED, (L, "a"): "1"}
        denied, allowed = bench.read(bench.turn(K)), bench.read(bench.turn(L), key=L)
        await until(allowed.done)
        assert await allowed == "1"
        for number in range(3, 6):
            later = bench.read(bench.turn(), key=f"state:bike:{number}")
            await until(later.done)
        assert not denied.done()
        bench.state.values[K, "a"] = "2"
        await until(denied.done)
        assert await denied == "2"

    async def test_it_is_an_outage_until_the_last_is_answered(self, bench: Bench) -> None:
        bench.state.values = {(K, "a"): DENIED, (L, "a"): DENIED}
        reads = [bench.read(bench.turn(K)), bench.read(bench.turn(L), key=L)]
        await until(lambda: bench.reports.of("outage_began"))
        for place in bench.state.values:
            assert not bench.reports.of("outage_ended")
            assert not bench.connectivity.up
            bench.state.values[place] = "1"
            await until(reads.pop(0).done)
        assert bench.connectivity.up
        ((_, error),) = bench.reports.of("outage_began")
        assert error == str(DENIED)
        assert len(bench.reports.of("outage_ended")) == 1

    async def test_answers_of_others_do_not_end_it(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = DENIED
        denied = bench.read(bench.turn(K))
        await until(lambda: not bench.connectivity.up)
        bench.state.gate.clear()
        others = []
        for number in range(3, 20):
            others.append(bench.read(bench.turn(), key=f"state:bike:{number}"))
            await settled()  # the pause ends while these are under way
            bench.state.gate.set()
            await until(others[-1].done)
            bench.state.gate.clear()
        assert not bench.reports.of("outage_ended")
        bench.state.values[K, "a"] = "1"
        bench.state.gate.set()
        await until(denied.done)
        assert bench.connectivity.up

    async def test_who_gives_up_waiting_leaves_no_outage_behind(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = DENIED
        turn = bench.turn(K)
        denied = bench.read(turn)
        await until(lambda: not bench.connectivity.up)
        denied.cancel()
        turn.finish(succeeded=False)
        await until(lambda: bench.connectivity.up)
        asked = len(bench.state.reads)
        await settled()
        assert len(bench.state.reads) == asked

    async def test_an_outage_meanwhile_changes_nothing(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = DENIED
        denied = bench.read(bench.turn(K))
        await until(lambda: not bench.connectivity.up)
        bench.state.errors = [AWAY] * 3
        allowed = bench.read(bench.turn(L), key=L)
        await until(allowed.done)
        assert not bench.connectivity.up
        bench.state.values[K, "a"] = "1"
        await until(denied.done)
        assert bench.connectivity.up

    async def test_the_time_is_not_the_handlers(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = DENIED
        turn = bench.turn(K)
        denied = bench.read(turn)
        await until(lambda: not bench.connectivity.up)
        assert turn.waits_since is not None
        bench.time.pass_(100)
        bench.state.values[K, "a"] = "1"
        await until(denied.done)
        assert turn.waits_since is None
        assert turn.waited_s == 100

    async def test_it_can_be_stopped_meanwhile(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = DENIED
        denied = bench.read(bench.turn(K))
        await until(lambda: not bench.connectivity.up)
        before = asyncio.all_tasks()
        await bench.sequencer.stop()
        await settled()
        asked = len(bench.state.reads)
        await settled()
        assert len(bench.state.reads) == asked
        assert asyncio.all_tasks() < before
        denied.cancel()


class TestOrder:
    async def test_a_later_turn_waits_for_the_earlier_and_sees_its_effects(self, bench: Bench) -> None:
        first, second = bench.turn(K), bench.turn(K)
        assert await first.read(K, "a") is None
        waiting = bench.read(second)
        await settled()
        assert not waiting.done()
        first.unit.hash(K).set("a", "2")
        first.finish(succeeded=True)
        assert await waiting == "2"
        assert len(bench.state.reads) == 1

    async def test_an_earlier_turn_waits_for_no_later_one(self, bench: Bench) -> None:
        early, late = bench.turn(), bench.turn(K)
        assert await late.read(K, "a") is None
        assert await early.read(K, "a") is None

    async def test_two_entities_in_opposite_order_are_no_deadlock(self, bench: Bench) -> None:
        ended = []

        async def work(turn: Turn, *keys: str) -> None:
            for key in keys:
                await turn.read(key, "a")
                await asyncio.sleep(0)
            turn.finish(succeeded=True)
            ended.append(turn.number)

        turns = [bench.turn() for _ in range(20)]
        orders = [(K, L) if turn.number % 2 else (L, K) for turn in turns]
        await asyncio.wait_for(asyncio.gather(*map(work, turns, *zip(*orders, strict=True))), 5)
        assert sorted(ended) == [turn.number for turn in turns]

    async def test_a_turn_that_comes_late_still_goes_before_higher_numbers(self, bench: Bench) -> None:
        one, two, three = bench.turn(K), bench.turn(), bench.turn(K)
        last = bench.read(three)
        await settled()
        two.touch(K)
        one.finish(succeeded=True)
        await settled()
        assert not last.done()
        two.finish(succeeded=True)
        await until(last.done)

    async def test_a_failed_turn_leaves_what_it_would_have_changed(self, bench: Bench) -> None:
        first, second = bench.turn(K), bench.turn(K)
        assert await first.read(K, "a") is None
        first.unit.hash(K).set("a", "2")
        first.finish(succeeded=False)
        assert await second.read(K, "a") is None

    async def test_a_cancelled_waiter_holds_up_nobody(self, bench: Bench) -> None:
        first, second, third = bench.turn(K), bench.turn(K), bench.turn(K)
        cancelled, waiting = bench.read(second), bench.read(third)
        await settled()
        cancelled.cancel()
        await settled()
        second.finish(succeeded=False)
        first.finish(succeeded=True)
        assert await asyncio.wait_for(waiting, 5) is None

    async def test_a_waiter_cancelled_last_is_passed_over(self, bench: Bench) -> None:
        first, second, third = bench.turn(K), bench.turn(K), bench.turn(K)
        cancelled, waiting = bench.read(second), bench.read(third)
        await settled()
        first.finish(succeeded=True)
        cancelled.cancel()
        await settled()
        second.finish(succeeded=False)
        assert await asyncio.wait_for(waiting, 5) is None

    async def test_nothing_is_kept_of_turns_that_left(self, bench: Bench) -> None:
        for _ in range(50):
            turn = bench.turn(K, L)
            await turn.read(K, "a")
            turn.finish(succeeded=True)
            turn.release(applied=True)
        assert not bench.sequencer.views


class TestUncommittedEffects:
    @pytest.mark.parametrize("effect", ["increment", "maximum", "set_latest"])
    async def test_what_only_redis_can_work_out_is_waited_for(self, bench: Bench, effect: str) -> None:
        first, second = bench.turn(K), bench.turn(K)
        effects = first.unit.hash(K)
        arguments = {"increment": ("a", 1), "maximum": ("a", 5), "set_latest": ("a", "x", "1:1-0@s")}
        getattr(effects, effect)(*arguments[effect])
        first.finish(succeeded=True)
        waiting = bench.read(second)
        await settled()
        assert not waiting.done()
        assert not bench.state.reads
        bench.state.values[K, "a"] = "6"
        first.release(applied=True)
        assert await waiting == "6"

    async def test_another_field_is_not_waited_for(self, bench: Bench) -> None:
        first, second = bench.turn(K), bench.turn(K)
        first.unit.hash(K).increment("a", 1)
        first.finish(succeeded=True)
        bench.state.values[K, "b"] = "1"
        assert await second.read(K, "b") == "1"

    async def test_an_increment_of_a_field_that_was_read_is_followed(self, bench: Bench) -> None:
        bench.state.values[K, "a"] = "41"
        first, second = bench.turn(K), bench.turn(K)
        await first.read(K, "a")
        first.unit.hash(K).increment("a", 1)
        first.finish(succeeded=True)
        assert await second.read(K, "a") == "42"

    @pytest.mark.parametrize("effect", ["delete", "clear"])
    async def test_deletion_is_followed(self, bench: Bench, effect: str) -> None:
        bench.state.values[K, "a"] = "1"
        first, second = bench.turn(K), bench.turn(K)
        await first.read(K, "a")
        effects = first.unit.hash(K)
        effects.delete("a") if effect == "delete" else effects.clear()
        first.finish(succeeded=True)
        assert await second.read(K, "a") is None

    async def test_a_conflict_drops_what_was_built_on_it(self, bench: Bench) -> None:
        first, second, third = bench.turn(K), bench.turn(K), bench.turn(K)
        await first.read(K, "a")
        first.unit.hash(K).set("a", "wrong")
        first.finish(succeeded=True)
        assert await second.read(K, "a") == "wrong"
        bench.state.values[K, "a"] = "right"
        first.release(applied=False)
        second.unit.hash(K).set("a", "built on wrong")
        second.finish(succeeded=True)
        waiting = bench.read(third)
        await settled()
        assert not waiting.done()  # it is not known yet whether the second is applied
        second.release(applied=False)
        assert await waiting == "right"

    async def test_an_answer_from_before_a_conflict_is_not_used(self, bench: Bench) -> None:
        first, second = bench.turn(K), bench.turn(K)
        first.unit.hash(K).set("b", "x")
        first.finish(succeeded=True)
        bench.state.gate.clear()
        waiting = bench.read(second)
        await until(lambda: bench.state.reads)
        bench.state.values[K, "a"] = "new"
        first.release(applied=False)
        bench.state.gate.set()
        assert await waiting == "new"
        assert len(bench.state.reads) == 2

    async def test_who_had_read_nothing_when_a_conflict_came_built_nothing_on_it(self, bench: Bench) -> None:
        first, second, third = bench.turn(K), bench.turn(K), bench.turn(K)
        first.unit.hash(K).set("a", "wrong")
        first.finish(succeeded=True)
        first.release(applied=False)
        bench.state.values[K, "a"] = "right"
        assert await read_by(second) == "right"
        second.unit.hash(K).set("a", "built on right")
        second.finish(succeeded=True)
        assert await read_by(third) == "built on right"

    async def test_what_may_be_built_on_a_conflict_is_waited_for(self, bench: Bench) -> None:
        bench.state.values[K, "b"] = "1"
        first, second, third = bench.turn(K), bench.turn(K), bench.turn(K)
        await read_by(first)
        first.unit.hash(K).set("a", "wrong")
        first.finish(succeeded=True)
        assert await read_by(second) == "wrong"
        first.release(applied=False)
        await read_by(second, "b")
        second.unit.hash(K).set("b", "2")
        second.finish(succeeded=True)
        waiting = asyncio.create_task(read_by(third, "b"))
        await settled()
        assert not waiting.done()
        bench.state.values[K, "b"] = "2"
        second.release(applied=True)
        assert await waiting == "2"

    async def test_changes_that_never_end_coming_are_not_waited_for(self, bench: Bench) -> None:
        def change() -> Turn:
            turn = bench.turn(K)
            turn.unit.hash(K).increment("a", 1)
            turn.finish(succeeded=True)
            return turn

        uncommitted = change()
        waiting = bench.read(bench.turn(K))
        for _ in range(3):
            await settled()
            one_more = change()
            uncommitted.release(applied=True)
            uncommitted = one_more
        await until(waiting.done)

    @pytest.mark.parametrize("committed", [False, True])
    async def test_a_value_read_while_somebody_changed_it_is_not_passed_on(
        self, bench: Bench, committed: bool
    ) -> None:
        late, reader, third = bench.turn(), bench.turn(K), bench.turn(K)
        bench.state.values[K, "a"] = "1"
        bench.state.gate.clear()
        reading = bench.read(reader)
        await until(lambda: bench.state.reads)
        late.touch(K)
        late.unit.hash(K).increment("a", 1)
        late.finish(succeeded=True)
        if committed:
            late.release(applied=True)
        bench.state.gate.set()
        assert await reading == "1"
        reader.finish(succeeded=True)
        bench.state.values[K, "a"] = "2"
        waiting = bench.read(third)
        await settled()
        late.release(applied=True)
        assert await waiting == "2"


class TestRecentState:
    async def test_what_was_committed_is_not_read_again(self, bench: Bench) -> None:
        first = bench.turn(K)
        await first.read(K, "a")
        first.unit.hash(K).set("a", "2")
        first.finish(succeeded=True)
        first.release(applied=True)
        second = bench.turn(K)
        assert second.known(K, "a") == "2"
        assert len(bench.state.reads) == 1

    async def test_a_conflict_on_it_is_noted(self, bench: Bench) -> None:
        first = bench.turn(K)
        old = await first.read(K, "a")
        first.finish(succeeded=True)
        first.release(applied=True)
        turn = bench.turn(K)
        assert await turn.read(K, "a") == old
        turn.finish(succeeded=True)
        turn.release(applied=False)
        assert "1 of 1 wrong" in repr(bench.sequencer.recent)

    @pytest.mark.parametrize(("fields", "size"), [(1, 4_097), (65, 1)])
    async def test_what_is_large_is_not_kept(self, bench: Bench, fields: int, size: int) -> None:
        turn = bench.turn(K, L)
        await turn.read(L, "a")
        for number in range(fields):
            bench.state.values[K, f"f{number}"] = "x" * size
            await turn.read(K, f"f{number}")
        turn.finish(succeeded=True)
        turn.release(applied=True)
        assert not bench.sequencer.views
        assert bench.sequencer.recent.take(K) is None
        assert bench.sequencer.recent.take(L)

    async def test_nothing_is_kept_of_a_read_that_was_cancelled(self, bench: Bench) -> None:
        first, second = bench.turn(K), bench.turn(K)
        await first.read(K, "a")
        cancelled = bench.read(second)
        await settled()
        cancelled.cancel()
        await settled()
        for turn in (second, first):
            turn.finish(succeeded=True)
            turn.release(applied=True)
        view = bench.sequencer.recent.take(K)
        assert view is not None
        assert not view.waiting

    @pytest.mark.parametrize("effect", ["set", "increment"])
    async def test_a_field_changed_without_being_read_is_forgotten(self, bench: Bench, effect: str) -> None:
        reader = bench.turn(K)
        await reader.read(K, "a")
        reader.finish(succeeded=True)
        reader.release(applied=True)
        writer = bench.turn(K)
        getattr(writer.unit.hash(K), effect)("a", 7)
        writer.finish(succeeded=True)
        writer.release(applied=True)
        bench.state.values[K, "a"] = "7"
        assert await bench.turn().read(K, "a") == "7"


async def test_one_handler_may_ask_for_two_fields_at_once(bench: Bench) -> None:
    turn = bench.turn()
    reads = asyncio.gather(turn.read(K, "a"), turn.read(L, "a"), turn.read(K, "b"))
    assert set(await reads) == {None}
    assert len(bench.state.reads) == 1


async def test_it_may_also_wait_for_its_turn_with_two(bench: Bench) -> None:
    first, second = bench.turn(K), bench.turn(K)
    reads = [bench.read(second, "a"), bench.read(second, "b")]
    await settled()
    first.finish(succeeded=True)
    await until(lambda: all(read.done() for read in reads))


async def test_a_task_that_outlives_its_handler_holds_up_nobody(bench: Bench) -> None:
    """As `asyncio.gather` leaves them behind when one of its tasks fails."""
    first, second = bench.turn(), bench.turn()
    first.finish(succeeded=False)
    left_behind = bench.read(first)
    await settled()
    reading = bench.read(second)
    await until(reading.done)
    left_behind.cancel()
    await asyncio.gather(left_behind, return_exceptions=True)

"""From a delivery to its outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from event_router.core.effects import UnitOfWork
from event_router.core.errors import InvalidState, RedisUnavailable, Reject
from event_router.core.event import Event
from event_router.core.outcome import DeadLetter
from event_router.core.state import StateTransaction
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import BIKES, entry, entry_id, settled, until


def raises(error: BaseException) -> Any:
    async def handle(event: Event[Any], state: StateTransaction) -> None:
        raise error

    return handle


class Held:
    """A handler that waits until it is let go, and notes who came in and who was cancelled."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.begun.append(event.id)
        try:
            if event.data.note != "quick":
                await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(event.id)
            raise
        state.entity("bike", event.data.bike_id).increment("rides")


class TestConcurrency:
    async def test_no_more_handlers_run_than_allowed(self) -> None:
        held = Held()
        async with Runtime(held, concurrency=3) as runtime:
            runtime.accept(*(entry(number, f"b{number}") for number in range(10)))
            await settled()
            assert len(held.begun) == runtime.dispatcher.running == 3
            assert runtime.dispatcher.waiting == 7
            held.let_go.set()
            await until(lambda: not len(runtime.in_flight))
            assert len(held.begun) == 10

    async def test_a_slow_handler_does_not_hold_up_others(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(0), *(entry(number, f"b{number}", note="quick") for number in range(1, 300)))
            await until(lambda: len(runtime.in_flight) == 1)
            runtime.accept(entry(900, "b900", note="quick"))
            await until(lambda: runtime.commits.batches[-1] == [entry_id(900)])
            assert [delivery.entry.id for delivery in runtime.in_flight] == [entry_id(0)]

    async def test_slow_ones_in_between_hold_up_nobody_either(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            notes = ["" if number % 3 else "quick" for number in range(400)]
            runtime.accept(*(entry(n, f"b{n}", note=note) for n, note in enumerate(notes)))
            await until(lambda: len(held.begun) == 400)
            await until(lambda: len(runtime.in_flight) == notes.count(""))

    async def test_handlers_that_never_wait_let_others_run(self) -> None:
        async with Runtime() as runtime:
            turns = 0
            runtime.accept(*(entry(number, f"b{number}") for number in range(2_000)))
            while len(runtime.in_flight):
                await asyncio.sleep(0)
                turns += 1
            assert turns > 3


class TestOutcomes:
    async def test_an_event_is_committed(self) -> None:
        async with Runtime() as runtime:
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            work = runtime.commits.packed[0][0].work
            assert isinstance(work, UnitOfWork)
            assert work.hashes["state:bike:b1"].changes == {"rides": 1}

    @pytest.mark.parametrize(
        ("bad", "reason", "said"),
        [
            (entry(1, ""), "invalid", "bike_id"),
            (entry(1, type="flown"), "unknown_type", "flown"),
            (entry(1, note="x" * 2_000_000), "too_large", "at most"),
        ],
    )
    async def test_what_is_no_event_becomes_a_dead_letter(self, bad: Any, reason: str, said: str) -> None:
        async with Runtime() as runtime:
            runtime.accept(bad, entry(2))
            await until(lambda: not len(runtime.in_flight))
            letter = runtime.commits.packed[0][0].work
            assert isinstance(letter, DeadLetter)
            assert (letter.reason, letter.fields) == (reason, bad.fields)
            assert said in letter.error
            assert runtime.reports.letters() == [(entry_id(1), reason)]
            assert not runtime.reports.of("failed")

    async def test_a_rejected_event_is_known_by_its_producer_s_id(self) -> None:
        async with Runtime(raises(Reject("too old"))) as runtime:
            runtime.accept(entry(1, id="unique"), entry(2, type="unknown", id="unique"))
            await until(lambda: not len(runtime.in_flight))
            sent = [part.settlement for batch in runtime.commits.packed for part in batch]
            known_by = {settlement.id: settlement.unique_id for settlement in sent}
            assert known_by == {entry_id(1): "unique", entry_id(2): None}, "the other was not decoded"

    async def test_a_rejected_event_is_never_tried_again(self) -> None:
        async with Runtime(raises(Reject("too old"))) as runtime:
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.reports.letters() == [(entry_id(1), "rejected")]
            assert runtime.reports.of("dead_lettered")[0][2] == "too old"

    async def test_a_key_of_another_type_is_invalid(self) -> None:
        async def handle(event: Event[Any], state: StateTransaction) -> None:
            await state.entity("bike", "b1").get("rides")

        async with Runtime(handle) as runtime:
            runtime.state.values["state:bike:b1", "rides"] = InvalidState("it is a list")
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.reports.letters() == [(entry_id(1), "invalid")]

    @pytest.mark.parametrize("error", [ValueError("x" * 9_000), RedisUnavailable("away"), StopIteration()])
    async def test_anything_else_is_tried_again(self, error: Exception) -> None:
        async with Runtime(raises(error)) as runtime:
            (delivery,) = runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert delivery.key in runtime.failures
            assert not runtime.commits.batches

    async def test_an_error_text_has_a_bound(self) -> None:
        async with Runtime(raises(ValueError("x" * 9_000)), max_deliveries=1) as runtime:
            runtime.accept(entry(1))
            await until(lambda: runtime.reports.letters())
            assert len(runtime.reports.of("dead_lettered")[0][2]) < 2_100

    async def test_unknown_types_may_be_settled_without_effects(self) -> None:
        async with Runtime(acknowledge_unknown=True) as runtime:
            runtime.accept(entry(1, type="flown"), entry(2, ""))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.reports.letters() == [(entry_id(2), "invalid")]
            assert len(runtime.reports.of("unknown_acknowledged")) == 1
            assert not runtime.commits.packed[0][0].work

    async def test_an_unexpected_error_in_decoding_loses_nothing(self, monkeypatch: Any) -> None:
        async with Runtime() as runtime:
            decode = runtime.dispatcher._decoder.decode

            def broken(domain: str, one: Any) -> Any:
                if one.id == entry_id(1):
                    raise KeyError("a payload's own check")
                return decode(domain, one)

            monkeypatch.setattr(runtime.dispatcher._decoder, "decode", broken)
            runtime.accept(entry(1), entry(2))
            await until(lambda: not len(runtime.in_flight))

    async def test_an_error_that_is_no_exception_is_a_failed_attempt(self) -> None:
        class Stop(BaseException):
            """What some libraries raise to get past `except Exception`."""

        async with Runtime(raises(Stop())) as runtime:
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))


class TestLosing:
    async def test_what_somebody_else_took_over_is_dropped_unstarted(self) -> None:
        held = Held()
        async with Runtime(held, concurrency=1) as runtime:
            _, second, _ = runtime.accept(entry(1), entry(2, "b2"), entry(3, "b3"))
            await until(lambda: held.begun)
            second.lost = True
            held.let_go.set()
            await until(lambda: not len(runtime.in_flight))
            assert held.begun == [entry_id(1), entry_id(3)]

    async def test_an_entry_in_flight_is_not_taken_in_twice(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            assert runtime.dispatcher.accept([runtime.dispatcher.delivery(entry(1))]) == 0
            held.let_go.set()
            await until(lambda: not len(runtime.in_flight))
            assert held.begun == [entry_id(1)]

    async def test_quiet_it_starts_no_handler_but_runs_conflicts_again(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            (running,) = runtime.accept(entry(1))
            await until(lambda: held.begun)
            runtime.dispatcher.quiet = True
            runtime.accept(entry(2))
            await settled()
            assert len(held.begun) == 1
            assert [one.entry.id for one in runtime.dispatcher.unstarted()] == [entry_id(2)]
            held.let_go.set()
            runtime.dispatcher.run_again(running)
            await until(lambda: len(held.begun) == 2)
            assert held.begun == [entry_id(1), entry_id(1)]

    async def test_cancelling_for_good_returns_what_ran(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: len(held.begun) == 2)
            cancelled = await runtime.dispatcher.cancel_running()
            assert [delivery.key for delivery in cancelled] == [(BIKES, entry_id(1)), (BIKES, entry_id(2))]
            assert not len(runtime.in_flight)
            assert not runtime.reports.of("failed")
            assert repr(runtime.dispatcher) == "<Dispatcher 0 running, 0 waiting>"

"""Handlers that run out of time, or await what was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

from event_router.core.event import Event
from event_router.core.state import StateTransaction
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import AWAY, entry, entry_id, settled, until


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


class TestTimeout:
    async def test_it_is_a_failed_attempt_and_the_worker_goes_on(self) -> None:
        held = Held()
        async with Runtime(held, concurrency=1) as runtime:
            (slow,) = runtime.accept(entry(1))
            runtime.accept(entry(2, "b2", note="quick"))
            await until(lambda: held.begun)
            runtime.time.pass_(30)
            runtime.dispatcher.cancel_overdue(30)
            await settled()
            assert not held.cancelled
            runtime.time.pass_(0.1)
            runtime.dispatcher.cancel_overdue(30)
            await until(lambda: runtime.commits.batches == [[entry_id(2)]])
            assert held.cancelled == [entry_id(1)]
            assert slow.key in runtime.failures
            (failed,) = runtime.reports.of("failed")
            assert "HANDLER_TIMEOUT_S" in failed[1]
            assert len(runtime.dispatcher._workers) == 1

    async def test_only_what_ran_out_of_time_is_cancelled(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            await until(lambda: held.begun)
            runtime.time.pass_(20)
            runtime.accept(entry(2, "b2"))
            await until(lambda: len(held.begun) == 2)
            runtime.time.pass_(15)
            runtime.dispatcher.cancel_overdue(30)
            await settled()
            assert held.cancelled == [entry_id(1)]

    async def test_an_outage_stops_the_clock(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            await until(lambda: held.begun)
            await runtime.connectivity.failed("commit", AWAY)
            runtime.time.pass_(100)
            runtime.dispatcher.cancel_overdue(30)
            runtime.connectivity.answered("commit")
            runtime.time.pass_(29)
            runtime.dispatcher.cancel_overdue(30)
            await settled()
            assert not held.cancelled
            runtime.time.pass_(2)
            runtime.dispatcher.cancel_overdue(30)
            await until(lambda: held.cancelled)

    async def test_a_handler_that_swallows_the_cancellation_and_ends_counts(self) -> None:
        begun = []

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            begun.append(event.id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                state.entity("bike", "b1").increment("rides")

        async with Runtime(handle, concurrency=1) as runtime:
            for number in (1, 2):
                runtime.accept(entry(number))
                await settled()
                assert len(begun) == number
                runtime.time.pass_(31)
                runtime.dispatcher.cancel_overdue(30)
                await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.batches == [[entry_id(1)], [entry_id(2)]]
            assert not runtime.reports.of("failed")

    async def test_a_cancelled_worker_is_as_good_as_new(self) -> None:
        held = Held()
        cancelling: list[int] = []

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            worker = asyncio.current_task()
            assert worker is not None
            cancelling.append(worker.cancelling())
            await held(event, state)

        async with Runtime(handle, concurrency=1) as runtime:
            runtime.accept(entry(1))
            await until(lambda: held.begun)
            runtime.time.pass_(31)
            runtime.dispatcher.cancel_overdue(30)
            await until(lambda: not len(runtime.in_flight))
            runtime.accept(entry(2, note="quick"))
            await until(lambda: not len(runtime.in_flight))
            assert cancelling == [0, 0]

    async def test_awaiting_something_cancelled_is_a_failed_attempt(self) -> None:
        async def handle(event: Event[Any], state: StateTransaction) -> None:
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

        async with Runtime(handle, concurrency=1) as runtime:
            one, two = runtime.accept(entry(1), entry(2))
            await until(lambda: not len(runtime.in_flight))
            assert one.key in runtime.failures
            assert two.key in runtime.failures

    async def test_waiting_for_an_earlier_event_of_the_entity_is_not_the_handlers_time(self) -> None:
        slow = asyncio.Event()

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            await state.entity("bike", event.data.bike_id).get("rides")
            if event.id == entry_id(1):
                await slow.wait()

        async with Runtime(handle) as runtime:
            runtime.accept(entry(1), entry(2))
            await settled()
            runtime.time.pass_(31)
            runtime.dispatcher.cancel_overdue(30)
            await until(lambda: len(runtime.reports.of("handled")) == 2)
            failed = [delivery.entry.id for delivery, *_ in runtime.reports.of("failed")]
            assert failed == [entry_id(1)]


async def test_a_cancellation_that_was_swallowed_is_tried_again() -> None:

    async def handle(event: Event[Any], state: StateTransaction) -> None:
        for last in (False, True):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if last:
                    raise

    async with Runtime(handle) as runtime:
        runtime.accept(entry(1))
        await settled()
        for _ in range(5):
            runtime.time.pass_(31)
            runtime.dispatcher.cancel_overdue(30)
            await settled()
        assert not len(runtime.in_flight)

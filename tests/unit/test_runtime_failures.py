"""Failed attempts: schedules, dead letters, the breaker, and how decisions reach the pending list."""

from __future__ import annotations

from typing import Any

import pytest

from event_router.core.errors import Reject
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, ME, OTHER, entry, entry_id, settled, until


class Service:
    """What a handler depends on: up or down; poisonous events fail anyway. Notes who called."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        self.calls: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.calls.append(event.id)
        if event.data.note == "poison" or not self.up:
            raise ConnectionError("no answer")
        if event.data.note == "reject":
            raise Reject("no")


async def idle(runtime: Runtime) -> None:
    """Wait until everything that was dispatched has left."""
    await until(lambda: not len(runtime.in_flight))


class TestSchedule:
    @pytest.mark.parametrize(("deliveries", "delay_ms"), [(1, 1_000), (2, 2_000), (4, 8_000)])
    async def test_the_delay_is_written_as_idle_time(self, deliveries: int, delay_ms: int) -> None:
        async with Runtime(Service(up=False)) as runtime:
            runtime.accept(entry(1, deliveries=deliveries))
            await idle(runtime)
            assert runtime.failures.next_due() == runtime.time.now + delay_ms / 1000
            await runtime.retries.run_once()
            assert runtime.claims.state(1) == (ME, MIN_IDLE_MS - delay_ms, deliveries)
            (failed,) = runtime.reports.of("failed")
            assert failed[1:] == ("ConnectionError: no answer", delay_ms / 1000)

    async def test_it_is_tried_when_due_and_not_before(self) -> None:
        service = Service(up=False)
        async with Runtime(service) as runtime:
            runtime.accept(entry(1))
            await idle(runtime)
            service.up = True
            runtime.time.pass_(0.99)
            await runtime.retries.run_once()
            assert len(service.calls) == 1
            runtime.time.pass_(0.02)
            await runtime.retries.run_once()
            await idle(runtime)
            assert len(service.calls) == 2
            assert runtime.claims.starts == [(entry_id(1), 1)]
            assert len(runtime.reports.of("retried")) == 1
            assert not runtime.failures.next_due()

    async def test_the_service_wakes_for_it(self) -> None:
        service = Service(up=False)
        async with Runtime(service, services=("sequencer", "committer", "retries")) as runtime:
            runtime.accept(entry(1))
            await until(lambda: runtime.claims.state(1)[1] == MIN_IDLE_MS - 1_000)
            service.up = True
            runtime.time.pass_(2)
            runtime.failures.wake()
            await until(lambda: runtime.commits.batches)

    async def test_used_up_attempts_make_a_dead_letter(self) -> None:
        async with Runtime(Service(up=False), max_deliveries=3) as runtime:
            runtime.accept(entry(1, deliveries=3))
            await idle(runtime)
            assert runtime.reports.letters() == [(entry_id(1), "max_deliveries")]
            assert runtime.reports.of("failed")[0][2] is None
            assert not runtime.failures.leases

    async def test_what_somebody_else_took_over_is_left_to_him(self) -> None:
        service = Service(up=False)
        async with Runtime(service) as runtime:
            runtime.accept(entry(1))
            await idle(runtime)
            runtime.claims.pending[BIKES][entry_id(1)].owner = OTHER
            runtime.time.pass_(2)
            await runtime.retries.run_once()
            await settled()
            assert len(service.calls) == 1
            assert not list(runtime.failures.waiting())

    async def test_what_was_trimmed_meanwhile_becomes_a_dead_letter(self) -> None:
        async with Runtime(Service(up=False)) as runtime:
            runtime.accept(entry(1))
            await idle(runtime)
            runtime.claims.pending[BIKES][entry_id(1)].fields = None
            runtime.time.pass_(2)
            await runtime.retries.run_once()
            await idle(runtime)
            assert runtime.reports.letters() == [(entry_id(1), "trimmed")]

    async def test_it_is_put_back_when_redis_is_away(self) -> None:
        service = Service(up=False)
        async with Runtime(service) as runtime:
            runtime.accept(entry(1), entry(2, stream=CARS))
            await idle(runtime)
            runtime.claims.errors["take_ids"] = [AWAY]
            runtime.time.pass_(2)
            with pytest.raises(type(AWAY)):
                await runtime.retries.run_once()
            assert len(list(runtime.failures.scheduled())) == 2
            service.up = True
            runtime.time.pass_(2)
            await runtime.retries.run_once()
            await idle(runtime)
            assert len(service.calls) == 4

    async def test_decisions_are_kept_until_they_are_written(self) -> None:
        async with Runtime(Service(up=False)) as runtime:
            runtime.accept(entry(1))
            await idle(runtime)
            runtime.claims.errors["set"] = [AWAY]
            with pytest.raises(type(AWAY)):
                await runtime.retries.write_leases()
            assert runtime.claims.state(1) == (ME, 0, 1)
            await runtime.retries.write_leases()
            assert runtime.claims.state(1) == (ME, MIN_IDLE_MS - 1_000, 1)
            assert not runtime.failures.leases

    async def test_no_more_than_there_is_room_for(self) -> None:
        service = Service()
        async with Runtime(service, concurrency=3) as runtime:
            for number in range(8):
                runtime.accept(entry(number, f"b{number}", note="poison"))
                await idle(runtime)
            runtime.time.pass_(5)
            await runtime.retries.run_once()
            assert len(runtime.in_flight) == 3
            assert len(list(runtime.failures.waiting())) == 5

"""What happens while a domain's breaker is open, and that poison alone never opens it."""

from __future__ import annotations

import asyncio
from typing import Any

from event_router.core.errors import NoGroup, Reject
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import BIKES, CARS, ME, entry, entry_id, until


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


async def opened(runtime: Runtime, service: Service, entries: int = 10) -> None:
    """Open the breaker of the bikes."""
    service.up = False
    runtime.accept(*(entry(number, f"b{number}") for number in range(entries)))
    await idle(runtime)
    assert runtime.failures.breakers["bikes"].open


class TestOpenBreaker:
    async def test_attempts_are_given_back_and_entries_held(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            await runtime.retries.write_leases()
            assert {runtime.claims.state(number) for number in range(10)} == {(ME, 0, 0)}
            assert len(runtime.failures.held["bikes"]) == 10
            assert not list(runtime.failures.scheduled())
            assert [args[0] for args in runtime.reports.of("breaker_opened")] == ["bikes"]

    async def test_other_domains_go_on(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            service.up = True
            runtime.accept(entry(50, stream=CARS))
            await idle(runtime)
            assert runtime.commits.batches == [[entry_id(50)]]

    async def test_what_has_not_started_is_held_with_its_attempt(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            runtime.accept(entry(50, deliveries=3))
            await idle(runtime)
            await runtime.retries.write_leases()
            assert entry_id(50) not in service.calls
            assert runtime.claims.state(50) == (ME, 0, 2)

    async def test_bad_events_become_dead_letters_meanwhile(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            runtime.accept(entry(50, ""))
            await idle(runtime)
            assert runtime.reports.letters() == [(entry_id(50), "invalid")]

    async def test_several_earlier_attempts_are_given_back_too(self) -> None:
        service = Service(up=False)
        async with Runtime(service) as runtime:
            runtime.accept(*(entry(number, f"b{number}") for number in range(4)))
            await idle(runtime)
            runtime.time.pass_(1.5)
            await runtime.retries.run_once()
            await idle(runtime)
            await opened(runtime, service, entries=14)
            await runtime.retries.write_leases()
            assert {runtime.claims.state(number)[2] for number in range(4, 14)} == {0}

    async def test_also_to_the_entry_whose_attempt_opens_it(self) -> None:
        service = Service(up=False)
        async with Runtime(service) as runtime:
            runtime.accept(*(entry(number, f"b{number}") for number in range(4)))
            for _ in range(3):
                await idle(runtime)
                runtime.time.pass_(8)
                await runtime.retries.run_once()
            await idle(runtime)
            assert runtime.failures.breakers["bikes"].open
            await runtime.retries.write_leases()
            assert {runtime.claims.state(number)[2] for number in range(4)} == {0}


class TestProbes:
    async def test_in_turn_one_held_and_one_new(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            runtime.reads.add(*(entry(number, f"b{number}") for number in range(100, 110)))
            service.calls.clear()
            for _ in range(4):
                await runtime.retries.run_once()
                await idle(runtime)
                runtime.time.pass_(2)
            held, new = [entry_id(0), entry_id(1)], [entry_id(100), entry_id(101)]
            assert service.calls == [held[0], new[0], held[1], new[1]]
            assert runtime.failures.breakers["bikes"].open
            assert not runtime.reports.letters()

    async def test_in_turn_in_each_of_two_domains(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            runtime.accept(*(entry(number, f"b{number}", stream=CARS) for number in range(200, 210)))
            await idle(runtime)
            for stream in (BIKES, CARS):
                runtime.reads.add(*(entry(number, f"b{number}", stream=stream) for number in range(900, 910)))
            service.calls.clear()
            for _ in range(4):
                await runtime.retries.run_once()
                await idle(runtime)
                runtime.time.pass_(2)
            assert sum(entry_id(900) <= call for call in service.calls) == 4
            assert service.calls.count(entry_id(900)) == 2

    async def test_one_every_few_seconds(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            service.calls.clear()
            for _ in range(20):
                await runtime.retries.run_once()
                await idle(runtime)
                runtime.time.pass_(0.1)
            assert len(service.calls) == 1

    async def test_failed_probes_use_up_no_attempt(self) -> None:
        service = Service()
        async with Runtime(service, max_deliveries=2) as runtime:
            await opened(runtime, service)
            for _ in range(40):
                await runtime.retries.run_once()
                await idle(runtime)
                runtime.time.pass_(2)
            await runtime.retries.write_leases()
            assert {runtime.claims.state(number)[2] for number in range(10)} == {0}
            assert not runtime.reports.letters()

    async def test_a_probe_that_succeeds_closes_it_and_makes_all_due(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            service.up = True
            runtime.time.pass_(60)
            await runtime.retries.run_once()
            await idle(runtime)
            assert not runtime.failures.breakers["bikes"].open
            assert runtime.reports.of("breaker_closed") == [("bikes", 60.0)]
            await runtime.retries.run_once()
            await idle(runtime)
            applied = [one for batch in runtime.commits.batches for one in batch]
            assert sorted(applied) == [entry_id(number) for number in range(10)]
            assert not runtime.reports.letters()

    async def test_a_handler_that_began_before_does_not_close_it(self) -> None:
        service, slow = Service(), asyncio.Event()

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            if event.data.note == "slow":
                await slow.wait()
            else:
                await service(event, state)

        async with Runtime(handle) as runtime:
            runtime.accept(entry(99, "slow", note="slow"))
            service.up = False
            runtime.accept(*(entry(number, f"b{number}") for number in range(10)))
            await until(lambda: runtime.failures.breakers["bikes"].open)
            slow.set()
            await idle(runtime)
            assert runtime.failures.breakers["bikes"].open

    async def test_a_group_that_is_missing_is_made_anew(self) -> None:
        service = Service()
        async with Runtime(service) as runtime:
            await opened(runtime, service)
            runtime.claims.errors["set"] = [NoGroup(BIKES)]
            runtime.retries.start()
            runtime.consumer.start()
            await until(lambda: not runtime.claims.errors["set"])
            await until(lambda: runtime.group_port.ensured)


class TestPoison:
    async def test_alone_it_never_opens_the_breaker_and_all_of_it_is_convicted(self) -> None:
        """One event in a hundred; the traffic ends while the poisonous ones are being tried again."""
        service = Service()
        async with Runtime(service) as runtime:
            bad = set(range(0, 2_000, 100))
            for first in range(0, 2_000, 100):
                notes = ("poison" if number in bad else "" for number in range(first, first + 100))
                runtime.accept(
                    *(entry(first + n, f"b{first + n}", note=note) for n, note in enumerate(notes))
                )
                await idle(runtime)
                runtime.time.pass_(0.1)
                await runtime.retries.run_once()
            for _ in range(60):
                runtime.time.pass_(1)
                await runtime.retries.run_once()
                await idle(runtime)
            assert not runtime.reports.of("breaker_opened")
            assert sorted(runtime.reports.letters()) == [
                (entry_id(number), "max_deliveries") for number in sorted(bad)
            ]

"""Taking over what others, or this process before its restart, left pending; and keeping what is ours."""

from __future__ import annotations

import asyncio
from typing import Any

from event_router.core.errors import NoGroup, RedisRefused
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from event_router.runtime.claimer import PAGE, SUSPECTS_AT_ONCE
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, ME, OTHER, entry, entry_id, settled, until


class Held:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.begun.append(event.id)
        await self.let_go.wait()


def suspects(runtime: Runtime, *numbers: int, deliveries: int = 1, stream: str = BIKES) -> None:
    """Queue suspects that are pending for this consumer."""
    for number in numbers:
        one = entry(number, f"b{number}", deliveries=deliveries, stream=stream)
        runtime.claims.add(one, owner=ME, idle_ms=0)
        runtime.suspects.add([one])


class TestSuspects:
    async def test_those_started_once_run_sixteen_at_a_time(self) -> None:
        held = Held()
        async with Runtime(held, services=("sequencer", "committer", "suspects")) as runtime:
            suspects(runtime, *range(40))
            await until(lambda: len(held.begun) == 16)
            await settled()
            assert held.begun == [entry_id(number) for number in range(16)]
            held.let_go.set()
            await until(lambda: len(held.begun) == 40)
            assert {runtime.claims.state(number)[2] for number in range(40)} == {2}

    async def test_those_started_more_often_run_alone(self) -> None:
        held = Held()
        async with Runtime(held, services=("sequencer", "committer", "suspects")) as runtime:
            suspects(runtime, 1, 2, 3, deliveries=2)
            await until(lambda: held.begun)
            await settled()
            assert held.begun == [entry_id(1)]
            assert len(runtime.suspects) == 2

    async def test_those_started_least_often_come_first(self) -> None:
        held = Held()
        held.let_go.set()
        async with Runtime(held) as runtime:
            suspects(runtime, 1, deliveries=3)
            suspects(runtime, 2, deliveries=2)
            suspects(runtime, 3, 4)
            runtime.suspects.start()
            await until(lambda: len(held.begun) == 4)
            assert held.begun == [entry_id(number) for number in (3, 4, 2, 1)]

    async def test_one_that_somebody_else_took_holds_up_nobody(self) -> None:
        held = Held()
        held.let_go.set()
        async with Runtime(held, services=("sequencer", "committer", "suspects")) as runtime:
            suspects(runtime, 1, 2, deliveries=2)
            runtime.claims.pending[BIKES][entry_id(1)].owner = OTHER
            await until(lambda: held.begun == [entry_id(2)])

    async def test_one_that_is_dropped_never_starts(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            suspects(runtime, 1, 2)
            runtime.suspects.drop((BIKES, entry_id(1)))
            runtime.suspects.start()
            await until(lambda: held.begun)
            await settled()
            assert held.begun == [entry_id(2)]

    async def test_without_its_group_it_forgets_them(self) -> None:
        async with Runtime() as runtime:
            suspects(runtime, 1, 2, 3, deliveries=2)
            runtime.claims.errors["count_start"] = [NoGroup(BIKES)]
            runtime.suspects.start()
            await settled()
            assert len(runtime.suspects) == 0
            assert "running" in repr(runtime.suspects)

    async def test_a_lost_reply_counts_a_start_once(self) -> None:
        async with Runtime(services=("sequencer", "committer", "suspects")) as runtime:
            runtime.claims.errors["count_start"] = [AWAY, AWAY]
            suspects(runtime, 1)
            await until(lambda: runtime.commits.batches)
            assert runtime.claims.state(1)[2] == 2

    async def test_the_whole_group_keeps_its_leases(self) -> None:
        held = Held()
        async with Runtime(held, services=("sequencer", "committer", "suspects")) as runtime:
            suspects(runtime, 1)
            suspects(runtime, 2, stream=CARS)
            await until(lambda: held.begun)
            await settled()
            runtime.claims.pending[CARS][entry_id(2)].idle_ms = 20_000
            await runtime.leases.renew()
            assert runtime.claims.state(2, CARS) == (ME, 0, 1) or len(held.begun) == 2


class TestSweep:
    async def test_it_pages_to_the_end(self) -> None:
        async with Runtime() as runtime:
            for number in range(PAGE + 50):
                runtime.claims.add(entry(number, f"b{number}"))
            assert await runtime.claimer.sweep(BIKES) == PAGE + 50
            assert runtime.claims.pages == ["", entry_id(PAGE - 1)]
            assert len(runtime.suspects) == PAGE + 50
            assert runtime.reports.of("claimed") == [(BIKES, PAGE + 50)]

    async def test_suspects_are_left_to_others_beyond_a_number(self) -> None:
        async with Runtime() as runtime:
            for number in range(SUSPECTS_AT_ONCE + 100):
                runtime.claims.add(entry(number, f"b{number}"))
            assert await runtime.claimer.sweep(BIKES) == SUSPECTS_AT_ONCE
            assert runtime.claims.state(SUSPECTS_AT_ONCE)[0] == OTHER

    async def test_what_is_not_idle_long_enough_stays_where_it_is(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.add(entry(1), idle_ms=MIN_IDLE_MS - 1)
            assert await runtime.claimer.sweep(BIKES) == 0
            assert runtime.claims.state(1)[0] == OTHER

    async def test_what_is_known_here_is_skipped(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            runtime.suspects.add([entry(2, deliveries=2)])
            runtime.failures.postpone(runtime.dispatcher.delivery(entry(3)), "no")
            for number in (1, 2, 3, 4):
                runtime.claims.add(entry(number, deliveries=2), owner=ME)
            assert await runtime.claimer.sweep(BIKES) == 1
            assert runtime.suspects.keys() == [(BIKES, entry_id(2)), (BIKES, entry_id(4))]

    async def test_started_entries_become_suspects_and_others_start_at_once(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.claims.add(entry(1, deliveries=0))
            runtime.claims.add(entry(2, deliveries=1))
            await runtime.claimer.sweep(BIKES)
            await settled()
            assert held.begun == [entry_id(1)]
            assert runtime.suspects.keys() == [(BIKES, entry_id(2))]

    async def test_an_entry_with_its_starts_used_up_is_poison(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.claims.add(entry(1, deliveries=5))
            runtime.claims.add(entry(2, deliveries=4))
            await runtime.claimer.sweep(BIKES)
            await until(lambda: runtime.reports.letters())
            assert runtime.reports.letters() == [(entry_id(1), "poison")]
            assert runtime.reports.of("dead_lettered")[0][0].letter.fields == entry(1).fields
            assert not held.begun

    async def test_a_trimmed_entry_becomes_a_letter_without_fields(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.add(entry(1), trimmed=True)
            await runtime.claimer.sweep(BIKES)
            await until(lambda: runtime.reports.letters())
            assert runtime.reports.letters() == [(entry_id(1), "trimmed")]
            assert runtime.reports.of("trimmed") == [(BIKES, [entry_id(1)])]

    async def test_no_more_than_there_is_room_for(self) -> None:
        held = Held()
        async with Runtime(held, limit=10) as runtime:
            for number in range(30):
                runtime.claims.add(entry(number, f"b{number}", deliveries=0))
            assert await runtime.claimer.sweep(BIKES) == 10
            assert sum(item.owner == ME for item in runtime.claims.pending[BIKES].values()) == 10

    async def test_a_domain_that_pauses_is_left_alone(self) -> None:
        async with Runtime() as runtime:
            runtime.failures.breakers["bikes"].open = True
            runtime.claims.add(entry(1))
            assert await runtime.claimer.sweep(BIKES) == 0


class TestStart:
    async def test_own_entries_come_first_whatever_their_idle_time(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.claims.add(entry(1, deliveries=0), owner=ME, idle_ms=5)
            runtime.claims.add(entry(2, deliveries=1), owner=ME, idle_ms=5)
            runtime.claims.add(entry(3, deliveries=1), owner=OTHER, idle_ms=5)
            runtime.claimer.start()
            await runtime.claimer.own_taken.wait()
            assert runtime.claims.calls[0] == ("take", BIKES)
            assert runtime.suspects.keys() == [(BIKES, entry_id(2))]
            await until(lambda: held.begun == [entry_id(1)])
            assert runtime.claims.state(3)[0] == OTHER

    async def test_it_outlasts_an_outage_and_a_missing_group(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.errors["take"] = [AWAY, AWAY]
            runtime.claimer.start()
            await runtime.claimer.own_taken.wait()
            await until(lambda: runtime.connectivity.up)

    async def test_a_refusal_on_one_stream_does_not_end_it(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.errors["take"] = [RedisRefused("WRONGTYPE")]
            task = runtime.claimer.start()
            await settled()
            assert not task.done() or task.exception() is None

    async def test_a_group_that_is_lost_before_it_begins_is_made_anew(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.errors["take"] = [NoGroup(BIKES)]
            runtime.claimer.start()
            await until(runtime.claimer.own_taken.is_set)
            assert runtime.group_port.ensured == [BIKES, CARS]


class TestLostRead:
    async def test_what_was_delivered_without_our_knowing_is_found(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            runtime.claims.add(entry(2, "b2"), owner=ME, idle_ms=0)
            runtime.claims.add(entry(3, "b3", deliveries=2), owner=ME, idle_ms=0)
            runtime.claims.add(entry(4), owner=OTHER, idle_ms=0)
            runtime.claimer.read_lost()
            await runtime.claimer.recover_lost()
            await until(lambda: len(held.begun) == 2)
            assert held.begun == [entry_id(1), entry_id(2)]
            assert runtime.claims.state(2)[2] == 1  # the read counted its start
            assert runtime.suspects.keys() == [(BIKES, entry_id(3))]

    async def test_the_service_looks_for_them_when_told(self) -> None:
        async with Runtime(services=("sequencer", "committer", "claimer")) as runtime:
            await runtime.claimer.own_taken.wait()
            await settled()
            runtime.claims.add(entry(1), owner=ME, idle_ms=0)
            runtime.claimer.read_lost()
            await until(lambda: runtime.commits.batches == [[entry_id(1)]])


class TestLeases:
    async def test_everything_that_is_worked_on_or_held_is_renewed(self) -> None:
        held = Held()
        async with Runtime(held) as runtime:
            runtime.accept(entry(1))
            suspects(runtime, 2)
            runtime.failures.breakers["bikes"].open = True
            runtime.accept(entry(3, "b3"))
            await until(lambda: runtime.failures.held["bikes"])
            for item in runtime.claims.pending[BIKES].values():
                item.idle_ms = 30_000
            await runtime.leases.renew()
            assert [runtime.claims.state(number) for number in (1, 2, 3)] == [(ME, 0, 1)] * 3

    async def test_the_schedule_of_a_retry_is_left_alone(self) -> None:
        async with Runtime() as runtime:
            delivery = runtime.dispatcher.delivery(entry(1))
            runtime.claims.add(entry(1), owner=ME, idle_ms=59_000)
            runtime.failures.postpone(delivery, "no")
            await runtime.leases.renew()
            assert runtime.claims.state(1) == (ME, 59_000, 1)

    async def test_it_takes_nothing_back_and_drops_what_has_not_started(self) -> None:
        held = Held()
        async with Runtime(held, concurrency=1) as runtime:
            running, waiting = runtime.accept(entry(1), entry(2, "b2"))
            suspects(runtime, 3)
            await until(lambda: held.begun)
            for item in runtime.claims.pending[BIKES].values():
                item.owner = OTHER
            await runtime.leases.renew()
            assert (running.lost, waiting.lost) == (False, True)
            assert not runtime.suspects.keys()
            assert {item.owner for item in runtime.claims.pending[BIKES].values()} == {OTHER}

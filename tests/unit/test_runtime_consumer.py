"""Reading: how much, from where, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from event_router.core.errors import NoGroup, RedisRefused
from event_router.core.event import Entry, Event
from event_router.core.state import StateTransaction
from event_router.runtime import consumer as consumer_module
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, ME, entry, entry_id, settled, until

SERVICES = ("sequencer", "committer", "consumer")


class Held:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        await self.let_go.wait()


def bikes(count: int, first: int = 0) -> list[Any]:
    return [entry(number, f"b{number}") for number in range(first, first + count)]


class TestShare:
    async def test_free_places_are_divided_among_the_streams(self) -> None:
        async with Runtime(limit=100, services=SERVICES) as runtime:
            await until(lambda: runtime.reads.calls)
            assert runtime.reads.calls[0] == ((BIKES, CARS), 50, 5_000)

    async def test_a_read_is_bounded_by_the_setting(self) -> None:
        async with Runtime(limit=2_000, services=SERVICES) as runtime:
            await until(lambda: runtime.reads.calls)
            assert runtime.reads.calls[0][1] == 500

    async def test_with_less_than_a_place_each_streams_take_turns(self) -> None:
        async with Runtime(limit=1, services=()) as runtime:
            runtime.reads.add(*bikes(9), *(entry(number, stream=CARS) for number in range(9)))
            for _ in range(6):
                await runtime.consumer._read((BIKES, CARS))
                runtime.time.pass_(consumer_module.ALL_STREAMS_EVERY_S)
                for delivery in runtime.in_flight:
                    runtime.in_flight.remove(delivery)
            assert [call[:2] for call in runtime.reads.calls] == [((BIKES,), 1), ((CARS,), 1)] * 3

    async def test_streams_with_a_backlog_get_every_place_between_reads_of_all(self) -> None:
        async with Runtime(limit=100, services=SERVICES) as runtime:
            runtime.reads.add(*bikes(300))
            await until(lambda: len(runtime.reads.calls) >= 2)
            assert [streams for streams, *_ in runtime.reads.calls[:2]] == [(BIKES, CARS), (BIKES,)]
            runtime.time.pass_(consumer_module.ALL_STREAMS_EVERY_S)
            read = len(runtime.reads.calls)
            await until(lambda: (BIKES, CARS) in [streams for streams, *_ in runtime.reads.calls[read:]])

    @pytest.mark.parametrize(("limit", "backlog"), [(100, 50), (1, 1)])
    async def test_no_stream_waits_for_another_to_get_entries(self, limit: int, backlog: int) -> None:
        async with Runtime(limit=limit, services=SERVICES) as runtime:
            runtime.reads.add(*bikes(backlog))
            await until(lambda: not len(runtime.in_flight) and runtime.in_flight.departures)
            await settled()
            runtime.reads.add(entry(7, stream=CARS), entry(8, stream=CARS))
            await until(lambda: runtime.in_flight.departures == backlog + 2)


class TestBackpressure:
    async def test_there_is_never_more_in_flight_than_the_limit(self) -> None:
        held = Held()
        async with Runtime(held, limit=40, services=SERVICES) as runtime:
            runtime.reads.add(*bikes(300), *(entry(n, f"c{n}", stream=CARS) for n in range(300)))
            await settled()
            assert 30 < len(runtime.in_flight) <= 40
            calls = len(runtime.reads.calls)
            await settled()
            assert len(runtime.reads.calls) == calls
            held.let_go.set()
            await until(
                lambda: not any(runtime.reads.entries.values()) and not len(runtime.in_flight), 90_000
            )

    async def test_a_full_house_of_waiting_handlers_gets_more_room(self) -> None:
        held = Held()
        async with Runtime(held, limit=40, services=SERVICES) as runtime:
            runtime.reads.add(*bikes(300))
            await settled()
            runtime.time.pass_(10_000)  # no processor is busy for so long a time
            next(iter(runtime.in_flight)).task.cancel()  # type: ignore[union-attr]
            for delivery in list(runtime.in_flight)[:20]:
                runtime.in_flight.remove(delivery)
            await settled()
            assert runtime.in_flight.limit == 80

    async def test_a_domain_that_pauses_is_not_read(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.failures.breakers["bikes"].open = True
            runtime.consumer.start()
            await until(lambda: runtime.reads.calls)
            assert runtime.reads.calls[0][0] == (CARS,)

    async def test_when_all_pause_it_waits_for_one_to_go_on(self) -> None:
        async with Runtime(services=()) as runtime:
            for breaker in runtime.failures.breakers.values():
                breaker.open = True
            runtime.consumer.start()
            await settled()
            assert not runtime.reads.calls
            runtime.failures.breakers["cars"].open = False
            runtime.in_flight.notify()
            await until(lambda: runtime.reads.calls)
            assert runtime.reads.calls[0][0] == (CARS,)


class TestTrouble:
    async def test_a_lost_read_has_its_entries_looked_for(self) -> None:
        async with Runtime(services=SERVICES) as runtime:
            lost: list[int] = []
            runtime.consumer._read_lost = lambda: lost.append(1)
            runtime.reads.errors = [AWAY, AWAY]
            runtime.reads.add(entry(1))
            await until(lambda: runtime.commits.batches)
            assert lost == [1, 1]
            assert len(runtime.reports.of("outage_began")) == len(runtime.reports.of("outage_ended")) == 1

    async def test_a_missing_group_is_made_anew_on_every_stream(self) -> None:
        async with Runtime(services=SERVICES) as runtime:
            runtime.reads.errors = [NoGroup(CARS)]
            runtime.reads.add(entry(1))
            await until(lambda: runtime.commits.batches)
            assert runtime.group_port.ensured == [BIKES, CARS]

    async def test_a_refused_read_is_reported_and_tried_again(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(consumer_module, "WASTED_READ_PAUSE_S", 0)
        async with Runtime(services=SERVICES) as runtime:
            runtime.reads.errors = [RedisRefused("WRONGTYPE")]
            runtime.reads.add(entry(1))
            await until(lambda: runtime.commits.batches)
            assert runtime.reports.of("refused") == [(f"read of {BIKES}, {CARS}", "WRONGTYPE")]


class TestQuiet:
    async def test_a_blocked_read_ends_and_what_it_brought_is_kept(self) -> None:
        async with Runtime(services=SERVICES) as runtime:
            await until(lambda: runtime.reads.calls)
            read = len(runtime.reads.calls)

            async def unblock() -> None:
                runtime.reads.unblocked += 1
                runtime.reads.add(entry(1))

            runtime.reads.unblock = unblock  # type: ignore[method-assign]
            await runtime.consumer.be_quiet()
            assert len(runtime.reads.calls) == read
            await until(lambda: runtime.commits.batches == [[entry_id(1)]])
            await until(lambda: runtime.consumer._task.done())  # type: ignore[union-attr]

    async def test_it_ends_while_it_waits_for_room(self) -> None:
        async with Runtime(Held(), limit=4, services=SERVICES) as runtime:
            runtime.reads.add(*bikes(50))
            await settled()
            await runtime.consumer.be_quiet()
            await until(lambda: runtime.consumer._task.done())  # type: ignore[union-attr]

    async def test_it_ends_while_every_domain_pauses(self) -> None:
        async with Runtime(services=()) as runtime:
            for breaker in runtime.failures.breakers.values():
                breaker.open = True
            task = runtime.consumer.start()
            await settled()
            await runtime.consumer.be_quiet()
            await until(task.done)

    @pytest.mark.parametrize("error", [AWAY, RedisRefused("no")])
    async def test_a_read_that_cannot_be_ended_is_cut_off(self, error: Exception) -> None:
        async with Runtime(services=SERVICES) as runtime:
            await until(lambda: runtime.reads.calls)

            async def unblock() -> None:
                raise error

            runtime.reads.unblock = unblock  # type: ignore[method-assign]
            await runtime.consumer.be_quiet()
            assert runtime.consumer._task is not None
            assert runtime.consumer._task.cancelled()

    async def test_before_the_start_it_returns(self) -> None:
        async with Runtime(services=()) as runtime:
            await runtime.consumer.be_quiet()
            await until(runtime.consumer.start().done)
            assert not runtime.reads.calls


class TestTroubles:
    async def test_a_reader_with_nothing_to_read_says_nothing_of_redis(self) -> None:
        async with Runtime(services=("consumer",)) as runtime:
            await until(lambda: runtime.reads.calls)
            runtime.reads.errors.append(AWAY)
            runtime.paused |= {BIKES, CARS}
            runtime.reads.more.set()
            await settled(1_000)
            assert runtime.reports.of("outage_began")
            assert runtime.connectivity.up

    async def test_handlers_run_out_of_time_also_when_a_read_failed_and_there_is_no_room_for_another(
        self,
    ) -> None:

        async with Runtime(
            Held(), limit=8, services=("sequencer", "committer", "consumer", "retries")
        ) as runtime:
            for n in range(5):
                runtime.claims.add(entry(n, f"b{n}"), owner=ME, idle_ms=0)
                runtime.reads.add(entry(n, f"b{n}"))
            await until(lambda: len(runtime.in_flight) == 5)
            runtime.reads.errors.append(AWAY)
            # What the lost read had delivered, as Claimer.recover_lost brings it: without asking for room.
            runtime.accept(entry(6, "b6"), entry(7, "b7"), entry(8, "b8"))
            runtime.reads.more.set()
            await settled(500)
            for _ in range(10):
                runtime.time.pass_(31)
                runtime.dispatcher.cancel_overdue(30)
                await settled()
            assert len(runtime.reports.of("failed")) >= 8

    async def test_a_stream_that_is_none_keeps_no_other_from_being_read(self, monkeypatch: Any) -> None:
        async with Runtime(services=("sequencer", "committer")) as runtime:
            read = runtime.reads.read

            async def reading(streams: Sequence[str], *, count: int, block_ms: int | None) -> list[Entry]:
                if BIKES in streams:
                    raise RedisRefused("WRONGTYPE Operation against a key holding the wrong kind of value")
                return await read(streams, count=count, block_ms=block_ms)

            runtime.reads.read = reading  # type: ignore[method-assign]
            runtime.reads.add(entry(1, stream=CARS))
            runtime.consumer.start()
            await until(lambda: runtime.commits.batches)
            assert runtime.commits.batches == [[entry_id(1)]]
            await until(lambda: runtime.consumer.task and len(runtime.consumer._left_out))
            [(stream, error)] = runtime.reports.of("stream_refused")
            assert stream == BIKES
            assert error.startswith(f"read of {BIKES}: WRONGTYPE")
            runtime.reads.read = read  # type: ignore[method-assign]  # mended
            runtime.time.pass_(1)
            runtime.reads.add(entry(2), entry(3, "c3", stream=CARS))
            await until(lambda: len([one for batch in runtime.commits.batches for one in batch]) == 3)

"""A paused stream is neither read nor claimed nor tried again, and is made up for when it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from event_router.core.errors import EventRouterError, RedisRefused, RedisUnavailable
from event_router.core.event import Event
from event_router.core.pause import Pause, parse_pause, stored_pause
from event_router.core.state import StateTransaction
from event_router.runtime.claimer import SUSPECTS_AT_ONCE
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.pauses import Pauses
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import BIKES, CARS, ME, OTHER, Reports, Time, entry, entry_id, settled, until

MENDING = Pause(BIKES, "mending", "kim", 1, 2)


class Noted:
    """A handler that notes what it was given, and fails while it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.begun: list[tuple[str, str]] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.begun.append((event.stream, event.id))
        if self.fails:
            raise ConnectionError("no answer")


class TestReading:
    async def test_only_streams_that_are_not_paused_are_read(self) -> None:
        async with Runtime(services=("sequencer", "committer", "consumer")) as runtime:
            runtime.paused.add(BIKES)
            runtime.reads.add(entry(1), entry(2, stream=CARS))
            await until(lambda: runtime.in_flight.departures == 1)
            assert {streams for streams, *_ in runtime.reads.calls} == {(CARS,)}

    async def test_it_goes_on_when_told_although_everything_was_paused(self) -> None:
        async with Runtime(services=("sequencer", "committer", "consumer")) as runtime:
            runtime.paused |= {BIKES, CARS}
            runtime.reads.add(entry(1))
            await settled()
            assert runtime.reads.calls == []
            runtime.paused.clear()
            runtime.in_flight.notify()
            await until(lambda: runtime.in_flight.departures == 1)


class TestClaiming:
    async def test_others_entries_are_left_where_they_are(self) -> None:
        async with Runtime() as runtime:
            runtime.paused.add(BIKES)
            runtime.claims.add(entry(1))
            assert await runtime.claimer.sweep(BIKES) == 0
            assert runtime.claims.state(1) == (OTHER, 60_000, 1)

    async def test_own_entries_are_taken_once_it_goes_on_and_no_others(self) -> None:
        noted = Noted()
        async with Runtime(noted, services=("sequencer", "committer", "suspects")) as runtime:
            runtime.paused.add(BIKES)
            runtime.claims.add(entry(1), owner=ME)
            await runtime.claimer.take_own()
            await runtime.claimer.take_left()
            assert len(runtime.suspects) == 0
            runtime.paused.clear()
            runtime.claims.add(entry(2), owner=ME)  # was read since
            await runtime.claimer.take_left()
            await until(lambda: noted.begun)
            await settled()
            assert noted.begun == [(BIKES, entry_id(1))]
            assert runtime.claims.state(1)[2] == 2

    async def test_what_a_lost_read_brought_is_looked_for_once_it_goes_on(self) -> None:
        async with Runtime() as runtime:
            runtime.claims.add(entry(1), owner=ME, idle_ms=0)
            runtime.claimer.read_lost()
            runtime.paused.add(BIKES)
            await runtime.claimer.recover_lost()
            assert [stream for _, stream in runtime.claims.calls] == [CARS]
            runtime.paused.clear()
            await runtime.claimer.recover_lost()
            await until(lambda: runtime.in_flight.departures == 1)

    async def test_suspects_wait_and_do_not_keep_others_from_being_claimed(self) -> None:
        noted = Noted()
        async with Runtime(noted, services=("sequencer", "committer", "suspects")) as runtime:
            runtime.paused.add(BIKES)
            runtime.suspects.add([entry(number, f"b{number}") for number in range(SUSPECTS_AT_ONCE)])
            for number in range(SUSPECTS_AT_ONCE):
                runtime.claims.add(entry(number), owner=ME)
            runtime.claims.add(entry(900, stream=CARS))
            assert await runtime.claimer.sweep(CARS) == 1
            await until(lambda: noted.begun)
            await settled()
            assert noted.begun == [(CARS, entry_id(900))]
            runtime.paused.clear()
            runtime.suspects.look_again()
            await until(lambda: len(noted.begun) == SUSPECTS_AT_ONCE + 1)


class TestRetries:
    async def test_what_is_due_waits_and_holds_up_nobody(self) -> None:
        noted = Noted(fails=True)
        async with Runtime(noted) as runtime:
            runtime.accept(entry(1), entry(2, "c1", stream=CARS))
            await until(lambda: len(list(runtime.failures.scheduled())) == 2)
            runtime.paused.add(BIKES)
            runtime.time.pass_(100)
            noted.begun.clear()
            await runtime.retries.run_once()
            await until(lambda: noted.begun)
            assert noted.begun == [(CARS, entry_id(2))]
            assert (BIKES, entry_id(1)) in set(runtime.failures.scheduled())
            runtime.paused.clear()
            runtime.time.pass_(1)
            await runtime.retries.run_once()
            await until(lambda: (BIKES, entry_id(1)) in noted.begun)

    async def test_no_probe_is_sent(self) -> None:
        noted = Noted(fails=True)
        async with Runtime(noted) as runtime:
            runtime.accept(*(entry(number, f"b{number}") for number in range(10)))
            await until(lambda: runtime.failures.breakers["bikes"].open and not len(runtime.in_flight))
            noted.begun.clear()
            runtime.reads.add(entry(20, "b20"))
            runtime.paused.add(BIKES)
            for _ in range(4):
                runtime.time.pass_(10)
                await runtime.retries.run_once()
                await settled()
            assert noted.begun == []
            assert len(runtime.failures.held["bikes"]) == 10
            assert runtime.reads.calls == []
            runtime.paused.clear()
            runtime.time.pass_(10)
            await runtime.retries.run_once()
            await until(lambda: len(noted.begun) == 1)


class Stored:
    """Gives what its steps say, the last for ever."""

    def __init__(self, *steps: dict[str, Pause] | EventRouterError) -> None:
        self.steps = list(steps)
        self.reads = 0

    async def read(self, streams: Sequence[str]) -> dict[str, Pause]:
        self.reads += 1
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, EventRouterError):
            raise step
        return step


class Watched:
    """The service on such pauses, and how often it told of a change."""

    def __init__(self, *steps: dict[str, Pause] | EventRouterError) -> None:
        clock = Time().clock
        self.stored, self.reports, self.told = Stored(*steps), Reports(), 0
        self.service = Pauses(
            clock,
            pauses=self.stored,
            connectivity=Connectivity(clock, self.reports),
            observer=self.reports,
            streams=[BIKES, CARS],
        )
        self.service.changed = self._changed

    async def _changed(self) -> None:
        self.told += 1


async def test_a_change_is_passed_on_twice_and_reported_once() -> None:
    watched = Watched({}, {BIKES: MENDING}, {BIKES: MENDING}, {BIKES: MENDING}, {})
    service = watched.service
    await service.run_once()
    assert (service.paused(BIKES), watched.told) == (False, 0)
    for told in (1, 2, 2):
        await service.run_once()
        assert (service.paused(BIKES), service.paused(CARS), watched.told) == (True, False, told)
    assert service.readiness() == {"paused": {BIKES: {"reason": "mending", "by": "kim", "until_ms": 2}}}
    await service.run_once()
    assert (service.paused(BIKES), watched.told) == (False, 3)
    assert [(name, *args) for name, args in watched.reports.all] == [("paused", MENDING), ("resumed", BIKES)]


async def test_a_pause_made_longer_is_reported() -> None:
    longer = Pause(BIKES, "mending", "kim", 1, 5)
    watched = Watched({BIKES: MENDING}, {BIKES: longer})
    await watched.service.run_once()
    await watched.service.run_once()
    assert watched.reports.of("paused") == [(MENDING,), (longer,)]


async def test_an_outage_ends_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pauses, "interval_s", 0)
    away = RedisUnavailable("it is away")
    watched = Watched({BIKES: MENDING}, away, away, RedisRefused("no"), away)
    service = watched.service
    task = service.start()
    await until(lambda: watched.stored.reads > 5)
    assert not task.done()
    assert service.paused(BIKES)
    await service.stop()
    await service.stop()
    assert watched.reports.of("resumed") == []
    assert watched.reports.of("refused") == [("pauses", "no")]


@pytest.mark.parametrize(
    "raw", [b"by hand", b"\xff\x00", b"", b"5", b'{"reason": 5}', b"[" * 5_000, b'{"until_ms": 1}']
)
def test_whatever_is_stored_pauses(raw: bytes) -> None:
    assert parse_pause(BIKES, raw) == Pause(BIKES, raw.decode("utf-8", "backslashreplace"))


def test_what_is_stored_is_read_again() -> None:
    assert parse_pause(BIKES, stored_pause(MENDING)) == MENDING


async def test_it_can_be_stopped_before_it_started() -> None:
    service = Watched({}).service
    await service.stop()
    service.start()
    await asyncio.sleep(0)
    await service.stop()

"""A stream whose key is none, or that a rule leaves out: what Redis refuses there keeps no other back."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from event_router.core.errors import EventRouterError, NoGroup, RedisDenied, RedisRefused
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from event_router.runtime import groups
from event_router.runtime.connectivity import Clock
from event_router.runtime.left_out import LeftOut
from event_router.runtime.signals import StopRequest
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime, ride
from tests.unit.runtime_fakes import BIKES, CARS, ME, FakeClaims, Time, entry, entry_id, settled, until

REFUSED, DENIED = RedisRefused("WRONGTYPE"), RedisDenied("NOPERM")


@pytest.fixture(params=[REFUSED, DENIED], ids=["refused", "denied"])
def bad(request: pytest.FixtureRequest) -> Callable[..., Bad]:
    """Makes a runtime whose stream of bikes is none any more, or denied."""
    return partial(Bad, request.param)


class Bad(Runtime):
    """A runtime for which Redis has this error only on the stream of bikes, until it is mended."""

    def __init__(self, error: EventRouterError, handle: Any = ride, **options: Any) -> None:
        super().__init__(handle, **options)
        self.error: EventRouterError | None = error
        for port, methods in (
            (self.claims, ("due", "take", "take_ids", "count_start", "set", "own_ids")),
            (self.group_port, ("ensure", "retain", "remove_dead", "leave")),
        ):
            for method in methods:
                setattr(port, method, self._bad_on_bikes(getattr(port, method)))

    def _bad_on_bikes(self, method: Any) -> Any:
        async def call(stream: str, *args: Any, **named: Any) -> Any:
            if stream == BIKES and self.error is not None:
                raise copy.copy(self.error)
            return await method(stream, *args, **named)

        return call

    def is_told(self) -> bool:
        """Whether it is not ready for want of a permission, or else the refusal was reported, once."""
        told = len(self.reports.of("stream_refused"))
        return told == 0 and not self.connectivity.up if isinstance(self.error, RedisDenied) else told == 1

    def is_over(self) -> bool:
        """Whether all of that has ended."""
        reports = self.reports
        ended = len(reports.of("stream_accepted")) == len(reports.of("stream_refused"))
        return self.connectivity.up and ended and not self.troubles


async def _no_figures() -> None:
    raise RedisRefused("WRONGTYPE")


class Begun:
    """Notes whose handler begins; it fails if the event says so."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.ids.append(event.id)
        if event.data.note == "fail":
            raise ConnectionError("no answer")


async def test_missing_groups_of_others_are_made(
    bad: Callable[..., Bad], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "REFUSED_PAUSE_S", 0)
    async with bad(services=()) as runtime:
        await runtime.groups.recreate(BIKES)
        assert runtime.group_port.ensured == [CARS]
        await runtime.groups.recreate(BIKES)
        assert runtime.group_port.ensured == [CARS, CARS]
        assert runtime.is_told()
        runtime.error = None
        await runtime.groups.recreate(BIKES)
        assert runtime.is_over()


async def test_others_are_trimmed_also_without_figures(
    bad: Callable[..., Bad], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bad(services=()) as runtime:
        runtime.group_port.trims = [7]
        monkeypatch.setattr(runtime.housekeeper, "_refresh", _no_figures)
        with pytest.raises(RedisRefused):
            await runtime.housekeeper.run_once()
        assert runtime.reports.of("retained") == [(CARS, 7)]
        assert len(runtime.reports.of("stream_refused")) == 1
        assert runtime.connectivity.up, "it is ready without"


async def test_leases_of_others_are_renewed(bad: Callable[..., Bad]) -> None:
    async with bad(services=()) as runtime:
        runtime.accept(entry(1), entry(2, stream=CARS))
        runtime.claims.pending[CARS][entry_id(2)].idle_ms = 20_000
        await runtime.leases.renew()
        assert runtime.claims.state(2, CARS) == (ME, 0, 1)
        assert runtime.is_told()
        [bike] = [delivery for delivery in runtime.in_flight if delivery.entry.stream == BIKES]
        runtime.in_flight.remove(bike)  # whatever became of it: its lease is not asked for any more
        await runtime.leases.renew()
        assert runtime.is_over()


async def test_what_others_left_is_claimed(bad: Callable[..., Bad]) -> None:
    async with bad() as runtime:
        runtime.claims.add(entry(1, deliveries=0, stream=CARS))
        runtime.claimer.own_taken.set()
        runtime.claimer.start()
        await until(lambda: runtime.commits.batches == [[entry_id(1)]])


async def test_suspects_of_others_run(bad: Callable[..., Bad]) -> None:
    begun = Begun()
    async with bad(begun, services=("sequencer", "committer", "suspects")) as runtime:
        runtime.claims.add(entry(2, stream=CARS), owner=ME, idle_ms=0)
        runtime.suspects.add([entry(1), entry(2, stream=CARS)])
        await until(lambda: begun.ids == [entry_id(2)])
        assert not len(runtime.suspects)


async def test_retries_of_others_are_scheduled_and_started(bad: Callable[..., Bad]) -> None:
    begun = Begun()
    async with bad(begun) as runtime:
        runtime.accept(entry(1, note="fail"), entry(2, note="fail", stream=CARS))
        await until(lambda: len(begun.ids) == 2)
        await settled()
        await runtime.retries.run_once()
        assert runtime.claims.state(2, CARS) == (ME, MIN_IDLE_MS - 1_000, 1)
        runtime.time.pass_(2)
        await runtime.retries.run_once()
        await until(lambda: begun.ids[2:] == [entry_id(2)])
        assert (BIKES, entry_id(1)) in runtime.failures
        assert runtime.is_told()
        runtime.error = None
        runtime.time.pass_(2)
        await runtime.retries.run_once()
        await until(lambda: entry_id(1) in begun.ids[3:])
        await runtime.retries.run_once()
        assert runtime.is_over()


async def test_at_the_end_others_are_handed_over(bad: Callable[..., Bad]) -> None:
    async with bad(services=()) as runtime:
        runtime.claims.add(entry(2, stream=CARS, deliveries=3), owner=ME, idle_ms=0)
        runtime.suspects.add([entry(2, stream=CARS, deliveries=3)])
        assert not await runtime.router._stop(StopRequest())
        assert runtime.claims.state(2, CARS) == (ME, MIN_IDLE_MS, 3)
        assert runtime.group_port.left == [CARS]


async def test_its_own_entries_are_taken_before_anything_new_is_read(bad: Callable[..., Bad]) -> None:
    async with bad(services=("sequencer", "committer", "suspects")) as runtime:
        runtime.claims.add(entry(1, deliveries=1), owner=ME, idle_ms=0)
        runtime.reads.add(entry(2), entry(3, stream=CARS))
        runtime.consumer._knows_own = runtime.claimer.knows_own
        runtime.claimer.start()
        await runtime.claimer.own_taken.wait()
        runtime.consumer.start()
        await until(lambda: runtime.commits.batches == [[entry_id(3)]])
        assert runtime.is_told()
        assert {streams for streams, *_ in runtime.reads.calls} == {(CARS,)}
        runtime.error = None
        runtime.claimer.read_lost()  # has it look at once
        await until(lambda: runtime.claimer.knows_own(BIKES))
        runtime.reads.add(entry(4, stream=CARS))  # ends the read under way
        await until(lambda: sum(map(len, runtime.commits.batches)) == 4)
        assert runtime.claims.starts == [(entry_id(1), 1)], "it ran as a suspect"


async def test_what_it_had_at_its_start_is_not_taken_for_a_lost_read() -> None:
    async with Runtime() as runtime:
        runtime.claims.add(entry(1), owner=ME, idle_ms=0)
        runtime.claims.errors["take"] = [DENIED]
        runtime.claimer.read_lost()
        runtime.claimer.start()
        await until(lambda: ("own_ids", CARS) in runtime.claims.calls)
        await settled()
        assert not runtime.commits.batches, "its handler would run without its start being counted"


async def test_a_group_that_cannot_be_made_is_no_news_to_those_that_miss_it(
    bad: Callable[..., Bad], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "REFUSED_PAUSE_S", 0)
    async with bad(services=("sequencer", "committer")) as runtime:
        _miss_the_group(runtime)
        runtime.reads.add(entry(1), entry(2, stream=CARS))
        runtime.claims.add(entry(3, deliveries=0, stream=CARS))
        runtime.claimer.start()
        await runtime.claimer.own_taken.wait()
        runtime.consumer.start()
        await until(lambda: sum(map(len, runtime.commits.batches)) == 2)
        assert runtime.is_told()
        assert list(runtime.troubles.reasons()) == [BIKES]


def _miss_the_group(runtime: Bad) -> None:
    """The stream of bikes has no group, until one can be created."""

    def missing(method: Any) -> Any:
        async def call(streams: Any, *args: Any, **named: Any) -> Any:
            if BIKES in ((streams,) if isinstance(streams, str) else streams):
                raise NoGroup(BIKES)
            await asyncio.sleep(0)
            return await method(streams, *args, **named)

        return call

    for method in ("due", "take", "take_ids", "own_ids"):
        setattr(runtime.claims, method, missing(getattr(FakeClaims, method).__get__(runtime.claims)))
    runtime.reads.read = missing(runtime.reads.read)  # type: ignore[method-assign]


async def test_reading_asks_again_for_what_is_denied_after_pauses_that_grow() -> None:
    time = Time()
    left_out = LeftOut(Clock(lambda: time.now, lambda: 0, lambda: 0.5))
    pauses = []
    for _ in range(7):
        left_out.leave(BIKES)
        pauses.append(left_out.due_in_s())
        assert not left_out.due()
        time.pass_(pauses[-1] or 0)
        assert left_out.due() == [BIKES]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    left_out.take_back([BIKES])
    left_out.leave(BIKES)
    assert left_out.due_in_s() == pytest.approx(0.1)


async def test_what_is_said_of_redis_is_what_still_holds() -> None:
    async with Runtime(services=()) as runtime:
        runtime.troubles.met("read", BIKES, DENIED)
        runtime.troubles.met("read", CARS, DENIED)
        runtime.troubles.met("claiming", CARS, REFUSED)
        assert runtime.router.readiness()["redis"] == f"down: read of {CARS}: NOPERM"
        assert list(runtime.troubles.reasons()) == [BIKES, CARS]
        runtime.troubles.over("read", CARS)
        assert runtime.router.readiness()["redis"] == f"down: read of {BIKES}: NOPERM"
        assert runtime.connectivity.reachable
        runtime.troubles.met("read", BIKES, REFUSED)
        assert runtime.connectivity.up
        for what, stream in (("claiming", CARS), ("read", BIKES)):
            runtime.troubles.over(what, stream)
        names = Counter(report.name for report in runtime.reports.all)
        assert names == {"outage_began": 1, "outage_ended": 1, "stream_refused": 2, "stream_accepted": 2}
